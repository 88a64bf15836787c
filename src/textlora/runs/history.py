"""The history of a training run: one line of JSON a record, oldest first."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from textlora.errors import ModelError, shorten_message
from textlora.runs.run_folder import HISTORY
from textlora.scoring.validation import ValidationRecord
from textlora.system.files import write_atomically


@dataclass(frozen=True)
class StepRecord:
    """One line of history.jsonl: what was applied at `step`, and the mean loss since the last line.

    `train_loss` is the plain one, as that of validation: without class weights, label smoothing and
    focal factor. No times are in it, so that two runs of one recipe write the same history.
    """

    step: int
    epoch: float
    train_loss: float
    learning_rate: float
    dropout: float
    gradient_norm: float
    validation: ValidationRecord | None


class History:
    """history.jsonl while a run writes it. `content` is all of it, as a checkpoint keeps it."""

    def __init__(self, run: Path, content: bytes) -> None:
        """Start from `content`: lines written after the checkpoint go, lost ones come back.

        Raises:  OSError if the file cannot be written.
        """
        self._path = run / HISTORY
        self.content = content
        write_atomically(self._path, content)

    def append(self, record: StepRecord) -> None:
        """Add one line.

        Raises:  OSError if the file cannot be written.
        """
        line = json.dumps(asdict(record)).encode() + b"\n"
        expected, self.content = len(self.content), self.content + line
        with self._path.open("ab") as stream:
            if stream.tell() == expected:
                stream.write(line)
                return
        # Somebody has cut or removed it.
        write_atomically(self._path, self.content)


def read_history(run: Path) -> list[StepRecord]:
    """The lines of history.jsonl, oldest first.

    Raises:  OSError if it is not there; ModelError if it is damaged.
    """
    path = run / HISTORY
    try:
        return [_read_record(line) for line in path.read_text("utf-8").splitlines()]
    except (ValueError, KeyError, TypeError) as error:
        reason = shorten_message(error)
        raise ModelError(f"{path}: damaged ({reason}); delete it, or train again") from None


def _read_record(line: str) -> StepRecord:
    values = json.loads(line)
    if values["validation"] is not None:
        found = values["validation"]
        thresholds = tuple(found.pop("thresholds", ()))
        values["validation"] = ValidationRecord(**found, thresholds=thresholds)
    return StepRecord(**values)
