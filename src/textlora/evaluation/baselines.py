"""What a score must beat: the most common label, and a linear model over counted words.

The linear model is scikit-learn's TF-IDF of words and word pairs with a linear support vector
machine; of multi-label data one such model a label. It is fitted on the rows that the classifier
was trained on, once:

    RUN/baseline/  weights.safetensors, vocabulary.json   the fitted model
                   manifest.json                          from what, and SHA-256 of both
"""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from textlora.data.examples import Examples
from textlora.runs.run_folder import BASELINE
from textlora.system.files import (
    MANIFEST,
    describe_files,
    find_damage,
    format_json,
    stage_folder,
    write_file,
)

_WEIGHTS, _VOCABULARY = "weights.safetensors", "vocabulary.json"
_C = 0.3  # chosen on AG News validation texts among 0.3 and 1, see docs/experiments.md
_RARE_FROM = 1_000  # texts; with fewer, words seen once are kept too
_SETTINGS: dict[str, Any] = {"ngram_range": (1, 2), "sublinear_tf": True, "dtype": np.float32}


@dataclass(frozen=True)
class Baselines:
    """Both, fitted. Shapes: idf (terms,), weights (terms, scores), bias (scores,), classes (n,).

    `scores` is the number of classes, or 1 where there are two. `vocabulary` lists the terms.
    `majority` is the most common label, a number; of multi-label data the most common set,
    (labels,) of 0 and 1, and `scores` is the number of labels.
    """

    majority: npt.NDArray[np.int64]
    vocabulary: tuple[str, ...]
    idf: npt.NDArray[np.float32]
    weights: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]

    def predict_majority(self, texts: tuple[str, ...]) -> npt.NDArray[np.int64]:
        """The most common answer, for each text. Shapes: returns label ids, as in `Examples`."""
        return np.repeat(self.majority[None], len(texts), axis=0)

    def predict_linear(self, texts: tuple[str, ...]) -> npt.NDArray[np.int64]:
        """Answers of the linear model. Shapes: returns label ids, as in `Examples`."""
        if not self.vocabulary:
            return self.predict_majority(texts)
        from sklearn.feature_extraction.text import TfidfVectorizer

        counter = TfidfVectorizer(vocabulary=self.vocabulary, **_SETTINGS)
        counter.idf_ = self.idf
        scores = counter.transform(texts) @ self.weights + self.bias
        if self.majority.ndim:
            return (scores > 0).astype(np.int64)
        best = scores.argmax(axis=1) if len(self.bias) > 1 else (scores[:, 0] > 0).astype(int)
        return self.classes[best]


def fit_baselines(train: Examples) -> Baselines:
    """Fit both on labelled texts. Texts without a word of two letters leave the first alone."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    majority = _find_majority(train)
    rare = 2 if len(train.texts) >= _RARE_FROM else 1
    counter = TfidfVectorizer(min_df=rare, **_SETTINGS)
    try:
        counts = counter.fit_transform(train.texts)
    except ValueError:  # no term is left
        none = np.zeros(0, np.float32)
        return Baselines(majority, (), none, none[:, None], none, np.atleast_1d(majority))
    weights, bias, classes = (_fit_each if train.is_multi_label else _fit_one)(counts, train)
    return Baselines(
        majority=majority,
        vocabulary=tuple(counter.get_feature_names_out()),
        idf=counter.idf_.astype(np.float32),
        weights=np.ascontiguousarray(weights.T, dtype=np.float32),
        bias=bias.astype(np.float32),
        classes=classes.astype(np.int64),
    )


def _find_majority(train: Examples) -> npt.NDArray[np.int64]:
    kinds, counts = np.unique(train.label_ids, axis=0, return_counts=True)
    return np.asarray(kinds[counts.argmax()])


def _fit_one(counts: Any, train: Examples) -> tuple[npt.NDArray[Any], ...]:
    """Weights (scores, terms), bias, classes of a model that tells the labels apart."""
    from sklearn.svm import LinearSVC

    model = LinearSVC(C=_C, random_state=0).fit(counts, train.label_ids)
    return model.coef_, model.intercept_, model.classes_


def _fit_each(counts: Any, train: Examples) -> tuple[npt.NDArray[Any], ...]:
    """The same of a model for each label, that says whether a text has it."""
    from sklearn.svm import LinearSVC

    size = train.label_ids.shape[1]
    weights, bias = np.zeros((size, counts.shape[1])), np.zeros(size)
    for label, truth in enumerate(train.label_ids.T):
        if truth.min() == truth.max():  # all texts have it, or none
            bias[label] = 1.0 if truth[0] else -1.0
            continue
        model = LinearSVC(C=_C, random_state=0).fit(counts, truth)
        weights[label], bias[label] = model.coef_[0], model.intercept_[0]
    return weights, bias, np.arange(size)


def open_baselines(run: Path, fingerprint: str, load_train: Callable[[], Examples]) -> Baselines:
    """Those kept in the run folder, else fitted now and kept; `fingerprint` is that of the data.

    Raises:  DataError as `load_train`, where they must be fitted and the rows are gone.
    """
    folder = run / BASELINE
    key = {"data": fingerprint, "scikit-learn": version("scikit-learn"), "C": _C}
    found = _read(folder, key)
    if found is None:
        found = fit_baselines(load_train())
        with suppress(OSError):  # a folder that cannot be written costs time, nothing else
            _write(folder, key, found)
    return found


def _read(folder: Path, key: dict[str, Any]) -> Baselines | None:
    try:
        facts = json.loads((folder / MANIFEST).read_text("utf-8"))
        if facts["key"] != key or find_damage(folder, facts["files"]):
            return None
        vocabulary = tuple(json.loads((folder / _VOCABULARY).read_text("utf-8")))
        majority = np.array(facts["majority"], np.int64)
        return Baselines(majority, vocabulary, **load_file(folder / _WEIGHTS))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None


def _write(folder: Path, key: dict[str, Any], fitted: Baselines) -> None:
    arrays = {name: getattr(fitted, name) for name in ("idf", "weights", "bias", "classes")}
    with stage_folder(folder) as staged:
        write_file(staged / _WEIGHTS, save(arrays))
        write_file(staged / _VOCABULARY, json.dumps(fitted.vocabulary).encode())
        facts = {
            "key": key,
            "majority": fitted.majority.tolist(),
            "files": describe_files(staged, [_WEIGHTS, _VOCABULARY]),
        }
        write_file(staged / MANIFEST, format_json(facts).encode())
