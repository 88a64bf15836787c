"""Speeds are measured once for each machine, and an entry that is not right is as good as none."""

import json
import math
import platform
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from textlora.budgeting.layer_timing import measure_speed
from textlora.budgeting.machine import LayerSizes, Machine, Speed
from textlora.budgeting.speed import find_machine, find_speed

TINY = LayerSizes(32, 2, 64, texts=4, length=16, rank=2, dropout=0.1, adapter_dropout=0.1)


def test_a_speed_is_a_positive_number_in_each_format():
    for precision in ("fp32", "bf16"):
        found = measure_speed(TINY, precision)
        assert 1e3 < found.forward_per_s < 1e15
        assert 1e3 < found.trained_per_s < 1e15
        assert math.isfinite(found.adapter_seconds)
        assert found.adapter_seconds >= 0.0


def test_measuring_changes_no_random_number():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    measure_speed(TINY, "fp32")
    assert torch.equal(torch.rand(4), expected)


MACHINE = Machine("cpu", "float32", 2, 0)
PLANTED = {"forward_per_s": 3.0, "trained_per_s": 2.0, "adapter_seconds": 1.0}


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A cache folder in which the speed of TINY was kept, and another one put in its place."""
    monkeypatch.setenv("TEXTLORA_CACHE", str(tmp_path))
    find_speed(TINY, "fp32", MACHINE)
    (path,) = (tmp_path / "speed").iterdir()
    plant(path, PLANTED)
    return path


def plant(path, values):
    path.write_text(json.dumps(json.loads(path.read_text()) | {"value": values}))


def find_planted(precision="fp32", sizes=TINY, machine=MACHINE) -> bool:
    """Whether what was planted is taken; else it is measured anew."""
    return find_speed(sizes, precision, machine) == Speed(**PLANTED)


def test_a_speed_is_measured_once(kept):
    assert find_planted()
    assert find_planted()


@pytest.mark.parametrize(
    ("is_steady", "age_s", "taken"),
    [(False, 60, True), (False, 4_000, False), (True, 4_000, True), (False, -4_000, False)],
)
def test_what_a_busy_machine_has_measured_counts_for_an_hour(kept, is_steady, age_s, taken):
    stored = json.loads(kept.read_text())
    value = PLANTED | {"is_steady": is_steady}
    kept.write_text(json.dumps(stored | {"value": value, "measured_at": time.time() - age_s}))
    assert (find_speed(TINY, "fp32", MACHINE) == Speed(**value)) == taken


def test_a_speed_is_that_of_its_sizes_and_number_format(kept):
    assert not find_planted(sizes=replace(TINY, width=64))
    assert not find_planted(precision="bf16")
    assert not find_planted(machine=replace(MACHINE, number_format="bfloat16"))
    assert not find_planted(machine=replace(MACHINE, num_threads=1))
    assert find_planted(machine=replace(MACHINE, library_bytes=5))


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"7", b"\xff\xfe", b'{"value": {}}', b"null", b"[" * 100_000],
    ids=["empty", "cut", "list", "number", "bytes", "no key", "null", "deep"],
)
def test_a_damaged_entry_is_measured_anew_and_mended(kept, content):
    kept.write_bytes(content)
    assert not find_planted()
    found = Speed(**json.loads(kept.read_text())["value"])
    assert found == find_speed(TINY, "fp32", MACHINE)


@pytest.mark.parametrize(
    "change",
    [{"forward_per_s": 0.0}, {"trained_per_s": -1.0}, {"forward_per_s": math.nan},
     {"adapter_seconds": math.inf}, {"forward_per_s": "3"}, {"forward_per_s": None},
     {"trained_per_s": True}, {"more": 1.0}],
)  # fmt: skip
def test_a_speed_that_nothing_could_have_is_measured_anew(kept, change):
    plant(kept, PLANTED | change)
    found = find_speed(TINY, "fp32", MACHINE)
    assert found != Speed(**PLANTED)
    assert 1e3 < found.forward_per_s < 1e15


def test_an_entry_under_the_name_of_another_is_measured_anew(kept):
    other = json.loads(kept.read_text())
    kept.write_text(json.dumps(other | {"key": other["key"] | {"host": "elsewhere"}}))
    assert not find_planted()


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_DYNAMIC", "CUDA_VISIBLE_DEVICES"])
def test_other_surroundings_are_another_machine(kept, monkeypatch, name):
    assert find_planted()
    monkeypatch.setenv(name, "3")
    assert not find_planted()


def test_a_cache_folder_that_machines_share_keeps_them_apart(kept, monkeypatch):
    monkeypatch.setattr(platform, "node", lambda: "another")
    assert not find_planted()


def test_a_gpu_that_was_not_there_makes_another_machine(kept, monkeypatch):
    original = Path.glob

    def glob(folder, pattern):
        shown = [Path("/dev/nvidia7")] if pattern == "dev/nvidia*" else []
        return [*original(folder, pattern), *shown]

    monkeypatch.setattr(Path, "glob", glob)
    assert not find_planted()


def test_a_folder_that_cannot_be_written_costs_time_and_nothing_else(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("TEXTLORA_CACHE", str(tmp_path / "file"))
    assert find_speed(TINY, "fp32", MACHINE).forward_per_s > 1e3
    assert find_machine("fp32").num_threads == torch.get_num_threads()
    assert (tmp_path / "file").read_text() == "not a folder"


def test_what_libraries_take_is_kept_by_a_process_that_had_none(tmp_path, monkeypatch):
    """One that has trained would tell the memory of its models."""
    monkeypatch.setenv("TEXTLORA_CACHE", str(tmp_path))
    found = find_machine("fp32")
    assert found.num_threads == torch.get_num_threads()
    assert not list(tmp_path.rglob("machine-*"))
    code = "from textlora.budgeting.speed import find_machine; find_machine('fp32', 1_000_000)"
    subprocess.run([sys.executable, "-c", code], check=True)
    (path,) = tmp_path.rglob("machine-*")
    values = json.loads(path.read_text())["value"]
    assert 200_000_000 < values["library_bytes"] < found.library_bytes
    planted = values | {"library_bytes": 7, "num_threads": torch.get_num_threads()}
    plant(path, planted)
    assert find_machine("fp32") == Machine(**planted)
    # A process may have set its threads itself.
    plant(path, planted | {"num_threads": torch.get_num_threads() + 1})
    assert find_machine("fp32").num_threads == torch.get_num_threads()
    for change in ({"device": "toaster"}, {"number_format": "int3"}, {"library_bytes": -1},
                   {"num_threads": 0}, {"num_threads": "2"}, {"library_bytes": None}):  # fmt: skip
        plant(path, planted | change)
        assert find_machine("fp32").library_bytes > 200_000_000, change
