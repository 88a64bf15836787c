"""Texts in, probabilities out: the one path that evaluation, files and the API use.

The adapter is merged in float32, then the weights are cast to the fastest format of the hardware.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from textlora.data.cleaning import clean_text
from textlora.model.batching import tokenize
from textlora.model.logits import Check, go_on
from textlora.prediction.backends import open_backend
from textlora.runs.loaded_run import LoadedRun, open_run
from textlora.scoring.tasks import MultiLabel, find_task
from textlora.settings import BackendName, Recipe
from textlora.system.progress import Reporter


@dataclass(frozen=True)
class Prediction:
    """The answer for one text; `confidence` is the probability of `label`, 0..1.

    `truncated` says that the text was longer than the model reads.
    """

    label: str
    label_id: int
    confidence: float
    probabilities: dict[str, float]
    truncated: bool


@dataclass(frozen=True)
class SetPrediction:
    """The answer of a multi-label classifier for one text: all labels that reach their threshold.

    `confidences` has the probability of each of `labels`, 0..1; a text may have none.
    """

    labels: tuple[str, ...]
    label_ids: tuple[int, ...]
    confidences: tuple[float, ...]
    probabilities: dict[str, float]
    truncated: bool


Answer = Prediction | SetPrediction


@dataclass(frozen=True)
class Probabilities:
    """The answers for many texts. Shapes: values (texts, labels) float32; truncated (texts,)."""

    values: npt.NDArray[np.float32]
    truncated: npt.NDArray[np.bool_]


class Predictor:
    """A trained classifier, ready to answer.

    Texts are cleaned as in training. Order and grouping of texts change an answer by no more than
    the rounding of the number format.
    """

    def __init__(
        self, run: LoadedRun, backend: BackendName = "torch", report: Reporter | None = None
    ) -> None:
        self.recipe: Recipe = run.recipe
        self.labels = run.labels
        self._tokenizer = run.tokenizer
        self._max_length = run.manifest.max_length
        self.temperature = run.manifest.temperature
        self.task = find_task(run.recipe.data, run.manifest.thresholds)
        self._backend = open_backend(run, backend, (report or Reporter(quiet=True)).say)
        # What an answer follows from: the classifier, and what computes.
        self.fingerprint, self.backend = run.fingerprint, self._backend.identity

    @property
    def backend_name(self) -> BackendName:
        """What computes, `auto` resolved."""
        return cast("BackendName", self.backend.partition(" ")[0])

    @classmethod
    def load(
        cls, run: str | Path, backend: BackendName = "torch", report: Reporter | None = None
    ) -> "Predictor":
        """Load the classifier of a run folder; see `backends` for what computes its answers.

        Raises:  ModelError if the run, or the encoder it needs, is missing or damaged, or the
        backend cannot be had.
        """
        return cls(open_run(Path(run)), backend, report)

    def predict_proba(self, texts: Sequence[str], check: Check = go_on) -> Probabilities:
        """Probability of each label for each text, in the order of `labels`.

        `check` is called before each batch; what it raises ends the work.
        """
        repair = self.recipe.data.repair_entities
        cleaned = [clean_text(text, repair_entities=repair) for text in texts]
        # Each distinct text is computed once.
        places = {text: place for place, text in enumerate(dict.fromkeys(cleaned))}
        tokens = tokenize(self._tokenizer, list(places), self._max_length)
        logits = self._backend.compute_logits(tokens, check)
        shares = self.task.compute_probabilities(logits, len(self.labels), self.temperature)
        chosen = np.array([places[text] for text in cleaned], dtype=np.int64)
        return Probabilities(shares[chosen], tokens.truncated[chosen])

    def predict(self, texts: Sequence[str], check: Check = go_on) -> Sequence[Answer]:
        """The answer to each text, with all probabilities; sets of a multi-label classifier."""
        return self.name_answers(self.predict_proba(texts, check))

    def name_answers(self, found: Probabilities) -> Sequence[Answer]:
        """Probabilities as predictions."""
        if isinstance(self.task, MultiLabel):
            return self._name_sets(found, self.task)
        predictions = []
        for values, truncated in zip(found.values, found.truncated, strict=True):
            best = int(values.argmax())
            probabilities = dict(zip(self.labels, map(float, values), strict=True))
            label = self.labels[best]
            predictions.append(
                Prediction(label, best, probabilities[label], probabilities, bool(truncated))
            )
        return predictions

    def _name_sets(self, found: Probabilities, task: MultiLabel) -> list[SetPrediction]:
        predictions = []
        rows = zip(found.values, task.decide(found.values), found.truncated, strict=True)
        for values, chosen, truncated in rows:
            probabilities = dict(zip(self.labels, map(float, values), strict=True))
            label_ids = tuple(int(index) for index in chosen.nonzero()[0])
            labels = tuple(self.labels[index] for index in label_ids)
            shares = tuple(probabilities[label] for label in labels)
            predictions.append(
                SetPrediction(labels, label_ids, shares, probabilities, bool(truncated))
            )
        return predictions
