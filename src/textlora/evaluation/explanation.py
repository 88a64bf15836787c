"""The words that drove an answer: each is left out in turn, and the answer is looked at again."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from textlora.data.cleaning import clean_text
from textlora.errors import DataError, SettingsError
from textlora.prediction.predictor import Answer, Predictor

_MAX_WORDS = 512  # each costs one forward pass


@dataclass(frozen=True)
class WordWeight:
    """A word in its place; `weight` is what it adds to the log odds of the label.

    Positive: without the word the label would be less probable. Units: nats.
    """

    word: str
    weight: float


@dataclass(frozen=True)
class Explanation:
    """The answer to a text, and what each word does for `label`.

    That is the answer, or the most probable label of a set, if no other was asked for.
    """

    text: str
    prediction: Answer
    label: str
    words: tuple[WordWeight, ...]


def explain_text(predictor: Predictor, text: str, label: str | None = None) -> Explanation:
    """Why a text got its label, or how near it was to another one, word by word.

    A word is what stands between spaces. Words that only work together share no weight here:
    leaving out one of two that say the same changes little.

    Raises:  DataError for an empty text or one of more than 512 words; SettingsError for an
    unknown label or a missing package.
    Source:  Zeiler and Fergus 2014 (arXiv 1311.2901): occlusion; computed by Captum.
    """
    words = clean_text(text, repair_entities=predictor.recipe.data.repair_entities).split()
    if not words:
        raise DataError("text: empty; give a text to explain")
    if len(words) > _MAX_WORDS:
        raise DataError(f"text: {len(words)} words, more than {_MAX_WORDS}; give a part of it")
    prediction = predictor.predict([text])[0]
    likeliest = max(prediction.probabilities, key=prediction.probabilities.__getitem__)
    wanted = likeliest if label is None else label
    if wanted not in predictor.labels:
        known = ", ".join(predictor.labels)
        raise SettingsError(f"--label: {wanted!r} is unknown to the classifier; known: {known}")
    index = predictor.labels.index(wanted)

    def compute_log_odds(kept: Tensor) -> Tensor:
        texts = [
            " ".join(word for word, there in zip(words, row, strict=True) if there)
            for row in kept.tolist()
        ]
        # In double precision: 1 - p of a sure answer is 0 in float32.
        shares = predictor.predict_proba(texts).values[:, index].astype(float)
        return torch.tensor([_compute_log_odds(share) for share in shares])

    ablation = _import_ablation()(compute_log_odds)
    weights = ablation.attribute(torch.ones(1, len(words)), perturbations_per_eval=len(words))
    pairs = zip(words, weights[0].tolist(), strict=True)
    return Explanation(text, prediction, wanted, tuple(WordWeight(*pair) for pair in pairs))


def _compute_log_odds(share: float) -> float:
    least = 1e-7  # what float32 can tell from 0 and 1
    share = min(max(share, least), 1 - least)
    return math.log(share / (1 - share))


def _import_ablation() -> Any:
    try:
        from captum.attr import FeatureAblation
    except ImportError:
        raise SettingsError(
            "explain: Captum is not installed; pip install 'textlora[explain]'"
        ) from None
    return FeatureAblation
