"""How good a trained classifier is on labelled texts, in a form that is stored and shown."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError
from sklearn.metrics import f1_score

from textlora.answers import Answers
from textlora.baselines import Baselines
from textlora.calibration import (
    Calibration,
    Coverage,
    Threshold,
    compute_calibration,
    compute_coverage,
)
from textlora.data import Examples
from textlora.errors import ModelError
from textlora.files import write_json
from textlora.leaks import Leaks, find_leaks
from textlora.metrics import Interval, Scores, compute_scores, compute_wilson_interval
from textlora.rundir import EVALUATION
from textlora.significance import F1Intervals, Paired, compare_answers, compute_f1_intervals

_LENGTH_GROUPS = 4
_MAX_VALUES = 20  # of a column; what is rarer is counted together


@dataclass(frozen=True)
class Slice:
    """The texts that have one `value` in a column, or a length; `accuracy` on them."""

    column: str
    value: str
    num_texts: int
    accuracy: float
    accuracy_interval: Interval


@dataclass(frozen=True)
class BaselineScore:
    """A simple classifier trained on the same rows, on the same texts.

    `comparison` has the classifier first and the baseline second; `verdict` is it in words.
    """

    name: str
    accuracy: float
    accuracy_interval: Interval
    f1_macro: float
    comparison: Paired
    verdict: str


@dataclass(frozen=True)
class Evaluation:
    """Figures on one split. `chose_checkpoint` marks a score that training has already used.

    `leaks` names the part of the training data that each was searched in. `notes` say what could
    not be measured, and why.
    """

    split: str
    source: str
    chose_checkpoint: bool
    num_truncated: int
    seconds: float
    scores: Scores
    f1_intervals: F1Intervals
    calibration: Calibration
    coverage: Coverage
    slices: tuple[Slice, ...]
    baselines: tuple[BaselineScore, ...] = ()
    leaks: dict[str, Leaks] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Background:
    """What figures are compared with; all of it may be unknown.

    `thresholds` were chosen on validation; `parts` are those that training read, by name.
    """

    temperature: float = 1.0
    chose_checkpoint: bool = False
    thresholds: tuple[Threshold, ...] = ()
    baselines: Baselines | None = None
    parts: dict[str, Examples] | None = None
    notes: tuple[str, ...] = ()


def evaluate_answers(
    answers: Answers, *, split: str, source: str, background: Background | None = None
) -> Evaluation:
    """All figures about answers to labelled texts."""
    known = background or Background()
    label_ids, shares = answers.examples.label_ids, answers.probabilities
    scores = compute_scores(label_ids, shares, answers.labels)
    parts = {} if known.parts is None else known.parts
    return Evaluation(
        split=split,
        source=source,
        chose_checkpoint=known.chose_checkpoint,
        num_truncated=int(answers.truncated.sum()),
        seconds=answers.seconds,
        scores=scores,
        f1_intervals=compute_f1_intervals(scores.confusion_matrix),
        calibration=compute_calibration(label_ids, shares, known.temperature),
        coverage=compute_coverage(label_ids, shares, known.thresholds),
        slices=compute_slices(answers),
        baselines=() if known.baselines is None else _score_baselines(answers, known.baselines),
        leaks={
            name: find_leaks(answers.examples, part, answers.labels, answers.label_ids)
            for name, part in parts.items()
        },
        notes=known.notes,
    )


def compute_slices(answers: Answers) -> tuple[Slice, ...]:
    """Accuracy by length of the text, in four groups of similar size, and by each column kept."""
    right = answers.right
    lengths = np.array([text.count(" ") + 1 for text in answers.examples.texts])
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, _LENGTH_GROUPS + 1)).astype(int))
    if len(edges) == 1:
        edges = np.append(edges, edges)  # all texts are as long
    groups = np.clip(np.searchsorted(edges, lengths) - 1, 0, len(edges) - 2)
    found = []
    for group in np.unique(groups):
        inside = groups == group
        low, high = lengths[inside].min(), lengths[inside].max()
        name = f"{low}" if low == high else f"{low} to {high}"
        found.append(_make_slice("words", name, right[inside]))
    for column, values in answers.examples.slices.items():
        found += _slice_column(column, values, right)
    return tuple(found)


def write_evaluations(folder: Path, evaluations: Sequence[Evaluation]) -> None:
    """Store evaluations in a folder, replacing earlier ones.

    Raises:  OSError if it cannot be written.
    """
    write_json(folder / EVALUATION, {"evaluations": [asdict(item) for item in evaluations]})


def read_evaluations(folder: Path) -> list[Evaluation]:
    """The stored evaluations.

    Raises:  ModelError if they are missing or damaged.
    """
    path = folder / EVALUATION
    try:
        values = json.loads(path.read_text("utf-8"))["evaluations"]
        return TypeAdapter(list[Evaluation]).validate_python(values)
    except ValidationError as error:
        reason = f"{error.errors()[0]['msg']} at {error.errors()[0]['loc']}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error)
    raise ModelError(f"{path}: missing or damaged ({reason}); run textlora evaluate") from None


def _slice_column(
    column: str, values: tuple[str, ...], right: npt.NDArray[np.bool_]
) -> list[Slice]:
    counts = Counter(values).most_common()
    shown = [value for value, _ in counts[:_MAX_VALUES]]
    array = np.array(values, dtype=object)
    found = [_make_slice(column, value, right[array == value]) for value in shown]
    if len(counts) > len(shown):
        rest = ~np.isin(array, np.array(shown, dtype=object))
        found.append(_make_slice(column, f"({len(counts) - len(shown)} others)", right[rest]))
    return found


def _make_slice(column: str, value: str, right: npt.NDArray[np.bool_]) -> Slice:
    correct, total = int(right.sum()), len(right)
    interval = compute_wilson_interval(correct, total)
    return Slice(column, value, total, correct / total, interval)


def _score_baselines(answers: Answers, baselines: Baselines) -> tuple[BaselineScore, ...]:
    texts, label_ids = answers.examples.texts, answers.examples.label_ids
    found = {"most common label": baselines.predict_majority(texts)}
    if baselines.vocabulary:
        found["TF-IDF + linear"] = baselines.predict_linear(texts)
    scores = []
    for name, predicted in found.items():
        right = predicted == label_ids
        paired = compare_answers(answers.right, right)
        present = np.unique(label_ids)
        scores.append(
            BaselineScore(
                name=name,
                accuracy=float(right.mean()),
                accuracy_interval=compute_wilson_interval(int(right.sum()), len(right)),
                f1_macro=float(
                    f1_score(label_ids, predicted, labels=present, average="macro", zero_division=0)
                ),
                comparison=paired,
                verdict=paired.describe(),
            )
        )
    return tuple(scores)
