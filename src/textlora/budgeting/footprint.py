"""Bytes: of an adapter's file, and of memory while a plan is trained."""

import json
import math

from textlora.budgeting.flops import EncoderShape, Load, find_lowest
from textlora.model.adapter_plan import AdapterPlan
from textlora.model.shapes import ModelShapes
from textlora.settings import Recipe

# Beside the model, for each trained parameter: its master, two moments and two gradients in
# float32, and the copies that a checkpoint is written from.
_TRAINED_BYTES = 4 * (1 + 2 + 2 + 3 + 3)


def compute_adapter_bytes(model: ModelShapes, plan: AdapterPlan) -> int:
    """Size of the adapter's file, to the byte.

    Source:  the safetensors format: 8 bytes, a JSON header padded to a multiple of 8, the data.
    """
    shapes: dict[str, list[int]] = {}
    for matrix in plan.matrices:
        shapes[f"{matrix.name}.lora_A.weight"] = [matrix.rank, matrix.in_features]
        shapes[f"{matrix.name}.lora_B.weight"] = [matrix.out_features, matrix.rank]
        if matrix.magnitudes:
            shapes[f"{matrix.name}.lora_magnitude_vector"] = [matrix.magnitudes]
    for module in plan.modules:
        for name, shape in model.parameters.items():
            if name.startswith(f"{module.name}."):
                shapes[name] = list(shape)
    header, end = {}, 0
    for name in sorted(shapes):
        begin, end = end, end + 4 * math.prod(shapes[name])
        header[f"base_model.model.{name}"] = {
            "dtype": "F32",
            "shape": shapes[name],
            "data_offsets": [begin, end],
        }
    length = len(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode())
    return 8 + -(-length // 8) * 8 + end


def count_memory(
    recipe: Recipe,
    plan: AdapterPlan,
    shape: EncoderShape,
    loads: tuple[Load, Load],
    itemsize: int,
) -> int:
    """Bytes of a training at its peak, without those of the libraries.

    `loads` are those of training and validation. Either the model is just loaded, in float32, or
    the largest batch is on its way.

    Units:   itemsize in bytes, of the model's numbers.
    """
    training, validation = loads
    model = plan.total - plan.adapter_parameters
    steady = itemsize * model + _TRAINED_BYTES * plan.trainable
    numbers = max(
        _count_kept(recipe, plan, shape, training) + _count_transient(shape, training),
        _count_transient(shape, validation),
    )
    return round(max(4 * model, steady + itemsize * numbers))


def _count_kept(recipe: Recipe, plan: AdapterPlan, shape: EncoderShape, load: Load) -> float:
    """Numbers that the largest batch keeps for the backward pass."""
    rows, scores = load.most_rows, shape.heads * load.most_squares
    # Query, key, value and shares of attention; the inputs of two norms and of the activation.
    layer = 3 * shape.width * load.most_places + scores + (2 * shape.width + shape.inner) * rows
    if recipe.dropout.backbone:
        layer += 2 * shape.width * rows + 2 * scores
    layers = shape.num_layers - find_lowest(plan) - shape.reads_first
    inputs = sum(2 * matrix.in_features for matrix in plan.matrices) * rows  # and their masks
    return max(0, layers) * layer + inputs


def _count_transient(shape: EncoderShape, load: Load) -> float:
    """Numbers in flight in one layer."""
    inside = 6 * shape.width * load.most_places + 2 * shape.heads * load.most_squares
    return inside + 3 * shape.inner * load.most_rows
