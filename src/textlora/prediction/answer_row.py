"""An answer as columns of an output file: Label, LabelText, Confidence.

One label: its number, its name, its probability. A set: numbers joined by `;`, names joined by the
data's separator, and the probability of each label, joined by `;`, all in the order of the labels;
a text without labels has empty texts there, and a row without an answer has nothing.
"""

from dataclasses import dataclass
from typing import Any

from textlora.prediction.predictor import Answer, Prediction, SetPrediction
from textlora.scoring.tasks import MultiLabel, Task

_ONE: dict[str, type | None] = {"ID": None, "Label": int, "LabelText": str, "Confidence": float}
_SET: dict[str, type | None] = {"ID": None, "Label": str, "LabelText": str, "Confidence": str}
_NUMBERS = ";"  # between numbers, which hold every other sign that a separator could be
_DIGITS = 6


@dataclass(frozen=True)
class AnswerFormat:
    """How answers of a task are written; labels of less than `min_confidence` are left out."""

    task: Task
    min_confidence: float = 0.0

    @property
    def columns(self) -> dict[str, type | None]:
        """The columns that every output has, and their types."""
        return dict(_SET if isinstance(self.task, MultiLabel) else _ONE)

    def fill(self, answer: Answer | None) -> dict[str, Any]:
        """Values of the columns, but for the ID."""
        if answer is None:
            return {"Label": None, "LabelText": None, "Confidence": None}
        if isinstance(answer, Prediction):
            share = round_share(answer.confidence)
            sure = share >= self.min_confidence
            return {
                "Label": answer.label_id if sure else None,
                "LabelText": answer.label if sure else None,
                "Confidence": share,
            }
        assert isinstance(self.task, MultiLabel)
        rows = zip(answer.label_ids, answer.labels, answer.confidences, strict=True)
        shown = [(number, name, round_share(share)) for number, name, share in rows]
        kept = [item for item in shown if item[2] >= self.min_confidence]
        return {
            "Label": _NUMBERS.join(str(number) for number, _, _ in kept),
            "LabelText": self.task.separator.join(name for _, name, _ in kept),
            "Confidence": _NUMBERS.join(str(share) for _, _, share in kept),
        }

    def is_unsure(self, answer: Answer) -> bool:
        """Whether a label was left out."""
        shares = answer.confidences if isinstance(answer, SetPrediction) else (answer.confidence,)
        return any(round_share(share) < self.min_confidence for share in shares)


def round_share(share: float) -> float:
    """A share as it is written, and compared: the file must not contradict itself."""
    return round(share, _DIGITS)
