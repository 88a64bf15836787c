"""How good a trained classifier is on labelled texts, in a form that is stored and shown."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from textlora.checking.leaks import Leaks, find_leaks, find_set_leaks
from textlora.data.examples import Examples
from textlora.errors import ModelError
from textlora.evaluation.baselines import Baselines
from textlora.evaluation.slices import Slice, compute_slices
from textlora.evaluation.stored_predictions import Answers
from textlora.runs.run_folder import EVALUATION
from textlora.scoring.calibration import (
    Calibration,
    Coverage,
    Threshold,
    compute_calibration,
    compute_coverage,
    compute_set_calibration,
)
from textlora.scoring.metrics import Interval, Scores, compute_scores, compute_wilson_interval
from textlora.scoring.set_metrics import SetScores
from textlora.scoring.significance import (
    F1Intervals,
    Paired,
    SetF1Intervals,
    compare_answers,
    compare_set_f1,
    compute_f1_intervals,
    compute_set_f1_intervals,
)
from textlora.scoring.tasks import MultiLabel
from textlora.system.files import write_json


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
class SetEvaluation:
    """The same for a classifier that gives sets of labels; calibration is that of all pairs.

    No figure is here that needs one confidence a text: there is none for a set.
    """

    split: str
    source: str
    chose_checkpoint: bool
    num_truncated: int
    seconds: float
    scores: SetScores
    f1_intervals: SetF1Intervals
    calibration: Calibration
    slices: tuple[Slice, ...]
    baselines: tuple[BaselineScore, ...] = ()
    leaks: dict[str, Leaks] | None = None
    notes: tuple[str, ...] = ()


AnyEvaluation = Evaluation | SetEvaluation


@dataclass(frozen=True)
class Background:
    """What figures are compared with; all of it may be unknown.

    `thresholds` were chosen on validation; None: they are to be found on the texts themselves.
    `parts` are those that training read, by name.
    """

    temperature: float = 1.0
    chose_checkpoint: bool = False
    thresholds: tuple[Threshold, ...] | None = None
    baselines: Baselines | None = None
    parts: dict[str, Examples] | None = None
    notes: tuple[str, ...] = ()


def evaluate_answers(
    answers: Answers, *, split: str, source: str, background: Background | None = None
) -> AnyEvaluation:
    """All figures about answers to labelled texts."""
    known = background or Background()
    label_ids, shares = answers.examples.label_ids, answers.probabilities
    parts = {} if known.parts is None else known.parts
    common: dict[str, Any] = {
        "split": split,
        "source": source,
        "chose_checkpoint": known.chose_checkpoint,
        "num_truncated": int(answers.truncated.sum()),
        "seconds": answers.seconds,
        "slices": compute_slices(answers),
        "baselines": () if known.baselines is None else _score_baselines(answers, known.baselines),
        "leaks": {name: _find_leaks(answers, part) for name, part in parts.items()},
        "notes": known.notes,
    }
    if isinstance(answers.task, MultiLabel):
        return SetEvaluation(
            scores=answers.task.score(label_ids, shares, answers.labels),
            f1_intervals=compute_set_f1_intervals(label_ids, answers.label_ids),
            calibration=compute_set_calibration(label_ids, shares, known.temperature),
            **common,
        )
    scores = compute_scores(label_ids, shares, answers.labels)
    return Evaluation(
        scores=scores,
        f1_intervals=compute_f1_intervals(scores.confusion_matrix),
        calibration=compute_calibration(label_ids, shares, known.temperature),
        coverage=compute_coverage(label_ids, shares, known.thresholds),
        **common,
    )


def write_evaluations(folder: Path, evaluations: Sequence[AnyEvaluation]) -> None:
    """Store evaluations in a folder, replacing earlier ones.

    Raises:  OSError if it cannot be written.
    """
    write_json(folder / EVALUATION, {"evaluations": [asdict(item) for item in evaluations]})


def read_evaluations(folder: Path) -> list[AnyEvaluation]:
    """The stored evaluations.

    Raises:  ModelError if they are missing or damaged.
    """
    path = folder / EVALUATION
    try:
        values = json.loads(path.read_text("utf-8"))["evaluations"]
        found = TypeAdapter(list[AnyEvaluation]).validate_python(values)
        if found:
            return found
        reason = "it holds none"
    except ValidationError as error:
        reason = f"{error.errors()[0]['msg']} at {error.errors()[0]['loc']}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error)
    raise ModelError(
        f"{path}: missing or damaged ({reason}); textlora train writes it (a classifier fitted in "
        "Python has none), and evaluate --out into another folder"
    ) from None


def _find_leaks(answers: Answers, part: Examples) -> Leaks:
    examples, given = answers.examples, answers.label_ids
    if not examples.is_multi_label:
        return find_leaks(examples, part, answers.labels, given)
    return find_set_leaks(
        examples, part, lambda kinds: answers.task.name(kinds, answers.labels), given
    )


def _score_baselines(answers: Answers, baselines: Baselines) -> tuple[BaselineScore, ...]:
    from sklearn.metrics import f1_score

    texts, label_ids = answers.examples.texts, answers.examples.label_ids
    what = "set of labels" if answers.examples.is_multi_label else "label"
    found = {f"most common {what}": baselines.predict_majority(texts)}
    if baselines.vocabulary:
        found["TF-IDF + linear"] = baselines.predict_linear(texts)
    counts = answers.examples.count_labels(len(answers.labels))
    present = np.flatnonzero(counts)
    scores = []
    for name, predicted in found.items():
        right = answers.task.match(predicted, label_ids)
        paired = compare_answers(answers.right, right)
        verdict = paired.describe()
        if answers.examples.is_multi_label:
            # Whole sets are a hard measure: two classifiers may differ in labels alone.
            apart = compare_set_f1(label_ids, answers.label_ids, predicted)
            verdict += f"; macro F1 {100 * apart.low:+.1f} to {100 * apart.high:+.1f} points"
        scores.append(
            BaselineScore(
                name=name,
                accuracy=float(right.mean()),
                accuracy_interval=compute_wilson_interval(int(right.sum()), len(right)),
                f1_macro=float(
                    f1_score(label_ids, predicted, labels=present, average="macro", zero_division=0)
                ),
                comparison=paired,
                verdict=verdict,
            )
        )
    return tuple(scores)
