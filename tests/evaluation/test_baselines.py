import json

import numpy as np
import pytest
from conftest import make_rows
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from textlora.data.examples import Examples
from textlora.errors import DataError
from textlora.evaluation.baselines import fit_baselines, open_baselines

LABELS = ["money", "space", "sport"]


def make_examples(count, seed, labels=3):
    rows = make_rows(count, seed)
    ids = np.array([LABELS.index(label) % labels for _, label in rows])
    return Examples(tuple(text for text, _ in rows), ids)


@pytest.mark.parametrize("labels", [2, 3])
def test_answers_are_those_of_the_scikit_learn_pipeline(labels):
    train, test = make_examples(300, 1, labels), make_examples(200, 2, labels)
    peer = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LinearSVC(C=0.3, random_state=0)
    ).fit(train.texts, train.label_ids)
    found = fit_baselines(train)
    assert found.predict_linear(test.texts).tolist() == peer.predict(test.texts).tolist()


def test_the_majority_is_the_most_common_training_label():
    texts = make_examples(4, 1).texts
    for label_ids, most in (([1, 0, 1, 2], 1), ([2, 0, 1, 2], 2)):
        found = fit_baselines(Examples(texts, np.array(label_ids)))
        assert found.predict_majority(("a", "b")).tolist() == [most, most]


def test_they_are_fitted_once_and_answer_the_same_when_read_again(tmp_path):
    train, test = make_examples(300, 1), make_examples(100, 2)
    first = open_baselines(tmp_path, "data", lambda: train)

    def refuse():
        raise DataError("gone")

    again = open_baselines(tmp_path, "data", refuse)
    assert (again.predict_linear(test.texts) == first.predict_linear(test.texts)).all()
    with pytest.raises(DataError, match="gone"):
        open_baselines(tmp_path, "other data", refuse)


@pytest.mark.parametrize("name", ["weights.safetensors", "vocabulary.json", "manifest.json"])
def test_a_damaged_file_is_fitted_anew(tmp_path, name):
    train = make_examples(60, 1)
    open_baselines(tmp_path, "data", lambda: train)
    (tmp_path / "baseline" / name).write_bytes(b"{}")
    fitted = []
    open_baselines(tmp_path, "data", lambda: fitted.append(1) or train)
    assert fitted
    assert (
        json.loads((tmp_path / "baseline" / "manifest.json").read_text())["key"]["data"] == "data"
    )


def test_texts_without_a_word_leave_the_majority_alone(tmp_path):
    train = Examples(("1", "?", "!", "a"), np.array([0, 1, 1, 0]))
    found = fit_baselines(train)
    assert found.vocabulary == ()
    assert found.predict_linear(("x", "y")).tolist() == [0, 0]
    open_baselines(tmp_path, "data", lambda: train)
    assert open_baselines(tmp_path, "data", lambda: pytest.fail("kept")).vocabulary == ()
