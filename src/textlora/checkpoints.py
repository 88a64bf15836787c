"""Checkpoints of a training run: written whole, found again, thrown away when no longer needed.

    RUN/checkpoints/step-00000123/  weights.safetensors    trained weights, float32
                                    optimizer.safetensors  both moments of each of them
                                    state.json             position, best so far, recipe, data
                                    manifest.json          sizes and SHA-256, written last

Data order and dropout masks are functions of seed and step, so no random state is stored.
"""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from textlora.errors import SettingsError, TextloraError
from textlora.files import (
    MANIFEST,
    describe_files,
    find_damage,
    replace_folder,
    write_json,
)
from textlora.rundir import CHECKPOINTS
from textlora.settings import Recipe

_WEIGHTS, _OPTIMIZER, _STATE = "weights.safetensors", "optimizer.safetensors", "state.json"


@dataclass
class TrainingState:
    """Where a run stands between two steps. `best_value` is the metric, larger is better."""

    step: int = 0  # optimizer steps done
    num_records: int = 0  # lines of history.jsonl
    best_step: int = 0  # 0 = nothing evaluated yet
    best_value: float = -float("inf")
    stale_evaluations: int = 0  # evaluations since the best one
    loss_total: float = 0.0  # summed over the texts since the last record
    loss_texts: int = 0


@dataclass(frozen=True)
class Checkpoint:
    """All that continues a run. Tensors are float32, by parameter name."""

    state: TrainingState
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]


@dataclass(frozen=True)
class Origin:
    """What a run grows from; it is continued only where all of this is the same.

    `data` and `encoder` are SHA-256 fingerprints of texts with labels, and of the weight files.
    """

    recipe: Recipe
    data: str
    encoder: str


def save_checkpoint(run: Path, checkpoint: Checkpoint, origin: Origin) -> None:
    """Write a checkpoint whole or not at all, then drop those that are no longer needed.

    Raises:  TextloraError if it cannot be written; older checkpoints are then untouched.
    """
    folder = run / CHECKPOINTS
    final = _name(run, checkpoint.state.step)
    staged = folder / f".{final.name}.partial"
    try:
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True)
        save_file(checkpoint.weights, staged / _WEIGHTS)
        save_file(checkpoint.optimizer, staged / _OPTIMIZER)
        state = asdict(checkpoint.state)
        state["best_value"] = None if checkpoint.state.best_step == 0 else state["best_value"]
        recipe = origin.recipe.model_dump(mode="json")
        fingerprints = {"data": origin.data, "encoder": origin.encoder}
        write_json(staged / _STATE, {"state": state, "recipe": recipe, **fingerprints})
        write_json(staged / MANIFEST, describe_files(staged, [_WEIGHTS, _OPTIMIZER, _STATE]))
        replace_folder(staged, final)
    except (OSError, SafetensorError) as error:
        raise TextloraError(
            f"{final}: cannot be written ({error}); make room and run the same "
            "command again, it continues from the checkpoint before"
        ) from None
    # A later one was damaged and passed over, or this run would have started from it.
    earlier = [step for step in _list_steps(run) if step <= checkpoint.state.step]
    keep = {checkpoint.state.best_step, *earlier[-origin.recipe.training.keep_checkpoints :]}
    for step in _list_steps(run):
        if step not in keep:
            shutil.rmtree(_name(run, step), ignore_errors=True)


def find_checkpoint(run: Path, origin: Origin) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole checkpoint of this run, and what was wrong with newer ones.

    Raises:  SettingsError if the run was started with another recipe, other data or weights.
    """
    damaged = []
    for step in reversed(_list_steps(run)):
        folder = _name(run, step)
        reason = _find_damage(folder)
        if reason is not None:
            damaged.append(f"{folder}: {reason}; trying the one before")
            continue
        values = json.loads((folder / _STATE).read_text("utf-8"))
        _check_same(run, values, origin)
        state = TrainingState(**values["state"])
        if state.best_step and _find_damage(_name(run, state.best_step)):
            damaged.append(f"{folder}: its best checkpoint is lost; trying the one before")
            continue
        if state.best_value is None:
            state.best_value = -float("inf")
        weights = load_file(folder / _WEIGHTS)
        return Checkpoint(state, weights, load_file(folder / _OPTIMIZER)), damaged
    return None, damaged


def load_weights(run: Path, step: int) -> dict[str, Tensor]:
    """The trained weights of one checkpoint, by parameter name."""
    return load_file(_name(run, step) / _WEIGHTS)


def delete_checkpoints(run: Path) -> None:
    """Forget everything that could be continued."""
    shutil.rmtree(run / CHECKPOINTS, ignore_errors=True)


def _name(run: Path, step: int) -> Path:
    return run / CHECKPOINTS / f"step-{step:08d}"


def _list_steps(run: Path) -> list[int]:
    return sorted(int(path.name[5:]) for path in (run / CHECKPOINTS).glob("step-*"))


def _find_damage(folder: Path) -> str | None:
    try:
        return find_damage(folder, json.loads((folder / MANIFEST).read_text("utf-8")))
    except (OSError, ValueError):
        return f"{MANIFEST} is missing or damaged"


def _check_same(run: Path, values: dict[str, Any], origin: Origin) -> None:
    changed = []
    current = origin.recipe.model_dump(mode="json")
    for section, settings in values["recipe"].items():
        for name, old in settings.items():
            new = current[section].get(name)
            if old != new:
                changed.append(f"{section}.{name} was {old!r}, is {new!r}")
    if not changed and values["data"] != origin.data:
        changed.append("the texts or labels of the data have changed")
    if not changed and values["encoder"] != origin.encoder:
        changed.append(f"the weights of {origin.recipe.model.name} have changed")
    if changed:
        raise SettingsError(
            f"{run}: was started with other settings ({'; '.join(changed)}); "
            "use --resume never to start over, or another --out"
        )
