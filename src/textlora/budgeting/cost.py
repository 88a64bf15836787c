"""What a plan costs on this machine: bytes of the adapter, memory and time of training.

The bytes are exact and memory is counted (`footprint`), on top of what the libraries take. Time is
counted operations (`flops`) over the speed of a layer measured here (`speed`).
"""

import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

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
from textlora.budgeting.machine import LayerSizes, Machine, Speed
from textlora.budgeting.speed import find_machine, find_speed
from textlora.model import encoder_files
from textlora.model.adapter_plan import AdapterPlan
from textlora.model.batching import MAX_TOKENS, tokenize
from textlora.model.shapes import ModelShapes, find_shapes
from textlora.model.tokenizer import read_tokenizer
from textlora.settings import ModelSettings, Recipe

if TYPE_CHECKING:
    from textlora.data.labelled_texts import LabelledTexts

_TYPICAL_TEXTS, _TYPICAL_TOKENS = 1_000, 50
_SAMPLE = 20_000  # texts whose tokens are counted
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
    recipe: Recipe, plan: AdapterPlan, labels: tuple[str, ...], texts: "LabelledTexts | None"
) -> Cost:
    """What a plan would cost, before a model or anything else that training needs is loaded.

    Without `texts` it is told for 1,000 of 50 tokens. What is not kept of this machine is measured,
    in about a second besides the import of torch.

    Raises:  ModelError if the model's configuration or tokenizer cannot be had.
    """
    model = find_shapes(recipe.model, len(labels))
    held = 0 if texts is None else _count_text_bytes(texts)
    machine = find_machine(recipe.training.precision, held)
    known = assume_texts(recipe) if texts is None else count_tokens(recipe, model, texts)
    if machine.device == "cpu":
        machine = replace(machine, library_bytes=machine.library_bytes + held)
    return estimate_cost(recipe, plan, model, known, machine)


def assume_texts(recipe: Recipe) -> Texts:
    """1,000 texts of 50 tokens, a part of them held out, where nothing is known."""
    held_out = min(_TYPICAL_TEXTS - 1, round(_TYPICAL_TEXTS * recipe.data.validation_share))
    lengths = np.full(_TYPICAL_TEXTS - held_out, _TYPICAL_TOKENS, dtype=np.int64)
    return Texts(lengths, len(lengths), held_out)


def count_tokens(recipe: Recipe, model: ModelShapes, texts: "LabelledTexts") -> Texts:
    """The lengths of the training texts, of a sample if there are many.

    Where a model has no tokenizer here because its configuration alone is at hand, its tokens are
    those of the embedded one, which cuts words about as finely.

    Raises:  ModelError if the model has no tokenizer.
    """
    count = len(texts.train.texts)
    chosen = np.random.default_rng(0).permutation(count)[:_SAMPLE]
    folder, name = _find_tokenizer(recipe.model)
    found = tokenize(
        read_tokenizer(folder, name),
        [texts.train.texts[index] for index in chosen],
        model.find_max_length(recipe.model.max_length),
    )
    return Texts(found.lengths, count, len(texts.validation.texts), name)


def estimate_cost(
    recipe: Recipe,
    plan: AdapterPlan,
    model: ModelShapes,
    texts: Texts,
    machine: Machine | None = None,
    speed: Speed | None = None,
) -> Cost:
    """All of it, on a machine of that speed; without them, on this one."""
    shape = describe_encoder(model, plan, recipe.adapter.variant)
    if machine is None:
        machine = find_machine(recipe.training.precision)
    if speed is None:
        sizes = _choose_sizes(recipe, shape, texts, machine)
        speed = find_speed(sizes, recipe.training.precision, machine)
    loads = _measure_loads(recipe, shape, texts, machine)
    once, epoch = _predict_seconds(recipe, plan, shape, loads, machine, speed)
    return Cost(
        adapter_bytes=compute_adapter_bytes(model, plan),
        memory_bytes=machine.library_bytes
        + count_memory(recipe, plan, shape, loads, machine.itemsize),
        epoch_seconds=epoch,
        once_seconds=once,
        seconds=once + recipe.training.epochs * epoch,
        num_texts=texts.num_train,
        num_validation=texts.num_validation,
        mean_tokens=float(texts.lengths.mean()),
        tokenizer=texts.tokenizer,
        number_format=machine.number_format,
        num_threads=machine.num_threads,
    )


def _find_tokenizer(settings: ModelSettings) -> tuple[Path, str]:
    """The folder of the tokenizer to count with, and the name of its model."""
    folder = encoder_files.find_local_folder(settings)
    if folder is None and encoder_files.lacks_weights(settings):
        own = encoder_files.locate_config(settings).folder
        folder = own if encoder_files.has_vocabulary(own) else None
    if folder is not None:
        return folder, settings.name
    name = encoder_files.EMBEDDED
    return encoder_files.locate_encoder(ModelSettings(name=name)).folder, name


def _count_text_bytes(texts: "LabelledTexts") -> int:
    """What the texts take of this process's memory, as they will of training's."""
    parts = (texts.train, texts.validation, texts.test)
    return sum(sys.getsizeof(text) for part in parts if part is not None for text in part.texts)


def _measure_loads(
    recipe: Recipe, shape: EncoderShape, texts: Texts, machine: Machine
) -> tuple[Load, Load]:
    """Of the steps of an epoch, and of one validation, as long as the texts of training."""
    sampled, most = len(texts.lengths), MAX_TOKENS[machine.device]
    training = measure_training_load(texts.lengths, recipe.training.batch_size, shape, most)
    validation = measure_load(texts.lengths[: max(1, texts.num_validation)], shape, most)
    measured = min(sampled, max(1, texts.num_validation))
    return (
        training.scale(texts.num_train / sampled),
        validation.scale(texts.num_validation / measured),
    )


def _choose_sizes(
    recipe: Recipe, shape: EncoderShape, texts: Texts, machine: Machine
) -> LayerSizes:
    length = -(-max(1, round(float(texts.lengths.mean()))) // 8) * 8
    most = max(1, MAX_TOKENS[machine.device] // length)
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
    machine: Machine,
    speed: Speed,
) -> tuple[float, float]:
    """Seconds spent once, and in each epoch."""
    training, validation = loads
    steps = math.ceil(training.texts / recipe.training.batch_size)
    kept = find_lowest(plan) if _keeps_prefix(recipe, shape, training, machine) else 0
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


def _keeps_prefix(recipe: Recipe, shape: EncoderShape, load: Load, machine: Machine) -> bool:
    """Whether training will keep the output of frozen layers; as `prefix` decides it."""
    size = load.rows * shape.width * machine.itemsize
    return (
        shape.is_packed
        and recipe.dropout.backbone == 0.0
        and recipe.rereads_prefix
        and size <= recipe.training.prefix_cache_gb * 1e9
    )
