"""What several commands share: their options, and results as JSON."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from textlora.settings import BackendName, Recipe, list_recipes, load_recipe

RecipeOption = Annotated[str, typer.Option(help=f"{', '.join(list_recipes())} or a TOML file.")]
DataOption = Annotated[
    str | None,
    typer.Option(help="ag_news, hub:owner/name, a folder, a file, or embedded:headlines."),
]
ModelOption = Annotated[str | None, typer.Option(help="Hub id, folder, or embedded:minilm.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.NAME=VALUE", help="Change one setting; repeatable."),
]
BudgetOption = Annotated[
    str | None,
    typer.Option(help="Most parameters to train: 1M, 500k, 0.5%; decides head, matrices and rank."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object, nothing else.")]
BackendOption = Annotated[
    BackendName,
    typer.Option(help="What computes; auto is the fastest here that keeps the labels."),
]
DataArgument = Annotated[str, typer.Argument(metavar="DATA", help="As --data of train.")]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder made by train.")]


def load_budgeted(
    recipe: str, settings: Sequence[str], flags: dict[str, str | None], budget: str | None
) -> Recipe:
    """The recipe, changed by --set and flags; nothing that a budget chooses may be set too.

    Raises:  SettingsError naming what is wrong.
    """
    resolved = load_recipe(recipe, settings, **flags)
    if budget is not None:
        from textlora.budgeting.budget import refuse_chosen

        refuse_chosen(resolved, settings)
    return resolved


def print_json(value: Any) -> None:
    """Print a dataclass, or what holds none, as one line of JSON on stdout."""
    content = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
    escaped = (sys.stdout.encoding or "").lower().replace("_", "-") not in ("utf-8", "utf8")
    print(json.dumps(content, default=str, ensure_ascii=escaped))
