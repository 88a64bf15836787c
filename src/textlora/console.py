"""Results as short tables for a terminal."""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from textlora.adapters import AdapterPlan
from textlora.answers import list_mistakes
from textlora.assessment import Assessment
from textlora.budget import BudgetedPlan
from textlora.circumstances import format_seconds
from textlora.comparison import Comparison
from textlora.corrections import DoubtfulLabel
from textlora.cost import Cost
from textlora.datacheck import DataCheck
from textlora.datafix import REMOVED, SplitFix
from textlora.evaluation import AnyEvaluation, Evaluation, SetEvaluation
from textlora.explanation import Explanation
from textlora.metrics import ClassScores
from textlora.predictor import Answer, Prediction
from textlora.seeds import Repeats
from textlora.setmetrics import SetScores
from textlora.trials import Sweep, format_figure, format_setting

_MAX_CONFUSIONS = 2
_MAX_WORDS = 12
_MAX_TRIALS = 5
NO_LABEL = "(no label)"


_POOLED = {"mean": "the mean of all tokens", "first": "the first token"}


def show_plan(plan: AdapterPlan, model: str) -> None:
    """Print what would be trained, a line a matrix or module, and the totals."""
    table = _make_table(("layer", "trained", "shape", "parameters"), right={2, 3})
    for matrix in plan.matrices:
        name = ".".join(matrix.name.split(".")[-3:])
        what = f"{', '.join(matrix.terms)} ({name}, rank {matrix.rank})"
        shape = f"{matrix.in_features:,} x {matrix.out_features:,}"
        table.add_row(str(matrix.layer), what, shape, f"{matrix.num_parameters:,}")
    for module in plan.modules:
        table.add_row("", f"{module.name} (trained whole)", "", f"{module.num_parameters:,}")
    show(table, title=f"{model}, {plan.num_layers} layers")
    print_line(
        f"adapter {plan.adapter_parameters:,} + head {plan.head_parameters:,} = "
        f"{plan.trainable:,} of {plan.total:,} parameters trained ({plan.trainable_share:.4%})"
    )


def show_budget(fitted: BudgetedPlan) -> None:
    """Print how a plan uses its budget, and the settings that it stands for."""
    plan, recipe = fitted.plan, fitted.recipe
    print_line(
        f"budget {fitted.budget:,}: head {plan.head_parameters:,}, matrices "
        f"{plan.adapter_parameters:,}, unused {fitted.budget - plan.trainable:,}; "
        f"the smallest that works is {fitted.smallest:,}"
    )
    targets = "; ".join(f"{k}: {', '.join(v)}" for k, v in recipe.adapter.targets.items())
    print_line(
        f"a linear head over {_POOLED[recipe.model.head]}; rank {recipe.adapter.rank} in {targets}"
    )


def show_cost(cost: Cost) -> None:
    """Print what a plan costs here, and which texts that is said for."""
    print_line(
        f"cost here (threads: {cost.num_threads}, {cost.number_format}): "
        f"adapter {cost.adapter_bytes / 1e6:.2f} MB, memory about {cost.memory_bytes / 1e9:.1f} GB,"
        f" about {format_seconds(cost.epoch_seconds)} an epoch, "
        f"{format_seconds(cost.seconds)} in all"
    )
    kind = f" by the tokenizer of {cost.tokenizer}" if cost.tokenizer else "; --data counts yours"
    print_line(
        f"for {cost.num_texts:,} training and {cost.num_validation:,} validation texts of "
        f"{cost.mean_tokens:.0f} tokens{kind}"
    )


def show_evaluation(evaluation: AnyEvaluation) -> None:
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


def _show_averages(evaluation: AnyEvaluation) -> None:
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


def show_details(assessment: Assessment, mistakes: int) -> None:
    """Print what can be accepted above which confidence, slices, and the surest mistakes."""
    evaluation = assessment.evaluation
    if isinstance(evaluation, Evaluation):
        _show_thresholds(evaluation)
    _show_slices(evaluation)
    for item in list_mistakes(assessment.answers, mistakes):
        true, given = item.label or NO_LABEL, item.predicted or NO_LABEL
        print_line(f"{true}, taken for {given} with {item.confidence:.0%}")
        print_line(f"  {shorten(item.text)}")


def _show_findings(evaluation: AnyEvaluation) -> None:
    for part, leaks in (evaluation.leaks or {}).items():
        if leaks.count:
            exact = leaks.same_label + leaks.other_label
            near = leaks.near_same_label + leaks.near_other_label
            print_line(
                f"  {exact:,} texts are also in {part} and {near:,} nearly so, "
                f"{leaks.other_label + leaks.near_other_label:,} with another label; without them "
                f"{leaks.accuracy_without:.2%}"
            )
    if evaluation.num_truncated:
        print_line(
            f"  {evaluation.num_truncated:,} texts were longer than the model reads and were cut"
        )
    for note in evaluation.notes:
        print_line(f"  {note}")


