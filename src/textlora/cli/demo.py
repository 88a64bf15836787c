"""The command demo: train, evaluate and predict on what the package brings, without a network."""

import csv
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from textlora.cli.examples import EXAMPLES
from textlora.cli.options import (
    JsonOption,
    print_json,
)
from textlora.cli.train import show_trained
from textlora.errors import SettingsError
from textlora.settings import Recipe, load_recipe
from textlora.system.progress import Reporter

if TYPE_CHECKING:
    from textlora.training.loop import Resume
    from textlora.training.pipeline import TrainedRun


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the result.")] = Path("runs/demo"),
    as_json: JsonOption = False,
) -> None:
    """Train, evaluate and predict on the embedded sample; under two minutes, no network."""
    result = run_demo(out, Reporter(quiet=as_json))
    if as_json:
        print_json({"run": asdict(result.run), "output": result.output})
        return
    from textlora.system import console

    show_trained(result.run)
    rows = [(text, label, f"{share:.1%}") for text, label, share in result.predictions]
    console.show_rows(("text", "label", "confidence"), rows)
    print(f"\npredictions   {result.output}")
    print("\nNext:")
    print("  textlora train --recipe quickstart --data YOUR.csv --out runs/mine")
    print(f"  textlora predict {out} --input YOUR.csv --output labelled.csv")
    print("  textlora plan --recipe reference")


@dataclass(frozen=True)
class DemoResult:
    """What the demo made: the run, and the predictions file with its rows (text, label, share)."""

    run: "TrainedRun"
    output: Path
    predictions: tuple[tuple[str, str, float], ...]


def run_demo(folder: Path, report: Reporter) -> DemoResult:
    """Train the quickstart recipe into `folder` and classify a small file."""
    from textlora.checking.data_check import check_splits
    from textlora.data.labelled_texts import load_labelled_texts
    from textlora.data.sources import read_splits
    from textlora.data.tables import read_rows
    from textlora.prediction.file_prediction import predict_files
    from textlora.prediction.predictor import Predictor
    from textlora.training.pipeline import train_run

    recipe = load_recipe("quickstart")
    parts = read_splits(recipe.data)
    texts = load_labelled_texts(recipe.data, parts)
    check = check_splits(recipe.data.source, parts, recipe.model.max_length)
    resume = _find_resume(folder, recipe, len(texts.train.texts))
    trained = train_run(recipe, texts, folder, resume=resume, report=report, check=check)
    source, output = folder / "example_input.csv", folder / "example_output.csv"
    with source.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([["text"], *([text] for text in EXAMPLES)])
    predict_files(Predictor.load(folder), [source], output)
    rows = [row.values for row in read_rows(output)]
    predictions = tuple(
        (text, row["LabelText"], float(row["Confidence"]))
        for text, row in zip(EXAMPLES, rows, strict=True)
    )
    return DemoResult(trained, output, predictions)


def _find_resume(folder: Path, recipe: Recipe, num_texts: int) -> "Resume":
    """A demo that was stopped goes on; one that was finished, perhaps an older one, is shown anew.

    Raises:  SettingsError if the folder holds a classifier of other data.
    """
    from textlora.runs.checkpoints import find_newest_step
    from textlora.runs.run_folder import RECIPE
    from textlora.training.timetable import Timetable

    path = folder / RECIPE
    if not path.is_file():
        return "auto"
    found = load_recipe(str(path))
    if found.data.source != recipe.data.source:
        raise SettingsError(f"{folder}: holds a run on {found.data.source}; choose another --out")
    num_batches = math.ceil(num_texts / recipe.training.batch_size)
    is_finished = find_newest_step(folder) >= Timetable(recipe, num_batches).total_steps
    return "never" if is_finished or found != recipe else "auto"
