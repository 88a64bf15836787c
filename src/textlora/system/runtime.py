"""The machine: seed, device, number format, and a record of the environment."""

import importlib.metadata
import os
import platform
import resource
import sys
from dataclasses import dataclass

import torch

from textlora.errors import SettingsError
from textlora.settings import Precision

_PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "datasets",
    "tokenizers",
    "safetensors",
    "numpy",
    "scikit-learn",
)


@dataclass(frozen=True)
class Environment:
    """What a result depends on besides its recipe."""

    python: str
    system: str
    processor: str
    num_threads: int
    device: str
    bf16_units: str
    packages: dict[str, str]


def pick_device() -> torch.device:
    """The first CUDA device where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def find_bf16_units(device: torch.device) -> str:
    """Name of the hardware's bfloat16 matrix units, empty where it has none.

    Without them bfloat16 is emulated and several times slower than float32.
    """
    if device.type == "cuda":
        return "CUDA" if torch.cuda.is_bf16_supported(including_emulation=False) else ""
    capabilities = torch.cpu.get_capabilities()
    names = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512 BF16", "sve_bf16": "SVE BF16"}
    return next((name for key, name in names.items() if capabilities.get(key)), "")


def pick_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """Number format of the frozen weights.

    Raises:  SettingsError if bf16 is demanded from a device that only emulates it on CUDA.
    """
    if precision == "auto":
        return torch.bfloat16 if find_bf16_units(device) else torch.float32
    if precision == "bf16" and device.type == "cuda" and not find_bf16_units(device):
        raise SettingsError(
            "training.precision: this GPU has no bfloat16 units, got 'bf16'; use 'auto'"
        )
    return torch.bfloat16 if precision == "bf16" else torch.float32


def set_seed(seed: int, position: int = 0) -> None:
    """Make torch's random numbers a function of (seed, position).

    Seeded anew at every step, dropout masks need no stored random state to resume exactly.
    """
    # An odd multiplier spreads neighbouring positions over the 64-bit space; torch takes 63 bits.
    torch.manual_seed((seed * 0x9E3779B97F4A7C15 + position * 0xD1B54A32D192ED03) % (1 << 63))


def describe_environment() -> Environment:
    """Versions, device and threads of this process."""
    device = pick_device()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return Environment(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        processor=f"{_read_processor_name()}, {os.cpu_count()} cores",
        num_threads=torch.get_num_threads(),
        device=name,
        bf16_units=find_bf16_units(device),
        packages={package: importlib.metadata.version(package) for package in _PACKAGES},
    )


def measure_peak_memory(device: torch.device) -> int:
    """Bytes that this process has taken at most so far: on a GPU those of its tensors there."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # Linux counts in KiB


def _read_processor_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:  # noqa: PTH123 - a device, not a path
            for line in stream:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or "unknown processor"
