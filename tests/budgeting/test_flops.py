"""Operations are those that torch counts in the engine's own steps."""

import numpy as np
import pytest
import torch
import transformers
from conftest import FAMILIES
from torch.utils.flop_counter import FlopCounterMode

from textlora.budgeting.flops import (
    count_forward,
    count_prefix,
    count_training,
    describe_encoder,
    find_lowest,
    measure_load,
    measure_training_load,
)
from textlora.model.adapter_plan import plan_adapter
from textlora.model.adapters import attach_adapter
from textlora.model.batching import TokenizedTexts, make_batch
from textlora.model.encoder import build_skeleton
from textlora.model.engine import Engine
from textlora.model.heads import install_head
from textlora.model.shapes import find_new_parameters, read_shapes
from textlora.settings import AdapterSettings, DropoutSettings

LENGTHS = np.array([40, 31, 12, 60, 25, 33, 8, 50])
ALL = ("query", "key", "value", "output", "ffn")
TARGETS = {
    "query and value": {"all": ("query", "value")},
    "all": {"all": ALL},
    "last": {"last 1": ("query", "value")},
    "output of the middle": {"1": ("output",)},
    "second half of the middle": {"1": ("ffn_out",)},
    "first half, from the middle": {"1-2": ("ffn_in",)},
}


def make(family="bert", targets=None, head="own", **changes):
    """A skeleton with three layers, its plan and its shape."""
    config_class, sizes = FAMILIES[family]
    sizes = {**sizes, "vocab_size": 64, **changes}
    depth = "n_layers" if family == "distilbert" else "num_hidden_layers"
    skeleton = build_skeleton(config_class(**{**sizes, depth: 3}), head)
    settings = AdapterSettings(rank=2, targets=targets or TARGETS["query and value"])
    shapes = read_shapes(skeleton)
    plan = plan_adapter(shapes, find_new_parameters(shapes, None), settings)
    return skeleton, plan, describe_encoder(shapes, plan, "lora")


def count_by_torch(skeleton, plan, *, training, start=0):
    """Of one batch through the engine."""
    model = transformers.AutoModelForSequenceClassification.from_config(skeleton.config)
    install_head(model, getattr(skeleton, "pooling", "own"))
    settings, dropout = AdapterSettings(rank=2), DropoutSettings(start=0.0, end=0.0)
    wrapped = attach_adapter(model, plan, settings, dropout)
    engine = Engine(wrapped, 0)
    offsets = np.concatenate([[0], np.cumsum(LENGTHS)])
    ids = np.full(offsets[-1], 5, np.int32)
    batch = make_batch(TokenizedTexts(ids, offsets, LENGTHS > 999), np.arange(len(LENGTHS)))
    with torch.no_grad():
        rows = engine.compute_prefix(batch) if start else None
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(training):
        logits = engine(batch, rows)
        if training:
            logits.sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("head", ["own", "mean"])
@pytest.mark.parametrize("targets", TARGETS)
def test_a_step_is_counted_as_torch_counts_it(targets, head):
    wide = {"hidden_size": 128, "intermediate_size": 512, "num_attention_heads": 4,
            "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}  # fmt: skip
    skeleton, plan, shape = make("bert", TARGETS[targets], head, **wide)
    load = measure_training_load(LENGTHS, len(LENGTHS), shape, 4_096)
    lowest = find_lowest(plan)
    whole = count_training(shape, plan, load, 0)
    short = count_training(shape, plan, load, lowest)
    # The update in place of an adapter (a sixth of its operations) is not known to torch's counter.
    assert whole.forward + whole.trained == pytest.approx(
        count_by_torch(skeleton, plan, training=True), rel=0.02
    )
    if lowest:
        assert short.forward == 0.0
        assert short.trained == pytest.approx(
            count_by_torch(skeleton, plan, training=True, start=lowest), rel=0.02
        )
        kept = count_prefix(shape, load, lowest).forward
        assert kept + short.trained == pytest.approx(whole.forward + whole.trained)


def test_validation_is_counted_as_torch_counts_it():
    skeleton, plan, shape = make("roberta", hidden_size=128, intermediate_size=512)
    found = count_forward(shape, plan, measure_load(LENGTHS, shape, 4_096), 0)
    expected = count_by_torch(skeleton, plan, training=False)
    assert found.forward == pytest.approx(expected, rel=0.02)
    assert found.trained == 0.0


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_more_layers_matrices_and_texts_are_more_work(family):
    def count(targets, lengths=LENGTHS):
        _, plan, shape = make(family, targets)
        found = count_training(shape, plan, measure_training_load(lengths, 4, shape, 4_096), 0)
        return found.forward + found.trained, found.adapted

    steps = [
        count({"last 1": ("query",)}),
        count({"last 1": ("query", "ffn")}),
        count({"last 2": ("query", "ffn")}),
        count({"all": ("query", "ffn")}),
        count({"all": ALL}),
        count({"all": ALL}, np.concatenate([LENGTHS, LENGTHS])),
        count({"all": ALL}, np.concatenate([LENGTHS, 2 * LENGTHS])),
    ]
    for less, more in zip(steps, steps[1:], strict=False):
        assert 0 < less[0] < more[0]
        assert 0 < less[1] < more[1]


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_shape_says_how_the_engine_runs(family):
    _, plan, shape = make(family)
    packed = family in ("bert", "roberta", "mpnet", "electra")
    assert (shape.is_packed, shape.reads_first) == (packed, packed)
    assert (shape.num_layers, shape.width, shape.heads, shape.inner) == (3, 32, 2, 64)
    skeleton, plan, mean = make(family, head="mean")
    assert not mean.reads_first
    assert not describe_encoder(read_shapes(skeleton), plan, "dora").is_packed


def test_a_layer_that_is_trained_whole_is_the_lowest():
    config = transformers.BertConfig(**FAMILIES["bert"][1], vocab_size=64)
    shapes = read_shapes(build_skeleton(config))
    names = list(shapes.parameters)
    settings = AdapterSettings(targets={"last 1": ("query",)})
    heads = find_new_parameters(shapes, None)

    def find(*lost):
        new = [*heads, *(n for n in names if n.startswith(lost))] if lost else heads
        plan = plan_adapter(shapes, new, settings)
        return find_lowest(plan), describe_encoder(shapes, plan, "lora").is_packed

    assert find() == (1, True)
    assert find("bert.pooler") == (1, True)
    assert find("bert.encoder.layer.0") == (0, False)
    assert find("bert.embeddings.LayerNorm") == (0, False)
