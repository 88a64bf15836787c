"""A run that was stopped or finds a checkpoint damaged ends with the bits of one that was not."""

import dataclasses
import json
import os
import pickle
import shutil
import signal
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_setup as make
from conftest import tiny_recipe
from safetensors.torch import load_file, save_file

from textlora.data.labelled_texts import load_labelled_texts
from textlora.errors import Interrupted, SettingsError, Terminated, TextloraError
from textlora.model.batching import tokenize
from textlora.runs import checkpoints
from textlora.runs.checkpoints import Checkpoint, TrainingState, find_checkpoint, save_checkpoint
from textlora.system import files
from textlora.system.progress import Reporter
from textlora.training.loop import train_steps
from textlora.training.pipeline import fit_run

QUIET = Reporter(quiet=True)
FILES = (
    "weights.safetensors", "optimizer.safetensors", "history.jsonl", "state.json", "manifest.json",
)  # fmt: skip
SHORT = ("training.evaluate_every=6", "training.epochs=1")


@pytest.fixture(scope="module")
def make_setup(tiny_bert, data_folder):
    return lambda *changes: make(tiny_recipe(tiny_bert, data_folder, *changes))


def train(make_setup, run, *changes, resume="auto"):
    setup = make_setup(*changes)
    return setup, train_steps(setup, run, resume, QUIET)


def call_at(setup, number, action, *, training=True):
    """Do `action` while batch `number` of training, or of evaluation, is computed."""
    calls = []

    def count(*_):
        calls.extend([None] * (setup.model.training == training))
        if setup.model.training == training and len(calls) == number:
            action()

    setup.engine.head.register_forward_pre_hook(count)
    return calls


def send(number):
    return lambda: os.kill(os.getpid(), number)


def list_folders(run):
    return sorted((run / "checkpoints").glob("step-*"))


def everything_written(run):
    folder = list_folders(run)[-1]
    return {
        "history": (run / "history.jsonl").read_bytes(),
        "state": json.loads((folder / "state.json").read_text())["state"],
        **{name: (folder / name).read_bytes() for name in FILES[:3]},
    }


