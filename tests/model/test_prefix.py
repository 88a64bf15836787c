import numpy as np
import pytest
import torch
from conftest import save_encoder, tiny_recipe

from textlora.data.labelled_texts import load_labelled_texts
from textlora.model import prefix as prefix_module
from textlora.model.batching import compute_epoch_batches, make_batch
from textlora.model.prefix import open_prefix
from textlora.system.progress import Reporter
from textlora.system.runtime import find_bf16_units
from textlora.training.loop import train_steps
from textlora.training.training_setup import prepare_training

TARGETS = 'adapter.targets={"last 1" = ["query", "value"]}'


class Listener(Reporter):
    """Collects what is said."""

    def __init__(self):
        super().__init__(quiet=True)
        self.messages = []

    def say(self, message):
        self.messages.append(message)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TEXTLORA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "prefix"


def make_setup(model, data, *changes):
    recipe = tiny_recipe(model, data, TARGETS, *changes)
    return prepare_training(recipe, load_labelled_texts(recipe.data))


def list_files(cache):
    return sorted(cache.iterdir()) if cache.is_dir() else []


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("family", ["bert", "mpnet"])
def test_what_is_kept_is_what_the_layers_compute(tmp_path, data_folder, cache, precision, family):
    model = save_encoder(tmp_path / family, family)
    setup = make_setup(model, data_folder, f"training.precision={precision}")
    engine, tokens = setup.engine, setup.train
    assert engine.num_frozen == 1
    with open_prefix(engine, tokens, "weights", 1.0, Reporter(quiet=True)) as kept:
        assert [path.stat().st_size for path in list_files(cache)] == [
            len(tokens.token_ids) * 32 * engine.dtype.itemsize
        ]
        for size in (1, 3, 8):
            chosen = np.arange(40, 40 + size)
            batch = make_batch(tokens, chosen)
            rows = kept.read(chosen, batch)
            with torch.no_grad():
                expected = engine.compute_prefix(batch)
                assert torch.equal(rows[: batch.num_tokens], expected[: batch.num_tokens])
                assert torch.equal(engine(batch, rows), engine(batch))
    assert list_files(cache) == []


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_is_the_same_bit_for_bit(tmp_path, tiny_bert, data_folder, precision):
    found = []
    for size in (0.0, 1.0):
        changes = (f"training.precision={precision}", f"training.prefix_cache_gb={size}")
        setup = make_setup(tiny_bert, data_folder, *changes)
        listener = Listener()
        train_steps(setup, tmp_path / f"run{size}", "never", listener)
        said = [message for message in listener.messages if "computed once" in message]
        assert len(said) == (2 if size else 0)  # training and validation
        found.append((setup.weights.read(), (tmp_path / f"run{size}/history.jsonl").read_text()))
    assert found[0][1] == found[1][1]
    for name, weights in found[0][0].items():
        assert torch.equal(weights, found[1][0][name]), name


@pytest.mark.parametrize(
    "change",
    ["dropout.backbone=0.1", 'adapter.targets={"0" = ["query"]}', "training.epochs=1"],
)
def test_nothing_is_kept_where_it_would_be_wrong_or_useless(
    tmp_path, tiny_bert, data_folder, cache, change
):
    setup = make_setup(tiny_bert, data_folder, change)
    train_steps(setup, tmp_path / "run", "never", Reporter(quiet=True))
    assert not cache.exists() or list_files(cache) == []
    if change.startswith("training"):
        assert setup.engine.num_frozen == 1
    else:
        assert setup.engine.num_frozen == 0


def test_dropout_that_reaches_the_frozen_layers_keeps_nothing(tmp_path, tiny_bert, data_folder):
    setup = make_setup(tiny_bert, data_folder, "dropout.scope=all", "dropout.start=0.2")
    listener = Listener()
    train_steps(setup, tmp_path / "run", "never", listener)
    assert not any("computed once" in message for message in listener.messages)


def test_a_file_that_would_be_too_large_is_not_written(tiny_bert, data_folder, cache):
    setup = make_setup(tiny_bert, data_folder)
    listener = Listener()
    with open_prefix(setup.engine, setup.train, "w", 1e-6, listener) as kept:
        assert kept is None
    assert "training.prefix_cache_gb" in listener.messages[0]
    assert list_files(cache) == []


def test_a_place_that_cannot_be_written_is_done_without(tiny_bert, data_folder, cache):
    cache.parent.mkdir()
    cache.write_text("in the way")
    setup = make_setup(tiny_bert, data_folder)
    listener = Listener()
    with open_prefix(setup.engine, setup.train, "w", 1.0, listener) as kept:
        assert kept is None
    assert "cannot keep" in listener.messages[0]


def test_what_a_killed_run_left_is_used_again_if_it_is_whole(tiny_bert, data_folder, cache):
    setup = make_setup(tiny_bert, data_folder)
    with open_prefix(setup.engine, setup.train, "w", 1.0, Reporter(quiet=True)) as kept:
        content = kept.path.read_bytes()
    kept.path.write_bytes(content)
    listener = Listener()
    with open_prefix(setup.engine, setup.train, "w", 1.0, listener) as again:
        assert (listener.messages, again.path) == ([], kept.path)
    kept.path.write_bytes(content[:-1])
    with open_prefix(setup.engine, setup.train, "w", 1.0, listener) as again:
        assert "computed once" in listener.messages[0]
        assert again.path.read_bytes() == content


def test_other_weights_and_other_texts_have_another_file(tiny_bert, data_folder):
    setup = make_setup(tiny_bert, data_folder)
    key = prefix_module._compute_key
    keys = {
        key(setup.engine, setup.train, "one"),
        key(setup.engine, setup.train, "two"),
        key(setup.engine, setup.validation, "one"),
    }
    assert len(keys) == 3
    assert key(setup.engine, setup.train, "one") in keys


# oneDNN cuts long sums another way for fewer than 512 rows where the processor has AMX: a batch of
# 32 texts has more, one of 8 fewer.
@pytest.mark.parametrize("batch_size", [8, 32])
def test_the_real_encoder_gives_the_same_bits(batch_size):
    """Texts of many lengths, whose neighbours differ between keeping and training."""
    setup = make_setup("embedded:minilm", "embedded:headlines", "training.precision=bf16")
    engine, tokens = setup.engine, setup.train
    assert engine.num_frozen == 5
    with open_prefix(engine, tokens, "w", 1.0, Reporter(quiet=True)) as kept, torch.no_grad():
        for chosen in compute_epoch_batches(tokens.lengths, batch_size, seed=1, epoch=0)[:12]:
            batch = make_batch(tokens, chosen)
            expected = engine.compute_prefix(batch)[: batch.num_tokens]
            found = kept.read(chosen, batch)[: batch.num_tokens]
            if find_bf16_units(engine.device) == "AMX" and batch.num_tokens < 512:
                torch.testing.assert_close(found, expected, rtol=0.02, atol=0.05)
            else:
                assert torch.equal(found, expected)


def test_a_file_that_has_gone_is_not_made_anew(tmp_path):
    """torch would map a shared file that is not there: hidden rows of nothing but zeros."""
    with pytest.raises(OSError, match="No such file"):
        prefix_module._map(tmp_path / "gone.bin", torch.float32, (4, 8), "r")
    assert not (tmp_path / "gone.bin").exists()
