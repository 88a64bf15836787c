import copy
import gc
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import make_rows
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score

from textlora import DataError, Predictor, SettingsError, TextClassifier

TEXTS, LABELS = (list(column) for column in zip(*make_rows(180, seed=11), strict=True))
NEW_TEXTS, NEW_LABELS = (list(column) for column in zip(*make_rows(30, seed=12), strict=True))
SETTINGS = {
    "training.epochs": 4,
    "training.batch_size": 8,
    "training.learning_rate": 0.01,
    "adapter.targets": {"all": ["query", "value", "ffn"]},
}


@pytest.fixture(scope="module")
def make(tiny_bert):
    return lambda **changes: TextClassifier(model=str(tiny_bert), settings={**SETTINGS, **changes})


@pytest.fixture(scope="module")
def fitted(make):
    return make().fit(TEXTS, LABELS)


def test_it_learns_and_answers_in_the_labels_it_was_given(fitted):
    assert fitted.classes_.tolist() == ["money", "space", "sport"]
    assert fitted.score(NEW_TEXTS, NEW_LABELS) > 0.8
    shares = fitted.predict_proba(NEW_TEXTS)
    assert shares.shape == (30, 3)
    assert np.allclose(shares.sum(axis=1), 1.0, atol=1e-6)
    assert (fitted.classes_[shares.argmax(axis=1)] == fitted.predict(NEW_TEXTS)).all()


def test_integer_labels_come_back_as_integers(make, tmp_path):
    numbers = [{"sport": 7, "money": 30, "space": 5}[label] for label in LABELS]
    fitted = make(**{"training.epochs": 1}).fit(TEXTS, numbers)
    assert fitted.classes_.tolist() == [5, 7, 30]
    assert set(fitted.predict(NEW_TEXTS).tolist()) <= {5, 7, 30}
    fitted.save(tmp_path / "kept")
    loaded = TextClassifier.load(tmp_path / "kept")
    assert loaded.classes_.dtype == fitted.classes_.dtype
    assert np.array_equal(loaded.predict(NEW_TEXTS), fitted.predict(NEW_TEXTS))


def test_a_copy_outlives_its_original(make, tmp_path):
    fitted = make(**{"training.epochs": 1}).fit(TEXTS, LABELS)
    twin = copy.deepcopy(fitted)
    folder = fitted.run_
    del fitted
    gc.collect()
    twin.save(tmp_path / "kept")
    del twin
    gc.collect()
    assert not folder.exists()


def test_evaluation_is_that_of_the_command(fitted):
    result = fitted.evaluate(NEW_TEXTS, NEW_LABELS)
    assert result.scores.accuracy == fitted.score(NEW_TEXTS, NEW_LABELS)
    assert result.scores.num_texts == 30
    with pytest.raises(DataError, match="'weather' is unknown.*known: money, space, sport"):
        fitted.evaluate(["rain"], ["weather"])


def test_what_is_saved_is_what_is_loaded(fitted, tmp_path):
    fitted.save(tmp_path / "kept")
    loaded = TextClassifier.load(tmp_path / "kept")
    assert np.array_equal(loaded.predict_proba(NEW_TEXTS), fitted.predict_proba(NEW_TEXTS))
    assert loaded.classes_.tolist() == fitted.classes_.tolist()
    answers = Predictor.load(tmp_path / "kept").predict(NEW_TEXTS)
    assert [answer.label for answer in answers] == fitted.predict(NEW_TEXTS).tolist()
    with pytest.raises(DataError, match="exists already"):
        fitted.save(tmp_path / "kept")


def test_it_is_an_estimator(make):
    classifier = make()
    assert clone(classifier).get_params() == classifier.get_params()
    assert classifier.set_params(verbose=True).verbose
    with pytest.raises(NotFittedError):
        classifier.predict(["goal"])
    scores = cross_val_score(make(**{"training.epochs": 3}), TEXTS, LABELS, cv=2)
    assert scores.shape == (2,)
    assert scores.min() > 0.5


