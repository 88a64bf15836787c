"""What a classifier comes from besides its recipe: the data's check, the machine, time and memory.

Both files are told about in the report. A run may lack them: one that was trained on texts in
memory has no check of its data, and one of an earlier version has neither.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from textlora.checking.findings import DataCheck
from textlora.errors import ModelError, shorten_message
from textlora.runs.run_folder import DATA_CHECK, TRAINING
from textlora.system.files import write_json
from textlora.system.runtime import Environment


@dataclass(frozen=True)
class TrainingRecord:
    """Where a run was trained and what that took.

    `texts` counts a text once an epoch. `environment` is that of the process that took the last
    step; the seconds are those of all processes that the run was stopped and continued in.

    Units:   seconds of steps, evaluations and checkpoints; peak_bytes of the process or the GPU.
    """

    environment: Environment
    number_format: str
    epochs: float
    texts: int
    seconds: float
    peak_bytes: int

    @property
    def texts_per_s(self) -> float:
        """Texts trained on in a second, evaluations included."""
        return self.texts / self.seconds if self.seconds else 0.0


def write_training(run: Path, record: TrainingRecord) -> None:
    """Store a record; one that took the same steps stays.

    A command that is run again finds all steps done: the machine it runs on has trained nothing.

    Raises:  OSError if it cannot be written.
    """
    try:
        old = read_training(run)
    except ModelError:
        old = None
    if old is None or (old.seconds, old.texts) != (record.seconds, record.texts):
        write_json(run / TRAINING, asdict(record))


def read_training(run: Path) -> TrainingRecord | None:
    """What is stored; None where nothing is.

    Raises:  ModelError if it is damaged.
    """
    found: TrainingRecord | None = _read(run / TRAINING, TrainingRecord)
    return found


def write_data_check(run: Path, check: DataCheck | None) -> None:
    """Store what was found in the data; None takes away what was found in other data.

    Raises:  OSError if it cannot be written.
    """
    if check is None:
        (run / DATA_CHECK).unlink(missing_ok=True)
    else:
        write_json(run / DATA_CHECK, asdict(check))


def read_data_check(run: Path) -> DataCheck | None:
    """What is stored; None where nothing is.

    Raises:  ModelError if it is damaged.
    """
    found: DataCheck | None = _read(run / DATA_CHECK, DataCheck)
    return found


def _read(path: Path, kind: Any) -> Any:
    if not path.is_file():
        return None
    try:
        return TypeAdapter(kind).validate_python(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, ValidationError) as error:
        reason = shorten_message(error)
        raise ModelError(f"{path}: damaged ({reason}); delete it, or train again") from None
