"""A saved classifier answers without transformers and PEFT, to the same bits as with them."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import FAMILIES, make_rows, save_encoder, tiny_recipe, write_csv
from safetensors.torch import load_file, save_file

from textlora.data.labelled_texts import load_labelled_texts
from textlora.errors import ModelError
from textlora.model.adapters import find_wrapped_modules, merge_adapter
from textlora.model.batching import make_batch, tokenize
from textlora.model.encoder_config import parse_encoder_config, read_encoder_config
from textlora.model.encoder_weights import list_loaded_weights
from textlora.model.engine import Engine
from textlora.model.plain_classifier import merge_plain
from textlora.prediction.predictor import Predictor
from textlora.runs import loaded_run
from textlora.runs.loaded_run import load_run, open_run
from textlora.system.files import describe_files
from textlora.system.progress import Reporter
from textlora.training.pipeline import fit_run

CASES = [*((f, "own") for f in ("bert", "roberta", "mpnet", "electra")), ("bert", "mean"),
         ("mpnet", "first")]  # fmt: skip
TEXTS = [text for text, _ in make_rows(9, seed=5)]


def make_run(folder, family, *settings):
    encoder = save_encoder(folder / "encoder", family)
    data = write_csv(folder / "data.csv", make_rows(60, seed=1))
    recipe = tiny_recipe(encoder, data, "training.epochs=1", *settings)
    texts = load_labelled_texts(recipe.data)
    fit_run(recipe, texts, folder / "run", resume="never", report=Reporter(quiet=True))
    return folder / "run"


@pytest.fixture(scope="module", params=CASES)
def saved(request, tmp_path_factory):
    family, head = request.param
    return make_run(tmp_path_factory.mktemp(f"{family}-{head}"), family, f"model.head={head}")


def test_weights_and_logits_are_those_of_the_libraries_to_the_bit(saved):
    loaded = load_run(saved)
    whole = find_wrapped_modules(loaded.model)
    theirs, ours = merge_adapter(loaded.model), open_run(saved).merge()
    assert not type(ours.model).__module__.startswith("transformers")
    assert ours.whole == whole
    found, expected = ours.model.state_dict(), theirs.state_dict()
    assert sorted(found) == sorted(expected)
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
        # Kernels add up in an order that follows from where in a cache line their numbers start.
        assert found[name].data_ptr() % 64 == tensor.data_ptr() % 64, name
    tokens = tokenize(loaded.tokenizer, TEXTS, 64)
    batch = make_batch(tokens, np.arange(len(tokens)))
    with torch.inference_mode():
        logits = [Engine(model.eval(), 0)(batch) for model in (ours.model, theirs)]
    assert torch.equal(*logits)


@pytest.mark.parametrize("variant", ["rslora", "dora"])
def test_variants_answer_alike_with_and_without_the_libraries(variant, tmp_path, monkeypatch):
    run = make_run(tmp_path, "bert", f"adapter.variant={variant}")
    merged = open_run(run).merge()
    assert type(merged.model).__module__.startswith("transformers") == (variant == "dora")
    found = Predictor.load(run).predict_proba(TEXTS).values
    monkeypatch.setattr(loaded_run, "read_encoder_config", lambda _: None)
    assert np.array_equal(found, Predictor.load(run).predict_proba(TEXTS).values)


def test_a_layer_that_the_checkpoint_lacks_comes_from_the_adapter_file(tmp_path):
    encoder = save_encoder(tmp_path / "encoder", "bert")
    weights = load_file(encoder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "layer.1.output" not in name}
    assert len(kept) < len(weights)
    save_file(kept, encoder / "model.safetensors", metadata={"format": "pt"})
    data = write_csv(tmp_path / "data.csv", make_rows(60, seed=1))
    recipe = tiny_recipe(encoder, data, "training.epochs=1")
    texts = load_labelled_texts(recipe.data)
    fit_run(recipe, texts, tmp_path / "run", resume="never", report=Reporter(quiet=True))
    loaded = load_run(tmp_path / "run")
    expected = merge_adapter(loaded.model).state_dict()
    ours = open_run(tmp_path / "run").merge()
    assert not type(ours.model).__module__.startswith("transformers")
    assert all(
        torch.equal(value, expected[name]) for name, value in ours.model.state_dict().items()
    )


def test_old_names_of_norms_and_no_prefix_are_understood(tmp_path):
    run = make_run(tmp_path, "bert")
    expected = open_run(run).merge().model.state_dict()
    path = tmp_path / "encoder" / "model.safetensors"
    renamed = {
        f"bert.{name}".replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): value
        for name, value in load_file(path).items()
    }
    assert any(name.endswith("gamma") for name in renamed)
    save_file(renamed, path, metadata={"format": "pt"})
    opened = open_run_of_changed_encoder(run)
    found = opened.merge().model
    assert not type(found).__module__.startswith("transformers")
    assert all(torch.equal(value, expected[name]) for name, value in found.state_dict().items())


def cut_in_parts(folder):
    """The weights in two files and an index, as large checkpoints are saved."""
    weights = load_file(folder / "model.safetensors")
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    places = {name: names[place % 2] for place, name in enumerate(weights)}
    for path in names:
        part = {name: weights[name] for name in weights if places[name] == path}
        save_file(part, folder / path, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize("parts", [False, True])
def test_copies_beside_the_weights_are_not_read(parts, tmp_path):
    run = make_run(tmp_path, "bert")
    expected = merge_adapter(load_run(run).model).state_dict()
    folder = tmp_path / "encoder"
    others = {name: value + 1 for name, value in load_file(folder / "model.safetensors").items()}
    if parts:
        cut_in_parts(folder)
    for name in ("model.fp16.safetensors", "model_quantized.safetensors"):
        save_file(others, folder / name, metadata={"format": "pt"})
    found = open_run_of_changed_encoder(run).merge().model
    assert not type(found).__module__.startswith("transformers")
    assert all(torch.equal(value, expected[name]) for name, value in found.state_dict().items())


def test_what_transformers_loads_is_plain_or_left_to_it(tmp_path):
    folder = save_encoder(tmp_path / "encoder")
    assert list_loaded_weights(folder) == [folder / "model.safetensors"]
    (folder / "adapter_config.json").write_text("{}")
    assert list_loaded_weights(folder) == []
    (folder / "adapter_config.json").unlink()
    cut_in_parts(folder)
    assert len(list_loaded_weights(folder)) == 2
    next(folder.glob("model-*")).unlink()
    assert list_loaded_weights(folder) == []
    (folder / "model.safetensors.index.json").write_text("[]")
    assert list_loaded_weights(folder) == []


def open_run_of_changed_encoder(run):
    """The manifest says that the encoder's new file is the one it was trained on."""
    from textlora.model.encoder_files import compute_weights_fingerprint

    values = json.loads((run / "manifest.json").read_text("utf-8"))
    folder = run.parent / "encoder"
    values["base"]["weights_sha256"] = compute_weights_fingerprint(folder)
    (run / "manifest.json").write_text(json.dumps(values), "utf-8")
    return open_run(run)


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_act": "relu"}, {"is_decoder": True}, {"model_type": "deberta-v2"},
        {"hidden_size": 33}, {"hidden_size": "32"}, {"pad_token_id": 64}, {"num_hidden_layers": 0},
    ],
)  # fmt: skip
def test_what_is_not_plain_is_left_to_the_libraries(change, tmp_path):
    config = json.loads((save_encoder(tmp_path / "encoder") / "config.json").read_text("utf-8"))
    assert parse_encoder_config(config) is not None
    changed = parse_encoder_config(config | change)
    if changed is not None:
        assert changed.activation == "relu"
    # Nothing of an adapter is looked at then: there is none here.
    assert merge_plain(changed, "own", 3, dict, None) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_are_those_that_transformers_reads(family, tmp_path):
    from transformers import AutoConfig

    folder = save_encoder(tmp_path / "encoder", family)
    found, expected = read_encoder_config(folder), AutoConfig.from_pretrained(folder)
    if family in ("deberta-v2", "modernbert"):
        assert found is None
        return
    assert found is not None
    assert found.width == expected.hidden_size
    assert found.heads == expected.num_attention_heads
    assert found.num_layers == expected.num_hidden_layers
    assert found.positions == expected.max_position_embeddings
    assert found.pad_token_id == expected.pad_token_id
    assert found.vocabulary == expected.vocab_size


