"""What chance alone could have done: intervals of figures, and paired tests of two classifiers."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from textlora.scoring.metrics import Interval

_SAMPLES = 2_000  # of the bootstrap: the ends of a 95 % interval are stable to their third digit
_SAMPLES_AT_ONCE = 200  # their memory grows with the number of texts
_LEVEL = 0.05
Verdict = Literal["better", "worse", "no difference shown"]
_MACRO = 2  # its place among micro, weighted and macro


@dataclass(frozen=True)
class F1Intervals:
    """95 % intervals of the two averages of F1."""

    weighted: Interval
    macro: Interval


@dataclass(frozen=True)
class SetF1Intervals:
    """95 % intervals of the three averages of F1 of sets of labels."""

    micro: Interval
    weighted: Interval
    macro: Interval


@dataclass(frozen=True)
class Paired:
    """Two classifiers on the same texts; `difference` is accuracy of the first minus the second's.

    `only_first` texts are right with the first alone. `p_value` is McNemar's, exact.
    """

    num_texts: int
    only_first: int
    only_second: int
    difference: float
    interval: Interval
    p_value: float

    @property
    def verdict(self) -> Verdict:
        """What the first is beside the second, at the 5 % level."""
        return _judge(self.p_value, self.difference)

    def describe(self) -> str:
        """The same in words, in points of accuracy."""
        low, high = 100 * self.interval.low, 100 * self.interval.high
        points = 100 * self.difference
        if self.verdict == "better":
            return f"better by {points:.1f} points ({low:.1f} to {high:.1f})"
        if self.verdict == "worse":
            return f"worse by {-points:.1f} points ({-high:.1f} to {-low:.1f})"
        return f"no difference shown ({points:+.1f} points, {low:+.1f} to {high:+.1f})"


def compare_answers(
    first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_], seed: int = 0
) -> Paired:
    """Test whether one of two classifiers is right more often on the same texts.

    Shapes:  first, second (texts,): whether each answer is right.
    Source:  McNemar 1947, Psychometrika 12(2), in its exact form; percentile bootstrap over texts,
    which is too narrow for a handful of differing texts: about zero the test decides.
    """
    from scipy.stats import binomtest

    total = len(first)
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    # Drawing texts anew is drawing the counts of the three kinds of texts anew.
    shares = np.array([only_first, only_second, total - only_first - only_second]) / total
    drawn = np.random.default_rng(seed).multinomial(total, shares, _SAMPLES)
    changed = only_first + only_second
    difference = (only_first - only_second) / total
    p_value = float(binomtest(only_first, changed).pvalue) if changed else 1.0
    return Paired(
        num_texts=total,
        only_first=only_first,
        only_second=only_second,
        difference=difference,
        interval=_agree(_take_middle((drawn[:, 0] - drawn[:, 1]) / total), difference, p_value),
        p_value=p_value,
    )


@dataclass(frozen=True)
class Spread:
    """One figure over repeats with other seeds; `interval` is that of its mean (Student's t)."""

    values: tuple[float, ...]
    mean: float
    deviation: float
    interval: Interval


def compute_spread(values: Sequence[float], most: float = math.inf) -> Spread:
    """Mean, standard deviation and 95 % interval of the mean of at least two values.

    The values lie between 0 and `most`, and so does the interval: of few that differ much,
    Student's would reach beyond.
    """
    from scipy.stats import t

    count, mean, deviation = len(values), float(np.mean(values)), float(np.std(values, ddof=1))
    if min(values) == max(values):
        mean, deviation = values[0], 0.0  # not what rounding leaves of it
    half = float(t.ppf(1 - _LEVEL / 2, count - 1)) * deviation / math.sqrt(count)
    interval = Interval(max(0.0, mean - half), min(most, mean + half))
    return Spread(tuple(values), mean, deviation, interval)


@dataclass(frozen=True)
class Repeated:
    """Two classifiers over their seeds; `difference` is the mean of the first minus the second's.

    `noise` is the larger of both standard deviations. Where it is 0 nothing can be tested, and
    `p_value` is 1. Shares 0..1.
    """

    difference: float
    interval: Interval
    noise: float
    p_value: float

    @property
    def verdict(self) -> Verdict:
        """What the first is beside the second, at the 5 % level."""
        return _judge(self.p_value, self.difference)

    def describe(self) -> str:
        """The same in words, in points."""
        if self.noise == 0.0:
            return f"{100 * self.difference:+.1f} points, the same in every repeat"
        points = 100 * self.difference
        low, high = 100 * self.interval.low, 100 * self.interval.high
        if self.verdict == "better":
            return f"better by {points:.1f} points ({low:.1f} to {high:.1f})"
        if self.verdict == "worse":
            return f"worse by {-points:.1f} points ({-high:.1f} to {-low:.1f})"
        return f"no difference shown ({points:+.1f} points; seeds spread by {100 * self.noise:.1f})"


def compare_repeats(first: Sequence[float], second: Sequence[float]) -> Repeated:
    """Test whether the mean of `first` differs from that of `second` by more than seeds do.

    Source:  Welch 1947, Biometrika 34: a t-test without equal variances.
    """
    from scipy.stats import ttest_ind

    one, two = compute_spread(first), compute_spread(second)
    difference, noise = one.mean - two.mean, max(one.deviation, two.deviation)
    if noise == 0.0:
        return Repeated(difference, Interval(difference, difference), noise, 1.0)
    with warnings.catch_warnings():
        # One side may be the same in every repeat, which is exact here.
        warnings.filterwarnings("ignore", "Precision loss", RuntimeWarning)
        found = ttest_ind(first, second, equal_var=False)
        low, high = found.confidence_interval(1 - _LEVEL)
    return Repeated(difference, Interval(float(low), float(high)), noise, float(found.pvalue))


def compute_f1_intervals(
    confusion_matrix: tuple[tuple[int, ...], ...], seed: int = 0
) -> F1Intervals:
    """Bootstrap intervals of F1 from the counts alone: drawing texts is drawing cells.

    Classes without texts are left out, as they are in the averages.

    Shapes:  confusion_matrix (labels, labels), true labels as rows.
    """
    counts = np.array(confusion_matrix, dtype=np.int64)
    rows, columns = np.nonzero(counts)
    cells = counts[rows, columns]
    drawn = np.random.default_rng(seed).multinomial(cells.sum(), cells / cells.sum(), _SAMPLES)
    size = len(counts)
    true, predicted, correct = (np.zeros((_SAMPLES, size)) for _ in range(3))
    for cell, (row, column) in enumerate(zip(rows, columns, strict=True)):
        true[:, row] += drawn[:, cell]
        predicted[:, column] += drawn[:, cell]
        if row == column:
            correct[:, row] += drawn[:, cell]
    f1 = 2 * correct / np.maximum(true + predicted, 1)
    there = true > 0
    macro = (f1 * there).sum(axis=1) / there.sum(axis=1)
    weighted = (f1 * true).sum(axis=1) / true.sum(axis=1)
    return F1Intervals(weighted=_take_middle(weighted), macro=_take_middle(macro))


def compute_set_f1_intervals(
    label_ids: npt.NDArray[np.int64], predicted_ids: npt.NDArray[np.int64], seed: int = 0
) -> SetF1Intervals:
    """Bootstrap intervals of F1 of sets of labels, texts drawn anew.

    Shapes:  label_ids, predicted_ids (texts, labels) of 0 and 1.
    """
    (drawn,) = _draw_set_f1(label_ids, [predicted_ids], seed)
    return SetF1Intervals(*map(_take_middle, drawn))


def compare_set_f1(
    label_ids: npt.NDArray[np.int64],
    first: npt.NDArray[np.int64],
    second: npt.NDArray[np.int64],
    seed: int = 0,
) -> Interval:
    """Bootstrap interval of the macro F1 of the first minus that of the second, on the same texts.

    Shapes:  label_ids, first, second (texts, labels) of 0 and 1.
    """
    one, two = _draw_set_f1(label_ids, [first, second], seed)
    return _take_middle(one[_MACRO] - two[_MACRO])


def _draw_set_f1(
    label_ids: npt.NDArray[np.int64], answers: list[npt.NDArray[np.int64]], seed: int
) -> list[npt.NDArray[np.float64]]:
    """Micro, weighted and macro F1 of each of several answers on texts drawn anew.

    Texts with the same true set and the same answers are drawn together, by their number.

    Shapes:  returns arrays (3, samples).
    """
    kinds, counts = np.unique(np.hstack([label_ids, *answers]), axis=0, return_counts=True)
    true, *given = np.split(kinds.astype(float), len(answers) + 1, axis=1)
    columns = [true, *given, *(true * each for each in given)]
    random = np.random.default_rng(seed)
    drawn: list[npt.NDArray[np.float64]] = []
    for _ in range(0, _SAMPLES, _SAMPLES_AT_ONCE):
        times = random.multinomial(counts.sum(), counts / counts.sum(), _SAMPLES_AT_ONCE)
        drawn.append(np.stack([times @ column for column in columns]))
    total, *rest = np.concatenate(drawn, axis=1)
    return [
        _average_f1(total, predicted, correct)
        for predicted, correct in zip(rest[: len(answers)], rest[len(answers) :], strict=True)
    ]


def _average_f1(
    total: npt.NDArray[np.float64],
    predicted: npt.NDArray[np.float64],
    correct: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Shapes: (samples, labels) all; returns (3, samples): micro, weighted, macro."""
    f1 = 2 * correct / np.maximum(total + predicted, 1)
    there = total > 0
    micro = 2 * correct.sum(axis=1) / np.maximum((total + predicted).sum(axis=1), 1)
    weighted = (f1 * total).sum(axis=1) / np.maximum(total.sum(axis=1), 1)
    macro = (f1 * there).sum(axis=1) / np.maximum(there.sum(axis=1), 1)
    return np.stack([micro, weighted, macro])


def _judge(p_value: float, difference: float) -> Verdict:
    if p_value >= _LEVEL:
        return "no difference shown"
    return "better" if difference > 0 else "worse"


def _agree(interval: Interval, difference: float, p_value: float) -> Interval:
    """An interval that has zero inside where a test shows no difference, and outside otherwise."""
    low, high = interval.low, interval.high
    if _judge(p_value, difference) == "no difference shown":
        return Interval(min(low, 0.0), max(high, 0.0))
    return Interval(max(low, 0.0), high) if difference > 0.0 else Interval(low, min(high, 0.0))


def _take_middle(values: npt.NDArray[np.float64]) -> Interval:
    low, high = np.quantile(values, [_LEVEL / 2, 1 - _LEVEL / 2])
    return Interval(float(low), float(high))
