"""A repaired copy of labelled texts, as files: what was wrong and can be mended without a guess.

Training rows that say nothing or contradict each other go to removed.csv. Rows of other splits all
stay: what is measured must not be chosen here.
"""

import csv
import io
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import ftfy

from textlora.checking.data_check import find_variants, has_markup, is_misread
from textlora.data.cleaning import clean_text
from textlora.data.columns import (
    clean_label,
    find_columns,
    find_label_fault,
    find_text_fault,
    join_texts,
)
from textlora.data.multilabel_cells import join_labels, list_elements
from textlora.data.sources import RawSplit
from textlora.data.split_files import find_files
from textlora.data.tables import name_columns, read_rows
from textlora.errors import DataError
from textlora.settings import DataSettings
from textlora.system.files import stage_folder

REMOVED = "removed.csv"
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


@dataclass(frozen=True)
class SplitFix:
    """What was done to one split; `removed` counts rows by reason, `changed` cells by kind."""

    name: str
    rows: int
    changed: dict[str, int]
    removed: dict[str, int]


def fix_splits(settings: DataSettings, parts: dict[str, RawSplit], out: Path) -> list[SplitFix]:
    """Write a repaired copy of every split as CSV into a new folder.

    `parts` is what `read_splits` found in the same files, read tolerantly.

    Raises:  DataError if `out` exists, or the data lies in no file.
    """
    if out.exists():
        raise DataError(f"{out}: exists already; name a new folder with --fix")
    files = find_files(settings)
    # Unified over all splits, so that train and test call a class the same.
    sets = (labels for part in parts.values() for labels in part.list_label_sets())
    variants = find_variants(label for labels in sets for label in labels)
    removed = io.StringIO(newline="")
    log = csv.writer(removed)
    log.writerow(("file", "line", "reason", "label", "text"))
    try:
        with stage_folder(out) as staged:
            fixes = []
            for name, part in parts.items():
                doomed = _find_doomed(part, variants) if name == "train" else {}
                for place, reason in doomed.items():
                    row = (part.files[place], part.lines[place], reason)
                    log.writerow((*row, part.labels[place], part.texts[place]))
                labels = _unify(part, variants)
                for fault in part.faults:
                    where, _, reason = fault.partition(": ")
                    log.writerow((*where.rsplit(":", 1), f"cannot be read: {reason}", "", ""))
                target = staged / f"{name}.csv"
                with target.open("w", encoding="utf-8", errors="replace", newline="") as stream:
                    fix = _write_rows(stream, files[name], labels, doomed, settings)
                unread = {"cannot be read": len(part.faults)} if part.faults else {}
                fixes.append(replace(fix, name=name, removed=unread | fix.removed))
            (staged / REMOVED).write_text(removed.getvalue(), "utf-8", "replace", newline="")
    except OSError as error:
        raise DataError(
            f"{out}: cannot be written ({error.strerror or error}); name another with --fix"
        ) from None
    return fixes


def repair_text(text: str) -> str:
    """A text as it was meant: the right encoding, entities and tags resolved, no control signs."""
    if is_misread(text):
        text = ftfy.fix_encoding(text)
    if has_markup(clean_text(text)):
        text = clean_text(text, repair_entities=True)
    return _CONTROL.sub(" ", text)


def _find_doomed(part: RawSplit, variants: dict[str, str]) -> dict[int, str]:
    """Rows that cannot stay, and why, in their order."""
    doomed: dict[int, str] = {}
    places: dict[str, list[int]] = defaultdict(list)
    labels = _unify(part, variants)
    for place, (text, label) in enumerate(zip(part.texts, labels, strict=True)):
        cleaned = clean_text(repair_text(text))
        if not cleaned:
            doomed[place] = "empty text"
        elif not label and not part.separator:
            doomed[place] = "no label"
        else:
            places[cleaned].append(place)
    for found in places.values():
        names = {labels[place] for place in found}
        if len(names) > 1:
            shown = ", ".join(sorted(name or "none" for name in names))
            doomed |= dict.fromkeys(found, f"different labels: {shown}")
        else:
            doomed |= dict.fromkeys(found[1:], "duplicate")
    return dict(sorted(doomed.items()))


def _unify(part: RawSplit, variants: dict[str, str]) -> list[str]:
    """The labels of each row, or its set as text, by their usual names."""
    if not part.separator:
        return [variants.get(label, label) for label in part.labels]
    return [
        join_labels((variants.get(label, label) for label in labels), part.separator)
        for labels in part.list_label_sets()
    ]


def _write_rows(
    stream: IO[str],
    files: list[Path],
    labels: list[str],
    doomed: dict[int, str],
    settings: DataSettings,
) -> SplitFix:
    """`labels` are the unified names, in the order of the rows."""
    changed: Counter[str] = Counter()
    # Read twice: a later row or file may have columns that the first one lacks.
    names = dict.fromkeys(name for values, _ in _read_values(files, settings) for name in values)
    writer = csv.DictWriter(stream, list(names))
    writer.writeheader()
    for place, (values, (text_columns, label_column)) in enumerate(_read_values(files, settings)):
        if place in doomed:
            continue
        for column in text_columns:
            value = values.get(column)
            if isinstance(value, str):
                values[column] = repair_text(value)
                changed["texts repaired"] += values[column] != value
        if labels[place] or settings.multi_label:
            # Also the names of numbers, and lists, which a CSV file does not know.
            old = _read_label(values.get(label_column), settings)
            changed["labels unified"] += old != labels[place]
            values[label_column] = labels[place]
        writer.writerow(values)
    reasons = Counter(reason.partition(":")[0] for reason in doomed.values())
    return SplitFix("", len(labels) - len(doomed), dict(+changed), dict(reasons))


def _read_label(cell: Any, settings: DataSettings) -> str:
    if not settings.multi_label:
        return str(cell)
    names = list_elements(cell, settings.label_separator)
    return join_labels(filter(None, map(clean_label, map(str, names))), settings.label_separator)


_Columns = tuple[tuple[str, ...], str]


def _read_values(
    files: list[Path], settings: DataSettings
) -> Iterator[tuple[dict[str, Any], _Columns]]:
    """Rows with the columns of their text and label, called in all files as in the first."""
    first: _Columns | None = None
    for path in files:
        own: _Columns | None = None
        for row, names in name_columns(read_rows(path, settings.encoding, tolerant=True)):
            if row.fault:
                continue
            own = own or find_columns(names, str(path), settings)
            first = first or own
            values = row.values
            if find_text_fault(values.get(column) for column in own[0]) or find_label_fault(
                values.get(own[1]), settings.label_names, settings
            ):
                continue
            yield _rename(values, own, first), first


def _rename(values: dict[str, Any], own: _Columns, first: _Columns) -> dict[str, Any]:
    if own == first:
        return dict(values)
    rest = {name: value for name, value in values.items() if name not in (*own[0], own[1])}
    texts = [values.get(name) for name in own[0]]
    if len(texts) != len(first[0]):
        texts = [join_texts(texts)]  # the first column has all of it
    return {**dict(zip(first[0], texts, strict=False)), first[1]: values.get(own[1]), **rest}
