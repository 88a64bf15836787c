"""Budgets: never exceeded, counted as training counts, understood as people write them."""

import json
import shutil

import pytest
import transformers
from conftest import FAMILIES, SIZES, save_encoder, save_tokenizer, tiny_recipe
from peft import PeftModel

from textlora.budgeting.budget import fit_budget, parse_budget, plan_recipe
from textlora.cli.main import main
from textlora.data.labelled_texts import load_labelled_texts
from textlora.errors import SettingsError
from textlora.settings import load_recipe
from textlora.training.training_setup import prepare_training

LABELS = ("a", "b", "c", "d")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1M", 1_000_000), ("500k", 500_000), ("0.5%", 620), ("814,852", 814_852), ("1_000", 1_000),
        ("1.5 m", 1_500_000), (".5k", 500), ("1,234,567", 1_234_567), ("1,500.5k", 1_500_500),
    ],
)  # fmt: skip
def test_a_budget_is_understood_as_written(text, expected):
    assert parse_budget(text, 124_000) == expected


@pytest.mark.parametrize(
    "text",
    ["", "0", "-5", "a lot", "1G", "1M parameters", "1e6", "nan", "%", "0,5%", "1,5M", "0,500k",
     "12,34", "9" * 400, "9" * 305 + "M"],
)  # fmt: skip
def test_what_is_no_budget_is_refused(text):
    with pytest.raises(SettingsError, match="not understood; write a number such as"):
        parse_budget(text, 1_000)


def test_the_most_accurate_recipe_is_what_a_million_buys():
    """Of the encoder that it names: not a rank more would fit."""
    best = load_recipe("best")
    found = fit_budget(best, LABELS, "1M")
    assert found.recipe == best
    assert found.plan.trainable == 998_404
    assert plan_recipe(load_recipe("frugal"), LABELS).trainable == 168_964


@pytest.mark.parametrize("recipe", ["reference", "quickstart"])
def test_no_budget_is_exceeded_and_more_never_buys_a_narrower_plan(recipe):
    """Over four decades, at RoBERTa-base's size."""
    resolved = load_recipe(recipe, model__name="FacebookAI/roberta-base")
    widths = []
    for budget in (
        4_612,
        5_000,
        9_999,
        20_000,
        50_000,
        100_000,
        333_333,
        814_852,
        1_000_000,
        10**8,
    ):
        found = fit_budget(resolved, LABELS, str(budget))
        assert found.smallest <= found.plan.trainable <= budget
        widths.append(len(found.plan.matrices))
        adapter = found.recipe.adapter
        assert adapter.alpha / adapter.rank == resolved.adapter.alpha / resolved.adapter.rank
    assert widths == sorted(widths)


def test_the_smallest_that_works_works_and_one_less_does_not():
    recipe = load_recipe("reference")
    smallest = fit_budget(recipe, LABELS, "1M").smallest
    assert smallest == 3_076 + 768 + 768
    assert fit_budget(recipe, LABELS, str(smallest)).plan.trainable == smallest
    with pytest.raises(SettingsError, match=r"too few for .*; the smallest that works is 4,612"):
        fit_budget(recipe, LABELS, str(smallest - 1))


@pytest.mark.parametrize("variant", ["lora", "dora"])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_what_is_planned_is_what_peft_trains(family, variant, data_folder, tmp_path):
    model = save_encoder(tmp_path / family, family)
    recipe = tiny_recipe(model, data_folder, f"adapter.variant={variant}")
    texts = load_labelled_texts(recipe.data)
    found = fit_budget(recipe, texts.labels, "3000")
    setup = prepare_training(found.recipe, texts)
    assert isinstance(setup.model, PeftModel)
    trained = sum(p.numel() for p in setup.model.parameters() if p.requires_grad)
    assert trained == found.plan.trainable <= 3_000


def test_a_linear_head_that_is_named_stays():
    recipe = load_recipe("quickstart", ["model.head=first"])
    assert fit_budget(recipe, LABELS, "50k").recipe.model.head == "first"


