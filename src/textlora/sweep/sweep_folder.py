"""The folder of a sweep: what it was started with, and the files that say what was found.

FOLDER/sweep.toml     what is searched: recipe, space, budget, data
FOLDER/study.db       every trial, with its curve (`study`)
FOLDER/running/       run folders of trials that are not at their end
FOLDER/best.toml      the winning recipe
FOLDER/trials.csv     the trials as a table
FOLDER/pareto.png     accuracy against trained parameters and against time
"""

import shutil
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from textlora.errors import SettingsError, TextloraError
from textlora.runs.run_folder import CHECKPOINTS, SWEEP
from textlora.settings import Recipe, format_recipe
from textlora.sweep.space import Space
from textlora.sweep.study import RUNNING, STUDY, name_run
from textlora.sweep.trials import Trial, format_table
from textlora.system.files import MANIFEST, write_atomically
from textlora.system.sharing import hold_folder

BEST, TABLE, PICTURE = "best.toml", "trials.csv", "pareto.png"
_NONE = "none"  # TOML has no word for it


@dataclass(frozen=True)
class SweepOrigin:
    """What a sweep grows from; it is continued only where all of this is the same.

    `data` and `encoder` are SHA-256 fingerprints of texts with labels, and of the model.
    """

    recipe: Recipe
    space: Space
    budget: str | None
    data: str
    encoder: str


def claim_folder(folder: Path, origin: SweepOrigin) -> None:
    """Make the folder of a sweep, or check that it holds this very sweep.

    Raises:  SettingsError if it holds something else, with what differs; TextloraError if it cannot
    be written.
    """
    if (folder / CHECKPOINTS).exists() or (folder / MANIFEST).exists():
        raise SettingsError(f"{folder}: holds a run of train; choose another --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with hold_folder(folder):
            path, text = folder / SWEEP, _format_origin(origin)
            if path.is_file():
                _check_same(folder, _read(path), tomllib.loads(text))
            elif (folder / STUDY).exists():
                raise SettingsError(
                    f"{folder}: has {STUDY}, but no {SWEEP} to say of what; choose another --out"
                )
            else:
                write_atomically(path, text)
    except OSError as error:
        raise TextloraError(
            f"{folder}: cannot be written ({error.strerror or error}); choose another --out"
        ) from None


def drop_runs(folder: Path, unfinished: Sequence[int]) -> None:
    """Delete run folders of trials that are at their end; a crash may have come before that."""
    kept = {name_run(folder, number).name for number in unfinished}
    for path in (folder / RUNNING).glob("*"):
        if path.name not in kept:
            shutil.rmtree(path, ignore_errors=True)


def write_found(folder: Path, trials: Sequence[Trial], best: Trial | None, recipe: Recipe) -> None:
    """Write the table, and `recipe` as that of the best trial if there is one.

    Raises:  OSError if they cannot be written.
    """
    write_atomically(folder / TABLE, format_table(trials))
    if best is not None:
        comment = f"# Trial {best.number} of a sweep, {best.parameters:,} trained parameters.\n"
        write_atomically(folder / BEST, comment + format_recipe(recipe))


def _format_origin(origin: SweepOrigin) -> str:
    return tomli_w.dumps({
        "budget": origin.budget or _NONE,
        "data": origin.data,
        "encoder": origin.encoder,
        "recipe": origin.recipe.model_dump(mode="json"),
        "space": origin.space.describe(),
    })  # fmt: skip


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path}: is damaged ({error}); choose another --out") from None


def _check_same(folder: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    was, is_now = _name_settings(old), _name_settings(new)
    changed = [
        f"{name} was {was.get(name, _NONE)!r}, is {is_now.get(name, _NONE)!r}"
        for name in dict.fromkeys([*was, *is_now])
        if was.get(name) != is_now.get(name)
    ]
    if not changed and old.get("data") != new["data"]:
        changed.append("the texts or labels of the data have changed")
    if not changed and old.get("encoder") != new["encoder"]:
        changed.append("the files of the model have changed")
    if changed:
        raise SettingsError(
            f"{folder}: was started as another sweep ({'; '.join(changed)}); choose another --out"
        )


def _name_settings(content: dict[str, Any]) -> dict[str, Any]:
    """Everything a user has chosen, by its name."""
    named = {"budget": content.get("budget")}
    for section, settings in content.get("recipe", {}).items():
        named |= {f"{section}.{name}": value for name, value in settings.items()}
    return named | {f"space {name}": entry for name, entry in content.get("space", {}).items()}
