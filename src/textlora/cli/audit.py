"""The command audit: labels that are probably wrong."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from textlora.cli.options import (
    DataArgument,
    JsonOption,
    ModelOption,
    RecipeOption,
    SetOption,
    print_json,
)
from textlora.errors import SettingsError
from textlora.settings import load_recipe
from textlora.system.console import make_cell, make_table, shorten, show

if TYPE_CHECKING:
    from textlora.data.corrections import DoubtfulLabel


def audit(
    data: DataArgument,
    out: Annotated[Path, typer.Option(help="File to review.")] = Path("review.csv"),
    accept_above: Annotated[
        float,
        typer.Option(min=0.0, help="Accept suggestions of that confidence; 2 = none."),
    ] = 2.0,
    model: ModelOption = None,
    recipe: RecipeOption = "quickstart",
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find training labels that are probably wrong; train --corrections uses the review."""
    from textlora.checking.audit import embed_texts, find_doubtful_labels
    from textlora.data.corrections import refuse_review, write_review
    from textlora.data.labelled_texts import load_training_rows

    refuse_review(out)  # before the work
    resolved = load_recipe(recipe, settings or (), data__source=data, model__name=model)
    if resolved.data.multi_label:
        raise SettingsError(
            "audit: finds wrong labels where a text has exactly one, and data.multi_label is set; "
            "look through the mistakes of textlora evaluate --split validation --mistakes 50"
        )
    raw, examples, labels = load_training_rows(resolved.data)
    doubtful = find_doubtful_labels(raw, examples, labels, embed_texts(examples.texts, resolved))
    write_review(out, doubtful, accept_above)
    accepted = sum(item.suggested_confidence >= accept_above for item in doubtful)
    if as_json:
        counts = {"rows": len(examples.texts), "doubtful": len(doubtful), "accepted": accepted}
        print_json({"review": out, **counts})
        return
    show_doubtful(doubtful)
    print(
        f"{len(doubtful):,} of {len(examples.texts):,} labels are doubtful, {accepted:,} accepted"
    )
    print(f"review        {out}: write keep, change, drop or a label into the column action, then")
    words = ["textlora", "train", "--recipe", recipe, "--data", data, "--corrections", f"{out}"]
    words += [] if model is None else ["--model", model]
    words += [word for setting in settings or () for word in ("--set", setting)]
    print(f"              {shlex.join(words)} --out runs/corrected")


_MAX_ROWS = 12


def show_doubtful(doubtful: Sequence["DoubtfulLabel"]) -> None:
    """Print the labels that are most doubtful."""
    table = make_table(("label", "suggested", "where", "text"), right=set())
    for item in doubtful[:_MAX_ROWS]:
        pair = (f"{item.label} {item.label_confidence:.0%}",
                f"{item.suggested} {item.suggested_confidence:.0%}")  # fmt: skip
        cells = (*pair, f"{item.line}", shorten(item.text, 90))
        table.add_row(*map(make_cell, cells))
    show(table)
