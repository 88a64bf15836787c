"""Whether a recipe of a sweep may be trained: its parameters counted exactly, before any weight."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from textlora.budgeting.budget import parse_budget, plan_recipe
from textlora.errors import SettingsError
from textlora.model.encoder_files import lacks_weights, locate_encoder
from textlora.settings import Recipe
from textlora.sweep.space import Choices, Space, change_recipe

# What the number of trained parameters depends on.
_COUNTED = (
    "adapter.rank", "adapter.targets", "adapter.variant", "model.head", "model.name",
    "model.revision",
)  # fmt: skip
_MAX_COMBINATIONS = 200  # counted in advance; each takes tenths of a second


@dataclass(frozen=True)
class Feasibility:
    """What a recipe would train; `refusal` says why it may not be, and is empty if it may.

    `parameters` is None where nothing can be counted: a matrix that the model lacks.
    """

    parameters: int | None
    refusal: str = ""

    @property
    def fits(self) -> bool:
        """Whether it may be trained."""
        return self.parameters is not None and not self.refusal


class Judge:
    """Counts recipes against a budget, each combination of what matters once."""

    def __init__(self, recipe: Recipe, labels: Sequence[str], budget: str | None) -> None:
        self._recipe, self._labels, self._budget = recipe, tuple(labels), budget
        self._known: dict[str, Feasibility] = {}
        if budget is not None:
            parse_budget(budget, total=100)  # one that is not understood is told before all else

    def judge(self, settings: dict[str, Any]) -> Feasibility:
        """Count the recipe with these settings."""
        counted = {name: settings[name] for name in _COUNTED if name in settings}
        key = json.dumps(counted)
        if key not in self._known:
            self._known[key] = self._count(counted)
        return self._known[key]

    def check_space(self, space: Space) -> list[dict[str, Any]]:
        """Look at all that the space combines, ranges at their low ends: what of it fits.

        Only settings that decide the number of parameters are in it. Empty where there are too
        many combinations to look at.

        Raises:  SettingsError if a choice fits no model, or nothing fits the budget: it names the
        smallest that was seen.
        """
        named = {item.name: item for item in space.dimensions if item.name in _COUNTED}
        options = [
            item.values if isinstance(item, Choices) else (item.low,) for item in named.values()
        ]
        combinations = [
            dict(zip(named, values, strict=True))
            for values in itertools.islice(itertools.product(*options), _MAX_COMBINATIONS + 1)
        ]
        if len(combinations) > _MAX_COMBINATIONS:
            return []  # what does not fit is found on the way
        judged = [self.judge(settings) for settings in combinations]
        problems = [item.refusal for item in judged if item.parameters is None]
        if len(problems) == len(judged):
            raise SettingsError(problems[0])
        for name, values in zip(named, options, strict=True):
            for value in values:
                having = [
                    found
                    for found, settings in zip(judged, combinations, strict=True)
                    if settings[name] == value
                ]
                if all(item.parameters is None for item in having):
                    raise SettingsError(f"space: {name} = {json.dumps(value)}: {having[0].refusal}")
        fitting = [
            settings for found, settings in zip(judged, combinations, strict=True) if found.fits
        ]
        if not fitting:
            smallest = min(item.parameters for item in judged if item.parameters is not None)
            raise SettingsError(
                f"--budget: {self._budget} is too little for everything that the space combines; "
                f"the smallest of it trains {smallest:,} parameters; "
                "allow as many, or widen --space"
            )
        return fitting

    def _count(self, settings: dict[str, Any]) -> Feasibility:
        try:
            recipe = change_recipe(self._recipe, settings, "space")
            if lacks_weights(recipe.model):
                locate_encoder(recipe.model)  # refuses: it can be planned, but not trained
            plan = plan_recipe(recipe, self._labels)
        except SettingsError as error:
            return Feasibility(None, str(error))
        if self._budget is None:
            return Feasibility(plan.trainable)
        allowed = parse_budget(self._budget, plan.total - plan.trainable)  # as `fit_budget`
        over = plan.trainable > allowed
        refusal = f"{plan.trainable:,} parameters, over the budget of {allowed:,}" if over else ""
        return Feasibility(plan.trainable, refusal)
