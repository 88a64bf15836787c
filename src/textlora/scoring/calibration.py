"""Whether probabilities mean what they say, and what can be accepted above which confidence.

A classifier is calibrated when of all answers given with 80 % confidence 80 % are right.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from textlora.scoring.metrics import Interval, compute_wilson_interval

PRECISIONS = (0.9, 0.95, 0.98, 0.99, 0.995)  # those of the table of thresholds
_BINS = 15
_CURVE_POINTS = 100
_MAX_LOG_TEMPERATURE = 3.0
_LEAST = 2.0**-24  # what float32 can tell from 1
_PRIOR_SPREAD = 0.5  # of log T: a wide prior, which a few hundred texts outweigh


@dataclass(frozen=True)
class Bin:
    """Answers of similar confidence: how sure on average, and what share of them is right."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """How far confidence is from truth.

    `brier` is the mean squared error of all probabilities of a text, summed: 0 is best, 2 worst
    (of sets of labels: as many as there are labels).
    `error` is the expected calibration error over 15 bins of equal width; `error_before` is the
    same without the temperature.
    """

    temperature: float
    brier: float
    error: float
    error_before: float
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class CoveragePoint:
    """What is answered when only answers of at least this `confidence` are given."""

    confidence: float
    coverage: float
    precision: float


@dataclass(frozen=True)
class Threshold:
    """A confidence that promised `wanted` precision on validation, and what it gives here."""

    wanted: float
    confidence: float
    coverage: float
    precision: float
    interval: Interval


@dataclass(frozen=True)
class Coverage:
    """The curve from all texts answered to few; `risk_area` is the mean error along it (AURC)."""

    curve: tuple[CoveragePoint, ...]
    risk_area: float
    thresholds: tuple[Threshold, ...]

    @property
    def levels(self) -> tuple[Threshold, ...]:
        """What is shown of `thresholds`: of several with one confidence, the highest says all."""
        return tuple({item.confidence: item for item in self.thresholds}.values())


def fit_temperature(logits: npt.NDArray[np.floating], label_ids: npt.NDArray[np.int64]) -> float:
    """The number that logits are divided by so that probabilities fit best; labels stay.

    A weak prior keeps it near 1 where few texts, or texts without a mistake, say little.

    Shapes:  logits (texts, labels); label_ids (texts,).
    Source:  Guo et al. 2017 (arXiv 1706.04599), section 4.2; the prior is ours.
    """
    from scipy.special import log_softmax

    values = np.asarray(logits, dtype=np.float64)
    rows = np.arange(len(values))

    def compute_loss(log_temperature: float) -> float:
        scaled = log_softmax(values / math.exp(log_temperature), axis=1)
        return float(-scaled[rows, label_ids].sum() + 0.5 * (log_temperature / _PRIOR_SPREAD) ** 2)

    return _find_lowest(compute_loss)


def fit_set_temperature(
    logits: npt.NDArray[np.floating], label_ids: npt.NDArray[np.int64]
) -> float:
    """The same for sets of labels, each label with a probability of its own.

    Shapes:  logits (texts, labels); label_ids (texts, labels) of 0 and 1.
    """
    values = np.asarray(logits, dtype=np.float64)
    # The negative log likelihood of a decision is log(1 + exp(-x)), x positive where it is right.
    signed = np.where(label_ids == 1, values, -values)

    def compute_loss(log_temperature: float) -> float:
        losses = np.logaddexp(0.0, -signed / math.exp(log_temperature))
        return float(losses.sum() + 0.5 * (log_temperature / _PRIOR_SPREAD) ** 2)

    return _find_lowest(compute_loss)


def apply_temperature(
    probabilities: npt.NDArray[np.floating], temperature: float
) -> npt.NDArray[np.float64]:
    """Probabilities as another temperature gives them, from those of temperature 1."""
    from scipy.special import log_softmax

    logits = np.log(np.maximum(probabilities.astype(np.float64), np.finfo(np.float32).tiny))
    return np.exp(log_softmax(logits / temperature, axis=1))


def compute_calibration(
    label_ids: npt.NDArray[np.int64], probabilities: npt.NDArray[np.floating], temperature: float
) -> Calibration:
    """Brier score, expected calibration error and the reliability diagram.

    `temperature` is the one that `probabilities` were made with.

    Shapes:  label_ids (texts,), probabilities (texts, labels).
    Source:  Brier 1950; Naeini et al. 2015 (expected calibration error).
    """
    values = probabilities.astype(np.float64)
    right = values.argmax(axis=1) == label_ids
    bins = _fill_bins(values.max(axis=1), right)
    before = apply_temperature(values, 1 / temperature).max(axis=1)
    # Of the three terms of (p - y)^2 only two need the label.
    chosen = values[np.arange(len(values)), label_ids]
    return Calibration(
        temperature=temperature,
        brier=float(((values**2).sum(axis=1) - 2 * chosen + 1).mean()),
        error=_compute_error(bins),
        error_before=_compute_error(_fill_bins(before, right)),
        bins=bins,
    )


def compute_set_calibration(
    label_ids: npt.NDArray[np.int64], probabilities: npt.NDArray[np.floating], temperature: float
) -> Calibration:
    """The same for sets of labels: of all pairs of text and label given 30 %, 30 % should be true.

    Shapes:  label_ids (texts, labels) of 0 and 1, probabilities the same.
    """
    from scipy.special import expit, logit

    values = probabilities.astype(np.float64)
    truth = label_ids == 1
    bins = _fill_bins(values.ravel(), truth.ravel())
    before = expit(logit(np.clip(values, _LEAST, 1 - _LEAST)) * temperature)
    return Calibration(
        temperature=temperature,
        brier=float(((values - truth) ** 2).sum(axis=1).mean()),
        error=_compute_error(bins),
        error_before=_compute_error(_fill_bins(before.ravel(), truth.ravel())),
        bins=bins,
    )


def compute_coverage(
    label_ids: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.floating],
    chosen: Sequence[Threshold] | None = None,
) -> Coverage:
    """What is gained by leaving doubtful texts unanswered.

    Thresholds are those `chosen` on other texts, perhaps none; None finds them here, as on
    validation.

    Shapes:  label_ids (texts,), probabilities (texts, labels).
    Source:  El-Yaniv and Wiener 2010, JMLR 11: risk and coverage.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == label_ids
    order = np.argsort(-confidence, kind="stable")
    sorted_confidence = confidence[order]
    places = np.arange(len(order))
    precision = np.cumsum(right[order]) / (places + 1)
    # Texts of equal confidence are accepted together: a place counts where the next one is lower.
    ends = np.flatnonzero(np.append(np.diff(sorted_confidence) < 0, True))
    wanted = (
        _find_thresholds(sorted_confidence[ends], precision[ends])
        if chosen is None
        else {item.wanted: item.confidence for item in chosen}
    )
    shown = ends[np.unique(np.linspace(0, len(ends) - 1, _CURVE_POINTS).astype(int))]
    return Coverage(
        curve=tuple(
            CoveragePoint(float(sorted_confidence[i]), float((i + 1) / len(order)), float(p))
            for i, p in zip(shown, precision[shown], strict=True)
        ),
        risk_area=float(1 - precision[ends[np.searchsorted(ends, places)]].mean()),
        thresholds=tuple(
            _measure_threshold(share, limit, confidence, right) for share, limit in wanted.items()
        ),
    )


