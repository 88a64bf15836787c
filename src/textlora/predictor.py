"""Texts in, probabilities out: the one path that evaluation, files and the API use.

The adapter is merged in float32, then the weights are cast to the fastest format of the hardware.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from textlora.adapters import cast_frozen, find_wrapped_modules, merge_adapter
from textlora.batching import TokenizedTexts, make_batch, split_by_tokens, tokenize
from textlora.data import clean_text
from textlora.engine import Engine
from textlora.prefix import Prefix
from textlora.rundir import LoadedRun, load_run
from textlora.runtime import pick_device, pick_dtype
from textlora.settings import Recipe


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
class Probabilities:
    """The answers for many texts. Shapes: values (texts, labels) float32; truncated (texts,)."""

    values: npt.NDArray[np.float32]
    truncated: npt.NDArray[np.bool_]


class Predictor:
    """A trained classifier, ready to answer.

    Texts are cleaned as in training. Order and grouping of texts change an answer by no more than
    the rounding of the number format.
    """

    def __init__(self, run: LoadedRun) -> None:
        self.recipe: Recipe = run.recipe
        self.labels = run.labels
        # What an answer follows from: the files of the classifier, the encoder, the number format.
        facts = [
            run.manifest.files,
            run.manifest.base.weights_sha256,
            self.recipe.training.precision,
        ]
        self.fingerprint = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
        self._tokenizer = run.tokenizer
        self._max_length = run.manifest.max_length
        self._device = pick_device()
        heads = find_wrapped_modules(run.model)
        self._model = merge_adapter(run.model)
        cast_frozen(self._model, heads, pick_dtype(run.recipe.training.precision, self._device))
        self._engine = Engine(self._model.to(self._device), self._tokenizer.pad_token_id)

    @classmethod
    def load(cls, run: str | Path) -> "Predictor":
        """Load the classifier of a run folder.

        Raises:  ModelError if the run, or the encoder it needs, is missing or damaged.
        """
        return cls(load_run(Path(run)))

    def predict_proba(
        self, texts: Sequence[str], check: Callable[[], None] = lambda: None
    ) -> Probabilities:
        """Probability of each label for each text, in the order of `labels`.

        `check` is called before each batch; what it raises ends the work.
        """
        repair = self.recipe.data.repair_entities
        cleaned = [clean_text(text, repair_entities=repair) for text in texts]
        # Each distinct text is computed once.
        places = {text: place for place, text in enumerate(dict.fromkeys(cleaned))}
        tokens = tokenize(self._tokenizer, list(places), self._max_length)
        logits = compute_logits(self._engine, tokens, check=check)
        shares = compute_softmax(logits, len(self.labels))
        chosen = np.array([places[text] for text in cleaned], dtype=np.int64)
        return Probabilities(shares[chosen], tokens.truncated[chosen])

    def predict(
        self, texts: Sequence[str], check: Callable[[], None] = lambda: None
    ) -> list[Prediction]:
        """The most probable label of each text, with all probabilities."""
        found = self.predict_proba(texts, check)
        predictions = []
        for values, truncated in zip(found.values, found.truncated, strict=True):
            best = int(values.argmax())
            probabilities = dict(zip(self.labels, map(float, values), strict=True))
            label = self.labels[best]
            predictions.append(
                Prediction(label, best, probabilities[label], probabilities, bool(truncated))
            )
        return predictions


def compute_logits(
    engine: Engine,
    tokens: TokenizedTexts,
    prefix: Prefix | None = None,
    check: Callable[[], None] = lambda: None,
) -> npt.NDArray[np.float32]:
    """Run a model in evaluation mode over tokenized texts, in batches of similar length.

    `prefix` has the rows of frozen layers for these tokens; `check` is called before each batch.

    Shapes:  returns (texts, labels) float32, in the order of `tokens`.
    """
    engine.model.eval()
    lengths = tokens.lengths
    results: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]] = []
    with torch.inference_mode():
        for group in split_by_tokens(lengths, np.arange(len(tokens)), engine.max_tokens):
            check()
            batch = make_batch(tokens, group).to(engine.device)
            rows = None if prefix is None else prefix.read(group, batch)
            results.append((group, engine(batch, rows).float().cpu().numpy()))
    if not results:
        return np.zeros((0, 0), np.float32)
    logits = np.empty((len(tokens), results[0][1].shape[1]), np.float32)
    for group, values in results:
        logits[group] = values
    return logits


def compute_softmax(logits: npt.NDArray[np.float32], num_labels: int) -> npt.NDArray[np.float32]:
    """Probabilities from logits, along the last axis. Shapes: (texts, labels) both."""
    if not len(logits):
        return np.zeros((0, num_labels), np.float32)
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)
