"""Sets of labels as text: several names in one cell, with a separator between them.

The names of a set are sorted and none contains the separator, so that equal sets are equal texts
and a text gives back its set. A text without labels has the empty one.
"""

from collections.abc import Iterable
from typing import Any

_SEPARATORS = (";", "|", ",")  # those that are looked for where a setting may be missing


def list_elements(cell: Any, separator: str) -> list[Any]:
    """What a cell holds, name by name: a list as it is, a text cut at the separators."""
    if cell is None or cell != cell:  # the number that is none, where Parquet has no value
        return []
    if isinstance(cell, list | tuple):
        return [element for element in cell if element is not None and element == element]
    return cell.split(separator) if isinstance(cell, str) else [cell]


def join_labels(names: Iterable[str], separator: str) -> str:
    """A set as text."""
    return separator.join(sorted(set(names)))


def split_labels(text: str, separator: str) -> tuple[str, ...]:
    """The names in a text that `join_labels` has made, or anybody else."""
    names = (name.strip() for name in text.split(separator))
    return tuple(name for name in names if name)


def find_separator(labels: Iterable[str]) -> str:
    """The sign by which most of these labels look like several, whose parts recur; else ""."""
    distinct = {label for label in labels if label}
    for separator in _SEPARATORS:
        sets = [split_labels(label, separator) for label in distinct]
        several = sum(len(names) > 1 for names in sets)
        if several > len(sets) / 2 and len({n for names in sets for n in names}) < len(sets):
            return separator
    return ""
