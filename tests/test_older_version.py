"""A run of an earlier version loads, answers as it did, and goes on where it was stopped."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

KEPT = Path(__file__).parent / "data" / "older_version"
# Other processors add up in another order; labels and counts must be the same.
TOLERANCE = 1e-4


@pytest.fixture
def folder(tmp_path) -> Path:
    """A copy to work in: run folders name encoder and data as seen from here."""
    return shutil.copytree(KEPT, tmp_path / "kept")


def run(folder: Path, *words: str) -> None:
    command = [sys.executable, "-m", "textlora", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def read_command() -> list[str]:
    """The command of its README, for the run that was stopped."""
    text = (KEPT / "README.md").read_text("utf-8")
    words = re.sub(r"\\\n", " ", text[text.index("textlora train") :].split("\n\n")[0])
    return shlex.split(words.replace("--out finished", "--out stopped"))[1:]


def flatten(record: dict) -> dict:
    """Without nesting, nulls and empty lists, as `approx` wants it."""
    nested = record.get("validation") or {}
    return {key: value for key, value in {**record, **nested}.items() if isinstance(value, float)}


def test_it_gives_the_answers_that_it_gave(folder):
    stored = read_lines(KEPT / "finished" / "predictions" / "test.jsonl")
    run(folder, "predict", "finished", "--input", "data/test.csv", "--output", "found.jsonl")
    found = read_lines(folder / "found.jsonl")
    assert [row["LabelText"] for row in found] == [row["predicted"] for row in stored]
    confidences = [row["Confidence"] for row in found]
    assert confidences == pytest.approx([row["confidence"] for row in stored], abs=TOLERANCE)


def test_it_is_measured_as_it_was(folder):
    stored = json.loads((KEPT / "finished" / "evaluation.json").read_text("utf-8"))
    run(folder, "evaluate", "finished", "--out", "measured")
    found = json.loads((folder / "measured" / "evaluation.json").read_text("utf-8"))
    old, new = (next(e for e in values["evaluations"] if e["split"] == "test")
                for values in (stored, found))  # fmt: skip
    assert new["scores"]["confusion_matrix"] == old["scores"]["confusion_matrix"]
    assert new["scores"]["accuracy"] == old["scores"]["accuracy"]
    assert new["scores"]["loss"] == pytest.approx(old["scores"]["loss"], abs=TOLERANCE)


def test_it_goes_on_where_it_was_stopped(folder):
    before = read_lines(folder / "stopped" / "history.jsonl")
    run(folder, *read_command())
    found = read_lines(folder / "stopped" / "history.jsonl")
    stored = read_lines(KEPT / "finished" / "history.jsonl")
    assert found[: len(before)] == before  # nothing was computed again
    assert len(found) == len(stored)
    for new, old in zip(found, stored, strict=True):
        assert flatten(new) == pytest.approx(flatten(old), abs=TOLERANCE)
    labels = json.loads((folder / "stopped" / "labels.json").read_text("utf-8"))
    assert labels == json.loads((KEPT / "finished" / "labels.json").read_text("utf-8"))
