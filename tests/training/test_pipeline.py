"""From data to a saved run and back, for every family of encoders."""

import shutil

import numpy as np
import pytest
import transformers
from conftest import FAMILIES, save_encoder, tiny_recipe
from safetensors.torch import load_file, save_file

from textlora.budgeting.footprint import compute_adapter_bytes
from textlora.data.labelled_texts import load_labelled_texts
from textlora.errors import ModelError, SettingsError
from textlora.model.batching import tokenize
from textlora.model.encoder import build_skeleton
from textlora.model.shapes import read_shapes
from textlora.model.torch_backend import compute_logits
from textlora.prediction.predictor import Predictor
from textlora.runs.verify import compute_saved_logits
from textlora.scoring.tasks import compute_softmax
from textlora.system.progress import Reporter
from textlora.training.pipeline import copy_pictures, fit_run, train_run
from textlora.training.repeats import train_repeats

QUIET = Reporter(quiet=True)


def fit(folder, data_folder, run, *changes):
    changes = ("training.epochs=1", 'adapter.targets={all = ["query", "ffn"]}', *changes)
    recipe = tiny_recipe(folder, data_folder, *changes)
    texts = load_labelled_texts(recipe.data)
    setup, _ = fit_run(recipe, texts, run, resume="never", report=QUIET)
    probes = texts.validation.texts
    tokens = tokenize(setup.tokenizer, probes, setup.max_length)
    logits = compute_logits(setup.engine, tokens)
    skeleton = build_skeleton(setup.model.config, recipe.model.head)
    written = (run / "adapter" / "adapter_model.safetensors").stat().st_size
    assert compute_adapter_bytes(read_shapes(skeleton), setup.plan) == written
    return probes, logits


@pytest.mark.parametrize("family", ["bert", "roberta", "mpnet", "distilbert", "electra",
                                    "deberta-v2", "modernbert"])  # fmt: skip
def test_every_family_answers_the_same_after_saving_and_loading(tmp_path, data_folder, family):
    assert family in FAMILIES
    folder = save_encoder(tmp_path / "encoder", family)
    probes, logits = fit(folder, data_folder, tmp_path / "run")
    assert np.array_equal(compute_saved_logits(tmp_path / "run", probes), logits)
    # The merged classifier rounds its weights to bfloat16 anew.
    predictor = Predictor.load(tmp_path / "run")
    shares = predictor.predict_proba(probes).values
    expected = compute_softmax(logits, 3, predictor.temperature)
    assert np.abs(shares - expected).max() < 0.05


def test_a_layer_that_the_checkpoint_lacks_survives_saving(tmp_path, data_folder):
    """PEFT alone would leave this pooler random and lose it."""
    folder = save_encoder(tmp_path / "encoder", "bert")
    config = transformers.BertConfig.from_pretrained(folder)
    transformers.BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    probes, logits = fit(folder, data_folder, tmp_path / "run")
    assert np.array_equal(compute_saved_logits(tmp_path / "run", probes), logits)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_projection_that_the_checkpoint_lacks_is_trained(tmp_path, data_folder, precision):
    """It stands before all layers, so that none of them computes the same in every epoch."""
    folder = save_encoder(tmp_path / "encoder", "electra")
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "embeddings_project" not in name}
    assert len(kept) == len(weights) - 2
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    changes = ("training.epochs=2", f"training.precision={precision}",
               'adapter.targets={"last 1" = ["query"]}')  # fmt: skip
    probes, logits = fit(folder, data_folder, tmp_path / "run", *changes)
    assert np.array_equal(compute_saved_logits(tmp_path / "run", probes), logits)


def test_files_of_somebody_else_are_not_replaced(tmp_path, tiny_bert, data_folder):
    recipe = tiny_recipe(tiny_bert, data_folder, "training.epochs=1")
    texts = load_labelled_texts(recipe.data)
    for name in ("predictions", "visualizations", "adapter"):
        own = tmp_path / name / name / "mine.txt"
        own.parent.mkdir(parents=True)
        own.write_text("mine")
        for resume in ("auto", "never"):
            with pytest.raises(SettingsError, match=f"holds '{name}', which textlora did not"):
                train_run(recipe, texts, tmp_path / name, resume=resume, report=QUIET)
        with pytest.raises(SettingsError, match=f"holds '{name}', which textlora did not"):
            train_repeats(recipe, texts, tmp_path / name, 2, resume="auto", report=QUIET)
        assert own.read_text() == "mine"


def test_running_the_same_command_again_changes_nothing(tmp_path, tiny_bert, data_folder):
    recipe = tiny_recipe(tiny_bert, data_folder, "training.epochs=1")
    texts = load_labelled_texts(recipe.data)
    first = train_run(recipe, texts, tmp_path / "run", resume="auto", report=QUIET)
    weights = (tmp_path / "run" / "adapter" / "adapter_model.safetensors").read_bytes()
    again = train_run(recipe, texts, tmp_path / "run", resume="auto", report=QUIET)
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").read_bytes() == weights
    assert [e.scores for e in again.evaluations] == [e.scores for e in first.evaluations]


def test_a_run_that_does_not_reload_is_not_finished(tmp_path, tiny_bert, data_folder, monkeypatch):
    """The base vanishes between saving and checking."""
    folder = tmp_path / "encoder"
    shutil.copytree(tiny_bert, folder)
    recipe = tiny_recipe(folder, data_folder, "training.epochs=1")
    texts = load_labelled_texts(recipe.data)

    class Saboteur(Reporter):
        def say(self, message):
            if message.startswith("saving"):
                (folder / "model.safetensors").unlink()

    with pytest.raises(ModelError, match="does not load again"):
        train_run(recipe, texts, tmp_path / "run", resume="auto", report=Saboteur(quiet=True))
    assert not (tmp_path / "run" / "manifest.json").exists()


@pytest.mark.parametrize(
    "lost", ["embeddings.LayerNorm", "encoder.layer.0.", "encoder.layer.1.output.LayerNorm.bias"]
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_lost_layer_inside_the_encoder_is_trained_and_kept(
    tmp_path, data_folder, lost, precision
):
    folder = save_encoder(tmp_path / "encoder", "bert")
    path = folder / "model.safetensors"
    kept = {name: t for name, t in load_file(path).items() if not name.startswith(lost)}
    save_file(kept, path, metadata={"format": "pt"})
    change = f"training.precision={precision}"
    probes, logits = fit(folder, data_folder, tmp_path / "run", change)
    assert np.array_equal(compute_saved_logits(tmp_path / "run", probes), logits)


def test_pictures_may_be_asked_for_where_they_are(tiny_run):
    pictures = tuple((tiny_run / "visualizations").iterdir())
    assert pictures
    copy_pictures(pictures, tiny_run / "visualizations" / ".." / "visualizations")
