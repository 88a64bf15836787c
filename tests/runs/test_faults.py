"""A save that fails, is killed or loses power at any call leaves the old state or the new."""

import errno
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from conftest import make_setup as make
from conftest import tiny_recipe

from textlora.errors import ModelError, TextloraError, UnfinishedError
from textlora.runs import run_folder
from textlora.runs.checkpoints import (
    Checkpoint,
    Origin,
    TrainingState,
    find_checkpoint,
    save_checkpoint,
)
from textlora.system.files import find_damage
from textlora.training.pipeline import _save as save_run

CALLS = ("open", "write", "fsync", "rename", "replace", "mkdir", "unlink", "rmdir")


class KilledError(BaseException):
    """What follows is never run: every later call of the dead process raises it again."""


class Disk:
    """Stands between `os` and the disk: counts its calls, and spoils call number `at`.

    error: that one call fails; full: every write from there on fails; kill: the process ends there,
    half way through a write; power: what was not flushed is lost as well.
    """

    def __init__(self, kind="none", at=0):
        self.kind, self.at, self.count = kind, at, 0
        self.unflushed, self.names = set(), {}

    def __enter__(self):
        self.original = {name: getattr(os, name) for name in CALLS}
        for name in CALLS:
            setattr(os, name, self.wrap(name))
        return self

    def __exit__(self, *_):
        for name, call in self.original.items():
            setattr(os, name, call)
        if self.kind == "power":
            for path in self.unflushed:
                if Path(path).exists():
                    os.truncate(path, Path(path).stat().st_size // 2)

    def wrap(self, name):
        call = self.original[name]

        def wrapped(*arguments, **named):
            if name == "open" and not arguments[1] & os.O_CREAT:
                descriptor = call(*arguments, **named)
                self.names[descriptor] = str(arguments[0])
                return descriptor
            number, self.count = self.count, self.count + 1
            if self.kind in ("kill", "power") and number >= self.at:
                if name == "write" and number == self.at:
                    call(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                raise KilledError
            if self.kind == "error" and number == self.at:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            if self.kind == "full" and number >= self.at and name in ("open", "write", "mkdir"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            result = call(*arguments, **named)
            self.note(name, arguments, result)
            return result

        return wrapped

    def note(self, name, arguments, result):
        if name == "open":
            self.names[result] = str(arguments[0])
        elif name == "write":
            self.unflushed.add(self.names[arguments[0]])
        elif name == "fsync":
            self.unflushed.discard(self.names.get(arguments[0]))
        elif name in ("rename", "replace"):
            old, new = map(str, arguments)
            self.unflushed = {
                new + path[len(old) :] if path == old or path.startswith(old + "/") else path
                for path in self.unflushed
            }


def hash_files(folder, names):
    digest = hashlib.sha256()
    for name in sorted(names):
        digest.update(name.encode() + (folder / name).read_bytes())
    return digest.hexdigest()


def spoil_every_call(prepare, save, read, tmp_path):
    """`prepare(folder)` makes the old state, `save` the new one, `read` gives the hash of it."""
    prepare(tmp_path / "start")
    old = read(tmp_path / "start")
    shutil.copytree(tmp_path / "start", tmp_path / "end")
    with Disk() as disk:
        save(tmp_path / "end")
    new, total = read(tmp_path / "end"), disk.count
    assert old != new
    assert total > 20
    found = []
    for kind in ("error", "full", "kill", "power"):
        for at in range(total):
            folder = tmp_path / f"{kind}{at}"
            shutil.copytree(tmp_path / "start", folder)
            told = ""
            try:
                with Disk(kind, at):
                    save(folder)
            except KilledError:
                assert kind in ("kill", "power")
            except TextloraError as error:
                told = str(error)
            state = read(folder)
            assert state in (old, new), (kind, at)
            if told:
                assert kind in ("error", "full")
                assert str(folder) in told
                assert "\n" not in told
            else:  # the process is dead, or all is saved
                assert kind in ("kill", "power") or state == new, (kind, at)
            found.append(state)
            # Run again, it ends as if nothing had been.
            save(folder)
            assert read(folder) == new, (kind, at)
            shutil.rmtree(folder)
    assert old in found
    assert new in found


@pytest.fixture(scope="module")
def origin(tiny_bert, data_folder):
    recipe = tiny_recipe(tiny_bert, data_folder, "training.keep_checkpoints=1")
    return Origin(recipe, "d" * 64, "e" * 64)


SHAPES = {"a": torch.Size([3, 4]), "b": torch.Size([4])}
MOMENTS = {f"{n}.{k}": s for n, s in SHAPES.items() for k in ("exp_avg", "exp_avg_sq")}


def make_checkpoint(step, **state):
    generator = torch.Generator().manual_seed(step)
    weights = {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    moments = {
        f"{n}.{k}": t.square() for n, t in weights.items() for k in ("exp_avg", "exp_avg_sq")
    }
    state = TrainingState(step=step, **state)
    return Checkpoint(state, weights, moments, b"line\n" * (step + state.recorded_step))


def read_checkpoint(run, origin):
    found, damaged = find_checkpoint(run, origin, SHAPES, MOMENTS)
    assert damaged == []
    tensors = {**found.weights, **found.optimizer}
    content = b"".join(tensors[name].numpy().tobytes() for name in sorted(tensors))
    return hashlib.sha256(content + found.history + repr(found.state).encode()).hexdigest()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (make_checkpoint(3, best_step=3, best_value=0.5), make_checkpoint(6, best_step=6)),
        (make_checkpoint(3, best_step=3), make_checkpoint(6, best_step=3)),
        (make_checkpoint(6), make_checkpoint(6, recorded_step=6, best_step=6)),
    ],
    ids=["the next", "the best stays", "the same step, evaluated"],
)
def test_a_checkpoint(tmp_path, origin, old, new):
    def prepare(run):
        save_checkpoint(run, old, origin)

    spoil_every_call(
        prepare,
        lambda run: save_checkpoint(run, new, origin),
        lambda run: read_checkpoint(run, origin),
        tmp_path,
    )


@pytest.fixture(scope="module")
def learners(tiny_bert, data_folder):
    """Two trained models of one recipe; their weights differ."""
    found = [make(tiny_recipe(tiny_bert, data_folder, f"training.seed={seed}")) for seed in (1, 2)]
    return tuple(found)


def read_classifier(run):
    """Hash of what a reader finds; a reader that refuses is told that training was not finished."""
    if not (run_folder.find_classifier(run) / "manifest.json").exists():
        with pytest.raises(ModelError, match="not a run folder|not finished"):
            run_folder.read_manifest(run)
        return "none"
    manifest = run_folder.read_manifest(run)
    folder = run_folder.find_classifier(run)
    assert find_damage(folder, manifest.files) is None
    assert set(manifest.files) == {
        str(path.relative_to(folder))
        for path in [
            folder / "recipe.toml",
            folder / "labels.json",
            *(folder / "adapter").iterdir(),
        ]
    }
    return hash_files(folder, manifest.files)


@pytest.mark.parametrize("older", [True, False], ids=["replaced", "first"])
def test_a_classifier(tmp_path, learners, older):
    def prepare(run):
        run.mkdir()
        if older:
            save_run(learners[0], run, None)

    spoil_every_call(
        prepare, lambda run: save_run(learners[1], run, None), read_classifier, tmp_path
    )


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, one megabyte large."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_can_no_longer_be_written(small_disk, origin):
    run = small_disk / "run"
    save_checkpoint(run, make_checkpoint(3, best_step=3), origin)
    old = read_checkpoint(run, origin)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(UnfinishedError, match="Read-only file system.*run the same command again"):
        save_checkpoint(run, make_checkpoint(6, best_step=6), origin)
    assert read_checkpoint(run, origin) == old


@pytest.mark.parametrize("what", ["checkpoint", "classifier"])
def test_a_disk_that_is_full_at_any_page(small_disk, what, origin, learners):
    """A ballast file leaves room for one more page each time, until there is enough."""
    run, ballast = small_disk / "run", small_disk / "ballast"
    run.mkdir()

    def save(number):
        if what == "checkpoint":
            save_checkpoint(run, make_checkpoint(3 + number, best_step=3 + number), origin)
        else:
            save_run(learners[number], run, None)

    def read():
        return read_checkpoint(run, origin) if what == "checkpoint" else read_classifier(run)

    save(0)
    old = read()
    found = []
    for pages in range(200):
        free = os.statvfs(run).f_bavail
        ballast.write_bytes(bytes(4096 * (free - pages)))
        told = ""
        try:
            save(1)
        except UnfinishedError as error:
            told = str(error)
        finally:
            ballast.unlink()
        if not told:
            break
        assert "No space left on device" in told
        assert "run the same command again" in told
        found.append(read())
    assert len(found) > 3
    assert found[0] == old
    assert read() != old
    assert set(found) <= {old, read()}
