"""What an answer is: one label a text, or a set of labels.

Everything that depends on it - probabilities from logits, the decision, which answers are equal -
is here, under the same names for both. What training lowers is in `losses`.

Shapes:  label_ids are (texts,) label numbers where a text has one label, and (texts, labels) of 0
and 1 where it has a set; logits and probabilities are (texts, labels).
"""

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from textlora.data.multilabel_cells import join_labels
from textlora.scoring.calibration import fit_set_temperature, fit_temperature
from textlora.scoring.metrics import Scores, compute_scores
from textlora.scoring.set_metrics import SetScores, compute_set_scores
from textlora.scoring.thresholds import USUAL, tune_thresholds
from textlora.scoring.validation import ValidationRecord
from textlora.settings import DataSettings

LabelIds = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


class Task(Protocol):
    """What `SingleLabel` and `MultiLabel` have in common."""

    def compute_probabilities(
        self, logits: Floats, num_labels: int, temperature: float = 1.0
    ) -> Floats:
        """Probability of each label of each text."""
        ...

    def decide(self, probabilities: Floats) -> LabelIds:
        """The answers."""
        ...

    def margin(self, logits: Floats, temperature: float) -> npt.NDArray[np.floating]:
        """How much a difference of logits must change for another answer. Shapes: (texts,)."""
        ...

    def margin_shift(self, first: Floats, second: Floats) -> Floats:
        """The most by which the lead differs between two logits of a text. Shapes: (texts,)."""
        ...

    def match(self, first: LabelIds, second: LabelIds) -> npt.NDArray[np.bool_]:
        """Which answers are the same. Shapes: returns (texts,)."""
        ...

    def probability_of(
        self, probabilities: Floats, label_ids: LabelIds
    ) -> npt.NDArray[np.floating]:
        """How probable these answers are. Shapes: returns (texts,)."""
        ...

    def name(self, label_ids: LabelIds, labels: tuple[str, ...]) -> list[str]:
        """The answers as text."""
        ...

    def find(self, label_ids: LabelIds, label_id: int) -> npt.NDArray[np.bool_]:
        """Which texts have one label. Shapes: returns (texts,)."""
        ...

    def validate(
        self, logits: Floats, label_ids: LabelIds, labels: tuple[str, ...]
    ) -> ValidationRecord:
        """Figures on validation, and what is fitted there."""
        ...

    def score(
        self, label_ids: LabelIds, probabilities: Floats, labels: tuple[str, ...]
    ) -> Scores | SetScores:
        """All figures of the answers that follow from these probabilities."""
        ...


@dataclass(frozen=True)
class SingleLabel:
    """A text has exactly one label: softmax, and the most probable one."""

    def compute_probabilities(
        self, logits: Floats, num_labels: int, temperature: float = 1.0
    ) -> Floats:
        """Probabilities that sum to 1."""
        return compute_softmax(logits, num_labels, temperature)

    def decide(self, probabilities: Floats) -> LabelIds:
        """The most probable label. Shapes: returns (texts,)."""
        return probabilities.argmax(axis=1)

    def margin(self, logits: Floats, temperature: float) -> Floats:  # noqa: ARG002
        """How far the best label is ahead of the second. Shapes: returns (texts,)."""
        best = np.partition(logits, -2, axis=1)[:, -2:]
        return best[:, 1] - best[:, 0]

    def margin_shift(self, first: Floats, second: Floats) -> Floats:
        """The most by which the lead of the first one's best label differs. Shapes: (texts,)."""
        rows, best = np.arange(len(first)), first.argmax(axis=1)
        leads = [logits[rows, best, None] - logits for logits in (first, second)]
        return np.abs(leads[0] - leads[1]).max(axis=1)

    def match(self, first: LabelIds, second: LabelIds) -> npt.NDArray[np.bool_]:
        """Which labels are the same. Shapes: returns (texts,)."""
        return first == second

    def probability_of(
        self, probabilities: Floats, label_ids: LabelIds
    ) -> npt.NDArray[np.floating]:
        """The probability of a label. Shapes: returns (texts,)."""
        return probabilities[np.arange(len(label_ids)), label_ids]

    def name(self, label_ids: LabelIds, labels: tuple[str, ...]) -> list[str]:
        """Names of labels."""
        return [labels[label_id] for label_id in label_ids]

    def find(self, label_ids: LabelIds, label_id: int) -> npt.NDArray[np.bool_]:
        """Which texts have one label. Shapes: returns (texts,)."""
        return label_ids == label_id

    def validate(
        self, logits: Floats, label_ids: LabelIds, labels: tuple[str, ...]
    ) -> ValidationRecord:
        """Figures at temperature 1, and the temperature that fits best."""
        scores = self.score(label_ids, compute_softmax(logits, len(labels)), labels)
        return _make_record(scores, fit_temperature(logits, label_ids))

    def score(self, label_ids: LabelIds, probabilities: Floats, labels: tuple[str, ...]) -> Scores:
        """All figures of the answers that follow from these probabilities."""
        return compute_scores(label_ids, probabilities, labels)


