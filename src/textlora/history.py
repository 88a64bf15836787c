"""The history of a training run: one line of JSON a record, oldest first."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from textlora.files import write_atomically
from textlora.rundir import HISTORY


@dataclass(frozen=True)
class ValidationRecord:
    """Validation figures at one step."""

    loss: float
    accuracy: float
    f1_weighted: float
    f1_macro: float


@dataclass(frozen=True)
class StepRecord:
    """One line of history.jsonl: what was applied at `step`, and the mean loss since the last line.

    No times are in it, so that two runs of one recipe write the same history.
    """

    step: int
    epoch: float
    train_loss: float
    learning_rate: float
    dropout: float
    gradient_norm: float
    validation: ValidationRecord | None


def read_history(run: Path) -> list[StepRecord]:
    """The lines of history.jsonl, oldest first."""
    lines = (run / HISTORY).read_text("utf-8").splitlines()
    records = []
    for line in lines:
        values = json.loads(line)
        if values["validation"] is not None:
            values["validation"] = ValidationRecord(**values["validation"])
        records.append(StepRecord(**values))
    return records


def append_record(run: Path, record: StepRecord) -> None:
    """Add one line to history.jsonl."""
    with (run / HISTORY).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(asdict(record)) + "\n")


def cut_history(run: Path, num_records: int) -> None:
    """Keep the first `num_records` lines: later ones were written after the checkpoint."""
    path = run / HISTORY
    lines = path.read_text("utf-8").splitlines(keepends=True) if path.exists() else []
    write_atomically(path, "".join(lines[:num_records]))
