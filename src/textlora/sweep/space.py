"""What a sweep may change: settings with a range or with choices, from a TOML file.

    [training]
    learning_rate = { low = 1e-4, high = 5e-3, log = true }
    epochs = { choices = [2, 4, 8] }

`"training.epochs" = { choices = [2, 4, 8] }` says the same. What is wrong in it, or would make a
recipe that is refused, is found at once and before anything is trained.
"""

import itertools
import json
import math
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from textlora.errors import SettingsError
from textlora.settings import Recipe, parse_recipe

DEFAULT_SPACE = "default"
_COUNTABLE = 10_000  # combinations, above which a search does not come to their end
_RANGE_KEYS = {"low", "high", "log", "step"}
_EXAMPLE = "{ low = 1, high = 8 }, with log or step, or { choices = [...] }"
# Settings that cannot be searched, and why.
_REFUSED = {
    "training.best_metric": "is what trials are compared by; choose it with --set",
    "training.seed": "is luck, nothing to be chosen; see train --seeds",
    "training.keep_checkpoints": "changes nothing that is learned",
    "training.checkpoint_minutes": "changes nothing that is learned",
    "training.prefix_cache_gb": "changes nothing that is learned",
}


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; `whole` ones where the setting counts."""

    name: str
    low: float
    high: float
    log: bool
    step: float | None
    whole: bool

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values that decide whether all between are legal."""
        return self.low, self.high

    @property
    def steps(self) -> Sequence[Any] | None:
        """All values, where they can be counted and are not too many."""
        step = self.step or (1.0 if self.whole else 0.0)
        if not step:
            return None
        count = (self.high - self.low) / step  # may be too large for a whole number
        if count > _COUNTABLE:
            return None
        return [self.round(self.low + index * step) for index in range(int(count + 1e-9) + 1)]

    def describe(self) -> dict[str, Any]:
        """The range as its file has it."""
        step = {} if self.step is None else {"step": self.step}
        return {"low": self.low, "high": self.high, "log": self.log, **step}

    def round(self, value: float) -> float:
        """Without digits that decide nothing and are hard to read in a recipe."""
        if self.whole:
            return int(value)
        digits = 4 if self.step is None else 10  # a step of 0.1 gives 0.30000000000000004
        return min(max(float(f"{value:.{digits}g}"), self.low), self.high)


@dataclass(frozen=True)
class Choices:
    """Any values that the setting takes, tables and lists too."""

    name: str
    values: tuple[Any, ...]

    @property
    def ends(self) -> tuple[Any, ...]:
        """All of them."""
        return self.values

    @property
    def steps(self) -> Sequence[Any]:
        """All of them."""
        return self.values

    @property
    def keys(self) -> list[str]:
        """The values as JSON: what a study can store."""
        return [json.dumps(value, default=str) for value in self.values]

    def describe(self) -> dict[str, Any]:
        """The choices as their file has them."""
        return {"choices": list(self.values)}


@dataclass(frozen=True)
class Space:
    """All that a sweep may change, in the order of the file."""

    dimensions: tuple[Range | Choices, ...]

    def describe(self) -> dict[str, dict[str, Any]]:
        """Setting -> range or choices."""
        return {dimension.name: dimension.describe() for dimension in self.dimensions}

    def fix(self, names: Collection[str]) -> "Space":
        """The space without these settings, which stay as the recipe has them.

        Raises:  SettingsError if nothing is left.
        """
        left = tuple(item for item in self.dimensions if item.name not in names)
        if not left:
            raise SettingsError("--set: leaves nothing of the space to search; name less")
        return Space(left)

    def list_all(self) -> list[dict[str, Any]] | None:
        """Everything that the space combines; None where that is too much to count."""
        steps = [dimension.steps for dimension in self.dimensions]
        counted = [values for values in steps if values is not None]
        if len(counted) < len(steps) or math.prod(map(len, counted)) > _COUNTABLE:
            return None
        names = [dimension.name for dimension in self.dimensions]
        return [dict(zip(names, found, strict=True)) for found in itertools.product(*counted)]

    def find_start(self, recipe: Recipe) -> dict[str, Any] | None:
        """The recipe's own values; None if one of them is outside the space."""
        values = recipe.model_dump(mode="json")
        start = {}
        for dimension in self.dimensions:
            section, key = dimension.name.split(".")
            value = start[dimension.name] = values[section][key]
            if isinstance(dimension, Choices):
                if value not in dimension.values:
                    return None
            elif not dimension.low <= value <= dimension.high or not _is_on_step(dimension, value):
                return None
        return start


def load_space(name: str, recipe: Recipe) -> Space:
    """Read `default`, which ships with the package, or a TOML file, and check it with `recipe`.

    Raises:  SettingsError naming every unknown setting, bad range and value that a recipe refuses.
    """
    where = f"space {name!r}"
    dimensions: list[Range | Choices] = []
    problems: list[str] = []
    for setting, entry in _flatten(_read_toml(name), where).items():
        try:
            dimension = _parse_entry(setting, entry)
            for value in dimension.ends:
                change_recipe(recipe, {setting: value}, where)
            dimensions.append(dimension)
        except SettingsError as error:
            problems.append(str(error).removeprefix(f"{where}: "))
    if problems:
        raise SettingsError(f"{where}: {'; '.join(problems)}")
    if not dimensions:
        raise SettingsError(f"{where}: names no setting; write one, such as epochs = {_EXAMPLE}")
    return Space(tuple(dimensions))


