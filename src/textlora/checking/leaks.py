"""Texts to be scored that training has seen, word for word or nearly so: they make a score lie.

Two texts are near duplicates when they share at least half of all word triples that one of them
has (Jaccard similarity). The comparison is exact: one product of two sparse matrices.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from textlora.data.examples import Examples
from textlora.scoring.metrics import Interval, compute_wilson_interval

if TYPE_CHECKING:
    from scipy.sparse import csr_array

MIN_SIMILARITY = 0.5
_MAX_PAIRS = 3_000_000  # of texts in one product: its memory does not grow with their number
_MAX_EXAMPLES = 20


@dataclass(frozen=True)
class LeakedText:
    """A text to be scored beside its nearest training text; `similarity` 1 means the same words."""

    text: str
    label: str
    train_text: str
    train_label: str
    similarity: float


@dataclass(frozen=True)
class Leaks:
    """What the scored texts share with the training texts, and the score without them.

    The first two count texts of the same words, the others near duplicates.
    """

    num_texts: int
    same_label: int
    other_label: int
    near_same_label: int
    near_other_label: int
    accuracy_with: float
    accuracy_without: float
    interval_without: Interval
    examples: tuple[LeakedText, ...]

    @property
    def count(self) -> int:
        """All of them."""
        return self.same_label + self.other_label + self.near_same_label + self.near_other_label

    @property
    def num_left(self) -> int:
        """Texts that are no leak; of none, `accuracy_without` says nothing."""
        return self.num_texts - self.count


@dataclass(frozen=True)
class Neighbours:
    """The nearest training text of each text. Shapes: similarity, place (texts,).

    `place` is -1 where no training text shares a triple of words.
    """

    similarity: npt.NDArray[np.float32]
    place: npt.NDArray[np.int64]


def find_neighbours(texts: tuple[str, ...], others: tuple[str, ...]) -> Neighbours:
    """For each of `texts` the most similar of `others`, by their word triples.

    Shapes:  returns arrays of one entry a text.
    Source:  Broder 1997, On the resemblance and containment of documents; k = 3.
    """
    from scipy.sparse import csr_array
    from sklearn.feature_extraction.text import HashingVectorizer

    splitter = HashingVectorizer(
        ngram_range=(3, 3), token_pattern=r"\w+", n_features=2**24, binary=True,
        norm=None, alternate_sign=False, dtype=np.float32,
    )  # fmt: skip
    ours, theirs = _drop_unused(splitter.transform(texts), splitter.transform(others))
    our_sizes, their_sizes = np.diff(ours.indptr), np.diff(theirs.indptr)
    columns = theirs.T.tocsr()
    found = Neighbours(np.zeros(len(texts), np.float32), np.full(len(texts), -1, np.int64))
    # Triples that many training texts share, such as a greeting, decide how much one product holds.
    pairs = np.cumsum(ours @ np.diff(columns.indptr))
    ends = np.searchsorted(pairs, np.arange(_MAX_PAIRS, pairs[-1], _MAX_PAIRS))
    for start, end in itertools.pairwise(np.unique([0, *ends, len(texts)])):
        shared = csr_array(ours[start:end] @ columns)
        rows = start + np.repeat(np.arange(shared.shape[0]), np.diff(shared.indptr))
        similarity = shared.data / (our_sizes[rows] + their_sizes[shared.indices] - shared.data)
        _keep_nearest(found, rows, shared.indices, similarity)
    _match_words(found, texts, others)
    return found


def _drop_unused(*counts: Any) -> list["csr_array"]:
    """The same without the columns that no row has: of 16 million nearly all.

    Shapes:  counts (rows, features), sparse; returns (rows, used features), in the same order.
    """
    from scipy.sparse import csr_array

    used = np.zeros(counts[0].shape[1], np.bool_)
    for each in counts:
        used[each.indices] = True
    names = np.flatnonzero(used)
    return [
        csr_array(
            (each.data, np.searchsorted(names, each.indices), each.indptr),
            shape=(each.shape[0], len(names)),
        )
        for each in counts
    ]


def find_leaks(
    examples: Examples,
    train: Examples,
    labels: tuple[str, ...],
    predicted_ids: npt.NDArray[np.int64],
) -> Leaks:
    """Count what the scored texts share with the training texts, and score without them.

    Shapes:  predicted_ids (texts,), the answers of the classifier.
    """
    near = find_neighbours(examples.texts, train.texts)
    same_words, similar = near.similarity == 1.0, near.similarity >= MIN_SIMILARITY
    train_label_ids = np.append(train.label_ids, -1)[near.place]
    same_label = train_label_ids == examples.label_ids
    right = predicted_ids == examples.label_ids
    kept = int((~similar).sum())
    order = np.argsort(-near.similarity, kind="stable")[: min(_MAX_EXAMPLES, int(similar.sum()))]
    return Leaks(
        num_texts=len(examples.texts),
        same_label=int((same_words & same_label).sum()),
        other_label=int((same_words & ~same_label).sum()),
        near_same_label=int((similar & ~same_words & same_label).sum()),
        near_other_label=int((similar & ~same_words & ~same_label).sum()),
        accuracy_with=float(right.mean()),
        accuracy_without=float(right[~similar].mean()) if kept else 0.0,
        interval_without=compute_wilson_interval(int(right[~similar].sum()), kept),
        examples=tuple(
            LeakedText(
                text=examples.texts[index],
                label=labels[examples.label_ids[index]],
                train_text=train.texts[near.place[index]],
                train_label=labels[train_label_ids[index]],
                similarity=float(near.similarity[index]),
            )
            for index in order
        ),
    )


def find_set_leaks(
    examples: Examples,
    train: Examples,
    name: Callable[[npt.NDArray[np.int64]], list[str]],
    predicted_ids: npt.NDArray[np.int64],
) -> Leaks:
    """The same for sets of labels, each distinct set taken as a label of its own.

    Shapes:  label ids and predicted_ids (texts, labels) of 0 and 1; `name` makes texts of rows.
    """
    matrices = (examples.label_ids, train.label_ids, predicted_ids)
    kinds, numbers = np.unique(np.concatenate(matrices), axis=0, return_inverse=True)
    ends = np.cumsum([len(matrix) for matrix in matrices])[:-1]
    ours, theirs, answers = np.split(numbers.ravel(), ends)
    one, other = replace(examples, label_ids=ours), replace(train, label_ids=theirs)
    return find_leaks(one, other, tuple(name(kinds)), answers)


def _keep_nearest(
    found: Neighbours,
    rows: npt.NDArray[np.int64],
    places: npt.NDArray[np.int64],
    similarity: npt.NDArray[np.float32],
) -> None:
    order = np.lexsort((places, -similarity, rows))  # by text, the nearest first
    texts, first = np.unique(rows[order], return_index=True)
    found.similarity[texts] = similarity[order][first]
    found.place[texts] = places[order][first]


def _match_words(found: Neighbours, texts: tuple[str, ...], others: tuple[str, ...]) -> None:
    """Texts of the same words: also those of one or two, and the same triples in another order."""
    places: dict[str, int] = {}
    for place, text in enumerate(others):
        places.setdefault(text.casefold(), place)
    for index, text in enumerate(texts):
        same = places.get(text.casefold())
        if same is not None:
            found.similarity[index], found.place[index] = 1.0, same
