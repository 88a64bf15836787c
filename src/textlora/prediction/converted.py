"""A converted classifier beside its run: what a probe found out about it, kept and read again."""

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textlora.system.files import (
    describe_files,
    find_damage,
    format_json,
    lock_folder,
    stage_folder,
    write_file,
)

MAX_FLIPS = 0.005  # of the probe's labels
MAX_AGAIN = 0.2  # of the probe's texts: beyond it the exact backend does much of the work
_FACTS = "backend.json"


@dataclass(frozen=True)
class Probe:
    """A backend beside torch: how many labels of the probe differ, and texts per second of both.

    `again` counts the texts that torch answered, as another answer is nearer than `margin`. Of a
    multi-label classifier a text differs as soon as one of its labels does.
    """

    texts: int
    flips: int
    margin: float
    again: int
    rate: float
    torch_rate: float

    @property
    def keeps_labels(self) -> bool:
        """Whether at most 0.5 % of the labels differ."""
        return self.flips <= MAX_FLIPS * self.texts

    @property
    def is_sure(self) -> bool:
        """Whether few texts are too close to call."""
        return self.again <= MAX_AGAIN * self.texts


def keep_converted(scratch: Path, folder: Path, facts: dict[str, Any]) -> None:
    """Put what lies in `scratch` into `folder`, whole or not at all, with these facts.

    Raises:  OSError if it cannot be written, or another process writes there.
    """
    folder.parent.mkdir(exist_ok=True)
    with lock_folder(folder.parent), stage_folder(folder) as staged:
        names = sorted(path.name for path in scratch.iterdir())
        for name in names:
            write_file(staged / name, (scratch / name).read_bytes())
        found = {**facts, "files": describe_files(staged, names)}
        write_file(staged / _FACTS, format_json(found).encode())


def read_converted(folder: Path, key: dict[str, Any]) -> dict[str, Any] | None:
    """What backend.json says, if it is whole and was made from just this."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        found = json.loads((folder / _FACTS).read_text("utf-8"))
        if found["key"] == key and not find_damage(folder, found["files"]):
            return {"probe": found["probe"] and Probe(**found["probe"])}
    return None