def change_recipe(recipe: Recipe, values: Mapping[str, Any], where: str) -> Recipe:
    """`recipe` with other values: setting -> value.

    Where the rank changes and alpha is not said, alpha follows, as with a budget: the rank alone
    would change how strong the adapter is.

    Raises:  SettingsError for a value out of range.
    """
    content = recipe.model_dump(mode="json")
    for name, value in values.items():
        section, key = name.split(".")
        content[section][key] = value
    rank = values.get("adapter.rank")
    if isinstance(rank, int) and "adapter.alpha" not in values:
        variant = content["adapter"]["variant"]
        old = recipe.adapter.model_copy(update={"variant": variant})
        content["adapter"]["alpha"] = old.compute_alpha(max(rank, 1))
    return parse_recipe(content, where)


def _read_toml(name: str) -> dict[str, Any]:
    try:
        if name == DEFAULT_SPACE:
            file = resources.files("textlora") / "sweep" / "spaces" / f"{DEFAULT_SPACE}.toml"
            return tomllib.loads(file.read_text("utf-8"))
        return tomllib.loads(Path(name).read_text("utf-8-sig"))
    except FileNotFoundError:
        raise SettingsError(
            f"space {name!r}: no such file; give a TOML file, or leave --space out"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"space {name!r}: cannot be read ({error}); give a UTF-8 file"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"space {name!r}: not valid TOML ({error}); mend that line") from None


def _flatten(content: dict[str, Any], where: str) -> dict[str, Any]:
    """Both ways to write a name, as one: section.name -> entry."""
    pairs = []
    for key, entry in content.items():
        inner = entry if key in Recipe.model_fields and isinstance(entry, dict) else None
        pairs += [(key, entry)] if inner is None else [(f"{key}.{k}", v) for k, v in inner.items()]
    names = [name for name, _ in pairs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SettingsError(f"{where}: {', '.join(twice)} is there twice; keep one")
    return dict(pairs)


def _parse_entry(name: str, entry: Any) -> Range | Choices:
    section, _, key = name.partition(".")
    if section not in Recipe.model_fields or not key:
        raise SettingsError(
            f"unknown setting {name}; write section and name, such as training.learning_rate"
        )
    known = getattr(Recipe.model_fields[section].annotation, "model_fields", {})
    if key not in known:
        raise SettingsError(f"unknown setting {name}; known: {', '.join(known)}")
    if section == "data":
        raise SettingsError(f"{name}: the data is the same for all trials; choose it with --set")
    if name in _REFUSED:
        raise SettingsError(f"{name}: {_REFUSED[name]}")
    if isinstance(entry, dict) and entry.keys() == {"choices"}:
        return _parse_choices(name, entry["choices"])
    if isinstance(entry, dict) and {"low", "high"} <= entry.keys() <= _RANGE_KEYS:
        return _parse_range(name, entry, known[key].annotation)
    raise SettingsError(f"{name}: write {_EXAMPLE}, got {entry!r}")


def _parse_choices(name: str, values: Any) -> Choices:
    if not isinstance(values, list) or len(values) < 2:
        raise SettingsError(f"{name}: choices is a list of two or more, got {values!r}")
    choices = Choices(name, tuple(values))
    if any(a == b for a, b in itertools.combinations(values, 2)):  # 1 and 1.0 too
        raise SettingsError(f"{name}: a choice is there twice in {values!r}; keep one")
    return choices


def _parse_range(name: str, entry: dict[str, Any], kind: Any) -> Range:
    if kind not in (int, float):
        raise SettingsError(f"{name}: is no number; write {{ choices = [...] }}")
    allowed = (int,) if kind is int else (int, float)
    for key in entry.keys() - {"log"}:
        if type(entry[key]) not in allowed:
            what = "a whole number" if kind is int else "a number"
            raise SettingsError(f"{name}: {key} is {what}, got {entry[key]!r}")
    low, high, log, step = entry["low"], entry["high"], entry.get("log", False), entry.get("step")
    if not isinstance(log, bool):
        raise SettingsError(f"{name}: log is true or false, got {log!r}")
    if not low < high:
        raise SettingsError(f"{name}: low must be below high, got {low} and {high}")
    if log and (low <= 0 or step is not None):
        raise SettingsError(f"{name}: log needs a low above 0 and no step, got {entry!r}")
    if step is not None and not 0 < step <= high - low:
        raise SettingsError(f"{name}: step must be above 0 and fit the range, got {step}")
    return _end_on_step(Range(name, kind(low), kind(high), log, step, whole=kind is int))


def _end_on_step(found: Range) -> Range:
    """Without what lies above the last step, which no draw reaches."""
    if found.step is None:
        return found
    count = (found.high - found.low) // found.step
    if found.low + (count + 1) * found.step <= found.high + 1e-9 * found.step:
        count += 1  # 0.3 // 0.1 is 2
    return replace(found, high=found.round(found.low + count * found.step))


def _is_on_step(dimension: Range, value: float) -> bool:
    if dimension.step is None:
        return True
    steps = (value - dimension.low) / dimension.step
    return abs(steps - round(steps)) < 1e-6
