"""What a classifier said about labelled texts, kept so that it can be looked at and compared.

A folder predictions/ has one file a split, a JSON object a line, in the order of the texts.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from textlora.data import Examples
from textlora.errors import ModelError
from textlora.files import write_atomically
from textlora.predictor import Predictor
from textlora.rundir import PREDICTIONS

_DIGITS = 6


@dataclass(frozen=True)
class Answers:
    """Answers to labelled texts. Shapes: probabilities (texts, labels), truncated (texts,)."""

    examples: Examples
    labels: tuple[str, ...]
    probabilities: npt.NDArray[np.float32]
    truncated: npt.NDArray[np.bool_]
    seconds: float

    @property
    def label_ids(self) -> npt.NDArray[np.int64]:
        """The labels given. Shapes: (texts,)."""
        return self.probabilities.argmax(axis=1)

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Which of them are right. Shapes: (texts,)."""
        return self.label_ids == self.examples.label_ids


@dataclass(frozen=True)
class StoredAnswer:
    """One line: `label` is the true one; `label_probability` is what it was given."""

    text: str
    label: str
    predicted: str
    confidence: float
    label_probability: float
    truncated: bool


def answer_examples(predictor: Predictor, examples: Examples) -> Answers:
    """Let a classifier answer texts whose labels are numbered as its own."""
    start = time.perf_counter()
    found = predictor.predict_proba(examples.texts)
    seconds = time.perf_counter() - start
    return Answers(examples, predictor.labels, found.values, found.truncated, seconds)


def list_answers(answers: Answers) -> list[StoredAnswer]:
    """One entry a text."""
    examples, labels = answers.examples, answers.labels
    rows = zip(
        examples.texts, examples.label_ids, answers.label_ids, answers.probabilities,
        answers.truncated, strict=True,
    )  # fmt: skip
    return [
        StoredAnswer(
            text=text,
            label=labels[true],
            predicted=labels[given],
            confidence=round(float(shares[given]), _DIGITS),
            label_probability=round(float(shares[true]), _DIGITS),
            truncated=bool(cut),
        )
        for text, true, given, shares, cut in rows
    ]


def list_mistakes(answers: Answers, count: int) -> list[StoredAnswer]:
    """The wrong answers of which the classifier was surest."""
    wrong = np.flatnonzero(~answers.right)
    sure = answers.probabilities.max(axis=1)[wrong]
    chosen = wrong[np.argsort(-sure, kind="stable")[:count]]
    stored = list_answers(answers)
    return [stored[place] for place in chosen]


def write_answers(folder: Path, split: str, answers: Answers) -> Path:
    """Store them in FOLDER/predictions; returns the file.

    Raises:  OSError if it cannot be written.
    """
    path = folder / PREDICTIONS / f"{split}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(item.__dict__, ensure_ascii=False) for item in list_answers(answers))
    write_atomically(path, "\n".join(lines) + "\n")
    return path


def read_answers(folder: Path, split: str) -> list[StoredAnswer]:
    """What `write_answers` stored.

    Raises:  ModelError if it is missing or damaged.
    """
    path = folder / PREDICTIONS / f"{split}.jsonl"
    try:
        lines = path.read_text("utf-8").split("\n")
        return [StoredAnswer(**json.loads(line)) for line in lines if line]
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"{path}: missing or damaged ({error}); evaluate again") from None
