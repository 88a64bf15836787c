"""The command evaluate: a classifier measured on labelled texts."""

import json
from pathlib import Path
from typing import Annotated

import typer

from textlora.cli.options import (
    BackendOption,
    DataOption,
    JsonOption,
    RunArgument,
    SetOption,
    print_json,
)
from textlora.settings import load_recipe
from textlora.system.progress import Reporter


def evaluate(
    run: RunArgument,
    data: DataOption = None,
    split: Annotated[str, typer.Option(help="Which split of the data.")] = "test",
    out: Annotated[
        Path | None, typer.Option(help="Folder for evaluation.json and the pictures.")
    ] = None,
    slices: Annotated[
        list[str] | None,
        typer.Option("--slice", metavar="COLUMN", help="Also by the values of a column."),
    ] = None,
    mistakes: Annotated[int, typer.Option(min=0, help="The surest mistakes shown.")] = 3,
    settings: SetOption = None,
    backend: BackendOption = "torch",
    as_json: JsonOption = False,
) -> None:
    """Measure a classifier on labelled texts (default: the data of its recipe)."""
    from textlora.evaluation.run_evaluation import evaluate_split
    from textlora.prediction.predictor import Predictor
    from textlora.runs.run_folder import RECIPE, find_classifier, refuse_run

    if out is not None:
        refuse_run(out)
    predictor = Predictor.load(run, backend, Reporter(quiet=as_json))
    chosen = [] if slices is None else [f"data.slice_columns={json.dumps(slices)}"]
    recipe = str(find_classifier(run) / RECIPE)
    resolved = load_recipe(recipe, [*(settings or ()), *chosen], data__source=data)
    result = evaluate_split(run, predictor, resolved.data, split)
    if out is not None:
        from textlora.reporting.results import save_results

        save_results(out, [result], history=[])
    if as_json:
        print_json(result.evaluation)
        return
    from textlora.cli import score_tables

    score_tables.show_evaluation(result.evaluation)
    score_tables.show_details(result, mistakes)