def _show_classes(classes: Sequence[ClassScores]) -> None:
    columns = ("label", "accuracy", "correct/total", "precision", "F1", "most often taken for")
    table = _make_table(columns, right={1, 2, 3, 4})
    for item in classes:
        figures = (f"{item.accuracy:.2%}", f"{item.correct:,}/{item.total:,}")
        table.add_row(
            Text(item.label), *figures, f"{item.precision:.2%}", f"{item.f1:.2%}", _confusions(item)
        )
    show(table)


def _show_labels(scores: SetScores) -> None:
    columns = ("label", "texts", "given", "right", "missed", "added",
               "precision", "recall", "F1", "threshold")  # fmt: skip
    table = _make_table(columns, right=set(range(1, len(columns))))
    for item in scores.labels:
        counts = (item.total, item.predicted, item.correct, item.missed, item.added)
        shares = (item.precision, item.recall, item.f1)
        table.add_row(
            Text(item.label),
            *(f"{count:,}" for count in counts),
            *(f"{share:.2%}" for share in shares),
            f"{item.threshold:.3f}",
        )
    show(table)


def _show_thresholds(evaluation: Evaluation) -> None:
    """Of several levels with one threshold, the highest says all."""
    levels = {item.confidence: item for item in evaluation.coverage.thresholds}
    columns = ("right on validation", "accept above", "answered", "right of these", "95 % interval")
    table = _make_table(columns, right={0, 1, 2, 3})
    for item in levels.values():
        interval = f"{item.interval.low:.2%} to {item.interval.high:.2%}"
        figures = (f"{item.confidence:.2%}", f"{item.coverage:.1%}", f"{item.precision:.2%}")
        table.add_row(f"{item.wanted:.1%}", *figures, interval)
    show(table)


def _show_slices(evaluation: AnyEvaluation) -> None:
    table = _make_table(("texts by", "value", "texts", "accuracy", "95 % interval"), {2, 3})
    for item in evaluation.slices:
        interval = f"{item.accuracy_interval.low:.2%} to {item.accuracy_interval.high:.2%}"
        figures = (f"{item.num_texts:,}", f"{item.accuracy:.2%}", interval)
        table.add_row(Text(item.column), Text(item.value), *figures)
    show(table)


def show_comparison(comparison: Comparison, examples: int) -> None:
    """Print both scores and costs, the paired test, and where the two differ."""
    first, second = comparison.first, comparison.second
    print_line(f"{comparison.split}: {comparison.num_texts:,} texts of {comparison.source}")
    columns = (
        "",
        "run",
        "accuracy",
        "95 % interval",
        "macro F1",
        "trained",
        "adapter",
        "training",
        "texts/s",
    )
    table = _make_table(columns, right={2, 4, 5, 6, 7, 8})
    for name, item in (("A", first), ("B", second)):
        interval = f"{item.accuracy_interval.low:.2%} to {item.accuracy_interval.high:.2%}"
        figures = (f"{item.accuracy:.2%}", interval, f"{item.f1_macro:.2%}")
        took = "" if item.training_seconds is None else f"{item.training_seconds:,.0f} s"
        cost = (f"{item.trainable_parameters:,}", f"{item.adapter_bytes / 1e6:.1f} MB", took)
        rate = f"{comparison.num_texts / item.seconds:,.0f}"
        table.add_row(name, Text(item.run), *figures, *cost, rate)
    show(table)
    print_line(f"A beside B: {comparison.verdict}; McNemar p = {comparison.paired.p_value:.2g}")
    if comparison.repeats:
        print_line(f"A beside B over their seeds: {comparison.repeats}")
    print_line(f"the same answer to {comparison.agreement:.2%} of the texts")
    table = _make_table(("label", "both right", "only A", "only B", "neither"), {1, 2, 3, 4})
    for row in comparison.classes:
        counts = (row.both, row.only_first, row.only_second, row.neither)
        table.add_row(Text(row.label), *(f"{count:,}" for count in counts))
    show(table)
    for name, flips in (("A", comparison.only_first), ("B", comparison.only_second)):
        for flip in flips[:examples]:
            print_line(
                f"only {name} is right: {flip.label or NO_LABEL} (A says {flip.first or NO_LABEL} "
                f"with {flip.first_confidence:.0%}, B {flip.second or NO_LABEL} with "
                f"{flip.second_confidence:.0%})"
            )
            print_line(f"  {shorten(flip.text)}")


def show_repeats(repeats: Repeats) -> None:
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
    table = _make_table(columns, right={2, 3, 4, 5, 6})
    for split, figures in repeats.splits.items():
        for name, item in figures.items():
            shown = "{:.4f}" if name == "loss" else "{:.2%}"
            interval = f"{shown} to {shown}".format(item.interval.low, item.interval.high)
            rest = (item.deviation, min(item.values), max(item.values))
            mean = shown.format(item.mean)
            table.add_row(split, name, mean, interval, *(shown.format(value) for value in rest))
    show(table, title=f"{len(repeats.seeds)} repeats, seeds {', '.join(map(str, repeats.seeds))}")