@pytest.mark.parametrize(
    ("texts", "labels", "reason"),
    [
        ("one string", ["a"], "one string given"),
        (["a", 7], ["x", "y"], "7 is not a string"),
        (["a", None], ["x", "y"], "None is not a string"),
        (["a", "b"], ["x"], "2 texts, 1 labels"),
        (["a", "b"], ["x", "x"], "one class only"),
        (["a", "b", "c"], ["x", "x", "y"], "'y' has 1 example"),
        (None, ["x"], "NoneType given; give a list of texts"),
        ({"text": ["a"]}, ["x"], "dict given; .*of a table one column"),
        (
            pd.DataFrame({"text": ["a", "b"]}),
            ["x", "y"],
            "DataFrame given; .*of a table one column",
        ),
        (["a", "b"], None, "None given; give a list"),
        (["a", "b"], "xy", "'xy' given; give a list"),
        (["a", "b"], ["x", None], "None at place 1 is no label"),
        (["a", "b"], ["x", pd.NA], "<NA> at place 1 is no label"),
        (["a", "b"], [1, "x"], "of kinds int, str; give one kind"),
        (["a", "b"], [1j, object()], "cannot be sorted; give names or numbers"),
        (["a", "b"], ["x y", "x  y"], "two are called 'x y', but for spaces"),
    ],
)
def test_bad_input_is_refused(make, texts, labels, reason):
    with pytest.raises(DataError, match=reason):
        make().fit(texts, labels)


def test_a_fit_that_fails_leaves_the_older_classifier(make):
    fitted = make(**{"training.epochs": 1}).fit(TEXTS, LABELS)
    before = fitted.predict(NEW_TEXTS)
    with pytest.raises(DataError, match="'z' has 1 example"):
        fitted.fit(["a", "b", "c", "d", "e"], ["x", "x", "y", "y", "z"])
    assert (fitted.predict(NEW_TEXTS) == before).all()
    assert fitted.classes_.tolist() == ["money", "space", "sport"]


def test_texts_and_labels_may_come_one_by_one_and_names_are_saved_clean(make, tmp_path):
    names = {"sport": "two\n words ", "money": "money", "space": "space"}
    fitted = make(**{"training.epochs": 1})
    fitted.fit(iter(TEXTS), (names[label] for label in LABELS))
    assert set(fitted.classes_) == set(names.values())
    share = fitted.score(NEW_TEXTS, [names[label] for label in NEW_LABELS])
    found = fitted.evaluate(iter(NEW_TEXTS), (names[label] for label in NEW_LABELS))
    assert found.scores.accuracy == share
    fitted.save(tmp_path / "kept")
    assert Predictor.load(tmp_path / "kept").labels == ("money", "space", "two words")
    loaded = TextClassifier.load(tmp_path / "kept")
    assert (loaded.predict(NEW_TEXTS) == fitted.predict(NEW_TEXTS)).all()


@pytest.mark.parametrize("name", ["data.source", "data.label_names", "data.corrections"])
def test_settings_that_would_do_nothing_are_refused(make, name):
    with pytest.raises(SettingsError, match=f"settings: {name}: "):
        make(**{name: "x"}).fit(TEXTS, LABELS)


def test_a_bad_setting_is_refused(make):
    with pytest.raises(SettingsError, match="rnak"):
        make(**{"adapter.rnak": 3}).fit(TEXTS, LABELS)


def test_import_is_quick_and_loads_no_torch():
    code = (
        "import sys, time; start = time.perf_counter(); import textlora; "
        "print(time.perf_counter() - start, 'torch' in sys.modules, 'numpy' in sys.modules)"
    )
    environment = {name: v for name, v in os.environ.items() if not name.startswith("COV")}
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    ).stdout.split()
    assert output[1:] == ["False", "False"]
    assert float(output[0]) < 0.2
