"""How good a trained classifier is on labelled texts, in a form that is stored and shown."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from textlora.data import Examples
from textlora.errors import ModelError
from textlora.files import write_json
from textlora.metrics import Averages, ClassScores, Confusion, Interval, Scores, compute_scores
from textlora.predictor import Predictor
from textlora.rundir import EVALUATION


@dataclass(frozen=True)
class Evaluation:
    """Figures on one split. `chose_checkpoint` marks a score that training has already used."""

    split: str
    source: str
    chose_checkpoint: bool
    num_truncated: int
    seconds: float
    scores: Scores


def evaluate_examples(
    predictor: Predictor, examples: Examples, *, split: str, source: str
) -> Evaluation:
    """Score a classifier on texts whose labels are numbered as its own."""
    start = time.perf_counter()
    found = predictor.predict_proba(examples.texts)
    seconds = time.perf_counter() - start
    return Evaluation(
        split=split,
        source=source,
        chose_checkpoint=split == "validation" and source == predictor.recipe.data.source,
        num_truncated=int(found.truncated.sum()),
        seconds=seconds,
        scores=compute_scores(examples.label_ids, found.values, predictor.labels),
    )


def write_evaluations(run: Path, evaluations: list[Evaluation]) -> None:
    """Store evaluations in the run folder, replacing earlier ones."""
    write_json(run / EVALUATION, {"evaluations": [asdict(item) for item in evaluations]})


def read_evaluations(run: Path) -> list[Evaluation]:
    """The stored evaluations.

    Raises:  ModelError if they are missing or damaged.
    """
    path = run / EVALUATION
    try:
        values = json.loads(path.read_text("utf-8"))["evaluations"]
        return [Evaluation(**{**item, "scores": _parse_scores(item["scores"])}) for item in values]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: missing or damaged ({error}); run textlora evaluate") from None


def _parse_scores(values: dict[str, Any]) -> Scores:
    classes = tuple(
        ClassScores(
            **{
                **item,
                "accuracy_interval": Interval(**item["accuracy_interval"]),
                "confusions": tuple(Confusion(**confusion) for confusion in item["confusions"]),
            }
        )
        for item in values["classes"]
    )
    return Scores(
        **{
            **values,
            "accuracy_interval": Interval(**values["accuracy_interval"]),
            "weighted": Averages(**values["weighted"]),
            "macro": Averages(**values["macro"]),
            "classes": classes,
            "confusion_matrix": tuple(tuple(row) for row in values["confusion_matrix"]),
        }
    )