def _find_lowest(compute_loss: Callable[[float], float]) -> float:
    """The temperature whose logarithm has the lowest loss."""
    from scipy.optimize import minimize_scalar

    limits = (-_MAX_LOG_TEMPERATURE, _MAX_LOG_TEMPERATURE)
    return math.exp(minimize_scalar(compute_loss, bounds=limits, method="bounded").x)


def _find_thresholds(
    confidence: npt.NDArray[np.float64], precision: npt.NDArray[np.float64]
) -> dict[float, float]:
    """The lowest confidence above which the answers are as precise as wanted; none if never."""
    found = {}
    for share in PRECISIONS:
        places = np.flatnonzero(precision >= share)
        if len(places):
            found[share] = float(confidence[places[-1]])
    return found


def _measure_threshold(
    wanted: float,
    limit: float,
    confidence: npt.NDArray[np.float64],
    right: npt.NDArray[np.bool_],
) -> Threshold:
    accepted = confidence >= limit
    count, correct = int(accepted.sum()), int(right[accepted].sum())
    return Threshold(
        wanted=wanted,
        confidence=limit,
        coverage=count / len(confidence),
        precision=correct / count if count else 0.0,
        interval=compute_wilson_interval(correct, count),
    )


def _fill_bins(
    confidence: npt.NDArray[np.float64], right: npt.NDArray[np.bool_]
) -> tuple[Bin, ...]:
    places = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    filled = []
    for number in np.unique(places):
        inside = places == number
        filled.append(
            Bin(
                low=float(number / _BINS),
                high=float((number + 1) / _BINS),
                count=int(inside.sum()),
                confidence=float(confidence[inside].mean()),
                accuracy=float(right[inside].mean()),
            )
        )
    return tuple(filled)


def _compute_error(bins: tuple[Bin, ...]) -> float:
    total = sum(item.count for item in bins)
    return sum(item.count * abs(item.accuracy - item.confidence) for item in bins) / total
