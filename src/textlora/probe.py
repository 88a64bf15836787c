"""A linear head that starts where a linear probe of the untouched encoder ends.

The encoder reads each training text once; logistic regression on what it makes of them gives the
head its first weights, and the adapters begin with a head that already works.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from textlora.batching import TokenizedTexts, make_batch, split_by_tokens
from textlora.engine import Engine
from textlora.prefix import Prefix

_MAX_TEXTS = 20_000  # more of them move the weights little
_C = 1.0  # strength of the fit, for features of unit variance


def fit_head(
    engine: Engine,
    tokens: TokenizedTexts,
    label_ids: npt.NDArray[np.int64],
    prefix: Prefix | None,
    check: Callable[[], None],
) -> dict[str, Tensor]:
    """Weight (labels, width) and bias (labels,) of a linear head for these texts.

    A label that the texts do not have keeps the head's own row. `check` is called before each
    batch.

    Shapes:  label_ids (texts,).
    Source:  Kumar et al. 2022 (arXiv 2202.10054): linear probing, then fine-tuning.
    """
    count = min(len(tokens), _MAX_TEXTS)
    rows = np.random.default_rng(0).permutation(len(tokens))[:count]
    features = _read_features(engine, tokens, rows, prefix, check)
    mean, deviation = features.mean(axis=0), features.std(axis=0) + 1e-6
    scaled = (features - mean) / deviation
    model = LogisticRegression(C=_C, max_iter=300).fit(scaled, label_ids[rows])
    weight, bias = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # scikit-learn keeps the odds of the second one alone
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    weight = weight / deviation
    bias = bias - weight @ mean
    head = engine.head
    assert isinstance(head.weight, Tensor)
    assert isinstance(head.bias, Tensor)
    found = {"weight": head.weight.detach().float().cpu(), "bias": head.bias.detach().float().cpu()}
    found["weight"][model.classes_] = torch.from_numpy(weight.astype(np.float32))
    found["bias"][model.classes_] = torch.from_numpy(bias.astype(np.float32))
    return found


def _read_features(
    engine: Engine,
    tokens: TokenizedTexts,
    rows: npt.NDArray[np.int64],
    prefix: Prefix | None,
    check: Callable[[], None],
) -> npt.NDArray[np.float32]:
    """What the head is given of the texts `rows`: (rows, width)."""
    places = np.empty(len(tokens), np.int64)
    places[rows] = np.arange(len(rows))
    features = np.empty((len(rows), engine.width), np.float32)
    seen: list[Tensor] = []

    def keep(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0].float().cpu())

    engine.model.eval()
    handle = engine.head.register_forward_pre_hook(keep)
    try:
        with torch.inference_mode():
            for group in split_by_tokens(tokens.lengths, rows, engine.max_tokens):
                check()
                batch = make_batch(tokens, group).to(engine.device)
                engine(batch, None if prefix is None else prefix.read(group, batch))
                features[places[group]] = seen.pop().numpy()
    finally:
        handle.remove()
    return features