@dataclass(frozen=True)
class MultiLabel:
    """A text has a set of labels, perhaps none: a sigmoid and a threshold for each of them.

    Without `thresholds` all are 0.5. `separator` stands between the names of a set.
    """

    thresholds: tuple[float, ...] = ()
    separator: str = ";"

    def compute_probabilities(
        self, logits: Floats, num_labels: int, temperature: float = 1.0
    ) -> Floats:
        """One probability for each label, each on its own."""
        if not len(logits):
            return np.zeros((0, num_labels), np.float32)
        from scipy.special import expit

        return expit(logits / np.float32(temperature)).astype(np.float32)

    def decide(self, probabilities: Floats) -> LabelIds:
        """The labels whose probability reaches their threshold. Shapes: returns (texts, labels)."""
        return (probabilities >= self.list_thresholds(probabilities.shape[1])).astype(np.int64)

    def margin(self, logits: Floats, temperature: float) -> npt.NDArray[np.float64]:
        """How far the nearest label is from its threshold. Shapes: returns (texts,)."""
        from scipy.special import logit

        limits = temperature * logit(self.list_thresholds(logits.shape[1]))
        return np.abs(logits - limits).min(axis=1)

    def margin_shift(self, first: Floats, second: Floats) -> Floats:
        """The largest difference of a logit. Shapes: returns (texts,)."""
        return np.abs(first - second).max(axis=1)

    def list_thresholds(self, num_labels: int) -> npt.NDArray[np.float64]:
        """One for each label. Shapes: returns (labels,)."""
        return np.array(self.thresholds or (USUAL,) * num_labels, np.float64)

    def match(self, first: LabelIds, second: LabelIds) -> npt.NDArray[np.bool_]:
        """Which sets are the same. Shapes: returns (texts,)."""
        return (first == second).all(axis=1)

    def probability_of(
        self, probabilities: Floats, label_ids: LabelIds
    ) -> npt.NDArray[np.floating]:
        """The probability of a set if labels were independent. Shapes: returns (texts,)."""
        return np.where(label_ids == 1, probabilities, 1 - probabilities).prod(axis=1)

    def name(self, label_ids: LabelIds, labels: tuple[str, ...]) -> list[str]:
        """Names of sets."""
        return [
            join_labels((labels[index] for index in np.flatnonzero(row)), self.separator)
            for row in label_ids
        ]

    def find(self, label_ids: LabelIds, label_id: int) -> npt.NDArray[np.bool_]:
        """Which texts have one label. Shapes: returns (texts,)."""
        return label_ids[:, label_id] == 1

    def validate(
        self, logits: Floats, label_ids: LabelIds, labels: tuple[str, ...]
    ) -> ValidationRecord:
        """Figures of the classifier that would be saved: with its temperature and thresholds.

        The loss is that of temperature 1, which training lowers.
        """
        temperature = fit_set_temperature(logits, label_ids)
        shares = self.compute_probabilities(logits, len(labels), temperature)
        tuned = replace(self, thresholds=tune_thresholds(label_ids, shares))
        scores = tuned.score(label_ids, shares, labels)
        plain = self.compute_probabilities(logits, len(labels))
        loss = self.score(label_ids, plain, labels).loss
        return replace(_make_record(scores, temperature), loss=loss, thresholds=tuned.thresholds)

    def score(
        self, label_ids: LabelIds, probabilities: Floats, labels: tuple[str, ...]
    ) -> SetScores:
        """All figures of the answers that follow from these probabilities."""
        limits = tuple(self.list_thresholds(len(labels)).tolist())
        answers = self.decide(probabilities)
        return compute_set_scores(label_ids, answers, probabilities, labels, limits)


def find_task(settings: DataSettings, thresholds: tuple[float, ...] = ()) -> Task:
    """The task of data; `thresholds` are those of a trained classifier."""
    if settings.multi_label:
        return MultiLabel(thresholds, settings.label_separator)
    return SingleLabel()


def _make_record(scores: Scores | SetScores, temperature: float) -> ValidationRecord:
    return ValidationRecord(
        scores.loss, scores.accuracy, scores.weighted.f1, scores.macro.f1, temperature
    )


def compute_softmax(
    logits: npt.NDArray[np.float32], num_labels: int, temperature: float = 1.0
) -> npt.NDArray[np.float32]:
    """Probabilities from logits, along the last axis; the temperature changes no label.

    Shapes:  (texts, labels) both.
    """
    if not len(logits):
        return np.zeros((0, num_labels), np.float32)
    best, rows = logits.argmax(axis=1), np.arange(len(logits))
    shifted = np.exp((logits - logits.max(axis=1, keepdims=True)) / np.float32(temperature))
    shares = shifted / shifted.sum(axis=1, keepdims=True)
    # Logits that differ in their last bit may become equal: the larger one stays ahead.
    tied = shares.argmax(axis=1) != best
    shares[rows[tied], best[tied]] = np.nextafter(shares[rows[tied], best[tied]], np.float32(2))
    return shares
