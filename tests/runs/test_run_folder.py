import json
import os
import pickle
import shutil
import struct
import tempfile
from pathlib import Path

import pytest
import torch
from conftest import save_encoder, tiny_recipe
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from textlora.cli.main import main
from textlora.data.labelled_texts import load_labelled_texts
from textlora.errors import ModelError
from textlora.prediction.predictor import Predictor
from textlora.runs.loaded_run import load_run
from textlora.runs.run_folder import finish_saving, read_manifest
from textlora.runs.verify import compute_saved_logits, verify_run
from textlora.system.files import describe_files
from textlora.system.progress import Reporter
from textlora.training.pipeline import fit_run

TEXTS = ["goal team match after the cup", "bank profit and loan", "orbit of the comet and crew"]


@pytest.fixture
def run(tmp_path, tiny_run) -> Path:
    copy = tmp_path / "run"
    shutil.copytree(tiny_run, copy)
    return copy


def test_a_finished_run_has_the_files_that_the_design_names(tiny_run):
    names = {path.name for path in tiny_run.iterdir()}
    assert names == {
        "recipe.toml", "labels.json", "adapter", "history.jsonl", "evaluation.json",
        "visualizations", "checkpoints", "manifest.json", ".lock", "predictions", "baseline",
        "report.html", "training.json",
    }  # fmt: skip
    assert json.loads((tiny_run / "labels.json").read_text()) == ["money", "space", "sport"]
    suffixes = {path.suffix for path in tiny_run.rglob("*") if path.is_file()}
    assert suffixes <= {".toml", ".json", ".jsonl", ".safetensors", ".png", ".md", ".html", ""}


def test_the_adapter_loads_with_pefts_own_loader_and_answers_the_same(tiny_run, tiny_bert):
    base = AutoModelForSequenceClassification.from_pretrained(tiny_bert, num_labels=3)
    model = PeftModel.from_pretrained(base, tiny_run / "adapter").eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_run / "adapter")
    logits = model(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits
    ours = load_run(tiny_run)
    expected = ours.model(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits
    # The attention kernels differ: sums of float32 in another order.
    assert torch.allclose(logits, expected, atol=1e-5)
    assert logits.argmax(dim=1).tolist() == [2, 0, 1]


def test_saving_and_loading_keeps_every_bit(tiny_run):
    first, second = load_run(tiny_run), load_run(tiny_run)
    for name, tensor in first.model.state_dict().items():
        if "original_module" in name:
            continue  # PEFT's copy of the head as it was, unused
        assert torch.equal(tensor, second.model.state_dict()[name]), name


def test_a_run_works_without_any_socket(tiny_run, no_sockets):
    assert [p.label for p in Predictor.load(tiny_run).predict(TEXTS)] == ["sport", "money", "space"]
    assert no_sockets == []


def test_a_fresh_process_gives_the_same_logits(tiny_run):
    assert verify_run(tiny_run, TEXTS, compute_saved_logits(tiny_run, TEXTS)) == 0.0


def test_other_logits_than_those_of_the_saved_run_fail(tiny_run):
    wrong = compute_saved_logits(tiny_run, TEXTS) + 0.01
    with pytest.raises(ModelError, match="answers differently"):
        verify_run(tiny_run, TEXTS, wrong)


@pytest.mark.parametrize("damage", ["truncate", "flip", "delete"])
@pytest.mark.parametrize(
    "name",
    [
        "recipe.toml",
        "labels.json",
        "adapter/adapter_model.safetensors",
        "adapter/adapter_config.json",
        "adapter/tokenizer.json",
    ],
)
def test_a_damaged_file_is_refused_by_name(run, name, damage):
    content = bytearray((run / name).read_bytes())
    if damage == "truncate":
        (run / name).write_bytes(content[:-3])
    elif damage == "flip":
        content[len(content) // 2] ^= 1
        (run / name).write_bytes(content)
    else:
        (run / name).unlink()
    with pytest.raises(ModelError) as caught:
        load_run(run)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format_version": 1}'])
def test_a_damaged_manifest_is_refused(run, content):
    (run / "manifest.json").write_text(content)
    with pytest.raises(ModelError, match=r"manifest\.json: damaged"):
        load_run(run)


def test_a_later_format_is_refused_with_the_version_to_install(run):
    values = json.loads((run / "manifest.json").read_text())
    values |= {"format_version": 99, "textlora_version": "7.0"}
    (run / "manifest.json").write_text(json.dumps(values))
    with pytest.raises(ModelError, match="format version 99.*install textlora 7.0"):
        read_manifest(run)


def test_a_run_without_manifest_is_not_finished(run, tmp_path):
    (run / "manifest.json").unlink()
    with pytest.raises(ModelError, match="training was not finished"):
        load_run(run)
    with pytest.raises(ModelError, match="not a run folder"):
        load_run(tmp_path)
    with pytest.raises(ModelError, match="no such run folder"):
        load_run(tmp_path / "nowhere")


def test_an_adapter_for_another_base_is_refused(run, tmp_path, tiny_bert):
    other = save_encoder(tmp_path / "other", seed=1)
    values = json.loads((run / "manifest.json").read_text())
    text = (run / "recipe.toml").read_text().replace(str(tiny_bert), str(other))
    (run / "recipe.toml").write_text(text)
    values["files"] |= describe_files(run, ["recipe.toml"])
    (run / "manifest.json").write_text(json.dumps(values))
    with pytest.raises(ModelError, match="was trained on other weights"):
        load_run(run)


def test_a_configuration_that_computes_otherwise_is_refused(run, tmp_path, tiny_bert):
    base = shutil.copytree(tiny_bert, tmp_path / "base")
    for name in ("manifest.json", "recipe.toml"):
        path = run / name
        path.write_text(path.read_text().replace(str(tiny_bert), str(base)))
    values = json.loads((run / "manifest.json").read_text())
    values["files"] |= describe_files(run, ["recipe.toml"])
    (run / "manifest.json").write_text(json.dumps(values))
    load_run(run)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "hidden_act": "relu"}))
    with pytest.raises(ModelError, match=r"config\.json: is another than .* was trained with"):
        load_run(run)


