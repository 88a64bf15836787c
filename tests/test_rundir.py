import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import save_encoder
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from textlora.errors import ModelError
from textlora.predictor import Predictor
from textlora.rundir import load_run, read_manifest
from textlora.verify import compute_saved_logits, verify_run

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
        "visualizations", "checkpoints", "manifest.json",
    }  # fmt: skip
    assert json.loads((tiny_run / "labels.json").read_text()) == ["money", "space", "sport"]
    suffixes = {path.suffix for path in tiny_run.rglob("*") if path.is_file()}
    assert suffixes <= {".toml", ".json", ".jsonl", ".safetensors", ".png", ".md"}


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
    from textlora.files import describe_files

    values["files"] |= describe_files(run, ["recipe.toml"])
    (run / "manifest.json").write_text(json.dumps(values))
    with pytest.raises(ModelError, match="was trained on other weights"):
        load_run(run)


def test_a_run_finds_its_base_from_another_working_folder(tmp_path, tiny_run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_run(tiny_run).labels == ("money", "space", "sport")


def test_a_missing_head_is_noticed(run):
    """PEFT itself loads such a file without a word, and the head stays random."""
    from safetensors.torch import load_file, save_file

    from textlora.files import describe_files

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
