"""The engine as an OpenVINO graph, for CPUs: the same packed batches, in bf16 or int8.

OpenVINO fuses what torch computes apart and keeps weights in the layout of its kernels. Tracing
the engine, not the model, keeps the graph free of padding (docs/experiments.md). The `openvino`
extra installs what this needs.
"""

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from textlora.errors import ModelError
from textlora.model.batching import MAX_TOKENS, Batch, TokenizedTexts, make_batch, split_by_tokens
from textlora.model.engine import Engine
from textlora.model.torch_backend import Check, compute_by_groups, go_on

MODEL = "model.xml"
_INPUTS = ("token_ids", "positions", "starts", "places", "mask", "order")
_CALIBRATION_TOKENS = 1_024
_SMOOTHING = 0.9  # how far wide inputs are moved into the weights, 0..1
_TOLERANCE = 1e-3  # of float32 logits, whose rounding is 1e-5 here


class OpenVinoBackend:
    """A compiled graph. `dtype` is that of what is not int8."""

    def __init__(self, graph: Any, dtype: torch.dtype, pad_id: int, identity: str = "") -> None:
        self.identity = identity
        self._pad_id = pad_id
        self._is_packed = len(graph.inputs) == len(_INPUTS)
        options = {
            "PERFORMANCE_HINT": "LATENCY",  # one batch after the other, on all cores
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": "bf16" if dtype == torch.bfloat16 else "f32",
        }
        self._compiled = _open_core().compile_model(graph, "CPU", options)

    def compute_logits(
        self, tokens: TokenizedTexts, check: Check = go_on
    ) -> npt.NDArray[np.float32]:
        """Logits (texts, labels), in the order of `tokens`."""

        def compute(group: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
            arrays = _list_arrays(make_batch(tokens, group), self._pad_id, packed=self._is_packed)
            return np.array(self._compiled(arrays)[0], np.float32)

        return compute_by_groups(compute, tokens, MAX_TOKENS["cpu"], check)


def import_openvino() -> Any:
    """The module `openvino`, with its usage reports off.

    Raises:  ModelError if it is not installed.
    """
    # It reports its use over the network; a module that is None cannot be imported, and it then
    # goes on without.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError:
        raise ModelError(
            "--backend: OpenVINO is not installed; run pip install 'textlora[openvino]', or use "
            "--backend torch"
        ) from None
    return openvino


@cache
def _open_core() -> Any:
    """The one core of this process, which is never closed.

    Each puts the stack of signal handlers elsewhere, and back when it is closed. Closed in another
    order than opened, they leave it in freed memory: the next Ctrl-C would be a segmentation fault.
    """
    core = import_openvino().Core()
    core.set_property({"ENABLE_MMAP": False})  # a file that changes must not change the answers
    return core


def describe_versions(*, int8: bool) -> dict[str, str]:
    """The packages a graph follows from."""
    import_openvino()
    return {name: version(name) for name in ("openvino", *(["nncf"] if int8 else []))}


def convert(model: nn.Module, pad_id: int, max_length: int, vocabulary: int) -> Any:
    """The graph of a merged float32 model, whose logits are proved to be the model's.

    Raises:  ModelError if the architecture cannot be traced.
    """
    openvino = import_openvino()
    engine = Engine(model.eval(), pad_id)
    # The lengths of a batch must not become constants of the graph: the proof has other ones.
    example = _make_texts([max_length, 5], vocabulary)
    probes = [
        _make_texts([3], vocabulary),
        _make_texts([max_length, max_length // 2 + 1, 7, 32, 4], vocabulary),
    ]
    with torch.no_grad(), warnings.catch_warnings(), _quiet():
        warnings.simplefilter("ignore")  # the tracer's, about shapes that are proved below
        expected = [_compute(engine, texts) for texts in probes]
        wrapped = _Packed(engine) if engine.is_packed else _Padded(engine)
        arrays = _list_arrays(_batch(example), pad_id, packed=engine.is_packed)
        try:
            graph = openvino.convert_model(
                wrapped, example_input=tuple(map(torch.from_numpy, arrays))
            )
            backend = OpenVinoBackend(graph, torch.float32, pad_id)
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


def quantize(graph: Any, tokens: TokenizedTexts, pad_id: int, *, careful: bool = False) -> Any:
    """The graph with int8 linear layers, by NNCF, calibrated on some texts.

    Attention's own products stay as they are, which is faster; when `careful`, so do the layers
    that narrow, whose inputs spread widest (docs/experiments.md).

    Raises:  ModelError if NNCF is not installed.
    """
    packed = len(graph.inputs) == len(_INPUTS)
    groups = split_by_tokens(tokens.lengths, np.arange(len(tokens)), _CALIBRATION_TOKENS)
    batches = [_list_arrays(make_batch(tokens, group), pad_id, packed=packed) for group in groups]
    left = [
        name for name, shape in list_products(graph)
        if shape is None or (careful and shape[0] < shape[1])
    ]  # fmt: skip
    with warnings.catch_warnings(), _quiet():
        warnings.simplefilter("ignore")
        nncf = import_nncf()
        smoothing = nncf.AdvancedSmoothQuantParameters(matmul=_SMOOTHING)
        return nncf.quantize(
            graph,
            nncf.Dataset(batches),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(batches),
            ignored_scope=nncf.IgnoredScope(names=left),
            advanced_parameters=nncf.AdvancedQuantizationParameters(smooth_quant_alphas=smoothing),
        )


def import_nncf() -> Any:
    """The module `nncf`.

    Raises:  ModelError if it is not installed.
    """
    import_openvino()  # its usage reports are off
    try:
        import nncf
    except ImportError:
        raise ModelError(
            "--backend: int8 needs NNCF; run pip install 'textlora[openvino]', or use "
            "--backend openvino"
        ) from None
    return nncf


def list_products(graph: Any) -> list[tuple[str, tuple[int, int] | None]]:
    """Name of each matrix product, and the shape (out, in) of its weights if it has some."""
    found: list[tuple[str, tuple[int, int] | None]] = []
    for operation in graph.get_ordered_ops():
        if operation.get_type_name() == "MatMul":
            source = operation.input_value(1).get_node()
            while source.get_type_name() in ("Convert", "Multiply"):  # of compressed weights
                source = source.input_value(0).get_node()
            weights = source.get_type_name() == "Constant"
            shape = tuple(source.get_output_shape(0)) if weights else None
            found.append((operation.get_friendly_name(), shape))
    return found


def save(graph: Any, folder: Path, dtype: torch.dtype) -> None:
    """Write model.xml and model.bin; weights in float16 unless they are computed in float32."""
    path = folder / MODEL
    import_openvino().save_model(graph, path, compress_to_fp16=dtype != torch.float32)


def load(folder: Path) -> Any:
    """Read what `save` wrote."""
    return _open_core().read_model(folder / MODEL)


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


def _list_arrays(batch: Batch, pad_id: int, *, packed: bool) -> list[npt.NDArray[Any]]:
    tensors = [getattr(batch, name) for name in _INPUTS] if packed else batch.pad(pad_id)
    return [tensor.numpy() for tensor in tensors]


def _compute(engine: Engine, texts: TokenizedTexts) -> npt.NDArray[np.float32]:
    return engine(_batch(texts)).float().numpy()


def _batch(texts: TokenizedTexts) -> Batch:
    return make_batch(texts, np.arange(len(texts)))


def _make_texts(lengths: list[int], vocabulary: int) -> TokenizedTexts:
    """Texts of random tokens."""
    random = np.random.default_rng(0)
    ids = random.integers(0, vocabulary, sum(lengths)).astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return TokenizedTexts(ids, offsets, np.zeros(len(lengths), np.bool_))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No bars and log lines of the converters, which would stand among ours."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            yield
    finally:
        logging.disable(level)
