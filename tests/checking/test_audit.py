import sys

import numpy as np
import pytest
from conftest import make_rows, save_encoder, tiny_recipe
from sklearn.feature_extraction.text import TfidfVectorizer

from textlora.checking.audit import compute_out_of_fold, embed_texts, find_doubtful_labels
from textlora.data.examples import Examples
from textlora.data.sources import RawSplit
from textlora.errors import DataError, SettingsError
from textlora.model import encoder, encoder_files

pytest.importorskip("cleanlab", reason="needs the extra audit")
LABELS = ("money", "space", "sport")


def make(count, wrong=(), seed=1):
    rows = make_rows(count, seed)
    label_ids = np.array([LABELS.index(label) for _, label in rows])
    label_ids[list(wrong)] = (label_ids[list(wrong)] + 1) % 3
    texts = tuple(text for text, _ in rows)
    raw = RawSplit("rows.csv", list(texts), [], ["rows.csv"] * count, list(range(2, count + 2)))
    vectors = TfidfVectorizer().fit_transform(texts).toarray().astype(np.float32)
    return raw, Examples(texts, label_ids), vectors


def test_planted_labels_are_found_at_their_lines_with_the_right_suggestion():
    wrong = (5, 50, 77, 120)
    raw, examples, vectors = make(240, wrong)
    found = find_doubtful_labels(raw, examples, LABELS, vectors)
    assert {item.line for item in found} == {place + 2 for place in wrong}
    right = dict(make_rows(240, 1))
    for item in found:
        assert item.suggested == right[item.text] != item.label
        assert item.suggested_confidence > item.label_confidence
    confidences = [item.label_confidence for item in found]
    assert confidences == sorted(confidences)


def test_right_labels_raise_no_doubt():
    raw, examples, vectors = make(240)
    assert find_doubtful_labels(raw, examples, LABELS, vectors) == []


def test_a_copy_of_a_text_does_not_give_its_label_away():
    """Each text twice, labels by chance: nothing can be learned, so nothing may be known."""
    random = np.random.default_rng(0)
    vectors = np.repeat(random.normal(size=(150, 300)), 2, axis=0).astype(np.float32)
    label_ids = np.repeat(random.integers(3, size=150), 2)
    texts = tuple(f"text {number // 2}" for number in range(300))
    shares = compute_out_of_fold(Examples(texts, label_ids), LABELS, vectors)
    assert (shares.argmax(axis=1) == label_ids).mean() < 0.5
    assert np.allclose(shares.sum(axis=1), 1.0)


def test_too_little_to_audit_is_one_line(monkeypatch):
    raw, examples, vectors = make(9)
    single = Examples(examples.texts, np.array([0, 0, 0, 0, 1, 1, 1, 1, 2]))
    with pytest.raises(DataError, match="label 'sport' has 1 text"):
        find_doubtful_labels(raw, single, LABELS, vectors)
    same = Examples(examples.texts, np.zeros(9, np.int64))
    with pytest.raises(DataError, match="one label only"):
        find_doubtful_labels(raw, same, LABELS, vectors)
    monkeypatch.setitem(sys.modules, "cleanlab.filter", None)
    with pytest.raises(SettingsError, match=r"pip install 'textlora\[audit\]'"):
        find_doubtful_labels(raw, examples, LABELS, vectors)


@pytest.mark.parametrize("family", ["bert", "mpnet", "distilbert"])
def test_a_vector_is_the_mean_of_the_hidden_states_whatever_stands_beside_it(tmp_path, family):
    folder = save_encoder(tmp_path, family)
    recipe = tiny_recipe(folder, "none", "training.precision=fp32")
    texts = tuple(text for text, _ in make_rows(40, seed=4))
    found = embed_texts(texts, recipe)
    files = encoder_files.locate_encoder(recipe.model)
    model = encoder.load_encoder(files, ("a", "b")).model.base_model.eval()
    tokenizer = encoder.load_tokenizer(folder, "tiny")
    for place in (0, 17, 39):
        states = model(**tokenizer(texts[place], return_tensors="pt", return_token_type_ids=False))
        mean = states.last_hidden_state[0].mean(dim=0).detach().numpy()
        assert np.abs(found[place] - mean / np.linalg.norm(mean)).max() < 1e-5
