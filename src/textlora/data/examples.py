"""Texts with their labels: counted, sampled, split."""

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from textlora.data.stratification import hold_out_sets
from textlora.errors import DataError
from textlora.settings import DataSettings


@dataclass(frozen=True)
class Examples:
    """Texts with their labels.

    `slices` has the columns that scores are grouped by, a value a text.

    Shapes:  label_ids (texts,) int64, an index into the label names; of multi-label data (texts,
    labels) int64, 1 where a text has the label.
    """

    texts: tuple[str, ...]
    label_ids: npt.NDArray[np.int64]
    slices: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def is_multi_label(self) -> bool:
        """Whether a text has a set of labels."""
        return self.label_ids.ndim == 2

    def count_labels(self, num_labels: int) -> npt.NDArray[np.int64]:
        """How many texts have each label. Shapes: returns (labels,)."""
        if self.is_multi_label:
            return self.label_ids.sum(axis=0)
        return np.bincount(self.label_ids, minlength=num_labels)

    def renumber(self, labels: tuple[str, ...], known: tuple[str, ...]) -> "Examples":
        """The same with numbers that are places in `known` instead of `labels`.

        Raises:  DataError for a label that is not there and that a text has.
        """
        if labels == known:
            return self
        counts = self.count_labels(len(labels))
        for label, count in zip(labels, counts, strict=True):
            if count and label not in known:
                raise DataError(
                    f"label {label!r} is unknown to the classifier; known: {', '.join(known)}"
                )
        places = np.array([known.index(label) if label in known else -1 for label in labels])
        if not self.is_multi_label:
            return replace(self, label_ids=places[self.label_ids])
        label_ids = np.zeros((len(self.texts), len(known)), np.int64)
        label_ids[:, places[places >= 0]] = self.label_ids[:, places >= 0]
        return replace(self, label_ids=label_ids)

    def take(self, indices: npt.NDArray[np.int64]) -> "Examples":
        """Some of them, in this order. Shapes: indices (taken,)."""
        return Examples(
            tuple(self.texts[index] for index in indices),
            self.label_ids[indices],
            {name: tuple(values[i] for i in indices) for name, values in self.slices.items()},
        )


def sample_examples(examples: Examples, settings: DataSettings) -> Examples:
    """No more than `max_train_rows` of them, seeded, in their order."""
    count = len(examples.texts)
    if not settings.max_train_rows or settings.max_train_rows >= count:
        return examples
    order = np.random.default_rng(settings.split_seed).permutation(count)
    return examples.take(np.sort(order[: settings.max_train_rows]))


def split_examples(
    examples: Examples, settings: DataSettings, labels: tuple[str, ...]
) -> tuple[Examples, Examples]:
    """Hold out `validation_share` of the examples, seeded.

    The plain split takes the same rows as `Dataset.train_test_split` of the `datasets` library.
    Stratified, multi-label data is split by `stratification`.

    Raises:  DataError as `count_held_out`.
    """
    count, num_held_out = len(examples.texts), count_held_out(examples, settings, labels)
    if settings.stratified and examples.is_multi_label:
        kept, held_out = hold_out_sets(examples.label_ids, num_held_out, settings.split_seed)
    elif settings.stratified:
        from sklearn.model_selection import StratifiedShuffleSplit

        splitter = StratifiedShuffleSplit(
            1, test_size=num_held_out, random_state=settings.split_seed
        )
        kept, held_out = next(splitter.split(np.zeros(count), examples.label_ids))
    else:
        order = np.random.default_rng(settings.split_seed).permutation(count)
        held_out, kept = order[:num_held_out], order[num_held_out:]
    return examples.take(kept), examples.take(held_out)


def count_held_out(examples: Examples, settings: DataSettings, labels: tuple[str, ...]) -> int:
    """How many examples `split_examples` holds out.

    Raises:  DataError if a part would be empty or a class is too small to be in both.
    """
    count = len(examples.texts)
    num_held_out = int(np.ceil(settings.validation_share * count))
    smaller = min(num_held_out, count - num_held_out)
    by_class = settings.stratified and not examples.is_multi_label
    fewest = len(labels) if by_class else 1
    if smaller < fewest:
        share = np.ceil(1_000 * fewest / count) / 1_000
        fits = count - np.ceil(share * count) >= fewest
        raise DataError(
            f"{settings.source}: {count} rows cannot be split with data.validation_share = "
            f"{settings.validation_share}; add rows{f' or set {share:g}' if fits else ''}"
        )
    return num_held_out
