"""Scores as short tables for a terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from textlora.evaluation.evaluation import Evaluation, SetEvaluation
from textlora.evaluation.stored_predictions import list_mistakes
from textlora.prediction.predictor import Prediction
from textlora.scoring.set_metrics import SetScores
from textlora.system.console import make_cell, make_table, print_line, shorten, show

if TYPE_CHECKING:
    from textlora.evaluation.evaluation import AnyEvaluation
    from textlora.evaluation.run_evaluation import RunEvaluation
    from textlora.prediction.predictor import Answer
    from textlora.runs.seeds import Repeats
    from textlora.scoring.metrics import ClassScores

_MAX_CONFUSIONS = 2


NO_LABEL = "(no label)"


def show_evaluation(evaluation: "AnyEvaluation") -> None:
    """Print overall figures, what they are compared with, and the table per class."""
    scores = evaluation.scores
    used = ""
    if evaluation.chose_checkpoint:
        what = "checkpoint and thresholds" if isinstance(scores, SetScores) else "checkpoint"
        used = f" (these rows chose the {what})"
    print_line(f"{evaluation.split}: {scores.num_texts:,} texts of {evaluation.source}{used}")
    low, high = scores.accuracy_interval.low, scores.accuracy_interval.high
    name = "all labels of a text right" if isinstance(scores, SetScores) else "accuracy"
    print_line(f"  {name}  {scores.accuracy:.2%}  (95 % interval {low:.2%} to {high:.2%})")
    _show_averages(evaluation)
    for baseline in evaluation.baselines:
        print_line(f"  beside {baseline.name} ({baseline.accuracy:.2%}): {baseline.verdict}")
    _show_findings(evaluation)
    if isinstance(scores, SetScores):
        _show_labels(scores)
    else:
        _show_classes(scores.classes)


def _show_averages(evaluation: "AnyEvaluation") -> None:
    scores, calibration, f1 = evaluation.scores, evaluation.calibration, evaluation.f1_intervals
    ways = [("weighted", scores.weighted, f1.weighted), ("macro", scores.macro, f1.macro)]
    if isinstance(evaluation, SetEvaluation):
        ways.insert(0, ("micro", evaluation.scores.micro, evaluation.f1_intervals.micro))
    for name, average, interval in ways:
        print_line(
            f"  {name:<9} precision {average.precision:.2%}  recall {average.recall:.2%}  "
            f"F1 {average.f1:.2%} ({interval.low:.2%} to {interval.high:.2%})"
        )
    if isinstance(evaluation, SetEvaluation):
        sets = evaluation.scores
        print_line(
            f"  {sets.hamming_loss:.2%} of the decisions about a label are wrong (Hamming loss); "
            f"{sets.labels_per_text:.2f} labels a text, {sets.predicted_per_text:.2f} given; "
            f"{sets.num_without:,} texts without a label, {sets.num_predicted_without:,} given none"
        )
    print_line(
        f"  confidence is off by {calibration.error:.2%} (expected calibration error), "
        f"log loss {scores.loss:.4f}, Brier {calibration.brier:.4f}"
    )


def _show_findings(evaluation: "AnyEvaluation") -> None:
    for part, leaks in (evaluation.leaks or {}).items():
        if leaks.count:
            exact = leaks.same_label + leaks.other_label
            near = leaks.near_same_label + leaks.near_other_label
            rest = (
                f"without them {leaks.accuracy_without:.2%}" if leaks.num_left else "none is left"
            )
            print_line(
                f"  {exact:,} texts are also in {part} and {near:,} nearly so, "
                f"{leaks.other_label + leaks.near_other_label:,} with another label; {rest}"
            )
    if evaluation.num_truncated:
        print_line(
            f"  {evaluation.num_truncated:,} texts were longer than the model reads and were cut"
        )
    for note in evaluation.notes:
        print_line(f"  {note}")


def _show_classes(classes: Sequence["ClassScores"]) -> None:
    columns = ("label", "accuracy", "correct/total", "precision", "F1", "most often taken for")
    table = make_table(columns, right={1, 2, 3, 4})
    for item in classes:
        figures = (f"{item.accuracy:.2%}", f"{item.correct:,}/{item.total:,}")
        table.add_row(
            make_cell(item.label),
            *figures,
            f"{item.precision:.2%}",
            f"{item.f1:.2%}",
            make_cell(_confusions(item)),
        )
    show(table)


def _confusions(item: "ClassScores") -> str:
    shown = item.confusions[:_MAX_CONFUSIONS]
    return ", ".join(f"{confusion.label} {confusion.count:,}" for confusion in shown)


def _show_labels(scores: SetScores) -> None:
    columns = ("label", "texts", "given", "right", "missed", "added",
               "precision", "recall", "F1", "threshold")  # fmt: skip
    table = make_table(columns, right=set(range(1, len(columns))))
    for item in scores.labels:
        counts = (item.total, item.predicted, item.correct, item.missed, item.added)
        shares = (item.precision, item.recall, item.f1)
        table.add_row(
            make_cell(item.label),
            *(f"{count:,}" for count in counts),
            *(f"{share:.2%}" for share in shares),
            f"{item.threshold:.3f}",
        )
    show(table)


def show_details(assessment: "RunEvaluation", mistakes: int) -> None:
    """Print what can be accepted above which confidence, slices, and the surest mistakes."""
    evaluation = assessment.evaluation
    if isinstance(evaluation, Evaluation):
        _show_thresholds(evaluation)
    _show_slices(evaluation)
    for item in list_mistakes(assessment.answers, mistakes):
        true, given = item.label or NO_LABEL, item.predicted or NO_LABEL
        print_line(f"{true}, taken for {given} with {item.confidence:.0%}")
        print_line(f"  {shorten(item.text)}")


def _show_thresholds(evaluation: Evaluation) -> None:
    if not evaluation.coverage.levels:
        return
    columns = ("right on validation", "accept above", "answered", "right of these", "95 % interval")
    table = make_table(columns, right={0, 1, 2, 3})
    for item in evaluation.coverage.levels:
        interval = f"{item.interval.low:.2%} to {item.interval.high:.2%}"
        figures = (f"{item.confidence:.2%}", f"{item.coverage:.1%}", f"{item.precision:.2%}")
        table.add_row(f"{item.wanted:.1%}", *figures, interval)
    show(table)


def _show_slices(evaluation: "AnyEvaluation") -> None:
    table = make_table(("texts by", "value", "texts", "accuracy", "95 % interval"), {2, 3})
    for item in evaluation.slices:
        interval = f"{item.accuracy_interval.low:.2%} to {item.accuracy_interval.high:.2%}"
        figures = (f"{item.num_texts:,}", f"{item.accuracy:.2%}", interval)
        table.add_row(make_cell(item.column), make_cell(item.value), *figures)
    show(table)


def show_repeats(repeats: "Repeats") -> None:
    """Print mean and spread of each figure on each split."""
    columns = (
        "split",
        "figure",
        "mean",
        "95 % interval of the mean",
        "spread",
        "lowest",
        "highest",
    )
    table = make_table(columns, right={2, 3, 4, 5, 6})
    for split, figures in repeats.splits.items():
        for name, item in figures.items():
            shown = "{:.4f}" if name == "loss" else "{:.2%}"
            interval = f"{shown} to {shown}".format(item.interval.low, item.interval.high)
            rest = (item.deviation, min(item.values), max(item.values))
            mean = shown.format(item.mean)
            table.add_row(split, name, mean, interval, *(shown.format(value) for value in rest))
    show(table, title=f"{len(repeats.seeds)} repeats, seeds {', '.join(map(str, repeats.seeds))}")


def describe_answer(answer: "Answer") -> tuple[str, str]:
    """Label and confidence; of a set all of them."""
    if isinstance(answer, Prediction):
        return answer.label, f"{answer.confidence:.1%}"
    shares = (f"{share:.1%}" for share in answer.confidences)
    return "; ".join(answer.labels) or NO_LABEL, "; ".join(shares)
