"""Linear heads: exact counts, the engine's parity, export and reload, PEFT's own loader."""

import numpy as np
import pytest
import torch
from conftest import FAMILIES, save_encoder, tiny_recipe
from peft import PeftModel

import textlora
from textlora.data.labelled_texts import load_labelled_texts
from textlora.model import encoder, encoder_files
from textlora.model.adapter_plan import plan_adapter
from textlora.model.batching import make_batch, tokenize
from textlora.model.engine import Engine
from textlora.model.heads import pool
from textlora.model.shapes import find_new_parameters, read_shapes
from textlora.model.torch_backend import compute_logits
from textlora.prediction.openvino_backend import OpenVinoBackend
from textlora.prediction.openvino_conversion import convert
from textlora.prediction.predictor import Predictor
from textlora.settings import ModelSettings, load_recipe
from textlora.system.progress import Reporter
from textlora.training.pipeline import train_run

QUIET = Reporter(quiet=True)
TEXTS = ["goal match", "bank shares profit market price", "rocket", "the moon of the crew"]
LABELS = ("a", "b", "c")


def load(folder, head):
    files = encoder_files.locate_encoder(ModelSettings(name=str(folder)))
    torch.manual_seed(0)
    return encoder.load_encoder(files, LABELS, head=head), encoder.load_tokenizer(folder, "tiny")


@pytest.mark.parametrize("head", ["first", "mean"])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_engine_gives_what_the_definition_says(family, head, tmp_path):
    folder = save_encoder(tmp_path / family, family)
    loaded, tokenizer = load(folder, head)
    model = loaded.model.eval()
    tokens = tokenize(tokenizer, TEXTS, 64)
    with torch.no_grad():
        found = Engine(model, tokenizer.pad_token_id)(make_batch(tokens, np.arange(len(TEXTS))))
        for row, text in zip(found, TEXTS, strict=True):
            alone = tokenizer(text, return_tensors="pt")
            hidden = model.base_model(
                input_ids=alone["input_ids"], attention_mask=alone["attention_mask"]
            ).last_hidden_state[0]
            wanted = model.classifier(hidden[0] if head == "first" else hidden.mean(dim=0))
            assert torch.allclose(row, wanted, atol=1e-5), (family, head, text)


@pytest.mark.parametrize("head", ["first", "mean"])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_only_the_linear_layer_is_new(family, head, tmp_path):
    loaded, _ = load(save_encoder(tmp_path / family, family), head)
    assert set(loaded.new_parameters) == {"classifier.weight", "classifier.bias"}
    plan = plan_adapter(
        read_shapes(loaded.model), loaded.new_parameters, load_recipe("quickstart").adapter
    )
    assert plan.head_parameters == 32 * 3 + 3


def test_the_plan_knows_the_head_without_weights(tmp_path):
    """At RoBERTa-base's size: 768 x 4 weights and 4 biases."""
    config = encoder.read_model_config(ModelSettings(name="FacebookAI/roberta-base"), ("a",) * 4)
    shapes = read_shapes(encoder.build_skeleton(config, "mean"))
    new = find_new_parameters(shapes, None)
    assert plan_adapter(shapes, new, load_recipe("quickstart").adapter).head_parameters == 3_076


def test_a_stored_head_of_the_same_name_is_not_kept(tmp_path):
    """A fine-tuned BERT has a classifier.weight of its own, which read something else."""
    loaded, tokenizer = load(save_encoder(tmp_path / "a"), "own")
    loaded.model.save_pretrained(tmp_path / "tuned")
    tokenizer.save_pretrained(tmp_path / "tuned")
    again, _ = load(tmp_path / "tuned", "mean")
    assert not torch.equal(again.model.classifier.weight, loaded.model.classifier.weight)
    shapes = read_shapes(encoder.build_skeleton(again.model.config, "mean"))
    new = find_new_parameters(shapes, tmp_path / "tuned")
    assert set(new) == set(again.new_parameters) == {"classifier.weight", "classifier.bias"}


def test_padding_adds_nothing_to_the_mean():
    hidden = torch.tensor([[[1.0], [3.0], [9.0]], [[5.0], [float("nan")], [float("inf")]]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert pool(hidden, mask, "mean").tolist() == [[2.0], [5.0]]


@pytest.mark.parametrize("head", ["first", "mean"])
@pytest.mark.parametrize("family", ["bert", "mpnet", "distilbert"])
def test_a_linear_head_survives_the_bundle(family, head, data_folder, tmp_path):
    """Trained, verified in a fresh process, loaded by us and by PEFT: the same answers."""
    model = save_encoder(tmp_path / family, family)
    recipe = tiny_recipe(
        model, data_folder, f"model.head={head}", "training.epochs=6",
        "training.average_decay=0.9", "training.precision=fp32",
    )  # fmt: skip
    run = tmp_path / "run"
    result = train_run(recipe, load_labelled_texts(recipe.data), run, resume="auto", report=QUIET)
    assert result.reload_difference < 1e-5
    assert result.evaluations[-1].scores.accuracy > 0.7  # by chance a third
    assert "textlora.load_base_model" in (run / "adapter/README.md").read_text("utf-8")
    ours = Predictor.load(run).predict_proba(TEXTS).values
    base = textlora.load_base_model(run)
    theirs = PeftModel.from_pretrained(base, str(run / "adapter")).eval()
    tokenizer = encoder.load_tokenizer(run / "adapter", "adapter")
    with torch.no_grad():
        logits = theirs(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits
    from textlora.runs.run_folder import read_manifest

    shares = (logits / read_manifest(run).temperature).softmax(dim=1).numpy()
    assert np.abs(ours - shares).max() < 1e-5


@pytest.mark.parametrize("head", ["first", "mean"])
@pytest.mark.parametrize("family", ["bert", "mpnet", "distilbert"])
def test_openvino_reads_what_torch_reads(family, head, tmp_path):
    pytest.importorskip("openvino")
    loaded, tokenizer = load(save_encoder(tmp_path / family, family), head)
    model, tokens = loaded.model.eval(), tokenize(tokenizer, TEXTS, 64)
    engine = Engine(model, tokenizer.pad_token_id)
    expected = compute_logits(engine, tokens)
    graph = convert(model, tokenizer.pad_token_id, 32, 47)
    backend = OpenVinoBackend(graph, "float32", tokenizer.pad_token_id)
    assert np.abs(backend.compute_logits(tokens) - expected).max() < 1e-5