def test_of_the_sets_those_count_that_the_encoder_has(tmp_path, tiny_bert):
    """One layer has no last two; a layer that the checkpoint lacks is trained whole."""
    folder = shutil.copytree(tiny_bert, tmp_path / "bert")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    one = fit_budget(load_recipe("quickstart", model__name=str(folder)), LABELS, "3k")
    assert {matrix.layer for matrix in one.plan.matrices} == {0}
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    lacking = fit_budget(load_recipe("quickstart", model__name=str(folder)), LABELS, "20k")
    assert {matrix.layer for matrix in lacking.plan.matrices} == {0, 1}
    assert lacking.plan.trainable <= 20_000


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_no_single_matrix_costs_less_than_the_smallest_budget(family, tmp_path):
    """Also where query, key and value are one matrix, as in ModernBERT."""
    recipe = load_recipe("quickstart", ["model.head=mean", "adapter.rank=1"],
                         model__name=str(save_encoder(tmp_path / family, family)))  # fmt: skip
    smallest = fit_budget(recipe, LABELS, "100k").smallest
    for term in ("query", "key", "value", "output", "ffn_in", "ffn_out"):
        one = load_recipe("quickstart", ["model.head=mean", "adapter.rank=1",
                                         f'adapter.targets={{"last 1"=["{term}"]}}'],
                          model__name=recipe.model.name)  # fmt: skip
        assert plan_recipe(one, LABELS).trainable >= smallest
    assert fit_budget(recipe, LABELS, str(smallest)).plan.trainable == smallest


def test_a_budget_goes_to_the_matrices_that_there_are(tmp_path):
    """DeBERTa's first version has query, key and value under no name that can be adapted."""
    config = transformers.DebertaConfig(**SIZES, vocab_size=64, intermediate_size=64)
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    found = fit_budget(load_recipe("quickstart", model__name=str(tmp_path)), LABELS, "1k")
    assert [matrix.terms for matrix in found.plan.matrices] == [("output",)]


def test_a_strength_that_no_rank_can_have_is_refused_before_training(tiny_bert):
    recipe = load_recipe("quickstart", ["adapter.alpha=1e6", "adapter.rank=1"],
                         model__name=str(tiny_bert))  # fmt: skip
    with pytest.raises(SettingsError, match=r"--budget: rank 2 would need adapter.alpha = 2e\+06"):
        fit_budget(recipe, LABELS, "2k")


def test_a_rank_that_no_matrix_can_use_is_refused(tiny_bert):
    recipe = load_recipe("quickstart", ["adapter.rank=65"], model__name=str(tiny_bert))
    with pytest.raises(SettingsError, match=r"rank: 65 is more than .*query can use; lower it to"):
        plan_recipe(recipe, LABELS)


def run_command(*words):
    with pytest.raises(SystemExit) as stopped:
        main(list(words))
    return stopped.value.code or 0


def test_plan_and_train_agree(tiny_bert, data_folder, tmp_path, capsys):
    words = ("--recipe", "quickstart", "--model", str(tiny_bert), "--budget", "2k")
    assert run_command("plan", *words, "--num-labels", "3", "--json") == 0
    planned = json.loads(capsys.readouterr().out)
    assert planned["smallest"] <= planned["trainable"] <= planned["budget"] == 2_000
    run = tmp_path / "run"
    train = ("train", *words, "--data", str(data_folder), "--out", str(run), "--json")
    assert run_command(*train, "--set", "training.epochs=1") == 0
    assert json.loads(capsys.readouterr().out)["trainable_parameters"] == planned["trainable"]
    trained = load_recipe(str(run / "recipe.toml"))
    assert (trained.model.head, trained.adapter.model_dump(mode="json")) == (
        planned["head"], planned["adapter"],
    )  # fmt: skip
    assert run_command("plan", *words) == 0
    shown = capsys.readouterr().out
    assert "the smallest that works is" in shown
    assert "rank 2, alpha 4 in all: query" in shown
    assert "for 4 labels, " in shown


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("adapter.rank=3", "--budget: chooses adapter.rank, which is set too"),
        ('adapter.targets={0=["key"]}', "--budget: chooses adapter.targets, which is set too"),
        ("model.head=own", "--budget: takes a linear head, and model.head is set to 'own'"),
    ],
)
def test_what_a_budget_chooses_cannot_be_set_too(word, reason, tiny_bert, tmp_path, capsys):
    words = ("--recipe", "quickstart", "--model", str(tiny_bert), "--budget", "2k", "--set", word)
    assert run_command("plan", *words) == 2
    assert reason in capsys.readouterr().err
    out = str(tmp_path / "run")
    assert run_command("train", *words, "--data", "embedded:headlines", "--out", out) == 2
    assert reason in capsys.readouterr().err


