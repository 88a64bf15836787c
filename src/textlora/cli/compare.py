"""The command compare: two classifiers on the same texts."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from textlora.cli.options import (
    DataOption,
    JsonOption,
    SetOption,
    print_json,
)
from textlora.settings import load_recipe
from textlora.system.console import make_cell, make_table, print_line, shorten, show

if TYPE_CHECKING:
    from textlora.evaluation.comparison import Comparison


def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="A run folder.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another one, of the same labels.")],
    data: DataOption = None,
    split: Annotated[str, typer.Option(help="Which split of the data.")] = "test",
    examples: Annotated[int, typer.Option(min=0, max=20, help="Texts of each kind shown.")] = 3,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two classifiers on the same texts (default: the data of the first one's recipe)."""
    from textlora.evaluation.comparison import compare_runs
    from textlora.runs.run_folder import RECIPE, find_classifier, read_manifest

    read_manifest(first)
    resolved = load_recipe(str(find_classifier(first) / RECIPE), settings or (), data__source=data)
    result = compare_runs(first, second, resolved.data, split)
    if as_json:
        print_json(result)
        return
    show_comparison(result, examples)


def show_comparison(comparison: "Comparison", examples: int) -> None:
    """Print both scores and costs, the paired test, and where the two differ."""
    from textlora.cli.score_tables import NO_LABEL

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
    table = make_table(columns, right={2, 4, 5, 6, 7, 8})
    for name, item in (("A", first), ("B", second)):
        interval = f"{item.accuracy_interval.low:.2%} to {item.accuracy_interval.high:.2%}"
        figures = (f"{item.accuracy:.2%}", interval, f"{item.f1_macro:.2%}")
        took = "" if item.training_seconds is None else f"{item.training_seconds:,.0f} s"
        cost = (f"{item.trainable_parameters:,}", f"{item.adapter_bytes / 1e6:.1f} MB", took)
        rate = f"{comparison.num_texts / item.seconds:,.0f}"
        table.add_row(name, make_cell(item.run), *figures, *cost, rate)
    show(table)
    print_line(f"A beside B: {comparison.verdict}; McNemar p = {comparison.paired.p_value:.2g}")
    for note in comparison.notes:
        print_line(f"note: {note}")
    if comparison.repeats:
        print_line(f"A beside B over their seeds: {comparison.repeats}")
    print_line(f"the same answer to {comparison.agreement:.2%} of the texts")
    table = make_table(("label", "both right", "only A", "only B", "neither"), {1, 2, 3, 4})
    for row in comparison.classes:
        counts = (row.both, row.only_first, row.only_second, row.neither)
        table.add_row(make_cell(row.label), *(f"{count:,}" for count in counts))
    show(table)
    for name, flips in (("A", comparison.only_first), ("B", comparison.only_second)):
        for flip in flips[:examples]:
            print_line(
                f"only {name} is right: {flip.label or NO_LABEL} (A says {flip.first or NO_LABEL} "
                f"with {flip.first_confidence:.0%}, B {flip.second or NO_LABEL} with "
                f"{flip.second_confidence:.0%})"
            )
            print_line(f"  {shorten(flip.text)}")
