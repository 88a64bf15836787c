"""The figures of repeats with several seeds, as `train --seeds` stores and others read them."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from textlora.errors import ModelError, shorten_message
from textlora.runs.run_folder import SEEDS, read_manifest
from textlora.scoring.significance import Repeated, Spread, compare_repeats
from textlora.system.files import write_json


@dataclass(frozen=True)
class Repeats:
    """Figures over repeats. `best` is the run that is best on validation; no test chose it.

    `splits` has split -> figure -> spread: accuracy, macro and weighted F1 (shares), loss (nats).
    `test` is a SHA-256 fingerprint of the test split; empty without one.
    """

    runs: tuple[str, ...]
    seeds: tuple[int, ...]
    best: str
    splits: dict[str, dict[str, Spread]]
    test: str = ""


def write_repeats(run: Path, repeats: Repeats) -> None:
    """Store the figures of repeats.

    Raises:  OSError if they cannot be written.
    """
    write_json(run / SEEDS, asdict(repeats))


def read_repeats(run: Path) -> Repeats | None:
    """The figures of repeats; None for a single run.

    Raises:  ModelError if they are damaged.
    """
    path = run / SEEDS
    if not path.is_file():
        return None
    try:
        return TypeAdapter(Repeats).validate_python(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, ValidationError) as error:
        reason = shorten_message(error)
        raise ModelError(f"{path}: damaged ({reason}); train again with --seeds") from None


def compare_seeds(first: Path, second: Path, split: str) -> Repeated | None:
    """Whether two runs differ in accuracy by more than their seeds do.

    None unless both were trained with several seeds, on the same data, and measured on that split
    of it as it is for both.

    Raises:  ModelError as `read_repeats` and `read_manifest`.
    """
    one, two = (read_repeats(run) for run in (first, second))
    manifests = [read_manifest(run) for run in (first, second)]
    if one is None or two is None or split not in one.splits.keys() & two.splits.keys():
        return None
    # Validation is held out of the training data, whose fingerprint it shares.
    same = manifests[0].data_fingerprint == manifests[1].data_fingerprint
    if not same or (split == "test" and one.test != two.test):
        return None
    return compare_repeats(*(r.splits[split]["accuracy"].values for r in (one, two)))
