import json
import shutil
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import save_file

from textlora.errors import ModelError
from textlora.model import encoder_files
from textlora.settings import ModelSettings


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
    assert sorted(encoder_files.read_tensor_names(path)) == ["a", "b.c"]
    path.write_bytes(b"short")
    with pytest.raises(ModelError, match="not a safetensors file"):
        encoder_files.read_tensor_names(path)


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
