"""Training as others follow it: TensorBoard, MLflow, Weights & Biases, Trackio, by Accelerate.

    RUN/tracking/  tensorboard/, mlflow.db   where the user's own settings name no other place
                   state.json                what each tracker has been told, for a resumed run

All is local unless the environment says otherwise (MLFLOW_TRACKING_URI, WANDB_API_KEY). A tracker
that fails is left behind; training goes on.
"""

import json
import logging
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from textlora.errors import SettingsError, TextloraError, shorten_message
from textlora.runs.history import StepRecord
from textlora.runs.run_folder import TRACKING
from textlora.scoring.metrics import Scores
from textlora.scoring.set_metrics import SetScores
from textlora.settings import Recipe
from textlora.system.files import remove_folder, write_json
from textlora.system.progress import Reporter

TRACKERS = ("tensorboard", "mlflow", "wandb", "trackio")
_PROJECT = "textlora"
_STATE = "state.json"


class Tracking:
    """The open trackers of a run; each step is told once, also when a resumed run repeats it."""

    def __init__(self, folder: Path, report: Reporter) -> None:
        self.trackers: dict[str, Any] = {}
        self.told: dict[str, dict[str, Any]] = {}
        self._folder, self._report = folder, report

    def record(self, record: StepRecord) -> None:
        """Tell one line of history."""
        values: dict[str, Any] = {
            f"train/{name}": value
            for name, value in asdict(record).items()
            if name not in ("step", "validation")
        }
        if record.validation is not None:
            figures = asdict(record.validation)
            del figures["thresholds"]  # a list is no figure to draw
            values |= {f"validation/{name}": value for name, value in figures.items()}
        self._tell(values, record.step)

    def finish(self, scores: Mapping[str, Scores | SetScores], step: int) -> None:
        """Tell the figures of the saved classifier, by split."""
        values: dict[str, Any] = {}
        for split, item in scores.items():
            interval = item.accuracy_interval
            values |= {
                f"final/{split}_accuracy": item.accuracy,
                f"final/{split}_accuracy_low": interval.low,
                f"final/{split}_accuracy_high": interval.high,
                f"final/{split}_f1_macro": item.macro.f1,
                f"final/{split}_loss": item.loss,
            }
        self._tell(values, step + 1)

    def attempt(self, name: str, action: Any) -> None:
        """Whatever a tracker raises is its own trouble."""
        try:
            action()
        except Exception as error:  # servers, disks, other people's code
            self.trackers.pop(name, None)
            reason = shorten_message(error)
            self._report.say(f"{name}: left behind ({reason}); training goes on")

    def _tell(self, values: dict[str, Any], step: int) -> None:
        for name, tracker in list(self.trackers.items()):
            told = self.told[name]
            if step > told["step"]:
                self.attempt(name, lambda tracker=tracker: tracker.log(values, step=step))
                told["step"] = step
        if self.trackers:
            self.attempt("state", lambda: write_json(self._folder / _STATE, self.told))


@contextmanager
def open_tracking(
    names: Sequence[str], run: Path, recipe: Recipe, report: Reporter, *, afresh: bool
) -> Iterator[Tracking]:
    """Open trackers for a run; one that was resumed goes on in the same place.

    Raises:  SettingsError for an unknown tracker, or one that is not installed.
    """
    _check(names)
    folder = run / TRACKING
    tracking = Tracking(folder, report)
    if names:
        try:
            if afresh:
                remove_folder(folder)
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TextloraError(
                f"{folder}: cannot be written ({error.strerror or error}); make room there"
            ) from None
        found = _read_state(folder)
        for name in names:
            tracking.attempt(name, lambda name=name: _start(tracking, name, run, recipe, found))
    try:
        yield tracking
    finally:
        for opened, tracker in list(tracking.trackers.items()):
            tracking.attempt(opened, tracker.finish)


def _check(names: Sequence[str]) -> None:
    for name in names:
        if name not in TRACKERS:
            raise SettingsError(f"--track: {name!r} is unknown; known: {', '.join(TRACKERS)}")
        if find_spec(name) is None:
            raise SettingsError(f"--track: {name} is not installed; pip install 'textlora[{name}]'")


def _start(
    tracking: Tracking, name: str, run: Path, recipe: Recipe, found: dict[str, dict[str, Any]]
) -> None:
    from accelerate.state import PartialState

    PartialState()  # Accelerate's trackers ask it which process they are in
    # Of its own, because another run may have the same name.
    identity = {"id": secrets.token_hex(4)} if name == "wandb" else {}
    state = found.get(name, {"step": 0, **identity})
    tracker = _make(name, run, state.get("id"))
    tracker.start()
    if name == "mlflow":
        state["id"] = tracker.tracker.info.run_id
    if name not in found:
        tracker.store_init_configuration(_flatten(recipe))
    tracking.trackers[name], tracking.told[name] = tracker, state


def _make(name: str, run: Path, identity: str | None) -> Any:
    from accelerate import tracking

    folder = run / TRACKING
    if name == "tensorboard":
        return tracking.TensorBoardTracker(name, folder)
    if name == "mlflow":
        # Its reports of use go over the network; its messages are about tables.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        for noisy in ("mlflow", "alembic"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        import mlflow

        wanted = os.environ.get("MLFLOW_TRACKING_URI")
        mlflow.set_tracking_uri(wanted or f"sqlite:///{(folder / 'mlflow.db').resolve()}")
        place = None if wanted else (folder / "mlflow").resolve()
        return tracking.MLflowTracker(
            _PROJECT, logging_dir=place and place.as_uri(), run_id=identity, run_name=run.name
        )
    if name == "wandb":
        if "WANDB_API_KEY" not in os.environ:
            os.environ.setdefault("WANDB_MODE", "offline")  # it would ask for a key
        return tracking.WandBTracker(_PROJECT, name=run.name, dir=str(folder), resume="allow",
                                     id=identity or run.name)  # fmt: skip
    return tracking.TrackioTracker(_PROJECT, name=run.name, resume="allow")


def _flatten(recipe: Recipe) -> dict[str, Any]:
    values = {}
    for section, settings in recipe.model_dump(mode="json").items():
        for name, value in settings.items():
            plain = isinstance(value, int | float | str)
            values[f"{section}.{name}"] = value if plain else json.dumps(value)
    return values


def _read_state(folder: Path) -> dict[str, dict[str, Any]]:
    try:
        values: dict[str, dict[str, Any]] = json.loads((folder / _STATE).read_text("utf-8"))
        whole = all("step" in told for told in values.values())
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
    return values if whole else {}
