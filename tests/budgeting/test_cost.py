"""What a plan costs: exact bytes, positive time and memory, more for more, for every family."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from conftest import FAMILIES, make_rows, save_encoder, tiny_recipe, write_csv

from textlora.budgeting.budget import plan_recipe
from textlora.budgeting.cost import Texts, assume_texts, estimate_cost, plan_cost
from textlora.budgeting.flops import describe_encoder, measure_load, measure_training_load
from textlora.budgeting.footprint import compute_adapter_bytes, count_memory
from textlora.budgeting.machine import Machine, Speed
from textlora.cli.main import main
from textlora.data.labelled_texts import load_labelled_texts
from textlora.model.adapter_plan import plan_adapter
from textlora.model.shapes import find_shapes
from textlora.settings import load_recipe
from textlora.system.progress import Reporter
from textlora.training.pipeline import fit_run

LABELS = ("a", "b", "c")
ROBERTA = "FacebookAI/roberta-base"


def count(recipe, lengths=(50,) * 64, itemsize=4):
    """Bytes of adapter and memory."""
    shapes, plan = find_shapes(recipe.model, len(LABELS)), plan_recipe(recipe, LABELS)
    shape = describe_encoder(shapes, plan, recipe.adapter.variant)
    lengths = np.array(lengths)
    loads = (measure_training_load(lengths, 16, shape, 4_096), measure_load(lengths, shape, 4_096))
    return compute_adapter_bytes(shapes, plan), count_memory(recipe, plan, shape, loads, itemsize)


@pytest.mark.parametrize("variant", ["lora", "dora"])
def test_bytes_are_those_of_the_file_that_training_writes(
    tiny_bert, data_folder, tmp_path, variant
):
    """tests/test_pipeline.py has the same for each family."""
    changes = (f"adapter.variant={variant}", "training.epochs=0.1", "model.head=mean")
    recipe = tiny_recipe(tiny_bert, data_folder, *changes)
    texts = load_labelled_texts(recipe.data)
    fit_run(recipe, texts, tmp_path, resume="never", report=Reporter(quiet=True))
    plan = plan_recipe(recipe, texts.labels)
    cost = plan_cost(recipe, plan, texts.labels, texts)
    written = (tmp_path / "adapter" / "adapter_model.safetensors").stat().st_size
    assert cost.adapter_bytes == written
    assert (cost.num_texts, cost.num_validation) == (192, 48)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_costs_are_positive_numbers_for_every_family(family, tmp_path):
    recipe = tiny_recipe(save_encoder(tmp_path / family, family), "unused.csv")
    cost = plan_cost(recipe, plan_recipe(recipe, LABELS), LABELS, None)
    for value in (cost.adapter_bytes, cost.memory_bytes, cost.epoch_seconds, cost.seconds):
        assert 0 < value < math.inf
    assert cost.seconds == pytest.approx(3 * cost.epoch_seconds + cost.once_seconds)
    assert (cost.num_texts + cost.num_validation, cost.mean_tokens) == (1_000, 50)
    assert cost.memory_bytes > 200_000_000  # of the libraries


def test_higher_ranks_and_more_matrices_are_more_bytes():
    plans = [
        ("1", '{"last 1" = ["query"]}'), ("8", '{"last 1" = ["query"]}'),
        ("8", '{"last 1" = ["query", "ffn"]}'), ("8", '{"last 4" = ["query", "ffn"]}'),
        ("8", '{all = ["query", "ffn"]}'), ("64", '{all = ["query", "ffn"]}'),
    ]  # fmt: skip
    found = [
        count(load_recipe("quickstart", [f"adapter.rank={rank}", f"adapter.targets={targets}"],
                          model__name=ROBERTA))
        for rank, targets in plans
    ]  # fmt: skip
    for less, more in zip(found, found[1:], strict=False):
        assert less[0] < more[0]
        assert less[1] <= more[1]
    assert found[0][1] < found[-1][1]


def test_longer_texts_and_wider_numbers_take_more_memory():
    recipe = load_recipe("reference")
    short, long = count(recipe)[1], count(recipe, (200,) * 64)[1]
    assert 4 * 124_000_000 < short < long
    assert count(recipe, itemsize=2)[1] < short


def predict(recipe, texts=None):
    shapes = find_shapes(recipe.model, len(LABELS))
    plan, texts = plan_recipe(recipe, LABELS), texts or assume_texts(recipe)
    # The same machine for two plans: what is compared is the counting.
    machine = Machine("cpu", "float32", 2, 0)
    return estimate_cost(recipe, plan, shapes, texts, machine, Speed(1e10, 1e10, 1e-9))


def test_time_grows_with_rank_matrices_layers_texts_and_epochs():
    def seconds(*changes, texts=None):
        recipe = load_recipe("quickstart", changes, model__name=ROBERTA)
        return predict(recipe, texts).seconds

    no_prefix = "training.prefix_cache_gb=0"
    steps = [
        seconds('adapter.targets={"last 1" = ["query"]}', no_prefix),
        seconds('adapter.targets={"last 2" = ["query"]}', no_prefix),
        seconds('adapter.targets={all = ["query"]}'),
        seconds('adapter.targets={all = ["query"]}', "adapter.rank=64"),
        seconds('adapter.targets={all = ["query", "key", "ffn"]}', "adapter.rank=64"),
        seconds('adapter.targets={all = ["query", "key", "ffn"]}', "adapter.rank=64",
                "training.epochs=9"),
    ]  # fmt: skip
    assert steps == sorted(set(steps))
    long = Texts(np.full(850, 100), 850, 150)
    assert seconds(texts=long) > seconds()
    assert seconds(texts=replace(long, num_train=1_700)) > seconds(texts=long)


def test_what_is_kept_of_frozen_layers_saves_time():
    last = 'adapter.targets={"last 2" = ["query", "value"]}'

    def find(*changes):
        return predict(load_recipe("quickstart", [last, *changes], model__name=ROBERTA))

    kept, anew = find(), find("training.prefix_cache_gb=0")
    assert kept.once_seconds > 0.0
    assert kept.epoch_seconds < 0.5 * anew.epoch_seconds
    assert kept.seconds < anew.seconds
    # Nothing is kept for one epoch, where it would be too large, or where dropout is inside.
    for change in ("training.epochs=1", "training.prefix_cache_gb=0.01", "dropout.backbone=0.1",
                   "dropout.scope=all"):  # fmt: skip
        assert find(change).once_seconds == 0.0, change


def test_a_sample_of_the_lengths_stands_for_all():
    recipe = load_recipe("quickstart", model__name=ROBERTA)
    lengths = np.random.default_rng(0).integers(10, 90, 4_000)
    whole = predict(recipe, Texts(lengths, 4_000, 400)).epoch_seconds
    part = predict(recipe, Texts(lengths[:1_000], 4_000, 400)).epoch_seconds
    assert part == pytest.approx(whole, rel=0.05)


def run_plan(capsys, *words):
    with pytest.raises(SystemExit) as stopped:
        main(["plan", *words])
    assert not stopped.value.code
    return capsys.readouterr().out


def test_plan_tells_the_cost_with_and_without_data(tiny_bert, tmp_path, capsys, no_sockets):
    data = write_csv(tmp_path / "three.csv", make_rows(60))
    words = ("--recipe", "quickstart", "--model", str(tiny_bert))
    assert "for 4 labels, 850 training and 150 validation texts of 50 tokens; --data" in run_plan(
        capsys, *words
    )
    told = json.loads(run_plan(capsys, *words, "--data", str(data), "--json"))["cost"]
    assert (told["num_texts"], told["num_validation"]) == (51, 9)
    assert 10 < told["mean_tokens"] < 22
    assert told["tokenizer"] == str(tiny_bert)
    # A well-known model that is not here: its sizes are known, its tokens those of another.
    known = run_plan(capsys, "--model", ROBERTA, "--data", str(data))
    assert "by the tokenizer of embedded:minilm" in known
    assert no_sockets == []


def test_labels_of_the_data_are_counted(tiny_bert, tmp_path, capsys):
    data = write_csv(tmp_path / "three.csv", make_rows(60))
    words = ("--recipe", "quickstart", "--model", str(tiny_bert), "--json")
    with_data = json.loads(run_plan(capsys, *words, "--data", str(data)))
    assert (
        with_data["trainable"]
        == json.loads(run_plan(capsys, *words, "--num-labels", "3"))["trainable"]
    )


def test_the_plan_of_a_lost_layer_counts_its_bytes(tiny_bert):
    shapes = find_shapes(tiny_recipe(tiny_bert, "x", "model.head=own").model, len(LABELS))
    names = list(shapes.parameters)
    settings = load_recipe("quickstart").adapter
    lost = [n for n in names if n.startswith(("classifier", "bert.pooler"))]
    few = plan_adapter(shapes, [n for n in names if n.startswith("classifier")], settings)
    more = compute_adapter_bytes(shapes, plan_adapter(shapes, lost, settings))
    assert more - compute_adapter_bytes(shapes, few) > 4 * (32 * 32 + 32)