def test_a_run_finds_its_base_from_another_working_folder(tmp_path, tiny_run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_run(tiny_run).labels == ("money", "space", "sport")


def test_a_missing_head_is_noticed(run):
    """PEFT itself loads such a file without a word, and the head stays random."""
    from safetensors.torch import load_file, save_file

    path = run / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    kept = {name: tensor for name, tensor in tensors.items() if "classifier" not in name}
    assert len(kept) < len(tensors)
    save_file(kept, path)
    values = json.loads((run / "manifest.json").read_text())
    values["files"] |= describe_files(run, ["adapter/adapter_model.safetensors"])
    (run / "manifest.json").write_text(json.dumps(values))
    with pytest.raises(ModelError, match=r"classifier.*missing"):
        load_run(run)


# Poison: what a stranger's run folder may hold. Nothing of it is run, no socket is opened, exit 4.


BOMB = Path(tempfile.gettempdir()) / "textlora-bomb"


class Bomb:
    def __reduce__(self):
        return (os.mkdir, (str(BOMB),))


def rewrite(run, name, content):
    """As an attacker would: with a manifest that fits."""
    (run / name).write_bytes(content)
    values = json.loads((run / "manifest.json").read_text())
    values["files"] |= describe_files(run, [name])
    (run / "manifest.json").write_text(json.dumps(values))


def add_code(run, name, values):
    (run / "adapter" / "code.py").write_text(f"import os; os.mkdir({str(BOMB)!r})")
    known = json.loads((run / "adapter" / name).read_text())
    rewrite(run, f"adapter/{name}", json.dumps({**known, **values}).encode())


def lead_outside(run):
    file = run / "adapter" / "adapter_model.safetensors"
    shutil.move(file, run.parent / "outside")
    file.symlink_to(run.parent / "outside")


def name_a_file_outside(run):
    (run.parent / "secret").write_text("secret")
    values = json.loads((run / "manifest.json").read_text())
    values["files"] |= describe_files(run, ["../secret"])
    (run / "manifest.json").write_text(json.dumps(values))


WEIGHTS = "adapter/adapter_model.safetensors"
POISON = {
    "a pickle": (
        lambda run: (run / "adapter" / "adapter_model.bin").write_bytes(pickle.dumps(Bomb())),
        "adapter_model.bin",
    ),
    "a pickle in the run": (
        lambda run: (run / "training_args.bin").write_bytes(pickle.dumps(Bomb())),
        "training_args.bin",
    ),
    "a pickle for weights": (
        lambda run: rewrite(run, WEIGHTS, pickle.dumps(Bomb())), "does not fit",
    ),
    "a huge header": (
        lambda run: rewrite(run, WEIGHTS, struct.pack("<Q", 1 << 62) + b"{}"), "does not fit",
    ),
    "a header that lies": (
        lambda run: rewrite(run, WEIGHTS, struct.pack("<Q", 80) + json.dumps(
            {"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}
        ).encode().ljust(80)), "does not fit",
    ),
    "a tokenizer with code": (
        lambda run: add_code(
            run, "tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["code.T", None]}}
        ),
        "names code",
    ),
    "an adapter with code": (
        lambda run: add_code(
            run, "adapter_config.json",
            {"auto_mapping": {"base_model_class": "T", "parent_library": "code"}},
        ),
        "names code",
    ),
    "a link outside": (lead_outside, "leads out of the folder"),
    "a path outside": (name_a_file_outside, "leads out of the folder"),
    "a broken configuration": (
        lambda run: rewrite(run, "adapter/adapter_config.json", b"[" * 100_000), "damaged",
    ),
}  # fmt: skip


@pytest.mark.parametrize("poison", POISON)
def test_a_poisoned_run_is_refused(run, poison, no_sockets, monkeypatch, capfd):
    spoil, reason = POISON[poison]
    spoil(run)
    monkeypatch.syspath_prepend(run / "adapter")  # the code would be found
    with pytest.raises(SystemExit) as ended:
        main(["predict", str(run)])
    assert ended.value.code == 4
    said = capfd.readouterr().err
    assert reason in said
    assert "Traceback" not in said
    assert not BOMB.exists()
    assert no_sockets == []


def test_a_tokenizer_that_names_code_is_saved_without(tmp_path, tiny_bert, data_folder):
    """The encoder's folder may name code for others; we use our own class, and pass none on."""
    folder = tmp_path / "encoder"
    shutil.copytree(tiny_bert, folder)
    path = folder / "tokenizer_config.json"
    values = json.loads(path.read_text()) | {"auto_map": {"AutoTokenizer": [None, "code.T"]}}
    path.write_text(json.dumps(values))
    recipe = tiny_recipe(folder, data_folder, "training.epochs=1")
    texts = load_labelled_texts(recipe.data)
    fit_run(recipe, texts, tmp_path / "run", resume="auto", report=Reporter(quiet=True))
    assert load_run(tmp_path / "run").labels == texts.labels


def test_a_classifier_that_a_crash_kept_from_its_place_is_used(run, tmp_path):
    """It was written whole; moving it is finished by whoever trains next."""
    shutil.copytree(run, run / ".next", ignore=shutil.ignore_patterns(".next", "checkpoints"))
    (run / "adapter" / "tokenizer.json").unlink()
    assert load_run(run).labels == ("money", "space", "sport")
    said = ("evaluation.json", "predictions", "visualizations", "report.html")
    assert all((run / name).exists() for name in said)
    finish_saving(run)
    assert not any((run / name).exists() for name in said)  # it was about the older one
    assert not (run / ".next").exists()
    assert (run / "adapter" / "tokenizer.json").exists()
    assert load_run(run).labels == ("money", "space", "sport")
