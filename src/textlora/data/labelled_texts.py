"""Labelled texts: found, read, cleaned, matched to labels by name, split, fingerprinted.

`sources` reads the rows; this module makes training data of them.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from textlora.data.cleaning import clean_text
from textlora.data.columns import find_label_fault, name_label_set
from textlora.data.corrections import apply_corrections
from textlora.data.examples import (
    Examples,
    count_held_out,
    sample_examples,
    split_examples,
)
from textlora.data.multilabel_cells import find_separator
from textlora.data.sources import RawSplit, read_splits
from textlora.errors import DataError, SettingsError
from textlora.settings import DataSettings


@dataclass(frozen=True)
class LabelledTexts:
    """All that training reads: the parts, the label names in order, and what was noticed.

    `fingerprint` is a SHA-256 of labels, training and validation texts.
    """

    labels: tuple[str, ...]
    train: Examples
    validation: Examples
    test: Examples | None
    fingerprint: str
    notes: tuple[str, ...] = ()


def load_labelled_texts(
    settings: DataSettings, raw: dict[str, RawSplit] | None = None
) -> LabelledTexts:
    """Everything training needs, read now or from splits that were read already.

    Raises:  DataError naming the file, and the line or the label, of what cannot be used.
    """
    found = _number_splits(settings, read_splits(settings) if raw is None else raw)
    train, labels, examples, notes = found.train, found.labels, found.examples, found.notes
    if "validation" in examples:
        validation = examples["validation"]
    else:
        train, validation = split_examples(train, settings, labels)
    if settings.corrections:
        # Behind the split: which rows are held out must not follow from a correction.
        train = apply_corrections(train, examples, labels, settings, notes)
        _check_counts(train, labels, found.where)
    return LabelledTexts(
        labels=labels,
        train=train,
        validation=validation,
        test=examples.get("test"),
        fingerprint=compute_fingerprint(labels, train, validation),
        notes=tuple(notes),
    )


def check_labelled_texts(settings: DataSettings, raw: dict[str, RawSplit]) -> None:
    """Refuse what `load_labelled_texts` refuses; nothing is dealt out, which takes scikit-learn.

    Raises:  DataError as `load_labelled_texts`.
    """
    if settings.corrections:
        load_labelled_texts(settings, raw)  # which of its rows are held out has a say
        return
    found = _number_splits(settings, raw)
    if "validation" not in found.examples:
        count_held_out(found.train, settings, found.labels)


def load_training_rows(settings: DataSettings) -> tuple[RawSplit, Examples, tuple[str, ...]]:
    """All rows of the train split with their places, before any is held out; and the labels.

    Raises:  DataError as `load_labelled_texts`.
    """
    parts = read_splits(settings)
    if "train" not in parts:
        raise DataError(f"{settings.source}: no train split; name a file train.csv")
    raw = _drop_empty(parts["train"], settings, [])
    labels = _decide_labels(raw, settings)
    return raw, _number_labels(raw, labels, "data.label_names"), labels


def make_labelled_texts(
    texts: Sequence[str], labels: Sequence[Any], settings: DataSettings
) -> LabelledTexts:
    """The same from texts and label names in memory; of multi-label data lists of names.

    Raises:  DataError as `load_labelled_texts`.
    """
    if len(texts) != len(labels):
        raise DataError(f"texts and labels: {len(texts)} texts, {len(labels)} labels; give as many")
    notes: list[str] = []
    lines = list(range(len(texts)))
    files = ["texts"] * len(texts)
    separator = settings.label_separator if settings.multi_label else ""
    names = list(labels)
    if separator:
        for line, cell in enumerate(labels):
            if fault := find_label_fault(cell, (), settings):
                raise DataError(f"labels:{line}: {fault}")
        names = [name_label_set(cell, (), separator) for cell in labels]
    raw = RawSplit("texts", list(texts), names, files, lines, separator=separator)
    part = _drop_empty(raw, settings, notes)
    known = _decide_labels(part, settings)
    examples = sample_examples(_number_labels(part, known, "data.label_names"), settings)
    _check_counts(examples, known, part.where)
    train, validation = split_examples(examples, settings, known)
    fingerprint = compute_fingerprint(known, train, validation)
    return LabelledTexts(known, train, validation, None, fingerprint, tuple(notes))


def load_split(settings: DataSettings, split: str, labels: tuple[str, ...]) -> Examples:
    """Read one split for evaluation, its labels matched by name to those of a trained classifier.

    A source with one split only (a file) gives that one, whatever it is called.

    Raises:  DataError for a missing split, or a label that the classifier does not know.
    """
    parts = read_splits(settings)
    if split in parts:
        part = parts[split]
    elif len(parts) == 1:
        part = next(iter(parts.values()))
    else:
        raise DataError(f"{settings.source}: no {split!r} split; it has {', '.join(parts)}")
    part = _drop_empty(part, settings, [])
    return _number_labels(part, labels, "the classifier")


def compute_fingerprint(labels: tuple[str, ...], *parts: Examples) -> str:
    """SHA-256 of the label names, and of the labels and texts of these parts."""
    digest = hashlib.sha256("\0".join(labels).encode())
    for part in parts:
        digest.update(part.label_ids.astype("<i8").tobytes())
        for text in part.texts:
            digest.update(text.encode("utf-8") + b"\0")
    return digest.hexdigest()


@dataclass(frozen=True)
class _NumberedSplits:
    """All rows with their labels as numbers; `train` has those that training may take."""

    labels: tuple[str, ...]
    train: Examples
    examples: dict[str, Examples]
    where: str
    notes: list[str]


def _number_splits(settings: DataSettings, parts: dict[str, RawSplit]) -> _NumberedSplits:
    if settings.corrections and settings.multi_label:
        raise SettingsError(
            "data.corrections: a review knows one label a text, and data.multi_label is set; "
            "correct the labels in the data itself"
        )
    if "train" not in parts:
        raise DataError(
            f"{settings.source}: no train split; name a file train.csv (or .tsv, .jsonl, .parquet)"
        )
    notes: list[str] = []
    parts = {name: _drop_empty(part, settings, notes) for name, part in parts.items()}
    where, labels = parts["train"].where, _decide_labels(parts["train"], settings)
    owner = "data.label_names" if settings.label_names else "the training split"
    examples = {name: _number_labels(part, labels, owner) for name, part in parts.items()}
    train = sample_examples(examples["train"], settings)
    _check_counts(train, labels, where)
    return _NumberedSplits(labels, train, examples, where, notes)


def _drop_empty(part: RawSplit, settings: DataSettings, notes: list[str]) -> RawSplit:
    texts = [clean_text(text, repair_entities=settings.repair_entities) for text in part.texts]
    places = zip(part.files, part.lines, texts, strict=True)
    empty = [f"{file}:{line}" for file, line, text in places if not text]
    if len(empty) == len(texts):
        raise DataError(f"{part.where}: all {len(texts)} texts are empty; check the text column")
    if empty:
        shown = ", ".join(empty[:5]) + (", ..." if len(empty) > 5 else "")
        notes.append(f"{len(empty)} empty texts left out: {shown}")
    kept = [index for index, text in enumerate(texts) if text]
    return RawSplit(
        part.where,
        [texts[index] for index in kept],
        [part.labels[index] for index in kept],
        [part.files[index] for index in kept],
        [part.lines[index] for index in kept],
        part.order,
        {name: [values[index] for index in kept] for name, values in part.slices.items()},
        separator=part.separator,
    )


def _decide_labels(train: RawSplit, settings: DataSettings) -> tuple[str, ...]:
    found = {label for labels in train.list_label_sets() for label in labels}
    if settings.label_names:
        return settings.label_names
    if train.order:
        return train.order
    numeric = all(label.isdecimal() for label in found)
    return tuple(sorted(found, key=lambda name: (int(name), name)) if numeric else sorted(found))


def _number_labels(part: RawSplit, labels: tuple[str, ...], owner: str) -> Examples:
    """Match labels by name, never by position."""
    numbers = {label: index for index, label in enumerate(labels)}
    sets = part.list_label_sets()
    for file, line, names in zip(part.files, part.lines, sets, strict=True):
        for label in names:
            if label not in numbers:
                hint = "; say what numbers mean with data.label_names" if label.isdecimal() else ""
                raise DataError(
                    f"{file}:{line}: label {label!r} is unknown to {owner}; "
                    f"known: {', '.join(labels)}{hint}"
                )
    if part.separator:
        label_ids = np.zeros((len(sets), len(labels)), dtype=np.int64)
        for row, names in enumerate(sets):
            label_ids[row, [numbers[label] for label in names]] = 1
    else:
        label_ids = np.array([numbers[label] for label in part.labels], dtype=np.int64)
    slices = {name: tuple(values) for name, values in part.slices.items()}
    return Examples(tuple(part.texts), label_ids, slices)


def _check_counts(train: Examples, labels: tuple[str, ...], where: str) -> None:
    counts = train.count_labels(len(labels))
    present = [index for index in range(len(labels)) if counts[index]]
    if not present:
        raise DataError(f"{where}: no text has a label; check the label column")
    if len(present) < 2:
        raise DataError(
            f"{where}: one class only, {labels[present[0]]!r}; a classifier needs at least two"
        )
    single = [labels[index] for index in present if counts[index] == 1]
    if single:
        raise DataError(
            f"{where}: label {single[0]!r} has 1 example, too few to learn from and to check; "
            f"add examples or remove the label{_suggest_multi_label(train, labels)}"
        )


def _suggest_multi_label(train: Examples, labels: tuple[str, ...]) -> str:
    separator = find_separator(labels)
    if not separator:
        return ""
    settings = f"data.label_separator={separator!r}"
    if not train.is_multi_label:
        settings = f"data.multi_label=true and {settings}"
    return f"; if {separator!r} stands between several labels, set {settings}"
