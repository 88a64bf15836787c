"""What a classifier said about labelled texts, kept so that it can be looked at and compared.

A folder predictions/ has one file a split, a JSON object a line, in the order of the texts.
"""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from textlora.data.examples import Examples
from textlora.errors import ModelError
from textlora.runs.run_folder import PREDICTIONS
from textlora.scoring.tasks import SingleLabel, Task
from textlora.system.files import write_atomically

if TYPE_CHECKING:
    from textlora.prediction.predictor import Predictor

_DIGITS = 6


@dataclass(frozen=True)
class Answers:
    """Answers to labelled texts; `task` says what an answer is.

    Shapes:  probabilities (texts, labels), truncated (texts,).
    """

    examples: Examples
    labels: tuple[str, ...]
    probabilities: npt.NDArray[np.float32]
    truncated: npt.NDArray[np.bool_]
    seconds: float
    task: Task = field(default_factory=SingleLabel)

    @property
    def label_ids(self) -> npt.NDArray[np.int64]:
        """The labels given. Shapes: (texts,); of sets (texts, labels)."""
        return self.task.decide(self.probabilities)

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Which answers are right, as a whole. Shapes: (texts,)."""
        return self.task.match(self.label_ids, self.examples.label_ids)

    @property
    def confidence(self) -> npt.NDArray[np.floating]:
        """How probable the answers are. Shapes: (texts,)."""
        return self.task.probability_of(self.probabilities, self.label_ids)


@dataclass(frozen=True)
class StoredAnswer:
    """One line: `label` is the true one; `label_probability` is what it was given.

    Of sets of labels both are sets as text, and their probabilities take labels as independent.
    """

    text: str
    label: str
    predicted: str
    confidence: float
    label_probability: float
    truncated: bool


def answer_examples(predictor: "Predictor", examples: Examples) -> Answers:
    """Let a classifier answer texts whose labels are numbered as its own."""
    start = time.perf_counter()
    found = predictor.predict_proba(examples.texts)
    seconds = time.perf_counter() - start
    return Answers(
        examples, predictor.labels, found.values, found.truncated, seconds, predictor.task
    )


def list_answers(
    answers: Answers, places: npt.NDArray[np.int64] | None = None
) -> list[StoredAnswer]:
    """One entry a text, or one for each of these places."""
    chosen = np.arange(len(answers.truncated)) if places is None else places
    task, true = answers.task, answers.examples.label_ids[chosen]
    shares, given = answers.probabilities[chosen], answers.label_ids[chosen]
    rows = zip(
        chosen,
        task.name(true, answers.labels),
        task.name(given, answers.labels),
        task.probability_of(shares, given),
        task.probability_of(shares, true),
        strict=True,
    )
    return [
        StoredAnswer(
            text=answers.examples.texts[place],
            label=label,
            predicted=predicted,
            confidence=round(float(confidence), _DIGITS),
            label_probability=round(float(probability), _DIGITS),
            truncated=bool(answers.truncated[place]),
        )
        for place, label, predicted, confidence, probability in rows
    ]


def list_mistakes(answers: Answers, count: int) -> list[StoredAnswer]:
    """The wrong answers of which the classifier was surest."""
    wrong = np.flatnonzero(~answers.right)
    sure = answers.confidence[wrong]
    return list_answers(answers, wrong[np.argsort(-sure, kind="stable")[:count]])


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
        raise ModelError(
            f"{path}: missing or damaged ({error}); textlora train writes it (a classifier fitted "
            "in Python has none), and evaluate --out into another folder"
        ) from None
