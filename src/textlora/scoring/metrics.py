"""How good a set of predictions is: numpy and scikit-learn only, no model, no files."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_Z_95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution


@dataclass(frozen=True)
class Interval:
    """A 95 % interval, as shares 0..1."""

    low: float
    high: float


@dataclass(frozen=True)
class Averages:
    """Precision, recall and F1, averaged over the classes in one way; shares 0..1."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Confusion:
    """How many texts of one class were taken for another."""

    label: str
    count: int


@dataclass(frozen=True)
class ClassScores:
    """One class: `accuracy` is the share of its texts that were recognised (its recall)."""

    label: str
    accuracy: float
    accuracy_interval: Interval
    correct: int
    total: int
    predicted: int
    precision: float
    f1: float
    confusions: tuple[Confusion, ...]  # the most common first


@dataclass(frozen=True)
class Scores:
    """All figures of one set of predictions.

    `loss` is the mean negative log likelihood in nats. Rows of `confusion_matrix` are true labels.
    """

    num_texts: int
    accuracy: float
    accuracy_interval: Interval
    loss: float
    weighted: Averages
    macro: Averages
    classes: tuple[ClassScores, ...]
    confusion_matrix: tuple[tuple[int, ...], ...]


def compute_scores(
    label_ids: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.floating],
    labels: tuple[str, ...],
) -> Scores:
    """Score predicted probabilities against true labels.

    A class without texts has no accuracy; it is left out of the macro averages, as it is out of
    the weighted ones, and shows 0 of 0.

    Shapes:  label_ids (texts,), probabilities (texts, labels).
    Units:   shares 0..1; loss in nats.
    Source:  intervals: Wilson 1927, Journal of the American Statistical Association 22(158).
    """
    from sklearn.metrics import confusion_matrix

    predicted_ids = probabilities.argmax(axis=1)
    counts = confusion_matrix(label_ids, predicted_ids, labels=np.arange(len(labels)))
    correct = int(np.trace(counts))
    chosen = probabilities[np.arange(len(label_ids)), label_ids].astype(np.float64)
    present = np.flatnonzero(counts.sum(axis=1))
    return Scores(
        num_texts=len(label_ids),
        accuracy=correct / len(label_ids),
        accuracy_interval=compute_wilson_interval(correct, len(label_ids)),
        loss=float(-np.log(np.maximum(chosen, np.finfo(np.float32).tiny)).mean()),
        weighted=_average(label_ids, predicted_ids, present, "weighted"),
        macro=_average(label_ids, predicted_ids, present, "macro"),
        classes=tuple(_score_class(index, counts, labels) for index in range(len(labels))),
        confusion_matrix=tuple(tuple(int(count) for count in row) for row in counts),
    )


def compute_wilson_interval(correct: int, total: int) -> Interval:
    """95 % score interval of a share; (0, 1) when nothing was counted.

    Source:  Wilson 1927; stays inside 0..1 and is right for shares near 1, unlike the normal one.
    """
    if total == 0:
        return Interval(0.0, 1.0)
    share = correct / total
    spread = _Z_95**2 / total
    centre = (share + spread / 2) / (1 + spread)
    half = _Z_95 * math.sqrt(share * (1 - share) / total + spread / (4 * total)) / (1 + spread)
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


def _average(
    label_ids: npt.NDArray[np.int64],
    predicted_ids: npt.NDArray[np.int64],
    present: npt.NDArray[np.int64],
    way: str,
) -> Averages:
    from sklearn.metrics import precision_recall_fscore_support

    precision, recall, f1, _ = precision_recall_fscore_support(
        label_ids, predicted_ids, labels=present, average=way, zero_division=0.0
    )
    return Averages(float(precision), float(recall), float(f1))


def _score_class(index: int, counts: npt.NDArray[np.int64], labels: tuple[str, ...]) -> ClassScores:
    total, predicted, correct = (
        int(counts[index].sum()),
        int(counts[:, index].sum()),
        int(counts[index, index]),
    )
    wrong = [
        (int(count), other) for other, count in enumerate(counts[index]) if other != index and count
    ]
    wrong.sort(key=lambda pair: (-pair[0], pair[1]))
    return ClassScores(
        label=labels[index],
        accuracy=correct / total if total else 0.0,
        accuracy_interval=compute_wilson_interval(correct, total),
        correct=correct,
        total=total,
        predicted=predicted,
        precision=correct / predicted if predicted else 0.0,
        f1=2 * correct / (total + predicted) if correct else 0.0,
        confusions=tuple(Confusion(labels[other], count) for count, other in wrong),
    )
