"""Checkpoints of a training run: written whole, found again, thrown away when no longer needed.

    RUN/checkpoints/step-00000123/  weights.safetensors    trained weights, float32
                                    optimizer.safetensors  both moments of each of them, and the
                                                           raw weights where averages count
                                    history.jsonl          all lines up to here
                                    state.json             position, best so far, recipe, data
                                    manifest.json          sizes and SHA-256, written last

Data order, dropout masks, schedules are functions of seed and step, so no random state is stored.
"""

import json
import re
import shutil
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Size, Tensor

from textlora.errors import SettingsError, UnfinishedError
from textlora.runs.run_folder import CHECKPOINTS, HISTORY
from textlora.settings import Recipe
from textlora.system.files import (
    MANIFEST,
    describe_files,
    find_damage,
    find_pickle,
    format_json,
    mend_folder,
    remove_folder,
    stage_folder,
    write_file,
)

_WEIGHTS, _OPTIMIZER, _STATE = "weights.safetensors", "optimizer.safetensors", "state.json"
_FORMAT = 2
# What may differ between a run and its continuation: where and how often things are kept.
_FREE = {"training.keep_checkpoints", "training.checkpoint_minutes", "training.prefix_cache_gb"}


@dataclass(frozen=True)
class Effort:
    """What the steps up to a checkpoint took; what a kill threw away is not in it.

    Units:   seconds of steps, evaluations and checkpoints; peak_bytes of the process or the GPU.
    """

    seconds: float = 0.0
    peak_bytes: int = 0


@dataclass
class TrainingState:
    """Where a run stands between two steps. `best_value` is the metric, larger is better.

    Two runs of one recipe go through equal states; what they took is no part of that.
    """

    step: int = 0  # optimizer steps done
    recorded_step: int = 0  # the last one that is in the history, evaluated if it had to be
    gradient_norm: float = 0.0  # of the last step, before clipping
    best_step: int = 0  # 0 = nothing evaluated yet
    best_value: float = -float("inf")
    best_loss: float = float("inf")  # on validation at best_step: of equal values the lower wins
    stale_evaluations: int = 0  # evaluations since the best one
    loss_total: float = 0.0  # summed over the texts since the last record
    loss_texts: int = 0
    effort: Effort = field(default=Effort(), compare=False, repr=False)


@dataclass(frozen=True)
class Checkpoint:
    """All that continues a run. Tensors are float32, by parameter name."""

    state: TrainingState
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    history: bytes


@dataclass(frozen=True)
class Origin:
    """What a run grows from; it is continued only where all of this is the same.

    `data` and `encoder` are SHA-256 fingerprints of texts with labels, and of the encoder's files.
    """

    recipe: Recipe
    data: str
    encoder: str


def save_checkpoint(run: Path, checkpoint: Checkpoint, origin: Origin) -> None:
    """Write a checkpoint whole or not at all, then drop those that are no longer needed.

    Raises:  UnfinishedError if it cannot be written; older checkpoints are then untouched.
    """
    state = asdict(checkpoint.state)
    effort = state.pop("effort")  # stored apart, so that equal states are equal bytes
    if checkpoint.state.best_step == 0:
        state["best_value"] = state["best_loss"] = None  # JSON has no infinity
    about = {
        "format": _FORMAT,
        "state": state,
        "recipe": origin.recipe.model_dump(mode="json"),
        "data": origin.data,
        "encoder": origin.encoder,
        "effort": effort,
    }
    final = _name(run, checkpoint.state.step)
    try:
        with stage_folder(final) as staged:
            write_file(staged / _WEIGHTS, save(checkpoint.weights))
            write_file(staged / _OPTIMIZER, save(checkpoint.optimizer))
            write_file(staged / HISTORY, checkpoint.history)
            write_file(staged / _STATE, format_json(about).encode())
            described = describe_files(staged, [_WEIGHTS, _OPTIMIZER, HISTORY, _STATE])
            write_file(staged / MANIFEST, format_json(described).encode())
        # A later one was damaged and passed over, or this run would have started from it.
        earlier = [step for step in _list_steps(run) if step <= checkpoint.state.step]
        keep = {checkpoint.state.best_step, *earlier[-origin.recipe.training.keep_checkpoints :]}
        for step in _list_steps(run):
            if step not in keep:
                remove_folder(_name(run, step))
    except OSError as error:
        raise UnfinishedError(
            f"{final}: cannot be written ({error.strerror or error}); make room and run the same "
            "command again, it continues from the checkpoint before"
        ) from None