VARIANTS = {
    "dropout everywhere": ("dropout.backbone=0.1",),
    "prefix kept": ('adapter.targets={"last 1" = ["query", "ffn"]}',),
    "prefix not kept": ('adapter.targets={"last 1" = ["query"]}', "training.prefix_cache_gb=0"),
    "early stopping": ("training.patience=2", "training.learning_rate=1e-5"),
    "float32": ("training.precision=fp32",),
    "average": ("training.average_decay=0.9",),
    "dora": ("adapter.variant=dora",),
    "mean": ("model.head=mean",),
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("stop", [1, 5, 14, 24, 31])
def test_a_stopped_run_continues_to_the_same_bits(make_setup, tmp_path, stop, variant):
    changes = ("training.epochs=2", "training.evaluate_every=5", *VARIANTS[variant])
    whole, state = train(make_setup, tmp_path / "whole", *changes)
    setup = make_setup(*changes)
    call_at(setup, stop, send(signal.SIGINT))
    if stop < state.step:
        with pytest.raises(Interrupted, match=r"all of it saved; run the same command again"):
            train_steps(setup, tmp_path / "stopped", "auto", QUIET)
        assert list_folders(tmp_path / "stopped")[-1].name == f"step-{stop:08d}"
    again, _ = train(make_setup, tmp_path / "stopped", *changes)
    assert everything_written(tmp_path / "stopped") == everything_written(tmp_path / "whole")
    for name, master in whole.weights.masters.items():
        assert torch.equal(master, again.weights.masters[name])


def test_a_step_in_pieces_is_finished_first(make_setup, tmp_path):
    def cut(setup):
        setup.engine.max_tokens = 48
        return setup

    train_steps(cut(make_setup(*SHORT)), tmp_path / "whole", "auto", QUIET)
    setup = cut(make_setup(*SHORT))
    calls = call_at(setup, 9, send(signal.SIGINT))
    with pytest.raises(Interrupted):
        train_steps(setup, tmp_path / "stopped", "auto", QUIET)
    assert len(calls) > 9  # it was not the last piece of its step
    train_steps(cut(make_setup(*SHORT)), tmp_path / "stopped", "auto", QUIET)
    assert everything_written(tmp_path / "stopped") == everything_written(tmp_path / "whole")


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_an_evaluation_is_not_waited_for_and_made_anew(make_setup, tmp_path, batch):
    def cut(setup):
        setup.engine.max_tokens = 400  # several batches of validation
        return setup

    train_steps(cut(make_setup(*SHORT)), tmp_path / "whole", "auto", QUIET)
    setup = cut(make_setup(*SHORT))
    calls = call_at(setup, batch, send(signal.SIGTERM), training=False)
    with pytest.raises(Terminated, match=r"stopped after step 6 of 24"):
        train_steps(setup, tmp_path / "stopped", "auto", QUIET)
    assert len(calls) == batch
    train_steps(cut(make_setup(*SHORT)), tmp_path / "stopped", "auto", QUIET)
    assert everything_written(tmp_path / "stopped") == everything_written(tmp_path / "whole")


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("flush", [1, 4, 9])
def test_a_stop_while_saving_loses_nothing(make_setup, tmp_path, monkeypatch, flush, twice):
    train(make_setup, tmp_path / "whole", *SHORT)
    setup, real, calls = make_setup(*SHORT), os.fsync, []

    def fsync(descriptor):
        calls.append(None)
        if len(calls) == 20 + flush:
            for _ in range(1 + twice):
                os.kill(os.getpid(), signal.SIGINT)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(KeyboardInterrupt if twice else Interrupted):
        train_steps(setup, tmp_path / "stopped", "auto", QUIET)
    monkeypatch.undo()
    assert list_folders(tmp_path / "stopped")
    train(make_setup, tmp_path / "stopped", *SHORT)
    assert everything_written(tmp_path / "stopped") == everything_written(tmp_path / "whole")


@pytest.mark.parametrize(
    ("number", "kind", "code"),
    [
        (signal.SIGINT, Interrupted, 130),
        (signal.SIGTERM, Terminated, 143),
        (signal.SIGHUP, Terminated, 143),
    ],
)
def test_each_signal_has_its_exit_code(make_setup, tmp_path, number, kind, code):
    setup, before = make_setup(), signal.getsignal(number)
    call_at(setup, 2, send(number))
    with pytest.raises(kind) as caught:
        train_steps(setup, tmp_path, "auto", QUIET)
    assert type(caught.value) is kind
    assert caught.value.exit_code == code
    assert signal.getsignal(number) == before


def test_a_signal_that_is_ignored_stays_ignored(make_setup, tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        setup = make_setup(*SHORT)
        call_at(setup, 2, send(signal.SIGHUP))
        assert train_steps(setup, tmp_path, "auto", QUIET).step == 24
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_second_signal_stops_at_once(make_setup, tmp_path, number, kind):
    setup = make_setup(*SHORT)
    call_at(setup, 8, send(number))
    calls = call_at(setup, 8, send(number))
    with pytest.raises(kind):
        train_steps(setup, tmp_path, "auto", QUIET)
    assert len(calls) == 8
    assert [folder.name for folder in list_folders(tmp_path)] == ["step-00000006"]


def test_another_recipe_or_other_data_is_refused_with_the_difference(make_setup, tmp_path):
    train(make_setup, tmp_path, "training.epochs=1")
    with pytest.raises(SettingsError, match=r"adapter\.rank was 4, is 2.*--resume never"):
        train(make_setup, tmp_path, "training.epochs=1", "adapter.rank=2")
    setup = make_setup("training.epochs=1")
    for field, reason in (("data", "texts or labels of the data"), ("encoder", "files of")):
        origin = dataclasses.replace(setup.origin, **{field: "0" * 64})
        changed = dataclasses.replace(setup, origin=origin)
        with pytest.raises(SettingsError, match=f"{reason}.* have changed"):
            train_steps(changed, tmp_path, "auto", QUIET)
    _, state = train(make_setup, tmp_path, "adapter.rank=2", "training.epochs=1", resume="never")
    assert state.step == 24


def test_how_often_things_are_kept_may_change(make_setup, tmp_path):
    train(make_setup, tmp_path, *SHORT)
    changes = ("keep_checkpoints=9", "checkpoint_minutes=1", "prefix_cache_gb=1")
    train(make_setup, tmp_path, *SHORT, *(f"training.{change}" for change in changes))


def test_only_the_newest_and_the_best_checkpoint_are_kept(make_setup, tmp_path):
    change = "training.keep_checkpoints=1"
    _, state = train(make_setup, tmp_path, "training.evaluate_every=4", change)
    kept = {int(path.name[5:]) for path in (tmp_path / "checkpoints").iterdir()}
    assert kept == {state.step, state.best_step}


def test_between_evaluations_the_clock_decides(make_setup, tmp_path):
    changes = ("training.epochs=1", "training.keep_checkpoints=99")
    train(make_setup, tmp_path / "a", *changes, "training.checkpoint_minutes=0")
    train(make_setup, tmp_path / "b", *changes, "training.checkpoint_minutes=1e-9")
    assert len(list_folders(tmp_path / "a")) == 1
    assert len(list_folders(tmp_path / "b")) == 24
    assert everything_written(tmp_path / "a") == everything_written(tmp_path / "b")


def test_a_checkpoint_of_the_reference_adapter_is_small(make_setup, tmp_path):
    shapes = {"a": torch.Size([814_852])}
    tensors = {"a": torch.zeros(814_852)}
    moments = {f"a.{key}": torch.zeros(814_852) for key in ("exp_avg", "exp_avg_sq")}
    checkpoint = Checkpoint(TrainingState(step=1), tensors, moments, b"")
    save_checkpoint(tmp_path, checkpoint, make_setup().origin)
    assert sum(path.stat().st_size for path in list_folders(tmp_path)[0].iterdir()) < 20e6
    kinds = {name: tensor.shape for name, tensor in moments.items()}
    assert find_checkpoint(tmp_path, make_setup().origin, shapes, kinds)[0].state.step == 1


def test_workers_of_the_tokenizer_change_nothing(make_setup, data_folder, monkeypatch):
    setup = make_setup()
    texts = load_labelled_texts(setup.recipe.data).train.texts * 20
    found = []
    for setting in ("false", "true"):
        monkeypatch.setenv("TOKENIZERS_PARALLELISM", setting)
        monkeypatch.setenv("RAYON_NUM_THREADS", "2")
        found.append(tokenize(setup.tokenizer, texts, 64))
    assert np.array_equal(found[0].token_ids, found[1].token_ids)
    assert np.array_equal(found[0].offsets, found[1].offsets)


# Damage and poison: the newest checkpoint is passed over, or refused, and nothing of it is run.


@pytest.fixture(scope="module")
def finished(make_setup, tmp_path_factory):
    run = tmp_path_factory.mktemp("finished") / "run"
    train(make_setup, run, *SHORT)
    return run


def truncate(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def delete(file):
    file.unlink()


def lead_outside(file):
    outside = file.parents[3] / "outside"
    shutil.move(file, outside)
    file.symlink_to(outside)


@pytest.mark.parametrize("damage", [truncate, flip, delete, lead_outside])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named_and_passed_over(
    make_setup, finished, tmp_path, name, damage, capfd
):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    expected = everything_written(run)
    damage(list_folders(run)[-1] / name)
    train_steps(make_setup(*SHORT), run, "auto", Reporter())
    said = capfd.readouterr().err
    assert name in said or (name == "manifest.json" and damage is flip)  # any file may then differ
    assert "trying the one before" in said
    assert "continuing after step 18" in said
    assert everything_written(run) == expected


def rewrite(folder, name, content):
    """As an attacker would: with a manifest that fits."""
    (folder / name).write_bytes(content)
    described = files.describe_files(folder, list(FILES[:4]))
    files.write_json(folder / "manifest.json", described)


BOMB = Path(tempfile.gettempdir()) / "textlora-bomb"


class Bomb:
    def __reduce__(self):
        return (os.mkdir, (str(BOMB),))


def change_state(folder, **values):
    state = json.loads((folder / "state.json").read_text())
    rewrite(folder, "state.json", json.dumps({**state, **values}).encode())


def rename_a_tensor(folder):
    tensors = load_file(folder / "weights.safetensors")
    tensors["other"] = tensors.pop(next(iter(tensors)))
    save_file(tensors, folder / "weights.safetensors")
    rewrite(folder, "weights.safetensors", (folder / "weights.safetensors").read_bytes())


POISON = {
    "a pickle beside it": lambda f: (f / "training_args.bin").write_bytes(pickle.dumps(Bomb())),
    "a pickle in its place": lambda f: rewrite(f, "optimizer.safetensors", pickle.dumps(Bomb())),
    "a huge header": lambda f: rewrite(f, "weights.safetensors", struct.pack("<Q", 1 << 62) + b"{"),
    "other tensors": rename_a_tensor,
    "another version": lambda f: change_state(f, format=1),
    "no state": lambda f: change_state(f, state={}),
    "a list for a state": lambda f: rewrite(f, "state.json", b"[]"),
    "no recipe": lambda f: change_state(f, recipe=None),
    "an empty manifest": lambda f: (f / "manifest.json").write_text("{}"),
    "a list for a manifest": lambda f: (f / "manifest.json").write_text("[1]"),
    "a wrong manifest": lambda f: (f / "manifest.json").write_text(
        json.dumps(dict.fromkeys(FILES[:4], 1))
    ),
}


@pytest.mark.parametrize("poison", POISON)
def test_a_poisoned_checkpoint_is_passed_over(
    make_setup, finished, tmp_path, poison, capfd, no_sockets
):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    expected = everything_written(run)
    POISON[poison](list_folders(run)[-1])
    train_steps(make_setup(*SHORT), run, "auto", Reporter())
    assert "trying the one before" in capfd.readouterr().err
    assert everything_written(run) == expected
    assert not BOMB.exists()
    assert no_sockets == []


def test_things_that_are_no_checkpoints_are_left_alone(make_setup, finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "checkpoints" / "step-latest").mkdir()
    (run / "checkpoints" / "step-00000099").write_text("a file")
    expected = everything_written(finished)
    train(make_setup, run, *SHORT)
    (run / "checkpoints" / "step-latest").rmdir()
    (run / "checkpoints" / "step-00000099").unlink(missing_ok=True)
    assert everything_written(run) == expected


def test_the_best_checkpoint_is_lost(make_setup, tmp_path, capfd):
    """The newest one cannot be finished without it."""
    changes = ("training.evaluate_every=3", "training.epochs=1", "training.keep_checkpoints=9")
    _, state = train(make_setup, tmp_path, *changes)
    assert 3 < state.best_step < 24
    expected = everything_written(tmp_path)
    shutil.rmtree(tmp_path / "checkpoints" / f"step-{state.best_step:08d}")
    train_steps(make_setup(*changes), tmp_path, "auto", Reporter())
    assert f"step-{state.best_step:08d}" in capfd.readouterr().err
    assert everything_written(tmp_path) == expected


def test_the_best_checkpoint_vanishes_at_the_end(make_setup, tmp_path, monkeypatch):
    setup = make_setup(*SHORT)
    real = checkpoints.load_weights

    def vanish(run, step, shapes):
        shutil.rmtree(run / "checkpoints" / f"step-{step:08d}")
        return real(run, step, shapes)

    monkeypatch.setattr(checkpoints, "load_weights", vanish)
    with pytest.raises(TextloraError, match=r"manifest\.json is missing.*same command again"):
        train_steps(setup, tmp_path, "auto", QUIET)
    monkeypatch.undo()
    assert train(make_setup, tmp_path, *SHORT)[1].step == 24


def test_nothing_whole_is_left(make_setup, finished, tmp_path, capfd):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    expected = everything_written(run)
    for folder in list_folders(run):
        truncate(folder / "weights.safetensors")
    train_steps(make_setup(*SHORT), run, "auto", Reporter())
    assert "no whole checkpoint is left; starting over" in capfd.readouterr().err
    assert everything_written(run) == expected


@pytest.mark.parametrize("when", ["while it is written", "between two starts"])
def test_a_history_that_vanishes_comes_back(make_setup, tmp_path, when):
    train(make_setup, tmp_path / "whole", *SHORT)
    setup, run = make_setup(*SHORT), tmp_path / "run"
    if when == "while it is written":
        call_at(setup, 8, (run / "history.jsonl").unlink)
        train_steps(setup, run, "auto", QUIET)
    else:
        call_at(setup, 8, send(signal.SIGINT))
        with pytest.raises(Interrupted):
            train_steps(setup, run, "auto", QUIET)
        (run / "history.jsonl").unlink()
        train(make_setup, run, *SHORT)
    assert everything_written(run) == everything_written(tmp_path / "whole")


def test_two_processes_never_train_in_one_folder(tiny_bert, data_folder, tmp_path):
    recipe = tiny_recipe(tiny_bert, data_folder, *SHORT)
    texts = load_labelled_texts(recipe.data)
    tmp_path.joinpath("run").mkdir()
    with (
        files.lock_folder(tmp_path / "run"),
        pytest.raises(TextloraError, match=f"process {os.getpid()} is training in it; wait"),
    ):
        fit_run(recipe, texts, tmp_path / "run", resume="never", report=QUIET)
    fit_run(recipe, texts, tmp_path / "run", resume="auto", report=QUIET)
