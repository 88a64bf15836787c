"""A classifier as an OpenVINO graph: the engine traced, and the graph proved to be the model.

Tracing the engine, not the model, keeps the graph free of padding (docs/experiments.md).
"""

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from textlora.errors import ModelError
from textlora.model.batching import Batch, TokenizedTexts, arrange_batch, make_batch
from textlora.model.engine import Engine
from textlora.prediction.openvino_backend import (
    OpenVinoBackend,
    import_openvino,
    list_arrays,
    quiet,
)

_TOLERANCE = 1e-3  # of float32 logits, whose rounding is 1e-5 here


def convert(model: nn.Module, pad_id: int, max_length: int, vocabulary: int) -> Any:
    """The graph of a merged float32 model, whose logits are proved to be the model's.

    Raises:  ModelError if the architecture cannot be traced.
    """
    import_openvino()
    from openvino.tools.ovc import convert_model

    engine = Engine(model.eval(), pad_id)
    # The lengths of a batch must not become constants of the graph: the proof has other ones.
    example = _make_texts([max_length, 5], vocabulary)
    probes = [
        _make_texts([3], vocabulary),
        _make_texts([max_length, max_length // 2 + 1, 7, 32, 4], vocabulary),
    ]
    with torch.no_grad(), warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")  # the tracer's, about shapes that are proved below
        expected = [_compute(engine, texts) for texts in probes]
        wrapped = _Packed(engine) if engine.is_packed else _Padded(engine)
        arrays = list_arrays(_arrange(example), pad_id, packed=engine.is_packed)
        try:
            graph = convert_model(wrapped, example_input=tuple(map(torch.from_numpy, arrays)))
            backend = OpenVinoBackend(graph, "float32", pad_id)
            found = [backend.compute_logits(texts) for texts in probes]
        except Exception as error:
            reason = str(error).strip().splitlines()[-1][:200] if str(error).strip() else ""
            raise ModelError(
                f"--backend: OpenVINO cannot convert this encoder ({type(error).__name__}: "
                f"{reason}); use --backend torch"
            ) from None
    difference = max(float(np.abs(a - b).max()) for a, b in zip(found, expected, strict=True))
    if not difference <= _TOLERANCE:
        raise ModelError(
            f"--backend: OpenVINO converts this encoder wrongly (logits differ by {difference:.2g},"
            f" allowed {_TOLERANCE}); use --backend torch"
        )
    return graph


class _Packed(nn.Module):
    """The engine's forward pass, as a function of the arrays of a batch."""

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self._model = engine.model
        self._engine = engine

    def forward(
        self, token_ids: Tensor, positions: Tensor, starts: Tensor, places: Tensor, mask: Tensor,
        order: Tensor,
    ) -> Tensor:  # fmt: skip
        return self._engine(Batch(0, token_ids, positions, starts, places, mask, order)).float()


class _Padded(nn.Module):
    """The same of an encoder that runs through its own forward method."""

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self._model = engine.model

    def forward(self, token_ids: Tensor, mask: Tensor) -> Tensor:
        logits: Tensor = self._model(input_ids=token_ids, attention_mask=mask).logits
        return logits.float()


def _compute(engine: Engine, texts: TokenizedTexts) -> npt.NDArray[np.float32]:
    return engine(make_batch(texts, np.arange(len(texts)))).float().numpy()


def _arrange(texts: TokenizedTexts) -> Batch:
    return arrange_batch(texts, np.arange(len(texts)))


def _make_texts(lengths: list[int], vocabulary: int) -> TokenizedTexts:
    """Texts of random tokens."""
    random = np.random.default_rng(0)
    ids = random.integers(0, vocabulary, sum(lengths)).astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return TokenizedTexts(ids, offsets, np.zeros(len(lengths), np.bool_))
