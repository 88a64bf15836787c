"""How much a plan computes: rows of tokens, and floating-point operations on them.

Counted as the engine works: nothing but attention sees padding, the last layer is computed for the
rows that the head reads, gradients go back to the lowest adapted matrix and no further, and layers
below it may be computed once for all epochs. A multiplication and an addition are two operations.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from textlora.model.adapter_plan import AdapterPlan, find_matrices
from textlora.model.batching import compute_epoch_batches, count_rows, split_by_tokens
from textlora.model.shapes import ModelShapes
from textlora.settings import AdapterSettings

_INSIDE = re.compile(r"(^|\.)(embeddings(?:_project)?|layers?\.\d+)(\.|$)")
_ORDER = ("query", "key", "value", "output", "ffn_in", "ffn_out")  # as a layer computes them


@dataclass(frozen=True)
class EncoderShape:
    """Sizes of an encoder, and how it runs. `linears` has in and out features of a layer by term.

    `is_packed`: without padding outside attention. `reads_first`: the last layer is computed for
    the first token of each text alone.
    """

    num_layers: int
    width: int
    heads: int
    inner: int
    linears: dict[str, tuple[int, int]]
    is_packed: bool
    reads_first: bool


@dataclass(frozen=True)
class Load:
    """The batches of some texts, together. `squares` are the scores of attention in one head.

    `most_rows`, `most_places` and `most_squares` are those of the largest batch; places are rows
    as attention pads them.
    """

    texts: float
    rows: float
    squares: float
    first_squares: float  # of the first token of each text
    most_rows: int
    most_places: int
    most_squares: int

    def scale(self, factor: float) -> "Load":
        """The same for so many times as many texts."""
        return replace(
            self,
            texts=factor * self.texts,
            rows=factor * self.rows,
            squares=factor * self.squares,
            first_squares=factor * self.first_squares,
        )


@dataclass(frozen=True)
class Operations:
    """Operations of one pass over a load: what is only computed forward, what also goes back.

    Those of adapters are in them; `adapted` counts the elements that adapters read and write, rows
    x (in + out features).
    """

    forward: float
    trained: float
    adapted: float


def describe_encoder(model: ModelShapes, plan: AdapterPlan, variant: str) -> EncoderShape:
    """Sizes of a layer, and how the model would run with that adapter.

    An adapter that is not plain LoRA, or a layer of the encoder that is trained whole, makes it run
    through transformers' own forward pass (see `engine`).
    """
    linears: dict[str, tuple[int, int]] = {}
    for matrix in find_matrices(model, AdapterSettings(rank=1)):
        if matrix.layer == 0:
            linears["/".join(matrix.terms)] = (matrix.in_features, matrix.out_features)
    whole = any(_INSIDE.search(module.name) for module in plan.modules)
    is_packed = model.is_packed and variant != "dora" and not whole
    return EncoderShape(
        num_layers=plan.num_layers,
        width=model.width,
        heads=model.heads,
        inner=linears["ffn_out"][0],
        linears=linears,
        is_packed=is_packed,
        reads_first=is_packed and model.pooling != "mean",
    )


def find_lowest(plan: AdapterPlan) -> int:
    """The lowest layer that anything is trained in; 0 also for the embeddings."""
    layers = [matrix.layer for matrix in plan.matrices]
    for module in plan.modules:
        if match := _INSIDE.search(module.name):
            number = re.search(r"\d+", match[2])
            layers.append(int(number[0]) if number else 0)
    return min(layers)


def measure_training_load(
    lengths: npt.NDArray[np.int64], batch_size: int, shape: EncoderShape, max_tokens: int
) -> Load:
    """The batches of an epoch, in pieces of at most `max_tokens`. Shapes: lengths (texts,)."""
    batches = compute_epoch_batches(lengths, batch_size, seed=0, epoch=0)
    groups = [group for batch in batches for group in split_by_tokens(lengths, batch, max_tokens)]
    return _add_up(lengths, groups, shape)


def measure_load(lengths: npt.NDArray[np.int64], shape: EncoderShape, max_tokens: int) -> Load:
    """The batches of a pass without gradients, as above. Shapes: lengths (texts,)."""
    groups = split_by_tokens(lengths, np.arange(len(lengths)), max_tokens)
    return _add_up(lengths, groups, shape)


def count_training(shape: EncoderShape, plan: AdapterPlan, load: Load, start: int) -> Operations:
    """Of the steps of an epoch; layers below `start` are read from where they are kept."""
    lowest = find_lowest(plan)
    forward = sum(_count_layer(shape, load, layer) for layer in range(start, lowest))
    trained = 0.0
    for layer in range(lowest, shape.num_layers):
        trained += _count_layer(shape, load, layer)
        trained += _count_backward(shape, plan, load, layer, lowest)
    # Forward, to the input, to the weights.
    adapted = _count_adapted(shape, plan, load)
    trained += 6.0 * (plan.head_parameters * load.texts + _find_rank(plan) * adapted)
    return Operations(forward, trained, adapted)


def count_forward(shape: EncoderShape, plan: AdapterPlan, load: Load, start: int) -> Operations:
    """Of a pass without gradients, such as validation."""
    layers = range(start, shape.num_layers)
    forward = sum(_count_layer(shape, load, layer) for layer in layers)
    adapted = _count_adapted(shape, plan, load)
    forward += 2.0 * (plan.head_parameters * load.texts + _find_rank(plan) * adapted)
    return Operations(forward, 0.0, adapted)


def count_prefix(shape: EncoderShape, load: Load, end: int) -> Operations:
    """Of the layers below `end`, to keep their output."""
    return Operations(sum(_count_layer(shape, load, layer) for layer in range(end)), 0.0, 0.0)


def _add_up(
    lengths: npt.NDArray[np.int64],
    groups: Sequence[npt.NDArray[np.int64]],
    shape: EncoderShape,
) -> Load:
    found = [count_rows(lengths[group], packed=shape.is_packed) for group in groups]
    squares = [batch.places * batch.width for batch in found]
    return Load(
        texts=len(lengths),
        rows=sum(batch.rows for batch in found),
        squares=sum(squares),
        first_squares=sum(batch.places for batch in found),
        most_rows=max(batch.rows for batch in found),
        most_places=max(batch.places for batch in found),
        most_squares=max(squares),
    )


def _count_layer(shape: EncoderShape, load: Load, layer: int) -> float:
    """Forward operations of one layer."""
    total = 0.0
    for terms, (features_in, features_out) in shape.linears.items():
        total += 2.0 * features_in * features_out * _find_rows(shape, load, layer, terms)
    return total + _count_attention(shape, load, layer)


def _count_backward(
    shape: EncoderShape, plan: AdapterPlan, load: Load, layer: int, lowest: int
) -> float:
    """Operations of the gradients to the inputs; those to frozen weights are not computed.

    In the lowest layer they go back to the adapted matrices, and end there.
    """
    terms = set(_ORDER)
    if layer == lowest:
        terms = {term for m in plan.matrices if m.layer == layer for term in m.terms} or terms
    first = min(map(_ORDER.index, terms))
    # Of attention a product each for the gradients of shares, query, key and value; forward it
    # has two.
    products = sum((bool(terms & {"query", "key"}), *(t in terms for t in _ORDER[:3])))
    total = products / 2.0 * _count_attention(shape, load, layer)
    for names, (features_in, features_out) in shape.linears.items():
        place = _ORDER.index(names.split("/")[0])
        ends_here = layer == lowest and (place <= first or place < 3)
        if not ends_here:
            total += 2.0 * features_in * features_out * _find_rows(shape, load, layer, names)
    return total


def _count_attention(shape: EncoderShape, load: Load, layer: int) -> float:
    """Scores and mixture of values."""
    return 4.0 * shape.width * (load.first_squares if _is_short(shape, layer) else load.squares)


def _count_adapted(shape: EncoderShape, plan: AdapterPlan, load: Load) -> float:
    return sum(
        (matrix.in_features + matrix.out_features)
        * _find_rows(shape, load, matrix.layer, "/".join(matrix.terms))
        for matrix in plan.matrices
    )


def _find_rank(plan: AdapterPlan) -> int:
    """One rank for all matrices, as the settings have it; 0 without matrices."""
    return max((matrix.rank for matrix in plan.matrices), default=0)


def _find_rows(shape: EncoderShape, load: Load, layer: int, terms: str) -> float:
    """Rows that a matrix is applied to."""
    return load.texts if _is_short(shape, layer) and terms not in ("key", "value") else load.rows


def _is_short(shape: EncoderShape, layer: int) -> bool:
    return shape.reads_first and layer == shape.num_layers - 1
