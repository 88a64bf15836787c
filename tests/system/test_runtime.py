"""What is said of the machine without torch is what torch says."""

import json
import os
import platform
import subprocess
import sys

import pytest
import torch

from textlora.errors import SettingsError
from textlora.system import runtime

ASK = """
import dataclasses, json, sys
from textlora.system import runtime
found = dataclasses.asdict(runtime.describe_environment())
found["dtypes"] = [runtime.name_dtype(name, runtime.name_device()) for name in ("auto", "fp32")]
lean = "torch" not in sys.modules
import torch
found["lean"], found["torch_threads"] = lean, torch.get_num_threads()
print(json.dumps(found))
"""


def describe(cpus=None, **settings):
    """The environment as a fresh process sees it, before and after it imports torch."""
    free = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "MKL_"))}
    process = subprocess.run(
        [sys.executable, "-c", ASK],
        env={**free, **settings}, capture_output=True, text=True, check=True,
        preexec_fn=None if cpus is None else lambda: os.sched_setaffinity(0, cpus),
    )  # fmt: skip
    return json.loads(process.stdout)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"OMP_NUM_THREADS": "1"},
        {"OMP_NUM_THREADS": "3"},
        {"MKL_NUM_THREADS": "1"},
        {"MKL_NUM_THREADS": "1", "OMP_NUM_THREADS": "2"},
        {"MKL_NUM_THREADS": "2", "OMP_NUM_THREADS": "1"},
        {"OMP_NUM_THREADS": "2,1"},
        {"OMP_NUM_THREADS": "0"},
        {"MKL_NUM_THREADS": "x", "OMP_NUM_THREADS": "1"},
        {"MKL_NUM_THREADS": "0"},
        {"MKL_DYNAMIC": "FALSE", "OMP_NUM_THREADS": "5"},
    ],
)
def test_threads_are_those_of_torch(settings):
    found = describe(**settings)
    assert found["num_threads"] == found["torch_threads"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs a way to bind a process to processors")
@pytest.mark.parametrize("settings", [{}, {"OMP_NUM_THREADS": "2"}, {"MKL_NUM_THREADS": "2"}])
def test_threads_are_those_of_torch_on_one_processor_of_several(settings):
    found = describe(cpus={min(os.sched_getaffinity(0))}, **settings)
    assert found["num_threads"] == found["torch_threads"]


@pytest.mark.skipif(
    runtime.may_have_gpu() or (sys.platform, platform.machine()) != ("linux", "x86_64"),
    reason="torch is asked for its graphics card, or on this kind of machine",
)
def test_a_usual_machine_is_described_without_torch():
    assert describe()["lean"]


def test_the_environment_is_the_same_with_torch_and_without():
    found = describe(OMP_NUM_THREADS=str(torch.get_num_threads()))
    known = runtime.describe_environment()
    assert {name: found[name] for name in vars(known)} == vars(known)
    device = runtime.pick_device()
    assert found["dtypes"] == [
        str(runtime.pick_dtype(name, device)).removeprefix("torch.") for name in ("auto", "fp32")
    ]


def test_units_are_those_that_torch_finds():
    found = torch.cpu.get_capabilities()
    names = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512 BF16", "sve_bf16": "SVE BF16"}
    expected = next((name for key, name in names.items() if found.get(key)), "")
    assert runtime.find_bf16_units("cpu") == expected
    assert runtime.find_bf16_units(torch.device("cpu")) == expected


def test_a_device_is_named_as_torch_finds_it():
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert runtime.name_device() == expected
    assert runtime.pick_device() == torch.device(expected)
    assert not torch.cuda.is_available() or runtime.may_have_gpu()


@pytest.mark.skipif(sys.platform != "linux", reason="the device files of Linux")
@pytest.mark.parametrize("name", ["dev/nvidiactl", "dev/nvidia0", "dev/kfd", "dev/dxg"])
def test_a_device_file_is_a_reason_to_ask_torch(name, tmp_path):
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "null").touch()
    assert not runtime.may_have_gpu(tmp_path)
    (tmp_path / name).touch()
    assert runtime.may_have_gpu(tmp_path)


@pytest.mark.parametrize("units", ["", "CUDA"])
def test_the_format_follows_from_wish_and_units(units, monkeypatch):
    monkeypatch.setattr(runtime, "find_bf16_units", lambda _: units)
    assert runtime.name_dtype("auto", "cuda") == ("bfloat16" if units else "float32")
    assert runtime.name_dtype("fp32", "cuda") == "float32"
    assert runtime.name_dtype("bf16", "cpu") == "bfloat16"  # emulated, as was asked for
    if units:
        assert runtime.name_dtype("bf16", "cuda") == "bfloat16"
    else:
        with pytest.raises(SettingsError, match="this GPU has no bfloat16 units"):
            runtime.name_dtype("bf16", "cuda")
