"""Texts and labels as a program hands them over, checked before anything is trained."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from textlora.data.multilabel_cells import are_indicators
from textlora.errors import DataError


def list_labels(labels: Iterable[Any]) -> list[Any]:
    """Labels that can be read as often as needed, also those of a generator, with sets as lists.

    Raises:  DataError for what has no order, or a matrix, whose ones and zeros would be labels.
    """
    if getattr(labels, "ndim", 1) > 1:
        raise DataError(
            "labels: a matrix given; give a list of labels for each text "
            "(MultiLabelBinarizer.inverse_transform makes them of a matrix)"
        )
    if isinstance(labels, str | Mapping | set | frozenset) or not isinstance(labels, Iterable):
        raise DataError(f"labels: {labels!r:.40} given; give a list with the label of each text")
    # A column that was read from Parquet has arrays in it.
    return [label.tolist() if getattr(label, "ndim", 0) == 1 else label for label in labels]


def find_classes(labels: Sequence[Any]) -> npt.NDArray[Any]:
    """All labels, each once. Shapes: returns (labels,), sorted.

    Raises:  DataError for a mixture of kinds.
    """
    kinds = sorted({type(label).__name__ for label in labels})
    given = np.asarray(labels)
    if given.dtype.kind == "U" and not all(isinstance(label, str) for label in labels):
        raise DataError(f"labels: are of kinds {', '.join(kinds)}; give one kind")
    try:
        return np.unique(given)
    except TypeError:
        raise DataError(
            f"labels: of kind {', '.join(kinds)} cannot be sorted; give names or numbers"
        ) from None


def read_sets(labels: Sequence[Any]) -> list[list[Any]] | None:
    """The labels of each text, where they come as sets; None where each text has one.

    Raises:  DataError for a mixture, and for rows of ones and zeros.
    """
    kinds = [isinstance(label, list | tuple | set | frozenset) for label in labels]
    if not any(kinds):
        return None
    if not all(kinds):
        wrong = labels[kinds.index(False)]
        raise DataError(f"labels: {wrong!r:.40} is no list, others are; give a list for each text")
    sets = [list(label) for label in labels]
    if are_indicators(sets):
        raise DataError(
            f"labels: rows of ones and zeros given, such as {sets[0]!r:.80}; give the names, or "
            "the places, of the ones alone"
        )
    return sets


def check_labels(sets: Iterable[Iterable[Any]]) -> None:
    """See that a label that is missing does not become a class.

    Raises:  DataError naming the place of its text.
    """
    for place, labels in enumerate(sets):
        for label in labels:
            if _is_missing(label) or not str(label).strip():
                raise DataError(
                    f"labels: {label!r} at place {place} is no label; give one, or leave out its "
                    "text"
                )


def check_sets(labels: Sequence[Any]) -> list[list[Any]]:
    """The labels of each text, where they must come as sets.

    Raises:  DataError if they do not.
    """
    sets = read_sets(labels)
    if sets is None:
        raise DataError("labels: one label a text given; the classifier needs a list for each text")
    return sets


def check_counts(texts: Sequence[str], labels: Sequence[Any]) -> None:
    """See that each text has its label.

    Raises:  DataError if there are not as many, or none.
    """
    if len(texts) != len(labels) or not labels:
        raise DataError(
            f"texts and labels: {len(texts)} texts, {len(labels)} labels; give as many, and at "
            "least one"
        )


def check_texts(texts: Iterable[str]) -> list[str]:
    """Texts as a list, also those of a generator or a column.

    Raises:  DataError for a table, a single string, and what is no string among them.
    """
    if isinstance(texts, str):
        raise DataError("texts: one string given; give a list of texts")
    # Of a table, or a mapping, a loop would see the names of the columns.
    is_table = isinstance(texts, Mapping) or getattr(texts, "ndim", 1) != 1
    if is_table or not isinstance(texts, Iterable):
        kind = type(texts).__name__
        raise DataError(f"texts: {kind} given; give a list of texts, of a table one column")
    checked = list(texts)
    for text in checked:
        if not isinstance(text, str):
            raise DataError(f"texts: {text!r:.40} is not a string; give a list of texts")
    return checked


def _is_missing(label: Any) -> bool:
    try:
        return label is None or bool(label != label)
    except TypeError:  # of pandas' NA nothing is known, not even that
        return True