@pytest.mark.parametrize(
    "family", ["bert", "roberta", "xlm-roberta", "camembert", "electra", "mpnet", "distilbert"]
)
def test_what_a_configuration_leaves_out_is_what_transformers_takes(family):
    from transformers import AutoConfig

    found, expected = parse_encoder_config({"model_type": family}), AutoConfig.for_model(family)
    assert found is not None
    inner = expected.hidden_dim if family == "distilbert" else expected.intermediate_size
    activation = expected.activation if family == "distilbert" else expected.hidden_act
    assert (found.vocabulary, found.positions, found.pad_token_id) == (
        expected.vocab_size, expected.max_position_embeddings, expected.pad_token_id
    )  # fmt: skip
    assert (found.width, found.heads, found.num_layers, found.inner, found.activation) == (
        expected.hidden_size, expected.num_attention_heads, expected.num_hidden_layers, inner,
        activation,
    )  # fmt: skip
    assert found.token_types == getattr(expected, "type_vocab_size", 0)
    assert found.embedding_width == getattr(expected, "embedding_size", expected.hidden_size)
    assert found.norm_epsilon == getattr(expected, "layer_norm_eps", 1e-12)
    assert found.buckets == getattr(expected, "relative_attention_num_buckets", 0)


def test_weights_left_over_are_refused_as_before(tmp_path):
    run = make_run(tmp_path, "bert")
    path = run / "adapter" / "adapter_model.safetensors"
    weights = load_file(path)
    first = next(name for name in weights if "lora_A" in name)
    save_file({**weights, first.replace("layer.0", "layer.7"): weights[first].clone()}, path)
    values = json.loads((run / "manifest.json").read_text("utf-8"))
    values["files"] |= describe_files(run, ["adapter/adapter_model.safetensors"])
    (run / "manifest.json").write_text(json.dumps(values), "utf-8")
    with pytest.raises(ModelError, match="missing or left over"):
        Predictor.load(run)


def test_prediction_loads_neither_library(saved, tmp_path):
    code = (
        "import sys; from textlora.prediction.predictor import Predictor\n"
        f"Predictor.load({str(saved)!r}).predict(['a match'])\n"
        "print(*sorted({'transformers', 'peft', 'sklearn', 'scipy', 'datasets', 'accelerate'}"
        " & set(sys.modules)))"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == ""
