import numpy as np
import pytest
from conftest import make_rows

from textlora.prediction.predictor import Predictor
from textlora.scoring.tasks import compute_softmax

# Sums of float32 in another order.
FLOAT32_TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def predictor(tiny_run):
    return Predictor.load(tiny_run)


@pytest.fixture(scope="module")
def exact(tmp_path_factory, tiny_bert, data_folder):
    """A classifier that computes in float32."""
    from conftest import tiny_recipe

    from textlora.data.labelled_texts import load_labelled_texts
    from textlora.system.progress import Reporter
    from textlora.training.pipeline import train_run

    recipe = tiny_recipe(tiny_bert, data_folder, "training.precision=fp32", "training.epochs=1")
    run = tmp_path_factory.mktemp("exact") / "run"
    texts = load_labelled_texts(recipe.data)
    train_run(recipe, texts, run, resume="never", report=Reporter(quiet=True))
    return Predictor.load(run)


def test_batch_order_and_padding_do_not_change_an_answer(exact):
    texts = [text for text, _ in make_rows(90, seed=5)]
    together = exact.predict_proba(texts).values
    alone = np.concatenate([exact.predict_proba([text]).values for text in texts])
    backwards = exact.predict_proba(texts[::-1]).values[::-1]
    assert np.abs(together - alone).max() < FLOAT32_TOLERANCE
    assert np.abs(together - backwards).max() < FLOAT32_TOLERANCE
    assert (together.argmax(axis=1) == alone.argmax(axis=1)).all()


def test_predictions_are_labels_with_probabilities_that_add_up(predictor):
    rows = make_rows(60, seed=5)
    answers = predictor.predict([text for text, _ in rows])
    right = [answer.label == label for answer, (_, label) in zip(answers, rows, strict=True)]
    assert np.mean(right) > 0.9
    for answer in answers:
        assert answer.confidence == answer.probabilities[answer.label]
        assert answer.confidence == max(answer.probabilities.values())
        assert sum(answer.probabilities.values()) == pytest.approx(1.0, abs=1e-6)
        assert predictor.labels[answer.label_id] == answer.label
        assert not answer.truncated


def test_texts_are_cleaned_as_in_training(predictor):
    plain, spaced = predictor.predict(["goal of the team", "  goal\tof \n the   team "])
    assert plain == spaced


def test_a_text_that_was_cut_is_marked(predictor):
    long, short = predictor.predict(["goal " * 100, "goal"])
    assert (long.truncated, short.truncated) == (True, False)


@pytest.mark.parametrize("text", ["", "   ", "\ud800", "\x00", "x" * 100_000, "🏴‍☠️ ‮abc"])
def test_any_text_gets_an_answer(predictor, text):
    (answer,) = predictor.predict([text])
    assert answer.label in predictor.labels
    assert 0.0 <= answer.confidence <= 1.0


def test_no_texts_give_no_answers(predictor):
    assert predictor.predict([]) == []
    assert predictor.predict_proba([]).values.shape == (0, 3)


def test_softmax_is_stable():
    values = compute_softmax(np.array([[1e4, 0.0], [-1e4, -1e4]], np.float32), 2)
    assert values.tolist() == [[1.0, 0.0], [0.5, 0.5]]