def find_checkpoint(
    run: Path, origin: Origin, shapes: dict[str, Size], optimizer: dict[str, Size]
) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole checkpoint of this run, and what was wrong with newer ones.

    `shapes` are those of the trained weights, `optimizer` those of its tensors. To be
    called by the one process that trains in `run`.

    Raises:  SettingsError if the run was started with another recipe, other data or weights.
    """
    _mend(run)
    damaged: list[str] = []
    for step in reversed(_list_steps(run)):
        folder = _name(run, step)
        try:
            found = _read(folder, run, origin, shapes, optimizer)
            if found.state.best_step:
                _read_weights(_name(run, found.state.best_step), shapes)
            return found, damaged
        except _DamageError as error:
            damaged.append(f"{error}; trying the one before")
    return None, damaged


def load_weights(run: Path, step: int, shapes: dict[str, Size]) -> dict[str, Tensor]:
    """The trained weights of one checkpoint, by parameter name.

    Raises:  UnfinishedError if it is damaged.
    """
    try:
        return _read_weights(_name(run, step), shapes)
    except _DamageError as error:
        raise UnfinishedError(
            f"{error}; run the same command again, it continues from the checkpoint before"
        ) from None


def find_newest_step(run: Path) -> int:
    """The step of the newest checkpoint, whole or not; 0 without one."""
    return max(_list_steps(run), default=0)


def delete_checkpoints(run: Path) -> None:
    """Forget everything that could be continued."""
    remove_folder(run / CHECKPOINTS)


class _DamageError(Exception):
    """A checkpoint that cannot be used; where and why."""


def _name(run: Path, step: int) -> Path:
    return run / CHECKPOINTS / f"step-{step:08d}"


def _list_steps(run: Path) -> list[int]:
    names = (path.name for path in (run / CHECKPOINTS).glob("step-*"))
    return sorted(int(name[5:]) for name in names if re.fullmatch(r"step-\d{8,}", name))


def _mend(run: Path) -> None:
    """Undo what a crash left half done."""
    folder = run / CHECKPOINTS
    for path in folder.glob(".step-*.old"):
        mend_folder(folder / path.stem[1:])
    for path in [*folder.glob(".step-*"), *run.glob(f".{CHECKPOINTS}.*")]:
        shutil.rmtree(path, ignore_errors=True)


def _read(
    folder: Path, run: Path, origin: Origin, shapes: dict[str, Size], optimizer: dict[str, Size]
) -> Checkpoint:
    _check_files(folder)
    try:
        values = json.loads((folder / _STATE).read_text("utf-8"))
        if values["format"] != _FORMAT:
            raise _DamageError(f"{folder}: was written by another version of textlora")
        _check_same(run, values, origin)
        known = {item.name for item in fields(TrainingState)} - {"effort"}
        # Checkpoints of earlier versions do not say what they took: it is counted from here on.
        # Nor do they have the loss of the best: what equals it next is then the better one.
        effort = Effort(**values.get("effort", {}))
        stored = {"best_loss": None, **values["state"]}
        state = TrainingState(**{name: stored[name] for name in known}, effort=effort)
        history = (folder / HISTORY).read_bytes()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _DamageError(f"{folder}: {_STATE} is damaged ({error!r:.100})") from None
    if state.best_value is None:
        state.best_value = -float("inf")
    if state.best_loss is None:
        state.best_loss = float("inf")
    weights = _load(folder / _WEIGHTS, shapes)
    return Checkpoint(state, weights, _load(folder / _OPTIMIZER, optimizer), history)


def _read_weights(folder: Path, shapes: dict[str, Size]) -> dict[str, Tensor]:
    _check_files(folder)
    return _load(folder / _WEIGHTS, shapes)


def _check_files(folder: Path) -> None:
    try:
        described = json.loads((folder / MANIFEST).read_text("utf-8"))
        missing = {_WEIGHTS, _OPTIMIZER, HISTORY, _STATE} - set(described)
        reason = f"{min(missing)} is not listed" if missing else find_damage(folder, described)
        pickled = find_pickle(folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise _DamageError(f"{folder}: {MANIFEST} is missing or damaged") from None
    if pickled is not None:
        raise _DamageError(f"{folder}: holds {pickled}, which textlora never writes")
    if reason is not None:
        raise _DamageError(f"{folder}: {reason}")


def _load(path: Path, shapes: dict[str, Size]) -> dict[str, Tensor]:
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise _DamageError(f"{path}: {error}") from None
    if {name: tensor.shape for name, tensor in tensors.items()} != shapes:
        raise _DamageError(f"{path}: its tensors are not those of this model")
    return tensors


def _check_same(run: Path, values: dict[str, Any], origin: Origin) -> None:
    changed = []
    current = origin.recipe.model_dump(mode="json")
    for section, settings in values["recipe"].items():
        for name, old in settings.items():
            new = current[section].get(name)
            if old != new and f"{section}.{name}" not in _FREE:
                changed.append(f"{section}.{name} was {old!r}, is {new!r}")
    if not changed and values["data"] != origin.data:
        changed.append("the texts or labels of the data have changed")
    if not changed and values["encoder"] != origin.encoder:
        changed.append(f"the files of {origin.recipe.model.name} have changed")
    if changed:
        raise SettingsError(
            f"{run}: was started with other settings ({'; '.join(changed)}); "
            "use --resume never to start over, or another --out"
        )
