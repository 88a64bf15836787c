"""How fast this machine is, and how it is set up: measured once, kept, and read without torch.

An entry of the cache folder is keyed by all that changes what would be measured. It is only there
to save time: one that is damaged or of another machine is measured anew, and one that cannot be
written is done without.
"""

import hashlib
import json
import os
import platform
import sys
import time
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from textlora.budgeting.machine import LayerSizes, Machine, Speed
from textlora.settings import Precision
from textlora.system.files import drop_stale, find_cache_folder, write_atomically
from textlora.system.runtime import list_gpu_files

_KEPT_DAYS = 30  # of entries that nobody reads
_BUSY_S = 3_600.0  # after that what a busy machine has measured is measured again
# How what begins so is set, what is measured follows from.
_VARIABLES = ("OMP_", "MKL_", "GOMP_", "ATEN_", "ONEDNN_", "DNNL_", "CUDA_VISIBLE_DEVICES")
# Of /proc/cpuinfo; the latter three are those of ARM.
_PROCESSOR = ("model name", "flags", "CPU implementer", "CPU part", "Features")

_Entry = TypeVar("_Entry", Machine, Speed)


def find_machine(precision: Precision, held_bytes: int = 0) -> Machine:
    """As it is kept, or found out by importing torch; `held_bytes` of this process are data.

    Raises:  SettingsError if the device cannot compute in that precision.
    """
    key = _describe_machine() | {"precision": precision}
    kept = _read("machine", key, Machine)
    if kept is not None and _fits(kept):
        return kept
    # The peak of a process that used torch before has perhaps a model in it.
    is_fresh = "torch" not in sys.modules
    from textlora.budgeting.layer_timing import measure_machine

    found = measure_machine(precision)
    if found.device == "cpu":
        found = replace(found, library_bytes=found.library_bytes - held_bytes)
    if is_fresh:
        _keep("machine", key, found)
    return found


def find_speed(sizes: LayerSizes, precision: Precision, machine: Machine) -> Speed:
    """As it is kept for these sizes, or measured, which takes about a second."""
    facts = {**asdict(sizes), **asdict(machine), "precision": precision}
    facts.pop("library_bytes")
    key = _describe_machine() | facts
    found = _read("speed", key, Speed)
    if found is None:
        from textlora.budgeting.layer_timing import measure_speed

        found = measure_speed(sizes, precision)
        _keep("speed", key, found)
    return found


def _describe_machine() -> dict[str, Any]:
    """What tells this machine, as it is set up, from others that may read the same folder."""
    return {
        "host": platform.node(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _read_processor(),
        "cores": os.cpu_count(),
        "usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "gpus": list_gpu_files(),
        "environment": {k: v for k, v in sorted(os.environ.items()) if k.startswith(_VARIABLES)},
        "versions": {name: version(name) for name in ("textlora", "torch", "transformers", "peft")},
    }


def _read_processor() -> str:
    """Its name and what it can compute; on systems that have no such file, what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return platform.processor()
    found = {name.strip(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    return " ".join(found[name] for name in _PROCESSOR if name in found)


def _fits(kept: Machine) -> bool:
    """Whether a kept entry is right for this process, which may have changed its threads."""
    torch = sys.modules.get("torch")
    return torch is None or torch.get_num_threads() == kept.num_threads


def _read(kind: str, key: dict[str, Any], entry: type[_Entry]) -> _Entry | None:
    try:
        path = _find_path(kind, key)
        stored = json.loads(path.read_text("utf-8"))
        if stored["key"] != json.loads(json.dumps(key)):
            return None
        found = entry(**stored["value"])
        if isinstance(found, Speed) and not found.is_steady:
            age = time.time() - float(stored["measured_at"])
            if not 0.0 <= age < _BUSY_S:
                return None
        path.touch()  # in use
    except (OSError, ValueError, TypeError, KeyError, RuntimeError):
        return None
    return found if found.is_sound() else None


def _keep(kind: str, key: dict[str, Any], entry: Machine | Speed) -> None:
    try:
        path = _find_path(kind, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        drop_stale(path.parent, _KEPT_DAYS)
        stored = {"key": key, "value": asdict(entry), "measured_at": time.time()}
        write_atomically(path, json.dumps(stored))
    except (OSError, RuntimeError):
        pass  # a full or read-only disk, or no home: it costs time the next time, nothing else


def _find_path(kind: str, key: dict[str, Any]) -> Path:
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return find_cache_folder("speed") / f"{kind}-{digest}.json"
