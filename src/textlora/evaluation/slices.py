"""Accuracy on parts of the texts: by length, and by the values of columns."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from textlora.evaluation.stored_predictions import Answers
from textlora.scoring.metrics import Interval, compute_wilson_interval

_LENGTH_GROUPS = 4
_MAX_VALUES = 20  # of a column; what is rarer is counted together


@dataclass(frozen=True)
class Slice:
    """The texts that have one `value` in a column, or a length; `accuracy` on them."""

    column: str
    value: str
    num_texts: int
    accuracy: float
    accuracy_interval: Interval


def compute_slices(answers: Answers) -> tuple[Slice, ...]:
    """Accuracy by length of the text, in four groups of similar size, and by each column kept."""
    right = answers.right
    lengths = np.array([text.count(" ") + 1 for text in answers.examples.texts])
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, _LENGTH_GROUPS + 1)).astype(int))
    if len(edges) == 1:
        edges = np.append(edges, edges)  # all texts are as long
    groups = np.clip(np.searchsorted(edges, lengths) - 1, 0, len(edges) - 2)
    found = []
    for group in np.unique(groups):
        inside = groups == group
        low, high = lengths[inside].min(), lengths[inside].max()
        name = f"{low}" if low == high else f"{low} to {high}"
        found.append(_make_slice("words", name, right[inside]))
    for column, values in answers.examples.slices.items():
        found += _slice_column(column, values, right)
    return tuple(found)


def _slice_column(
    column: str, values: tuple[str, ...], right: npt.NDArray[np.bool_]
) -> list[Slice]:
    counts = Counter(values).most_common()
    shown = [value for value, _ in counts[:_MAX_VALUES]]
    array = np.array(values, dtype=object)
    found = [_make_slice(column, value, right[array == value]) for value in shown]
    if len(counts) > len(shown):
        rest = ~np.isin(array, np.array(shown, dtype=object))
        found.append(_make_slice(column, f"({len(counts) - len(shown)} others)", right[rest]))
    return found


def _make_slice(column: str, value: str, right: npt.NDArray[np.bool_]) -> Slice:
    correct, total = int(right.sum()), len(right)
    interval = compute_wilson_interval(correct, total)
    return Slice(column, value, total, correct / total, interval)
