"""The commands evaluate, compare, report and explain: what a classifier can do."""

import json
from pathlib import Path
from typing import Annotated

import typer

from textlora.errors import SettingsError
from textlora.options import (
    BackendOption,
    DataOption,
    JsonOption,
    RunArgument,
    SetOption,
    print_json,
)
from textlora.progress import Reporter
from textlora.settings import load_recipe


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
    from textlora.assessment import assess_split, save_assessments
    from textlora.predictor import Predictor
    from textlora.rundir import RECIPE, find_classifier, refuse_run

    if out is not None:
        refuse_run(out)
    predictor = Predictor.load(run, backend, Reporter(quiet=as_json))
    chosen = [] if slices is None else [f"data.slice_columns={json.dumps(slices)}"]
    recipe = str(find_classifier(run) / RECIPE)
    resolved = load_recipe(recipe, [*(settings or ()), *chosen], data__source=data)
    result = assess_split(run, predictor, resolved.data, split)
    if out is not None:
        save_assessments(out, [result], history=[])
    if as_json:
        print_json(result.evaluation)
        return
    from textlora import scoretables

    scoretables.show_evaluation(result.evaluation)
    scoretables.show_details(result, mistakes)


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
    from textlora.comparison import compare_runs
    from textlora.rundir import RECIPE, find_classifier, read_manifest

    read_manifest(first)
    resolved = load_recipe(str(find_classifier(first) / RECIPE), settings or (), data__source=data)
    result = compare_runs(first, second, resolved.data, split)
    if as_json:
        print_json(result)
        return
    from textlora import scoretables

    scoretables.show_comparison(result, examples)


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN [RUN ...]", help="Run folders.")],
    split: Annotated[
        str | None, typer.Option(help="Figures on which split; test where there is one.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File; that of the run, RUN/report.html, if not named.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write one HTML page about one run, or several side by side."""
    from textlora.evaluation import read_evaluations
    from textlora.report import write_report
    from textlora.rundir import REPORT

    if out is None and len(runs) > 1:
        raise SettingsError("--out: missing; name the file of a report about several runs")
    split = split or read_evaluations(runs[0])[-1].split
    path = write_report(runs, split, out or runs[0] / REPORT)
    if as_json:
        print_json({"report": path, "bytes": path.stat().st_size})
    else:
        print(f"report        {path}")


def explain(
    run: RunArgument,
    text: Annotated[str, typer.Argument(help="The text, in quotes.")],
    label: Annotated[
        str | None, typer.Option(help="What speaks for this label; none = the answer.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show which words of a text drove the answer."""
    from textlora.explanation import explain_text
    from textlora.predictor import Predictor

    found = explain_text(Predictor.load(run), text, label)
    if as_json:
        print_json(found)
        return
    from textlora import scoretables

    scoretables.show_explanation(found)
