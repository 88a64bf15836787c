"""Sets of labels as text: several names in one cell, with a separator between them.

The names of a set are sorted and none contains the separator, so that equal sets are equal texts
and a text gives back its set. A text without labels has the empty one.
"""

import ast
import json
import re
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

_SEPARATORS = (";", "|", ",")  # those that are looked for where a setting may be missing
_QUOTED_LIST = re.compile(r"\s*\[\s*[\"'].*\]\s*", re.DOTALL)
_GAP = re.compile(r"[\"']\s+[\"']")  # numpy writes no commas, and Python joins such strings
_ONES_AND_ZEROS = {"0", "1", "0.0", "1.0", "True", "False", "true", "false"}


def list_elements(cell: Any, separator: str) -> list[Any]:
    """What a cell holds, name by name: a list, also as text, or a text cut at the separators."""
    if isinstance(cell, str):
        listed = read_list(cell)
        if listed is None:
            return cell.split(separator)
        cell = listed
    if cell is None or cell != cell:  # the number that is none, where Parquet has no value
        return []
    if isinstance(cell, list | tuple):
        return [element for element in cell if element is not None and element == element]
    return [cell]


def read_list(text: str) -> list[Any] | None:
    """The list that a text is, as JSON or Python write it; None if it is none."""
    text = text.strip()
    if not (text.startswith("[") and text.endswith("]")) or _GAP.search(text):
        return None
    try:
        return list(json.loads(text))
    except (ValueError, RecursionError):
        pass
    try:
        with warnings.catch_warnings(action="ignore"):  # of unknown escapes
            return list(ast.literal_eval(text))
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


def is_broken_list(text: str) -> bool:
    """Whether a text looks like a list of names, and cannot be read as one."""
    return _QUOTED_LIST.fullmatch(text) is not None and read_list(text) is None


def are_indicators(rows: Sequence[Sequence[Any]]) -> bool:
    """Whether rows are ones and zeros, one for each label, in place of the labels themselves.

    A set never has a label twice.
    """
    if len({len(row) for row in rows}) != 1:
        return False
    texts = [[str(value).strip() for value in row] for row in rows]
    return all(_ONES_AND_ZEROS.issuperset(row) for row in texts) and any(
        len(set(row)) < len(row) for row in texts
    )


def join_labels(names: Iterable[str], separator: str) -> str:
    """A set as text."""
    return separator.join(sorted(set(names)))


def split_labels(text: str, separator: str) -> tuple[str, ...]:
    """The names in a text that `join_labels` has made, or anybody else."""
    names = (name.strip() for name in text.split(separator))
    return tuple(name for name in names if name)


def find_joined(labels: Iterable[str]) -> tuple[list[str], str]:
    """Labels that look like several, and the separator in them; "" where they are lists."""
    labels = list(labels)
    if listed := [label for label in labels if len(read_list(label) or ()) > 1]:
        return listed, ""
    separator = find_separator(labels)
    several = [label for label in labels if separator and len(split_labels(label, separator)) > 1]
    return several, separator


def find_separator(labels: Iterable[str]) -> str:
    """The sign by which labels look like several; "" if they do not.

    That is where all parts of one are labels too, or most have parts that recur.
    """
    distinct = {label for label in labels if label}
    for separator in _SEPARATORS:
        sets = [split_labels(label, separator) for label in distinct]
        several = [names for names in sets if len(names) > 1]
        if any(distinct.issuperset(names) for names in several):
            return separator
        recur = len({name for names in sets for name in names}) < len(sets)
        if len(several) > len(sets) / 2 and recur:
            return separator
    return ""
