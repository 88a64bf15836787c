"""What a plan costs on this machine: bytes of the adapter, memory and time of training.

The bytes are exact and memory is counted (`footprint`), on top of what the libraries take. Time is
counted operations (`work`) over the speed of a layer measured here (`speed`).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from textlora.budgeting.flops import (
    EncoderShape,
    Load,
    Operations,
    count_forward,
    count_prefix,
    count_training,
    describe_encoder,
    find_lowest,
    measure_load,
    measure_training_load,
)
from textlora.budgeting.footprint import compute_adapter_bytes, count_memory
from textlora.budgeting.speed import LayerSizes, Speed, measure_speed
from textlora.data.labelled_texts import LabelledTexts
from textlora.model import encoder, encoder_files
from textlora.model.adapters import AdapterPlan
from textlora.model.batching import MAX_TOKENS, tokenize
from textlora.model.prefix import is_reread
from textlora.settings import ModelSettings, Recipe
from textlora.system.runtime import measure_peak_memory, pick_device, pick_dtype

_TYPICAL_TEXTS, _TYPICAL_TOKENS = 1_000, 50
_SAMPLE = 20_000  # texts whose tokens are counted
# What `train` imports and `plan` does not. Measured: 53 MB (torch 2.13, Linux).
_MORE_LIBRARIES = 53_000_000
# Share of the measured speed of a layer that a step reaches: the rest is embeddings, padding of
# attention, the head and the optimizer. Set beforehand; benchmarks/results/plan_cost.json, where
# predictions lie between 0.8 and 1.2 times what was measured, gives no reason for another one.
_EFFICIENCY = 0.9


@dataclass(frozen=True)
class Texts:
    """The texts to train on, by their tokens: lengths of a sample, and how many there are.

    `tokenizer` is the name of the model whose tokens they are; empty where lengths are assumed.

    Shapes:  lengths (sampled,) int64, special tokens included.
    """

    lengths: npt.NDArray[np.int64]
    num_train: int
    num_validation: int
    tokenizer: str = ""


@dataclass(frozen=True)
class Cost:
    """What a plan costs.

    `once_seconds` are for the output of frozen layers, `epoch_seconds` for the steps and one
    validation, `seconds` for the whole run.
    """

    adapter_bytes: int
    memory_bytes: int
    epoch_seconds: float
    once_seconds: float
    seconds: float
    num_texts: int
    num_validation: int
    mean_tokens: float
    tokenizer: str
    number_format: str
    num_threads: int


def plan_cost(
    recipe: Recipe, plan: AdapterPlan, labels: tuple[str, ...], texts: LabelledTexts | None
) -> Cost:
    """What a plan would cost, before a model or anything else that training needs is loaded.

    Without `texts` it is told for 1,000 of 50 tokens.

    Raises:  ModelError if the model's configuration or tokenizer cannot be had.
    """
    config = encoder.read_model_config(recipe.model, labels)
    libraries = measure_libraries()
    known = assume_texts(recipe) if texts is None else count_tokens(recipe, config, texts)
    return estimate_cost(recipe, plan, config, known, libraries)


def assume_texts(recipe: Recipe) -> Texts:
    """1,000 texts of 50 tokens, a part of them held out, where nothing is known."""
    held_out = min(_TYPICAL_TEXTS - 1, round(_TYPICAL_TEXTS * recipe.data.validation_share))
    lengths = np.full(_TYPICAL_TEXTS - held_out, _TYPICAL_TOKENS, dtype=np.int64)
    return Texts(lengths, len(lengths), held_out)


def count_tokens(recipe: Recipe, config: Any, texts: LabelledTexts) -> Texts:
    """The lengths of the training texts, of a sample if there are many.

    Where a well-known model has no files here, its tokens are those of the embedded one, which
    cuts words about as finely.

    Raises:  ModelError if the model has no tokenizer.
    """
    count = len(texts.train.texts)
    chosen = np.random.default_rng(0).permutation(count)[:_SAMPLE]
    folder, name = encoder_files.find_local_folder(recipe.model), recipe.model.name
    if folder is None:
        name = encoder_files.EMBEDDED
        folder = encoder_files.locate_encoder(ModelSettings(name=name)).folder
    found = tokenize(
        encoder.load_tokenizer(folder, name),
        [texts.train.texts[index] for index in chosen],
        encoder.find_max_length(config, recipe.model.max_length),
    )
    return Texts(found.lengths, count, len(texts.validation.texts), name)


def estimate_cost(
    recipe: Recipe,
    plan: AdapterPlan,
    config: Any,
    texts: Texts,
    libraries: int = 0,
    speed: Speed | None = None,
) -> Cost:
    """All of it; builds the model without weights.

    Without `speed` this machine's is measured, for about a second.

    Units:   libraries in bytes, what the process takes before a model is loaded.
    """
    skeleton = encoder.build_skeleton(config, recipe.model.head)
    shape = describe_encoder(skeleton, plan, recipe.adapter.variant)
    dtype = pick_dtype(recipe.training.precision, pick_device())
    training, validation = _measure_loads(recipe, shape, texts)
    if speed is None:
        speed = measure_speed(_choose_sizes(recipe, shape, texts), recipe.training.precision)
    once, epoch = _predict_seconds(recipe, plan, shape, (training, validation), speed)
    return Cost(
        adapter_bytes=compute_adapter_bytes(skeleton, plan),
        memory_bytes=libraries
        + count_memory(recipe, plan, shape, (training, validation), dtype.itemsize),
        epoch_seconds=epoch,
        once_seconds=once,
        seconds=once + recipe.training.epochs * epoch,
        num_texts=texts.num_train,
        num_validation=texts.num_validation,
        mean_tokens=float(texts.lengths.mean()),
        tokenizer=texts.tokenizer,
        number_format=str(dtype).removeprefix("torch."),
        num_threads=torch.get_num_threads(),
    )


def measure_libraries() -> int:
    """Bytes that training takes for libraries; to be asked before a model is loaded.

    On a GPU they take none of its memory.
    """
    device = pick_device()
    return measure_peak_memory(device) + (_MORE_LIBRARIES if device.type == "cpu" else 0)


def _measure_loads(recipe: Recipe, shape: EncoderShape, texts: Texts) -> tuple[Load, Load]:
    """Of the steps of an epoch, and of one validation, as long as the texts of training."""
    sampled, most = len(texts.lengths), MAX_TOKENS[pick_device().type]
    training = measure_training_load(texts.lengths, recipe.training.batch_size, shape, most)
    validation = measure_load(texts.lengths[: max(1, texts.num_validation)], shape, most)
    measured = min(sampled, max(1, texts.num_validation))
    return (
        training.scale(texts.num_train / sampled),
        validation.scale(texts.num_validation / measured),
    )


def _choose_sizes(recipe: Recipe, shape: EncoderShape, texts: Texts) -> LayerSizes:
    length = -(-max(1, round(float(texts.lengths.mean()))) // 8) * 8
    most = max(1, MAX_TOKENS[pick_device().type] // length)
    return LayerSizes(
        width=shape.width,
        heads=shape.heads,
        inner=shape.inner,
        texts=min(recipe.training.batch_size, most, texts.num_train),
        length=length,
        rank=recipe.adapter.rank,
        dropout=recipe.dropout.backbone,
        adapter_dropout=max(recipe.dropout.start, recipe.dropout.end),
    )


def _predict_seconds(
    recipe: Recipe,
    plan: AdapterPlan,
    shape: EncoderShape,
    loads: tuple[Load, Load],
    speed: Speed,
) -> tuple[float, float]:
    """Seconds spent once, and in each epoch."""
    training, validation = loads
    steps = math.ceil(training.texts / recipe.training.batch_size)
    kept = find_lowest(plan) if _keeps_prefix(recipe, shape, training) else 0
    evaluations = steps / (recipe.training.evaluate_every or steps)
    once = sum(_predict(count_prefix(shape, load, kept), speed) for load in loads)
    epoch = _predict(count_training(shape, plan, training, kept), speed)
    epoch += evaluations * _predict(count_forward(shape, plan, validation, kept), speed)
    return once, epoch


def _predict(operations: Operations, speed: Speed) -> float:
    seconds = operations.forward / speed.forward_per_s + operations.trained / speed.trained_per_s
    # Forward alone an adapter does about a third of what it does there and back.
    share = 1.0 if operations.trained else 1.0 / 3.0
    return (seconds + share * operations.adapted * speed.adapter_seconds) / _EFFICIENCY


def _keeps_prefix(recipe: Recipe, shape: EncoderShape, load: Load) -> bool:
    """Whether training will keep the output of frozen layers; as `prefix` decides it."""
    size = load.rows * shape.width * pick_dtype(recipe.training.precision, pick_device()).itemsize
    return (
        shape.is_packed
        and recipe.dropout.backbone == 0.0
        and is_reread(recipe)
        and size <= recipe.training.prefix_cache_gb * 1e9
    )
