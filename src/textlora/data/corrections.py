"""A file of labels to review, and what a review of it changes.

A CSV with a row for each doubtful label. Its column `action` is empty or `keep` (the label stays),
`change` (to the suggested one), `drop` (the row goes), or another label of the data.
"""

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from textlora.data.examples import Examples
from textlora.data.tables import read_rows
from textlora.errors import DataError, TextloraError
from textlora.settings import DataSettings
from textlora.system.files import write_atomically

KEEP, CHANGE, DROP = "keep", "change", "drop"
_COLUMNS = (
    "file", "line", "text", "label", "suggested", "label_confidence", "suggested_confidence",
    "action",
)  # fmt: skip
_NEEDED = ("text", "label", "suggested", "action")


@dataclass(frozen=True)
class DoubtfulLabel:
    """A row whose label is probably wrong; confidences are out-of-fold probabilities, 0..1."""

    file: str
    line: int
    text: str
    label: str
    suggested: str
    label_confidence: float
    suggested_confidence: float


@dataclass(frozen=True)
class Correction:
    """A decision: texts equal to `text` with `label` get `new_label`, or go if that is None.

    A label that stays is a decision too: another row of the review may not drop the same text.
    """

    where: str
    text: str
    label: str
    new_label: str | None


def refuse_review(path: Path) -> None:
    """Leave a review alone that somebody may have worked on.

    Raises:  TextloraError if there is one, or no folder for it.
    """
    if path.exists():
        raise TextloraError(f"{path}: exists already; name another file with --out")
    if not path.parent.is_dir():
        raise TextloraError(f"{path}: no such folder; make it, or name another file with --out")


def write_review(path: Path, doubtful: Iterable[DoubtfulLabel], accept_above: float) -> None:
    """Write the file to review; suggestions of at least that confidence are accepted already.

    Raises:  TextloraError as `refuse_review`, or if it cannot be written.
    """
    refuse_review(path)
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow(_COLUMNS)
    for item in doubtful:
        action = CHANGE if item.suggested_confidence >= accept_above else ""
        shares = (f"{item.label_confidence:.4f}", f"{item.suggested_confidence:.4f}")
        place = (item.file, item.line, item.text, item.label, item.suggested)
        writer.writerow((*place, *shares, action))
    try:
        write_atomically(path, stream.getvalue())
    except OSError as error:
        raise TextloraError(f"{path}: cannot be written ({error.strerror or error})") from None


def read_corrections(path: Path, labels: tuple[str, ...]) -> list[Correction]:
    """The decisions of a review, also as a spreadsheet saves it.

    Raises:  DataError naming the line of what is no decision.
    """
    found = []
    for row in read_rows(path):
        where = f"{path}:{row.line}"
        missing = [column for column in _NEEDED if row.values.get(column) is None]
        if missing:
            raise DataError(
                f"{where}: no column {missing[0]!r}; give a file that audit has written"
            )
        text, label, suggested, action = (str(row.values[column]) for column in _NEEDED)
        action = action.strip()
        if not action:
            continue
        new_label = {KEEP: label, CHANGE: suggested}.get(action.casefold(), action)
        if action.casefold() == DROP:
            found.append(Correction(where, text, label, None))
        elif new_label in labels or action.casefold() == KEEP:
            found.append(Correction(where, text, label, new_label))
        else:
            raise DataError(
                f"{where}: action {action!r} is unknown; write keep, change, drop or one of "
                f"{', '.join(labels)}"
            )
    return found


def apply_corrections(
    train: Examples,
    parts: dict[str, Examples],
    labels: tuple[str, ...],
    settings: DataSettings,
    notes: list[str],
) -> Examples:
    """Training rows as a review has decided; those of other parts stay as they are.

    `parts` has all rows as read, in the numbers of `labels`; what was done is added to `notes`.

    Raises:  DataError for a decision about a row that is not there, or two that contradict.
    """
    path = Path(settings.corrections)
    numbers = {label: index for index, label in enumerate(labels)}
    known = {
        (text, int(label_id))
        for part in parts.values()
        for text, label_id in zip(part.texts, part.label_ids, strict=True)
    }
    decided: dict[tuple[str, int], int] = {}  # -1: the row goes
    for item in read_corrections(path, labels):
        key = (item.text, numbers.get(item.label, -1))
        if key not in known:
            if item.new_label == item.label:
                continue  # nothing is asked of a row that has gone
            raise DataError(
                f"{item.where}: no row of {settings.source} has this text with the label "
                f"{item.label!r}; the data has changed since, run textlora audit again"
            )
        wanted = -1 if item.new_label is None else numbers[item.new_label]
        if decided.setdefault(key, wanted) != wanted:
            raise DataError(
                f"{item.where}: decides otherwise about a text with the label {item.label!r} than "
                "a row above it; write the same in both"
            )
    pairs = list(zip(train.texts, train.label_ids.tolist(), strict=True))
    label_ids = np.array([decided.get(pair, pair[1]) for pair in pairs], dtype=np.int64)
    kept = np.flatnonzero(label_ids >= 0)
    changed = int((label_ids[kept] != train.label_ids[kept]).sum())
    changing = {key for key, wanted in decided.items() if wanted != key[1]}
    outside = len(changing - set(pairs))
    notes.append(
        f"{path}: {changed} training labels corrected, {len(pairs) - len(kept)} rows dropped"
        + (f"; {outside} corrections are about held-out rows and change nothing" if outside else "")
    )
    return Examples(train.texts, label_ids, train.slices).take(kept)
