"""How good predicted sets of labels are: numpy and scikit-learn only, no model, no files."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from textlora.scoring.metrics import Averages, Interval, compute_wilson_interval

_LEAST = 2.0**-24  # what float32 can tell from 1


@dataclass(frozen=True)
class LabelScores:
    """One label: how many texts have it, how many were given it, and how many of these rightly.

    `average_precision` needs no threshold; it is 0 for a label that no text has.
    """

    label: str
    total: int
    predicted: int
    correct: int
    precision: float
    recall: float
    recall_interval: Interval
    f1: float
    threshold: float
    average_precision: float

    @property
    def missed(self) -> int:
        """Texts that have the label and were not given it."""
        return self.total - self.correct

    @property
    def added(self) -> int:
        """Texts that were given the label and do not have it."""
        return self.predicted - self.correct


@dataclass(frozen=True)
class SetScores:
    """All figures of one set of predictions, each a set of labels.

    `accuracy` is the share of texts whose whole set is right. `hamming_loss` is the share of
    wrong decisions, one decision for each text and label. `loss` is the negative log likelihood of
    a text's set in nats, labels taken as independent.
    """

    num_texts: int
    accuracy: float
    accuracy_interval: Interval
    hamming_loss: float
    loss: float
    micro: Averages
    weighted: Averages
    macro: Averages
    labels: tuple[LabelScores, ...]
    labels_per_text: float
    predicted_per_text: float
    num_without: int  # texts that have no label
    num_predicted_without: int


def compute_set_scores(
    label_ids: npt.NDArray[np.int64],
    predicted_ids: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.floating],
    labels: tuple[str, ...],
    thresholds: tuple[float, ...],
) -> SetScores:
    """Score predicted sets against true ones.

    A label that no text has is left out of the macro averages, as it is out of the weighted ones.

    Shapes:  label_ids, predicted_ids, probabilities (texts, labels); thresholds one a label.
    Units:   shares 0..1; loss in nats.
    """
    count = len(label_ids)
    right = int((label_ids == predicted_ids).all(axis=1).sum())
    total, predicted = label_ids.sum(axis=0), predicted_ids.sum(axis=0)
    correct = (label_ids & predicted_ids).sum(axis=0)
    present = total > 0
    each = _average(total[present], predicted[present], correct[present])
    return SetScores(
        num_texts=count,
        accuracy=right / count,
        accuracy_interval=compute_wilson_interval(right, count),
        hamming_loss=float((label_ids != predicted_ids).mean()),
        loss=_compute_loss(label_ids, probabilities),
        micro=_mean(_average(total.sum(), predicted.sum(), correct.sum())),
        weighted=_mean(each, total[present]),
        macro=_mean(each),
        labels=tuple(
            _score_label(
                (labels[index], thresholds[index]),
                (int(total[index]), int(predicted[index]), int(correct[index])),
                label_ids[:, index],
                probabilities[:, index],
            )
            for index in range(len(labels))
        ),
        labels_per_text=float(total.sum() / count),
        predicted_per_text=float(predicted.sum() / count),
        num_without=int((~label_ids.any(axis=1)).sum()),
        num_predicted_without=int((~predicted_ids.any(axis=1)).sum()),
    )


def _average(
    total: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], correct: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Precision, recall and F1 as rows; 0 where nothing is to be divided by."""
    precision = correct / np.maximum(predicted, 1)
    recall = correct / np.maximum(total, 1)
    return np.array([precision, recall, 2 * correct / np.maximum(total + predicted, 1)])


def _mean(
    figures: npt.NDArray[np.float64], weights: npt.NDArray[np.int64] | None = None
) -> Averages:
    if not figures.size:
        return Averages(0.0, 0.0, 0.0)
    rows = figures.reshape(3, -1)
    return Averages(*(float(np.average(row, weights=weights)) for row in rows))


def _score_label(
    about: tuple[str, float],
    counts: tuple[int, int, int],
    truth: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.floating],
) -> LabelScores:
    from sklearn.metrics import average_precision_score

    (label, threshold), (total, predicted, correct) = about, counts
    return LabelScores(
        label=label,
        total=total,
        predicted=predicted,
        correct=correct,
        precision=correct / predicted if predicted else 0.0,
        recall=correct / total if total else 0.0,
        recall_interval=compute_wilson_interval(correct, total),
        f1=2 * correct / (total + predicted) if correct else 0.0,
        threshold=threshold,
        average_precision=float(average_precision_score(truth, probabilities)) if total else 0.0,
    )


def _compute_loss(
    label_ids: npt.NDArray[np.int64], probabilities: npt.NDArray[np.floating]
) -> float:
    shares = probabilities.astype(np.float64)
    chosen = np.where(label_ids == 1, shares, np.maximum(1 - shares, _LEAST))
    return float(-np.log(np.maximum(chosen, np.finfo(np.float32).tiny)).sum(axis=1).mean())
