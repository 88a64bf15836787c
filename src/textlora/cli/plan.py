"""The command plan: what would be trained, counted exactly, and what it costs here."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

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
from textlora.errors import SettingsError
from textlora.settings import Recipe
from textlora.system.console import format_seconds, make_table, print_line, show

if TYPE_CHECKING:
    from textlora.budgeting.budget import BudgetedPlan
    from textlora.budgeting.cost import Cost
    from textlora.data.labelled_texts import LabelledTexts
    from textlora.model.adapter_plan import AdapterPlan

_ASSUMED_LABELS = 4


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
    from textlora.budgeting.budget import fit_budget, plan_recipe
    from textlora.budgeting.cost import plan_cost
    from textlora.model.encoder_files import lacks_weights

    flags = {"model__name": model, "data__source": data}
    resolved = load_budgeted(recipe, settings or (), flags, budget)
    if data is not None and num_labels is not None:
        raise SettingsError("--num-labels: --data has its own; leave out one of the two")
    texts = None if data is None else _load_texts(resolved)
    count = _ASSUMED_LABELS if num_labels is None else num_labels
    labels = texts.labels if texts else tuple(f"label {index}" for index in range(count))
    fitted = None if budget is None else fit_budget(resolved, labels, budget)
    planned = plan_recipe(resolved, labels) if fitted is None else fitted.plan
    chosen = resolved if fitted is None else fitted.recipe
    cost = plan_cost(chosen, planned, labels, texts)
    unknown = lacks_weights(chosen.model)
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
            "new_layers_known": not unknown,
            **limits,
            "cost": asdict(cost),
        })  # fmt: skip
        return
    show_plan(planned, resolved.model.name)
    if unknown:
        print_line(
            f"{resolved.model.name} has no weights, so layers that the checkpoint lacks are "
            "unknown; what is not part of the encoder counts as new"
        )
    if fitted is not None:
        show_budget(fitted)
    show_cost(cost, len(labels))


def _load_texts(recipe: Recipe) -> "LabelledTexts":
    from textlora.data.labelled_texts import load_labelled_texts

    return load_labelled_texts(recipe.data)


def show_plan(plan: "AdapterPlan", model: str) -> None:
    """Print what would be trained, a line a matrix or module, and the totals."""
    table = make_table(("layer", "trained", "shape", "parameters"), right={2, 3})
    for matrix in plan.matrices:
        name = ".".join(matrix.name.split(".")[-3:])
        what = f"{', '.join(matrix.terms)} ({name}, rank {matrix.rank})"
        shape = f"{matrix.in_features:,} x {matrix.out_features:,}"
        table.add_row(str(matrix.layer), what, shape, f"{matrix.num_parameters:,}")
    for module in plan.modules:
        table.add_row("", f"{module.name} (trained whole)", "", f"{module.num_parameters:,}")
    show(table, title=f"{model}, {plan.num_layers} layers")
    print_line(
        f"adapter {plan.adapter_parameters:,} + head {plan.head_parameters:,} = "
        f"{plan.trainable:,} of {plan.total:,} parameters trained ({plan.trainable_share:.4%})"
    )


def show_budget(fitted: "BudgetedPlan") -> None:
    """Print how a plan uses its budget, and the settings that it stands for."""
    for line in fitted.describe():
        print_line(line)


def show_cost(cost: "Cost", num_labels: int) -> None:
    """Print what a plan costs here, and which texts that is said for."""
    print_line(
        f"cost here (threads: {cost.num_threads}, {cost.number_format}): "
        f"adapter {cost.adapter_bytes / 1e6:.2f} MB, memory about {cost.memory_bytes / 1e9:.1f} GB,"
        f" about {format_seconds(cost.epoch_seconds)} an epoch, "
        f"{format_seconds(cost.seconds)} in all"
    )
    kind = f" by the tokenizer of {cost.tokenizer}" if cost.tokenizer else "; --data counts yours"
    print_line(
        f"for {num_labels} labels, {cost.num_texts:,} training and {cost.num_validation:,} "
        f"validation texts of {cost.mean_tokens:.0f} tokens{kind}"
    )
