"""The command train."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from textlora.cli.options import (
    BudgetOption,
    DataOption,
    JsonOption,
    ModelOption,
    RecipeOption,
    SetOption,
    load_budgeted,
    print_json,
)
from textlora.system.progress import Reporter

if TYPE_CHECKING:
    from textlora.runs.seeds import Repeats
    from textlora.training.pipeline import TrainedRun


def train(
    recipe: RecipeOption = "reference",
    data: DataOption = None,
    model: ModelOption = None,
    out: Annotated[Path, typer.Option(help="Run folder to write.")] = Path("runs/latest"),
    settings: SetOption = None,
    resume: Annotated[
        Literal["auto", "never"], typer.Option(help="Continue a stopped run, or start over.")
    ] = "auto",
    budget: BudgetOption = None,
    seeds: Annotated[
        int | None, typer.Option(help="Repeat with so many seeds; mean and spread are told.")
    ] = None,
    track: Annotated[
        list[str] | None,
        typer.Option(help="Also tell tensorboard, mlflow, wandb or trackio; repeatable."),
    ] = None,
    corrections: Annotated[
        str | None, typer.Option(help="A reviewed file of audit; for training rows alone.")
    ] = None,
    pictures: Annotated[
        Path | None, typer.Option(help="Also copy the pictures to this folder.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Train a classifier, verify that it reloads, and evaluate it."""
    from textlora.checking.data_check import check_splits
    from textlora.data.labelled_texts import load_labelled_texts
    from textlora.data.sources import read_splits
    from textlora.model.encoder_files import locate_encoder
    from textlora.runs.run_folder import VISUALIZATIONS

    flags = {"data__source": data, "model__name": model, "data__corrections": corrections}
    resolved = load_budgeted(recipe, settings or (), flags, budget)
    report = Reporter(quiet=as_json)
    parts = read_splits(resolved.data)
    texts = load_labelled_texts(resolved.data, parts)
    checked = check_splits(resolved.data.source, parts, resolved.model.max_length)
    for line in checked.summarize():
        report.say(line)
    if budget is not None:
        from textlora.budgeting.budget import fit_budget

        fitted = fit_budget(resolved, texts.labels, budget)
        resolved = fitted.recipe
        for line in fitted.describe():
            report.say(line)
    # Before torch is imported: who has mistyped a name does not wait for it.
    locate_encoder(resolved.model)
    from textlora.training.pipeline import copy_pictures, train_run

    if seeds is not None:
        from textlora.training.repeats import train_repeats

        repeats = train_repeats(
            resolved, texts, out, seeds,
            resume=resume, report=report, track=track or (), check=checked,
        )  # fmt: skip
        if pictures is not None:
            copy_pictures(sorted((out / VISUALIZATIONS).glob("*.png")), pictures)
        _show_repeats(repeats, out, as_json)
        return
    result = train_run(
        resolved, texts, out, resume=resume, report=report, track=track or (), check=checked
    )
    if pictures is not None:
        copy_pictures(result.pictures, pictures)
    if as_json:
        print_json(result)
    else:
        show_trained(result)


def show_trained(result: "TrainedRun") -> None:
    """Print the figures of a finished run, what it took, and where it lies."""
    from textlora.cli import score_tables

    print()
    for evaluation in result.evaluations:
        score_tables.show_evaluation(evaluation)
        print()
    print(
        f"trained       {result.trainable_parameters:,} of {result.total_parameters:,} parameters, "
        f"{result.steps:,} steps (best: {result.best_step:,}), {result.seconds:.0f} s in all"
    )
    print(f"classifier    {result.folder}")
    for picture in result.pictures:
        print(f"picture       {picture}")
    print(f"report        {result.report}")


def _show_repeats(repeats: "Repeats", out: Path, as_json: bool) -> None:
    if as_json:
        print_json(repeats)
        return
    from textlora.cli import score_tables

    score_tables.show_repeats(repeats)
    print(f"classifier    {out}, a copy of {repeats.best}, the best on validation")
