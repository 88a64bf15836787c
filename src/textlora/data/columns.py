"""The columns of labelled texts, and what their cells mean: text, label, set of labels."""

from collections.abc import Iterable, Sequence
from typing import Any

from textlora.data.multilabel_cells import (
    are_indicators,
    is_broken_list,
    join_labels,
    list_elements,
)
from textlora.errors import DataError
from textlora.settings import DataSettings

_TEXT_NAMES = ("text", "sentence", "content", "review", "headline", "message", "document")
_TITLE_AND_BODY = (("title", "description"), ("title", "text"), ("title", "body"))
_MAX_DIGITS = 12  # of a label that is a number; longer ones are behind every name too
_LABEL_NAMES = ("label", "labels", "category", "class", "target", "topic", "intent", "sentiment")


def find_columns(
    columns: list[str], where: str, settings: DataSettings
) -> tuple[tuple[str, ...], str]:
    """The columns that hold the text, and the one that holds the label.

    Raises:  DataError listing the columns that exist.
    """
    return find_text_columns(columns, where, settings.text_columns), _find_label(
        columns, where, settings
    )


def find_text_columns(
    columns: list[str], where: str, wanted: Sequence[str] = ()
) -> tuple[str, ...]:
    """The columns that hold the text: those named, else found by their usual names.

    Raises:  DataError listing the columns that exist.
    """
    missing = [column for column in wanted if column not in columns]
    if missing:
        raise DataError(
            f"{where}: no column {missing[0]!r}; it has {', '.join(map(repr, columns))}"
        )
    if wanted:
        return tuple(wanted)
    known = _index(columns)
    for names in (*_TITLE_AND_BODY, *((name,) for name in _TEXT_NAMES)):
        if all(name in known for name in names):
            return tuple(known[name] for name in names)
    raise DataError(
        f"{where}: no text column; it has {', '.join(map(repr, columns))}; name one "
        "(train: --set 'data.text_columns=[\"...\"]', predict: --text-column)"
    )


def _find_label(columns: list[str], where: str, settings: DataSettings) -> str:
    shown = ", ".join(map(repr, columns))
    if settings.label_column:
        if settings.label_column in columns:
            return settings.label_column
        raise DataError(f"{where}: no column {settings.label_column!r}; it has {shown}")
    known = _index(columns)
    for name in _LABEL_NAMES:
        if name in known:
            return known[name]
    raise DataError(
        f"{where}: no label column; it has {shown}; name one with --set data.label_column=..."
    )


def _index(columns: list[str]) -> dict[str, str]:
    """Columns by their names in small letters; of `label` and `Label` the former."""
    return {column.lower(): column for column in sorted(columns, key=str.islower)}


def find_slice_columns(columns: Sequence[str], settings: DataSettings) -> list[str]:
    """The slice columns that this split has; the split that is scored is checked there."""
    return [column for column in settings.slice_columns if column in columns]


def name_value(value: Any) -> str:
    """The value of a slice column as it is shown; an empty cell has a name too."""
    return clean_label("" if value is None else str(value)) or "(empty)"


def name_labels(
    where: str,
    lines: list[int],
    labels: list[Any],
    names: tuple[str, ...],
    settings: DataSettings,
    tolerant: bool,
) -> list[str]:
    """The label, or set of labels, of each cell; `names` are those of integer labels.

    Labels that are names already stay what they are, and cells have no fault (`find_label_fault`).
    When `tolerant`, a row without a label has "".

    Raises:  DataError with the line of a cell without a label, and for rows of ones and zeros.
    """
    if settings.multi_label:
        separator = settings.label_separator
        if are_indicators([list_elements(label, separator) for label in labels]):
            raise DataError(
                f"{where}: the labels are rows of ones and zeros, such as {labels[0]!r:.80}; give "
                "the names, or the places, of the ones alone"
            )
        return [name_label_set(label, names, separator) for label in labels]
    converted = []
    for line, label in zip(lines, labels, strict=True):
        name = _name_label(label, names)
        if not name and not tolerant:
            raise DataError(
                f"{where}:{line}: no label, got {label!r}; label this row or remove it, or where "
                "texts have several labels or none set data.multi_label=true"
            )
        converted.append(name)
    return converted


def name_label_set(cell: Any, names: tuple[str, ...], separator: str) -> str:
    """The labels of a cell as one text (see `multilabel_cells`); an empty cell is an empty set."""
    found = (_name_element(element, names) for element in list_elements(cell, separator))
    return join_labels(filter(None, found), separator)


def find_label_fault(cell: Any, names: tuple[str, ...], settings: DataSettings) -> str:
    """Why a cell cannot be read as a label, or set of labels; empty if it can."""
    if not settings.multi_label:
        if not isinstance(cell, list):
            return _find_number_fault(cell, names)
        return (
            f"the label is a list, {cell!r:.80}; set data.multi_label=true for texts with several "
            "labels, or give one label a text"
        )
    separator = settings.label_separator
    elements = list_elements(cell, separator)
    broken = isinstance(cell, str) and is_broken_list(cell)
    if broken or any(isinstance(element, list | dict) for element in elements):
        return (
            f"labels cannot be read, got {cell!r:.80}; give a list of names, or names with "
            f"{separator!r} between them"
        )
    for element in elements:
        name = _name_element(element, names)
        if fault := _find_number_fault(element, names):
            return fault
        if separator in name:
            return (
                f"label {name!r} holds the separator {separator!r}; set data.label_separator to a "
                "sign that no label has"
            )
    return ""


def clean_label(label: str) -> str:
    """One line of encodable text: a label stands in tables, files and pictures."""
    return " ".join(label.encode("utf-8", "replace").decode("utf-8").split())


def _name_element(element: Any, names: tuple[str, ...]) -> str:
    return _name_label(element, names) or clean_label(str(element))


def _name_label(label: Any, names: tuple[str, ...]) -> str:
    text = _write_label(label)
    if text in names or not names or not text.removeprefix("-").isdecimal():
        return text
    number = int(text[:_MAX_DIGITS])
    return names[number] if 0 <= number < len(names) else ""


def _find_number_fault(label: Any, names: tuple[str, ...]) -> str:
    """A number behind the last name; one below 0 says that the label is kept secret."""
    text = _write_label(label)
    if text in names or not names or not text.isdecimal() or _name_label(label, names):
        return ""
    return (
        f"label {text:.20} has no name: there are {len(names)} names, for 0 to {len(names) - 1}; "
        "see data.label_names"
    )


def _write_label(label: Any) -> str:
    if isinstance(label, float) and label.is_integer():
        label = int(label)  # a column of whole numbers that has gaps is read as floats
    missing = label is None or label != label  # the number that is none, in JSON lines too
    return "" if missing or isinstance(label, list | dict) else clean_label(str(label))


def find_text_fault(values: Iterable[Any]) -> str:
    """What is wrong with the text columns of a row, if anything; an empty cell is none."""
    wrong = (value for value in values if not isinstance(value, str | None))
    return next((f"the text is {value!r:.40}, not a string" for value in wrong), "")


def join_texts(values: Iterable[Any]) -> str:
    """The text columns of a row as one text, a line each."""
    return "\n".join("" if value is None else str(value) for value in values)
