"""`TextClassifier`: the commands' code path in scikit-learn's manner."""

import itertools
import json
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from textlora.data.columns import clean_label
from textlora.data.examples import Examples
from textlora.data.input_check import (
    check_counts,
    check_labels,
    check_sets,
    check_texts,
    find_classes,
    list_labels,
    read_sets,
)
from textlora.data.labelled_texts import make_labelled_texts
from textlora.errors import DataError, Interrupted, SettingsError
from textlora.evaluation.evaluation import AnyEvaluation, Background, evaluate_answers
from textlora.evaluation.stored_predictions import answer_examples
from textlora.prediction.predictor import Predictor
from textlora.scoring.tasks import MultiLabel
from textlora.settings import Recipe, load_recipe
from textlora.system.files import write_json
from textlora.system.progress import Reporter
from textlora.training.pipeline import fit_run

_CLASSES = "classes.json"  # beside the run, where labels are numbers
# Settings of the data that texts and labels in memory decide, and how.
_FILES = "is about files; change the texts and labels that are given"
_GIVEN = {
    "data.source": "the data is given; leave it out",
    "data.label_names": "the names of the labels are those given; leave it out",
    "data.multi_label": "lists of labels say so themselves; leave it out",
    "data.corrections": _FILES,
    "data.slice_columns": _FILES,
    "data.text_columns": _FILES,
    "data.label_column": _FILES,
    "data.encoding": _FILES,
}


class TextClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A text classifier with low-rank adapters on a pretrained encoder.

        classifier = TextClassifier(settings={"training.epochs": 3}).fit(texts, labels)
        classifier.predict(["Rates rise again"])

    Parameters are those of the command line: a recipe (shipped name or TOML file), a model, and
    single settings by their full name. `verbose` shows messages and progress on stderr.
    """

    def __init__(
        self,
        recipe: str = "quickstart",
        model: str | None = None,
        settings: Mapping[str, Any] | None = None,
        verbose: bool = False,
    ) -> None:
        self.recipe = recipe
        self.model = model
        self.settings = settings
        self.verbose = verbose

    def fit(self, texts: Sequence[str], labels: Sequence[Any]) -> "TextClassifier":
        """Train on texts and their labels (names or numbers); a part is held out for validation.

        Where `labels` has a list, tuple or set for each text, the classifier gives sets of labels.

        Raises:  DataError, SettingsError or ModelError, as the command `train` would say it.
        """
        checked = check_texts(texts)
        labels = list_labels(labels)
        sets = read_sets(labels)
        check_labels([[label] for label in labels] if sets is None else sets)
        classes = find_classes(labels if sets is None else list(itertools.chain(*sets)))
        # A saved classifier has clean names, in which no white space decides anything.
        names = [clean_label(str(label)) for label in classes]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise DataError(f"labels: two are called {twice!r}, but for spaces; rename one")
        named = [
            clean_label(str(each)) if sets is None else [clean_label(str(label)) for label in each]
            for each in labels
        ]
        recipe = self._make_recipe(names, sets is not None)
        data = make_labelled_texts(checked, named, recipe.data)
        folder = _TemporaryRun()
        report = Reporter(quiet=not self.verbose)
        try:
            fit_run(recipe, data, folder.path, resume="never", report=report)
        except Interrupted:
            # Cross-validation would count an ordinary exception as a failed fold and go on.
            raise KeyboardInterrupt from None
        self._attach(folder.path)  # answers come from the saved files: they need no other proof
        # From here on, and not before: a fit that fails leaves an older one as it was.
        self._folder, self.classes_ = folder, classes  # `save` keeps what is in the folder
        return self

    def predict(self, texts: Sequence[str]) -> npt.NDArray[Any] | list[tuple[Any, ...]]:
        """The label of each text, or all its labels as a tuple; typed as `labels` were.

        Shapes:  (texts,).
        """
        label_ids = self._decide(self.predict_proba(texts))
        if label_ids.ndim == 1:
            return self.classes_[label_ids]
        return [tuple(self.classes_[row == 1].tolist()) for row in label_ids]

    def score(
        self, texts: Sequence[str], labels: Sequence[Any], sample_weight: Any = None
    ) -> float:
        """Accuracy; of sets, the share that is right as a whole."""
        texts, labels = check_texts(texts), list_labels(labels)
        check_counts(texts, labels)
        if not self._gives_sets:
            return float(super().score(texts, labels, sample_weight))
        matrix = self._number_sets(check_sets(labels))
        right = (self._decide(self.predict_proba(texts)) == matrix).all(axis=1)
        return float(np.average(right, weights=sample_weight))

    def predict_proba(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Probability of each label. Shapes: returns (texts, labels), columns as in `classes_`."""
        check_is_fitted(self, "predictor_")
        return self.predictor_.predict_proba(check_texts(texts)).values

    def evaluate(self, texts: Sequence[str], labels: Sequence[Any]) -> AnyEvaluation:
        """All figures of the command `evaluate` on labelled texts.

        Raises:  DataError for a label that training did not have.
        """
        check_is_fitted(self, "predictor_")
        texts, labels = check_texts(texts), list_labels(labels)
        check_counts(texts, labels)
        if self._gives_sets:
            label_ids = self._number_sets(check_sets(labels))
        else:
            label_ids = np.array(self._number(labels), dtype=np.int64)
        examples = Examples(tuple(texts), label_ids)
        answers = answer_examples(self.predictor_, examples)
        background = Background(temperature=self.predictor_.temperature)
        return evaluate_answers(answers, split="given", source="memory", background=background)

    def save(self, path: str | Path) -> None:
        """Copy the run folder to `path`, ready for `load`, `Predictor.load` and the commands.

        `report` alone needs what the command `train` has measured.

        Raises:  DataError if something is there already.
        """
        check_is_fitted(self, "predictor_")
        target = Path(path)
        if target.exists():
            raise DataError(f"{target}: exists already; name a new folder")
        shutil.copytree(
            self.run_, target, ignore=shutil.ignore_patterns("checkpoints", "backends", ".lock")
        )
        # A run knows clean names only: what was a number, or had more spaces, comes back so.
        kept = {"dtype": self.classes_.dtype.str, "values": self.classes_.tolist()}
        if self.classes_.dtype.kind in "biufU":
            write_json(target / _CLASSES, kept)

    @classmethod
    def load(cls, path: str | Path) -> "TextClassifier":
        """A classifier from a run folder, trained here or by the command line.

        Raises:  ModelError if the run is missing or damaged.
        """
        run = Path(path)
        classifier = cls(recipe=str(run / "recipe.toml"))
        classifier._attach(run)
        classifier.classes_ = np.array(classifier.predictor_.labels)
        if (run / _CLASSES).is_file():
            kept = json.loads((run / _CLASSES).read_text("utf-8"))
            values = np.array(kept["values"], dtype=kept["dtype"])
            # Else they are those of a classifier that was here before.
            known = list(map(clean_label, classifier.predictor_.labels))
            if [clean_label(str(value)) for value in values] == known:
                classifier.classes_ = values
        return classifier

    @property
    def _gives_sets(self) -> bool:
        check_is_fitted(self, "predictor_")
        return isinstance(self.predictor_.task, MultiLabel)

    def _decide(self, probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        return self.predictor_.task.decide(probabilities)

    def _number(self, labels: Iterable[Any]) -> list[int]:
        numbers = {str(label): index for index, label in enumerate(self.classes_)}
        unknown = [label for label in labels if str(label) not in numbers]
        if unknown:
            known = ", ".join(numbers)
            raise DataError(f"labels: {unknown[0]!r} is unknown to the classifier; known: {known}")
        return [numbers[str(label)] for label in labels]

    def _number_sets(self, sets: list[list[Any]]) -> npt.NDArray[np.int64]:
        matrix = np.zeros((len(sets), len(self.classes_)), np.int64)
        for row, labels in enumerate(sets):
            matrix[row, self._number(labels)] = 1
        return matrix

    def _attach(self, run: Path) -> None:
        self.predictor_ = Predictor.load(run)
        self.run_ = run

    def _make_recipe(self, labels: list[str], multi_label: bool) -> Recipe:
        from textlora.settings import parse_recipe

        values = load_recipe(self.recipe, model__name=self.model).model_dump(mode="json")
        for name, value in (self.settings or {}).items():
            if name in _GIVEN:
                raise SettingsError(f"settings: {name}: {_GIVEN[name]}")
            section, _, key = name.partition(".")
            values.setdefault(section, {})[key] = value
        values["data"] |= {
            "source": "memory", "label_names": labels, "multi_label": multi_label
        }  # fmt: skip
        return parse_recipe(values, where="settings")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = True
        return tags


class _TemporaryRun:
    """A run folder that lives as long as a classifier, or a copy of it, refers to it."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="textlora-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)

    def __deepcopy__(self, _memo: dict[int, Any]) -> "_TemporaryRun":
        return self
