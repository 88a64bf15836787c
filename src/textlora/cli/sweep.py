"""The command sweep: a search for settings."""

import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from textlora.cli.options import (
    DataOption,
    JsonOption,
    ModelOption,
    RecipeOption,
    SetOption,
    print_json,
)
from textlora.settings import list_names, load_recipe
from textlora.system.console import make_cell, make_table, print_line, show
from textlora.system.progress import Reporter

if TYPE_CHECKING:
    from textlora.sweep.trials import Sweep


def sweep(
    recipe: RecipeOption = "quickstart",
    space: Annotated[
        str, typer.Option(help="TOML file of settings to search; default ships with textlora.")
    ] = "default",
    data: DataOption = None,
    model: ModelOption = None,
    budget: Annotated[
        str | None, typer.Option(help="Most parameters that a trial may train: 1M, 500k, 0.5%.")
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Trials to train, by all processes.")] = 20,
    out: Annotated[Path, typer.Option(help="Folder of the sweep.")] = Path("runs/sweep"),
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search for settings on validation texts; the best recipe is written, ready to train."""
    from textlora.data.labelled_texts import load_labelled_texts
    from textlora.data.sources import read_splits
    from textlora.sweep.search import run_sweep
    from textlora.sweep.space import DEFAULT_SPACE, load_space

    resolved = load_recipe(recipe, settings or (), data__source=data, model__name=model)
    searched, report = load_space(space, resolved), Reporter(quiet=as_json)
    if space == DEFAULT_SPACE:  # a file of the user's own says what it searches
        searched = searched.fix(list_names(settings or ()))
    # Without the test split: what is not read can choose nothing.
    parts = read_splits(resolved.data, only=("train", "validation"))
    texts = load_labelled_texts(resolved.data, parts)
    found = run_sweep(
        resolved, texts, searched, out, budget=budget, num_trials=trials, report=report
    )
    if as_json:
        print_json(found)
        return
    show_sweep(found)
    words = ["textlora", "train", "--recipe", f"{found.recipe}", "--out", f"{out / 'best'}"]
    print(f"train it with  {shlex.join(words)}")


_MAX_TRIALS = 5


def show_sweep(found: "Sweep") -> None:
    """Print the best trials, how far apart they are, and what became of the others."""
    from textlora.sweep.trials import format_figure, format_setting

    best, names = found.ranked[:_MAX_TRIALS], list(found.ranked[0].settings)
    accuracy = [] if found.metric == "accuracy" else ["accuracy"]
    columns = ["trial", found.metric, *accuracy, "parameters", "seconds"]
    shown = [name.partition(".")[2] for name in names]
    table = make_table([*columns, *shown], right=set(range(len(columns))))
    for trial in best:
        figures = [(name, trial.figures[name]) for name in (found.metric, *accuracy)]
        table.add_row(
            str(trial.number),
            *(format_figure(value, name) for name, value in figures),
            f"{trial.parameters:,}",
            f"{trial.seconds:.0f}",
            *(make_cell(format_setting(trial.settings[name])) for name in names),
        )
    counts = Counter(trial.outcome for trial in found.trials)
    show(table, title=", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    print_line(found.verdict)
    print_line("the best of many trials looks better than it is: expect less on other texts")
    files = (("recipe", found.recipe), ("table", found.table), ("picture", found.picture))
    for name, path in files:
        print_line(f"{name:<14} {path}")
