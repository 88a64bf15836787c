"""What a run says about its data, machine and cost, also where it was stopped and continued."""

import json
import os
import shutil
import signal
from dataclasses import replace

import pytest
from conftest import make_setup, tiny_recipe

from textlora.checking.data_check import check_splits
from textlora.data.labelled_texts import load_labelled_texts
from textlora.data.sources import read_splits
from textlora.errors import Interrupted, ModelError
from textlora.runs.checkpoints import find_checkpoint
from textlora.runs.history import read_history
from textlora.runs.provenance import (
    read_data_check,
    read_training,
    write_data_check,
    write_training,
)
from textlora.system.progress import Reporter
from textlora.system.runtime import describe_environment
from textlora.training.loop import train_steps
from textlora.training.pipeline import train_run

QUIET = Reporter(quiet=True)


@pytest.fixture(scope="module")
def recipe(tiny_bert, data_folder):
    return tiny_recipe(tiny_bert, data_folder, "training.epochs=1", "training.batch_size=16")


def load(setup, run):
    shapes, kinds = setup.weights.shapes, setup.weights.optimizer_shapes
    return find_checkpoint(run, setup.origin, shapes, kinds)[0].state


def test_a_run_holds_what_training_took_and_found(recipe, tmp_path):
    parts = read_splits(recipe.data)
    check = check_splits(recipe.data.source, parts, recipe.model.max_length)
    texts = load_labelled_texts(recipe.data, parts)
    found = train_run(recipe, texts, tmp_path, resume="never", report=QUIET, check=check)
    assert read_data_check(tmp_path) == check
    record = read_training(tmp_path)
    assert record == found.training
    assert record.environment == describe_environment()
    assert record.texts == len(texts.train.texts) == 192
    assert record.epochs == 1.0
    assert 0.0 < record.seconds < found.seconds
    assert record.peak_bytes > 50_000_000  # torch alone
    # The same command again trains nothing: what is stored is about those who did.
    elsewhere = replace(record, environment=replace(record.environment, processor="another"))
    (tmp_path / "training.json").unlink()
    write_training(tmp_path, elsewhere)
    train_run(recipe, texts, tmp_path, resume="auto", report=QUIET)
    assert read_training(tmp_path) == elsewhere
    assert read_data_check(tmp_path) is None  # nothing is known about the data of this call


def test_time_is_added_up_over_starts_and_a_look_adds_none(recipe, tmp_path):
    setup = make_setup(recipe)
    calls = []

    def stop(*_):
        calls.append(None)
        if len(calls) == 5:
            os.kill(os.getpid(), signal.SIGINT)

    handle = setup.engine.head.register_forward_pre_hook(stop)
    with pytest.raises(Interrupted):
        train_steps(setup, tmp_path, "auto", QUIET)
    handle.remove()
    first = load(setup, tmp_path)
    assert first.step == 5
    assert first.effort.seconds > 0.0
    # As if the first start had taken days and much memory on another machine.
    folder = next((tmp_path / "checkpoints").glob("step-*"))
    values = json.loads((folder / "state.json").read_text())
    values["effort"] = {"seconds": 200_000.0, "peak_bytes": 10**15}
    rewrite(folder, json.dumps(values).encode())
    end = train_steps(make_setup(recipe), tmp_path, "auto", QUIET)
    assert 200_000.0 < end.effort.seconds < 201_000.0
    assert end.effort.peak_bytes == 10**15
    again = train_steps(make_setup(recipe), tmp_path, "auto", QUIET)
    assert again.effort == end.effort


def test_a_checkpoint_keeps_the_loss_that_tells_equals_apart(recipe, tmp_path):
    setup = make_setup(recipe)
    state = train_steps(setup, tmp_path, "auto", QUIET)
    losses = {r.step: r.validation.loss for r in read_history(tmp_path) if r.validation}
    assert load(setup, tmp_path).best_loss == state.best_loss == losses[state.best_step]
    # One of an earlier version has none; any equal that follows then counts as better.
    folder = max((tmp_path / "checkpoints").glob("step-*"))
    values = json.loads((folder / "state.json").read_text())
    del values["state"]["best_loss"]
    rewrite(folder, json.dumps(values).encode())
    found = load(setup, tmp_path)
    assert (found.best_loss, found.best_step) == (float("inf"), state.best_step)


def test_a_checkpoint_that_does_not_say_what_it_took_is_used(recipe, tmp_path):
    setup = make_setup(recipe)
    train_steps(setup, tmp_path, "auto", QUIET)
    folder = next((tmp_path / "checkpoints").glob("step-*"))
    values = json.loads((folder / "state.json").read_text())
    del values["effort"]
    rewrite(folder, json.dumps(values).encode())
    assert load(setup, tmp_path).effort.seconds == 0.0


def rewrite(folder, content):
    from textlora.system.files import MANIFEST, describe_files, format_json

    names = [path.name for path in folder.iterdir() if path.name != MANIFEST]
    (folder / "state.json").write_bytes(content)
    (folder / MANIFEST).write_text(format_json(describe_files(folder, names)))


def test_what_is_damaged_is_named_and_what_is_missing_is_nothing(tiny_run, tmp_path):
    assert read_training(tmp_path) is read_data_check(tmp_path) is None
    shutil.copy(tiny_run / "training.json", tmp_path)
    (tmp_path / "datacheck.json").write_text('{"source": "x"}')
    with pytest.raises(ModelError, match=r"datacheck\.json: damaged"):
        read_data_check(tmp_path)
    write_data_check(tmp_path, None)
    assert not (tmp_path / "datacheck.json").exists()
    write_data_check(tmp_path, None)
    (tmp_path / "training.json").write_text("{")
    with pytest.raises(ModelError, match=r"training\.json: damaged"):
        read_training(tmp_path)
    record = read_training(tiny_run)
    write_training(tmp_path, record)
    assert read_training(tmp_path) == record
