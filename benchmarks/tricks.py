"""What was tried to raise accuracy and is no part of the package: a change of the setup each.

Kept here so that `accuracy_choices.py` can ask again.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div

from textlora.model.batching import make_batch, split_by_tokens
from textlora.model.engine import Engine
from textlora.model.heads import HEAD
from textlora.training.training_setup import TrainingSetup

_PROBE_C = 0.001  # the best of 1 to 0.0001 for features of unit variance: docs/experiments.md
_ALPHA = 1.0  # what a disagreement of the two passes costs


def start_from_probe(setup: TrainingSetup) -> TrainingSetup:
    """A linear head with the weights of logistic regression on the untouched encoder.

    Source:  Kumar et al. 2022 (arXiv 2202.10054): linear probing, then fine-tuning.
    """
    features = _read_features(setup)
    mean, deviation = features.mean(axis=0), features.std(axis=0) + 1e-6
    fitted = LogisticRegression(C=_PROBE_C, max_iter=300)
    fitted.fit((features - mean) / deviation, setup.train_label_ids)
    weight = fitted.coef_ / deviation
    found = {"weight": weight, "bias": fitted.intercept_ - weight @ mean}
    weights = setup.weights.read()
    for name in weights:
        end = name.rpartition(".")[2]
        if f".{HEAD}." in name and end in found:
            weights[name] = torch.from_numpy(found[end].astype(np.float32))
    setup.weights.write(weights)
    return setup


def _read_features(setup: TrainingSetup) -> Any:
    """What the head is given of each training text: (texts, width)."""
    engine, seen = setup.engine, []
    features = np.empty((len(setup.train), engine.width), np.float32)
    handle = engine.head.register_forward_pre_hook(
        lambda _module, inputs: seen.append(inputs[0].float().cpu().numpy())
    )
    engine.model.eval()
    with torch.inference_mode():
        rows = np.arange(len(setup.train))
        for group in split_by_tokens(setup.train.lengths, rows, engine.max_tokens):
            engine(make_batch(setup.train, group).to(engine.device))
            features[group] = seen.pop()
    handle.remove()
    return features


class _TwicePassed(Engine):
    """In training each text passes twice, under other dropout: logits (2 * texts, labels)."""

    def __call__(self, batch: Any, prefix: Tensor | None = None) -> Tensor:
        logits = super().__call__(batch, prefix)
        if not self.model.training:
            return logits
        return torch.cat([logits, super().__call__(batch, prefix)])


def _compute_agreement_loss(logits: Tensor, label_ids: Tensor, *_: Any) -> Tensor:
    """The mean of both cross-entropies, and how much the two passes disagree; summed over texts."""
    if len(logits) == len(label_ids):  # validation
        return cross_entropy(logits, label_ids, reduction="sum")
    first, second = (part.log_softmax(dim=1) for part in logits.chunk(2))
    truth = torch.cat([label_ids, label_ids])
    apart = kl_div(first, second, log_target=True, reduction="sum")
    apart = apart + kl_div(second, first, log_target=True, reduction="sum")
    return cross_entropy(logits, truth, reduction="sum") / 2 + _ALPHA * apart / 2


def pass_twice(setup: TrainingSetup) -> TrainingSetup:
    """R-Drop: two passes under dropout that are to agree.

    Source:  Liang et al. 2021 (arXiv 2106.14448).
    """
    return replace(
        setup,
        engine=_TwicePassed(setup.model, setup.tokenizer.pad_token_id),
        objective=replace(setup.objective, compute_loss=_compute_agreement_loss),
    )


TRICKS = {"probe": start_from_probe, "R-Drop": pass_twice}
