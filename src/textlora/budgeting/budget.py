"""A parameter budget in, a plan that fits it out: which head, layers, matrices and rank.

The head is linear, so that the budget goes into the encoder. Of the sets of matrices below the
widest is taken that the budget pays a useful rank for; then the rank is raised as far as it goes.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from textlora.errors import SettingsError
from textlora.model.adapter_plan import AdapterPlan, find_matrices, plan_adapter
from textlora.model.encoder_files import find_local_folder
from textlora.model.shapes import ModelShapes, find_new_parameters, find_shapes
from textlora.settings import MAX_ALPHA, AdapterSettings, Matrix, Recipe, list_names

_USEFUL_RANK = 2  # a choice, not measured: below it, fewer matrices (docs/decisions.md)
# From the widest set to the smallest.
_SETS: tuple[dict[str, tuple[Matrix, ...]], ...] = (
    {"all": ("query", "key", "value", "output", "ffn")},
    {"all": ("query", "key", "value", "output")},
    {"all": ("query", "value")},
    {"all": ("query",)},
    {"last 2": ("query", "value")},
    {"last 1": ("query", "value")},
    {"last 1": ("query",)},
)
_CHOSEN = ("adapter.rank", "adapter.targets")
_POOLED = {"mean": "the mean of all tokens", "first": "the first token"}
_UNITS = {"": 1, "k": 1_000, "m": 1_000_000}
# A comma stands between thousands or nowhere: "0,5%" means ten times less in half of Europe.
_BUDGET = re.compile(r"((?:[1-9]\d{0,2}(?:[,_ ]\d{3})+|\d+)(?:\.\d+)?|\.\d+) ?([km%]?)")


@dataclass(frozen=True)
class BudgetedPlan:
    """A recipe whose trained parameters are at most `budget`, and its plan.

    `smallest` is the least budget that this encoder and these labels could be trained with.
    """

    recipe: Recipe
    plan: AdapterPlan
    budget: int
    smallest: int

    def describe(self) -> tuple[str, str]:
        """Where the budget goes, and the settings that were chosen for it."""
        plan, adapter = self.plan, self.recipe.adapter
        targets = "; ".join(f"{layers}: {', '.join(v)}" for layers, v in adapter.targets.items())
        return (
            f"budget {self.budget:,}: head {plan.head_parameters:,}, matrices "
            f"{plan.adapter_parameters:,}, unused {self.budget - plan.trainable:,}; "
            f"the smallest that works is {self.smallest:,}",
            f"a linear head over {_POOLED[self.recipe.model.head]}; "
            f"rank {adapter.rank}, alpha {adapter.alpha:g} in {targets}",
        )


@dataclass(frozen=True)
class _Start:
    """What a model consists of, and what of it would start at random."""

    shapes: ModelShapes
    new_parameters: tuple[str, ...]


def plan_recipe(recipe: Recipe, labels: Sequence[str]) -> AdapterPlan:
    """What a recipe would train, counted without building the model.

    Raises:  SettingsError for a matrix that the model lacks; ModelError if its configuration cannot
    be had.
    """
    found = _describe(recipe, labels)
    return plan_adapter(found.shapes, found.new_parameters, recipe.adapter)


def fit_budget(recipe: Recipe, labels: Sequence[str], budget: str) -> BudgetedPlan:
    """Choose `model.head` and the adapter of `recipe` such that at most `budget` is trained.

    `budget` is a number of parameters ("814852", "500k", "1M") or a share of those of the model
    ("0.5%"). A linear head that the recipe names is kept, and so is the strength of the adapter.

    Raises:  SettingsError for a budget that is not understood, or too small: it names the smallest
    that works. ModelError if the model's configuration cannot be had.
    """
    head = "mean" if recipe.model.head == "own" else recipe.model.head
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"head": head})})
    found = _describe(recipe, labels)
    allowed = parse_budget(budget, found.shapes.total)
    sets = _plan_sets(found, recipe)
    smallest = min(plan.trainable for _, plan in sets)
    if smallest > allowed:
        raise SettingsError(
            f"--budget: {allowed:,} parameters are too few for {recipe.model.name} with "
            f"{len(labels)} labels; the smallest that works is {smallest:,}"
        )
    ranks = [_find_rank(found, recipe, targets, plan, allowed) for targets, plan in sets]
    useful = [index for index, rank in enumerate(ranks) if rank >= _USEFUL_RANK]
    index = (useful or [i for i, rank in enumerate(ranks) if rank])[0]
    adapter, plan = _plan(found, recipe, sets[index][0], ranks[index])
    assert plan.trainable <= allowed, f"{plan.trainable} over the budget {allowed}"
    return BudgetedPlan(recipe.model_copy(update={"adapter": adapter}), plan, allowed, smallest)


def refuse_chosen(recipe: Recipe, assignments: Sequence[str]) -> None:
    """See that nothing was set (`section.name=value`) that a budget chooses.

    Raises:  SettingsError naming it.
    """
    names = list_names(assignments)
    for name in _CHOSEN:
        if name in names:
            raise SettingsError(
                f"--budget: chooses {name}, which is set too; leave out one of the two"
            )
    if "model.head" in names and recipe.model.head == "own":
        raise SettingsError(
            "--budget: takes a linear head, and model.head is set to 'own'; set it to mean or "
            "first, or leave out --budget"
        )


def parse_budget(text: str, total: int) -> int:
    """Parameters that a budget names; a share is one of `total`.

    Raises:  SettingsError if it is not understood or not positive.
    """
    match = _BUDGET.fullmatch(text.strip().lower())
    number = 0.0
    if match:
        factor = total / 100 if match[2] == "%" else _UNITS[match[2]]
        number = float(re.sub("[,_ ]", "", match[1])) * factor
    if not 0.0 < number < math.inf:
        raise SettingsError(
            f"--budget: {text!r} not understood; write a number such as 500000, 500k, 1M or 0.5%"
        )
    return int(number + 1e-6)


def _describe(recipe: Recipe, labels: Sequence[str]) -> _Start:
    shapes = find_shapes(recipe.model, len(labels))
    return _Start(shapes, find_new_parameters(shapes, find_local_folder(recipe.model)))


def _plan_sets(
    found: _Start, recipe: Recipe
) -> list[tuple[dict[str, tuple[Matrix, ...]], AdapterPlan]]:
    """The sets of matrices that this encoder has, each at rank 1."""
    sets, refusals = [], []
    for targets in _SETS:
        try:
            sets.append((targets, _plan(found, recipe, targets, 1)[1]))
        except SettingsError as error:  # fewer layers than the set names, or none to adapt
            refusals.append(error)
    if cheapest := _find_cheapest(found, recipe):
        sets.append(cheapest)
    if not sets:
        raise refusals[0]
    return sets


def _find_cheapest(
    found: _Start, recipe: Recipe
) -> tuple[dict[str, tuple[Matrix, ...]], AdapterPlan] | None:
    """One matrix, of those that cost least that of the highest layer; None if there is none."""
    matrices = find_matrices(found.shapes, recipe.adapter)
    matrices.sort(key=lambda matrix: (matrix.in_features + matrix.out_features, -matrix.layer))
    for matrix in matrices:
        targets: dict[str, tuple[Matrix, ...]] = {str(matrix.layer): matrix.terms[:1]}
        try:
            return targets, _plan(found, recipe, targets, 1)[1]
        except SettingsError:  # a layer that the checkpoint lacks is trained whole
            continue
    return None


def _find_rank(
    found: _Start,
    recipe: Recipe,
    targets: dict[str, tuple[Matrix, ...]],
    plan: AdapterPlan,
    budget: int,
) -> int:
    """The highest rank of these matrices within the budget; 0 if there is none.

    No higher than half the width of a matrix, where its two factors are as large as itself.
    """
    per_rank = sum(m.in_features + m.out_features for m in plan.matrices)
    most = min(min(m.in_features, m.out_features) for m in plan.matrices) // 2
    rank = min(most, 1 + (budget - plan.trainable) // per_rank)
    if rank < 1:
        return 0
    assert _plan(found, recipe, targets, rank)[1].trainable <= budget
    return rank


def _plan(
    found: _Start, recipe: Recipe, targets: dict[str, tuple[Matrix, ...]], rank: int
) -> tuple[AdapterSettings, AdapterPlan]:
    old = recipe.adapter
    alpha = old.compute_alpha(rank)
    if alpha > MAX_ALPHA:
        raise SettingsError(
            f"--budget: rank {rank} would need adapter.alpha = {alpha:g} to be as strong as the "
            f"recipe's; lower adapter.alpha, which is at most {MAX_ALPHA:g}"
        )
    adapter = old.model_copy(update={"targets": targets, "rank": rank, "alpha": alpha})
    return adapter, plan_adapter(found.shapes, found.new_parameters, adapter)