def test_labels_are_counted_or_given_and_not_both(capsys):
    words = ("plan", "--recipe", "quickstart", "--data", "embedded:headlines", "--num-labels", "3")
    assert run_command(*words) == 2
    assert "--num-labels: --data has its own" in capsys.readouterr().err


def test_a_budget_that_is_too_small_is_a_line(tiny_bert, capsys):
    code = run_command("plan", "--recipe", "quickstart", "--model", str(tiny_bert), "--budget", "9")
    error = capsys.readouterr().err
    assert code == 2
    assert error.startswith("textlora: --budget: 9 parameters are too few")
    assert error.count("\n") == 1


def test_a_folder_without_weights_is_planned_and_says_what_is_unknown(
    tmp_path, capsys, data_folder
):
    """Of a family that is known, and of one that transformers builds."""
    for family in ("bert", "modernbert"):
        folder = save_encoder(tmp_path / family, family)
        words = ("--recipe", "quickstart", "--model", str(folder))
        assert run_command("plan", *words, "--json") == 0
        whole = json.loads(capsys.readouterr().out)
        (folder / "model.safetensors").unlink()
        assert run_command("plan", *words, "--json") == 0
        bare = json.loads(capsys.readouterr().out)
        assert (whole.pop("new_layers_known"), bare.pop("new_layers_known")) == (True, False)
        assert whole.pop("cost")["adapter_bytes"] == bare.pop("cost")["adapter_bytes"]
        assert bare == whole  # these checkpoints lack the head alone
        assert run_command("plan", *words) == 0
        shown = capsys.readouterr().out
        assert f"{folder} has no weights, so layers that the checkpoint lacks are unknown" in shown
        train = ("train", *words, "--data", str(data_folder), "--out", str(tmp_path / "run"))
        assert run_command(*train) == 4
        assert "no .safetensors weights in it" in capsys.readouterr().err
        sweep = ("sweep", *words, "--data", str(data_folder), "--out", str(tmp_path / "sweep"))
        assert run_command(*sweep) == 4
        assert "no .safetensors weights in it" in capsys.readouterr().err
        assert not (tmp_path / "sweep").exists()
    (folder / "config.json").unlink()
    assert run_command("plan", *words) == 4
    assert "no config.json in it; give an encoder folder" in capsys.readouterr().err


def test_a_folder_without_weights_counts_tokens_by_what_it_has(tmp_path, capsys, data_folder):
    folder = save_encoder(tmp_path / "bert")
    (folder / "model.safetensors").unlink()
    words = ("--recipe", "quickstart", "--model", str(folder), "--data", str(data_folder))
    assert run_command("plan", *words, "--json") == 0
    assert json.loads(capsys.readouterr().out)["cost"]["tokenizer"] == str(folder)
    for path in folder.glob("token*"):
        path.unlink()
    assert run_command("plan", *words, "--json") == 0
    assert json.loads(capsys.readouterr().out)["cost"]["tokenizer"] == "embedded:minilm"
