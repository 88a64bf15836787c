"""The machine: seed, device, number format, and a record of the environment.

Importing torch takes a second, so that what can be read from the system is read there: torch is
asked where it has been imported already, and where only it can tell.
"""

import importlib.metadata
import os
import platform
import resource
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from textlora.errors import SettingsError
from textlora.settings import Precision

if TYPE_CHECKING:
    import torch

DeviceName = Literal["cpu", "cuda"]
DtypeName = Literal["float32", "bfloat16"]

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
# As the Linux kernel calls them, the fastest first; torch asks the processor for the same.
_BF16_UNITS = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512 BF16", "sve_bf16": "SVE BF16"}
# Without one of these no driver of a graphics card can be reached: NVIDIA's own, that of its small
# boards, AMD's, and the one of Windows below Linux.
_GPU_FILES = ("dev/nvidia*", "dev/nvhost*", "dev/nvmap", "dev/kfd", "dev/dxg", "proc/driver/nvidia")
_ROOT = Path("/")


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


def name_device() -> DeviceName:
    """The kind of device that computes: CUDA where there is one, else the CPU.

    torch is imported only where the system shows a graphics card.
    """
    if "torch" not in sys.modules and not may_have_gpu():
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def may_have_gpu(root: Path = _ROOT) -> bool:
    """Whether torch could find a CUDA device here; only it can say that it does."""
    if sys.platform == "darwin":
        return False
    if sys.platform != "linux":
        return True
    return bool(list_gpu_files(root))


def list_gpu_files(root: Path = _ROOT) -> list[str]:
    """What drivers of graphics cards show on Linux; empty where there is none."""
    return sorted(str(path) for name in _GPU_FILES for path in root.glob(name))


def pick_device() -> "torch.device":
    """The first CUDA device where there is one, else the CPU."""
    import torch

    return torch.device(name_device())


def find_bf16_units(device: "torch.device | DeviceName") -> str:
    """Name of the hardware's bfloat16 matrix units, empty where it has none.

    Without them bfloat16 is emulated and several times slower than float32.
    """
    if f"{device}".startswith("cuda"):
        import torch

        return "CUDA" if torch.cuda.is_bf16_supported(including_emulation=False) else ""
    return next((name for key, name in _BF16_UNITS.items() if key in _list_capabilities()), "")


def name_dtype(precision: Precision, device: "torch.device | DeviceName") -> DtypeName:
    """Number format of the frozen weights.

    Raises:  SettingsError if bf16 is demanded from a device that only emulates it on CUDA.
    """
    if precision == "fp32":
        return "float32"
    has_units = bool(find_bf16_units(device))
    if precision == "auto":
        return "bfloat16" if has_units else "float32"
    if f"{device}".startswith("cuda") and not has_units:
        raise SettingsError(
            "training.precision: this GPU has no bfloat16 units, got 'bf16'; use 'auto'"
        )
    return "bfloat16"


def pick_dtype(precision: Precision, device: "torch.device") -> "torch.dtype":
    """The same for those who compute.

    Raises:  SettingsError as `name_dtype`.
    """
    import torch

    return torch.bfloat16 if name_dtype(precision, device) == "bfloat16" else torch.float32


def set_seed(seed: int, position: int = 0) -> None:
    """Make torch's random numbers a function of (seed, position).

    Seeded anew at every step, dropout masks need no stored random state to resume exactly.
    """
    import torch

    # An odd multiplier spreads neighbouring positions over the 64-bit space; torch takes 63 bits.
    torch.manual_seed((seed * 0x9E3779B97F4A7C15 + position * 0xD1B54A32D192ED03) % (1 << 63))


def describe_environment() -> Environment:
    """Versions, device and threads of this process."""
    device = name_device()
    return Environment(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        processor=f"{_read_processor_name()}, {os.cpu_count()} cores",
        num_threads=count_threads(),
        device="cpu" if device == "cpu" else _read_gpu_name(),
        bf16_units=find_bf16_units(device),
        packages={package: importlib.metadata.version(package) for package in _PACKAGES},
    )


def count_threads() -> int:
    """How many threads torch computes with, or would if it were imported.

    On x86-64 Linux that is what MKL says: what the environment asks for, but no more than there
    are cores, else one for each core that this process may use. A core is counted once, however
    many threads it runs. Where anything else has a say torch is asked.

    Source:  ATen/ParallelOpenMP.cpp of torch; Intel's guide to oneMKL, "MKL_DYNAMIC".
    """
    found = None if "torch" in sys.modules else _predict_threads()
    if found is not None:
        return found
    import torch

    return torch.get_num_threads()


@contextmanager
def use_one_thread() -> Iterator[None]:
    """Inside, torch computes with one thread: for many small steps, between which others only wait.

    They wait by turning in circles, which takes as much of the processor as computing does.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def measure_peak_memory(device: "torch.device") -> int:
    """Bytes that this process has taken at most so far: on a GPU those of its tensors there."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # Linux counts in KiB


def _predict_threads() -> int | None:
    """As MKL counts them; None where only torch can tell."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return None
    switches = {name for name in os.environ if name.startswith("MKL_")}
    cores = _count_cores(range(os.cpu_count() or 1))
    if cores is None or switches - {"MKL_NUM_THREADS"}:
        return None
    for name in ("MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        wanted = os.environ.get(name, "")
        if wanted.isdecimal() and int(wanted) > 0:
            return min(int(wanted), cores)
        if wanted:  # a list, zero, or a slip: who reads it decides
            return None
    return _count_cores(os.sched_getaffinity(0))


def _count_cores(processors: Iterable[int]) -> int | None:
    """How many cores these processors belong to; None where the system does not say."""
    topology = Path("/sys/devices/system/cpu")
    try:
        return len(
            {
                tuple(
                    (topology / f"cpu{number}" / "topology" / name).read_text()
                    for name in ("physical_package_id", "core_id")
                )
                for number in processors
            }
        )
    except OSError:
        return None


@cache
def _list_capabilities() -> frozenset[str]:
    """What the processor offers, by the names that the Linux kernel and torch have for it."""
    flags = _read_cpuinfo("flags") if platform.machine() == "x86_64" else ""
    if flags:
        return frozenset(flags.split())
    import torch

    return frozenset(name for name, value in torch.cpu.get_capabilities().items() if value is True)


def _read_gpu_name() -> str:
    import torch

    return torch.cuda.get_device_name()


def _read_processor_name() -> str:
    return _read_cpuinfo("model name") or platform.processor() or "unknown processor"


def _read_cpuinfo(key: str) -> str:
    """What Linux says of the first processor; empty elsewhere."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:  # noqa: PTH123 - a device, not a path
            for line in stream:
                if line.startswith(key):
                    return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return ""
