"""The commands demo, plan, train and sweep."""

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from textlora.errors import SettingsError
from textlora.options import (
    BudgetOption,
    DataOption,
    JsonOption,
    ModelOption,
    RecipeOption,
    SetOption,
    print_json,
)
from textlora.progress import Reporter
from textlora.settings import Recipe, list_names, load_recipe

_ASSUMED_LABELS = 4

if TYPE_CHECKING:
    from textlora.pipeline import TrainedRun
    from textlora.seeds import Repeats


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the result.")] = Path("runs/demo"),
    as_json: JsonOption = False,
) -> None:
    """Train, evaluate and predict on the embedded sample; under two minutes, no network."""
    from textlora.demo import run_demo

    result = run_demo(out, Reporter(quiet=as_json))
    if as_json:
        print_json({"run": asdict(result.run), "output": result.output})
        return
    from textlora import console

    _show_trained(result.run)
    rows = [(text, label, f"{share:.1%}") for text, label, share in result.predictions]
    console.show_rows(("text", "label", "confidence"), rows)
    print(f"\npredictions   {result.output}")
    print("\nNext:")
    print("  textlora train --recipe quickstart --data YOUR.csv --out runs/mine")
    print(f"  textlora predict {out} --input YOUR.csv --output labelled.csv")
    print("  textlora plan --recipe reference")


def plan(
    recipe: RecipeOption = "reference",
    model: ModelOption = None,
    num_labels: Annotated[
        int | None, typer.Option(min=2, help="Number of labels, 4 if neither this nor --data.")
    ] = None,
    data: DataOption = None,
    budget: BudgetOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what would be trained, counted exactly, and what it costs here; builds no model."""
    from textlora.budget import fit_budget, plan_recipe
    from textlora.cost import plan_cost
    from textlora.data import load_labelled_texts

    flags = {"model__name": model, "data__source": data}
    resolved = _load_recipe(recipe, settings or (), flags, budget)
    if data is not None and num_labels is not None:
        raise SettingsError("--num-labels: --data has its own; leave out one of the two")
    texts = None if data is None else load_labelled_texts(resolved.data)
    count = _ASSUMED_LABELS if num_labels is None else num_labels
    labels = texts.labels if texts else tuple(f"label {index}" for index in range(count))
    fitted = None if budget is None else fit_budget(resolved, labels, budget)
    planned = plan_recipe(resolved, labels) if fitted is None else fitted.plan
    chosen = resolved if fitted is None else fitted.recipe
    cost = plan_cost(chosen, planned, labels, texts)
    if as_json:
        limits = {} if fitted is None else {"budget": fitted.budget, "smallest": fitted.smallest}
        print_json({
            "model": chosen.model.name,
            "head": chosen.model.head,
            "adapter": chosen.adapter.model_dump(mode="json"),
            "num_labels": len(labels),
            **asdict(planned),
            "trainable": planned.trainable,
            "trainable_share": planned.trainable_share,
            **limits,
            "cost": asdict(cost),
        })  # fmt: skip
        return
    from textlora import plantables

    plantables.show_plan(planned, resolved.model.name)
    if fitted is not None:
        plantables.show_budget(fitted)
    plantables.show_cost(cost, len(labels))


def _load_recipe(
    recipe: str, settings: Sequence[str], flags: dict[str, str | None], budget: str | None
) -> Recipe:
    resolved = load_recipe(recipe, settings, **flags)
    if budget is not None:
        from textlora.budget import refuse_chosen

        refuse_chosen(resolved, settings)
    return resolved


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
    from textlora.data import load_labelled_texts
    from textlora.datacheck import check_splits
    from textlora.pipeline import copy_pictures, train_run
    from textlora.rundir import VISUALIZATIONS
    from textlora.sources import read_splits

    flags = {"data__source": data, "model__name": model, "data__corrections": corrections}
    resolved = _load_recipe(recipe, settings or (), flags, budget)
    report = Reporter(quiet=as_json)
    parts = read_splits(resolved.data)
    texts = load_labelled_texts(resolved.data, parts)
    checked = check_splits(resolved.data.source, parts, resolved.model.max_length)
    for line in checked.summarize():
        report.say(line)
    if budget is not None:
        from textlora.budget import fit_budget

        fitted = fit_budget(resolved, texts.labels, budget)
        resolved = fitted.recipe
        for line in fitted.describe():
            report.say(line)
    if seeds is not None:
        from textlora.repeats import train_repeats

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
        _show_trained(result)


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
    from textlora.data import load_labelled_texts
    from textlora.sources import read_splits
    from textlora.space import DEFAULT_SPACE, load_space
    from textlora.sweep import run_sweep

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
    from textlora import plantables

    plantables.show_sweep(found)
    words = ["textlora", "train", "--recipe", f"{found.recipe}", "--out", f"{out / 'best'}"]
    print(f"train it with  {shlex.join(words)}")


def _show_trained(result: "TrainedRun") -> None:
    from textlora import scoretables

    print()
    for evaluation in result.evaluations:
        scoretables.show_evaluation(evaluation)
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
    from textlora import scoretables

    scoretables.show_repeats(repeats)
    print(f"classifier    {out}, a copy of {repeats.best}, the best on validation")