def show_sweep(found: Sweep) -> None:
    """Print the best trials, how far apart they are, and what became of the others."""
    best, names = found.ranked[:_MAX_TRIALS], list(found.ranked[0].settings)
    accuracy = [] if found.metric == "accuracy" else ["accuracy"]
    columns = ["trial", found.metric, *accuracy, "parameters", "seconds"]
    shown = [name.partition(".")[2] for name in names]
    table = _make_table([*columns, *shown], right=set(range(len(columns))))
    for trial in best:
        figures = [(name, trial.figures[name]) for name in (found.metric, *accuracy)]
        table.add_row(
            str(trial.number),
            *(format_figure(value, name) for name, value in figures),
            f"{trial.parameters:,}",
            f"{trial.seconds:.0f}",
            *(Text(format_setting(trial.settings[name])) for name in names),
        )
    counts = Counter(trial.outcome for trial in found.trials)
    show(table, title=", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    print_line(found.verdict)
    print_line("the best of many trials looks better than it is: expect less on other texts")
    files = (("recipe", found.recipe), ("table", found.table), ("picture", found.picture))
    for name, path in files:
        print_line(f"{name:<14} {path}")


def show_check(check: DataCheck) -> None:
    """Print the size of each split, and each finding with examples and what to do."""
    for facts in check.splits:
        print_line(f"{facts.name}: {facts.rows:,} rows, {facts.describe()}")
        lengths = facts.lengths
        if lengths is not None:
            sample = f" (of {lengths.num_texts:,} texts)" if lengths.num_texts < facts.rows else ""
            print_line(
                f"  tokens: median {lengths.median}, 95 % up to {lengths.p95}, longest "
                f"{lengths.longest:,}; {lengths.cut_share:.1%} cut{sample}"
            )
    for item in check.findings:
        print_line(f"{item.severity}: {item.split}: {item.what}: {item.count:,}; {item.advice}")
        for example in item.examples:
            print_line(f"    {example}")
    if not check.findings:
        print_line("nothing to complain about")


def show_doubtful(doubtful: Sequence[DoubtfulLabel]) -> None:
    """Print the labels that are most doubtful."""
    table = _make_table(("label", "suggested", "where", "text"), right=set())
    for item in doubtful[:_MAX_WORDS]:
        pair = (f"{item.label} {item.label_confidence:.0%}",
                f"{item.suggested} {item.suggested_confidence:.0%}")  # fmt: skip
        table.add_row(*map(Text, pair), Text(f"{item.line}"), Text(shorten(item.text, 90)))
    show(table)


def show_fixes(fixes: Sequence[SplitFix], folder: Path | None) -> None:
    """Print what was changed in each split of a repaired copy."""
    for item in fixes:
        counts = [f"{what}: {count:,}" for what, count in item.changed.items()]
        counts += [f"rows removed ({why}): {count:,}" for why, count in item.removed.items()]
        print_line(f"{folder}/{item.name}.csv: {item.rows:,} rows; {'; '.join(counts) or 'as was'}")
    if any(item.removed for item in fixes):
        print_line(f"{folder}/{REMOVED}: the rows that were removed, and why")


def show_explanation(explanation: Explanation) -> None:
    """Print the answer, and the words that weigh most, for and against."""
    print_line(", ".join(describe_answer(explanation.prediction)))
    ordered = sorted(explanation.words, key=lambda item: -abs(item.weight))[:_MAX_WORDS]
    largest = max((abs(item.weight) for item in ordered), default=0.0) or 1.0
    what = (f"for {explanation.label}", f"against {explanation.label}")
    table = _make_table(("word", "log odds", ""), right={1})
    for item in ordered:
        bar = "#" * round(20 * abs(item.weight) / largest)
        table.add_row(Text(item.word), f"{item.weight:+.2f}", f"{bar} {what[item.weight < 0]}")
    show(table)


def describe_answer(answer: Answer) -> tuple[str, str]:
    """Label and confidence; of a set all of them."""
    if isinstance(answer, Prediction):
        return answer.label, f"{answer.confidence:.1%}"
    shares = (f"{share:.1%}" for share in answer.confidences)
    return "; ".join(answer.labels) or NO_LABEL, "; ".join(shares)


def shorten(text: str, limit: int = 150) -> str:
    """One line of a text."""
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def show(table: Table, title: str | None = None) -> None:
    """Print a table on stdout, no wider than it needs where that is not a terminal."""
    if title:
        print_line(title)
    width = None if sys.stdout.isatty() else 160
    Console(width=width, highlight=False).print(table)


def show_rows(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of texts under column names."""
    table = _make_table(columns, right=set())
    for row in rows:
        table.add_row(*map(Text, row))
    show(table)


def print_line(text: str) -> None:
    """Print one line on stdout, as it is."""
    Console(highlight=False, soft_wrap=True).print(text, markup=False)


def _make_table(columns: Sequence[str], right: set[int]) -> Table:
    table = Table(box=None, pad_edge=True, header_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index in right else "left")
    return table


def _confusions(item: ClassScores) -> Text:
    shown = item.confusions[:_MAX_CONFUSIONS]
    return Text(", ".join(f"{confusion.label} {confusion.count:,}" for confusion in shown))
