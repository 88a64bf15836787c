"""The command explain: the words that drove an answer."""

from typing import TYPE_CHECKING, Annotated

import typer

from textlora.cli.options import (
    JsonOption,
    RunArgument,
    print_json,
)
from textlora.system.console import make_cell, make_table, print_line, show

if TYPE_CHECKING:
    from textlora.evaluation.explanation import Explanation


def explain(
    run: RunArgument,
    text: Annotated[str, typer.Argument(help="The text, in quotes.")],
    label: Annotated[
        str | None, typer.Option(help="What speaks for this label; none = the answer.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show which words of a text drove the answer."""
    from textlora.evaluation.explanation import explain_text
    from textlora.prediction.predictor import Predictor

    found = explain_text(Predictor.load(run), text, label)
    if as_json:
        print_json(found)
        return
    show_explanation(found)


_MAX_WORDS = 12


def show_explanation(explanation: "Explanation") -> None:
    """Print the answer, and the words that weigh most, for and against."""
    from textlora.cli.score_tables import describe_answer

    print_line(", ".join(filter(None, describe_answer(explanation.prediction))))
    ordered = sorted(explanation.words, key=lambda item: -abs(item.weight))[:_MAX_WORDS]
    if explanation.prediction.truncated:
        print_line("the text was cut: words behind the cut were not read and weigh nothing")
    largest = max((abs(item.weight) for item in ordered), default=0.0) or 1.0
    what = (f"for {explanation.label}", f"against {explanation.label}")
    table = make_table(("word", "log odds", ""), right={1})
    for item in ordered:
        bar = "#" * round(20 * abs(item.weight) / largest)
        table.add_row(
            make_cell(item.word), f"{item.weight:+.2f}", make_cell(f"{bar} {what[item.weight < 0]}")
        )
    show(table)
