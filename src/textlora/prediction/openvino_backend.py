"""The engine as an OpenVINO graph, for CPUs: the same packed batches, in bf16 or int8.

OpenVINO fuses what torch computes apart and keeps weights in the layout of its kernels. A graph
that was converted (`openvino_conversion`) answers without torch. The `openvino` extra installs what
this needs.
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

from textlora.errors import ModelError
from textlora.model.batching import (
    MAX_TOKENS,
    Batch,
    TokenizedTexts,
    arrange_batch,
    split_by_tokens,
)
from textlora.model.logits import Check, compute_by_groups, go_on
from textlora.system.runtime import DtypeName, count_threads

MODEL = "model.xml"
_CONVERTER = "openvino.tools.ovc"
INPUTS = ("token_ids", "positions", "starts", "places", "mask", "order")
_CALIBRATION_TOKENS = 1_024
_SMOOTHING = 0.9  # how far wide inputs are moved into the weights, 0..1


class OpenVinoBackend:
    """A compiled graph. `dtype` is that of what is not int8."""

    def __init__(self, graph: Any, dtype: DtypeName, pad_id: int, identity: str = "") -> None:
        self.identity = identity
        self._pad_id = pad_id
        self._is_packed = len(graph.inputs) == len(INPUTS)
        options = {
            "PERFORMANCE_HINT": "LATENCY",  # one batch after the other, on all cores
            "INFERENCE_NUM_THREADS": count_threads(),
            "INFERENCE_PRECISION_HINT": "bf16" if dtype == "bfloat16" else "f32",
        }
        self._compiled = open_core().compile_model(graph, "CPU", options)

    def compute_logits(
        self, tokens: TokenizedTexts, check: Check = go_on
    ) -> npt.NDArray[np.float32]:
        """Logits (texts, labels), in the order of `tokens`."""

        def compute(group: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
            arrays = list_arrays(arrange_batch(tokens, group), self._pad_id, packed=self._is_packed)
            return np.array(self._compiled(arrays)[0], np.float32)

        return compute_by_groups(compute, tokens, MAX_TOKENS["cpu"], check)


def import_openvino() -> Any:
    """The module `openvino`, with its usage reports off.

    Raises:  ModelError if it is not installed.
    """
    # It reports its use over the network; a module that is None cannot be imported, and it then
    # goes on without. So it does without its converter, which takes a third of its time to import.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    is_new = "openvino" not in sys.modules
    if is_new:
        sys.modules.setdefault(_CONVERTER, None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError:
        raise ModelError(
            "--backend: OpenVINO is not installed; run pip install 'textlora[openvino]', or use "
            "--backend torch"
        ) from None
    finally:
        if is_new and sys.modules.get(_CONVERTER) is None:
            sys.modules.pop(_CONVERTER, None)
    return openvino


@cache
def open_core() -> Any:
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


def quantize(graph: Any, tokens: TokenizedTexts, pad_id: int, *, careful: bool = False) -> Any:
    """The graph with int8 linear layers, by NNCF, calibrated on some texts.

    Attention's own products stay as they are, which is faster; when `careful`, so do the layers
    that narrow, whose inputs spread widest (docs/experiments.md).

    Raises:  ModelError if NNCF is not installed.
    """
    packed = len(graph.inputs) == len(INPUTS)
    groups = split_by_tokens(tokens.lengths, np.arange(len(tokens)), _CALIBRATION_TOKENS)
    batches = [list_arrays(arrange_batch(tokens, group), pad_id, packed=packed) for group in groups]
    left = [
        name for name, shape in list_products(graph)
        if shape is None or (careful and shape[0] < shape[1])
    ]  # fmt: skip
    with warnings.catch_warnings(), quiet():
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


def save(graph: Any, folder: Path, dtype: DtypeName) -> None:
    """Write model.xml and model.bin; weights in float16 unless they are computed in float32."""
    path = folder / MODEL
    import_openvino().save_model(graph, path, compress_to_fp16=dtype != "float32")


def load(folder: Path) -> Any:
    """Read what `save` wrote."""
    return open_core().read_model(folder / MODEL)


def list_arrays(batch: Batch, pad_id: int, *, packed: bool) -> list[npt.NDArray[Any]]:
    """What a graph is given: the arrays of a packed batch, or padded ids and their mask."""
    return [getattr(batch, name) for name in INPUTS] if packed else list(batch.pad(pad_id))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
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
