import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, log_loss, precision_score, recall_score

from textlora.scoring.metrics import compute_scores, compute_wilson_interval

LABELS = ("World", "Sports", "Business")


@pytest.fixture(scope="module")
def answers():
    random = np.random.default_rng(0)
    label_ids = random.integers(3, size=400)
    logits = random.normal(size=(400, 3)) + 1.5 * np.eye(3)[label_ids]
    shares = np.exp(logits)
    return label_ids, shares / shares.sum(axis=1, keepdims=True)


def test_figures_equal_scikit_learn(answers):
    label_ids, probabilities = answers
    predicted = probabilities.argmax(axis=1)
    scores = compute_scores(label_ids, probabilities, LABELS)
    assert scores.accuracy == accuracy_score(label_ids, predicted)
    assert scores.loss == pytest.approx(log_loss(label_ids, probabilities))
    for way in ("weighted", "macro"):
        average = getattr(scores, way)
        assert average.precision == pytest.approx(
            precision_score(label_ids, predicted, average=way)
        )
        assert average.recall == pytest.approx(recall_score(label_ids, predicted, average=way))
        assert average.f1 == pytest.approx(f1_score(label_ids, predicted, average=way))
    assert [c.f1 for c in scores.classes] == pytest.approx(
        f1_score(label_ids, predicted, average=None).tolist()
    )


def test_order_of_texts_does_not_matter(answers):
    label_ids, probabilities = answers
    order = np.random.default_rng(1).permutation(len(label_ids))
    shuffled = compute_scores(label_ids[order], probabilities[order], LABELS)
    original = compute_scores(label_ids, probabilities, LABELS)
    assert shuffled.confusion_matrix == original.confusion_matrix
    assert shuffled.weighted == original.weighted


def test_the_class_table_adds_up(answers):
    scores = compute_scores(*answers, LABELS)
    matrix = np.array(scores.confusion_matrix)
    assert sum(c.correct for c in scores.classes) == np.trace(matrix)
    assert [c.total for c in scores.classes] == matrix.sum(axis=1).tolist()
    assert [c.predicted for c in scores.classes] == matrix.sum(axis=0).tolist()
    for item in scores.classes:
        assert item.total - item.correct == sum(c.count for c in item.confusions)
        assert [c.count for c in item.confusions] == sorted(
            (c.count for c in item.confusions), reverse=True
        )


def test_a_class_without_texts_is_left_out_of_the_averages():
    probabilities = np.eye(3)[[0, 1, 0, 1]]
    scores = compute_scores(np.array([0, 1, 0, 1]), probabilities, LABELS)
    assert scores.accuracy == scores.macro.f1 == scores.weighted.f1 == 1.0
    assert (scores.classes[2].correct, scores.classes[2].total) == (0, 0)


def test_published_figures_of_the_reference_system_are_reproduced():
    matrix = [[2694, 88, 135, 92], [16, 3003, 6, 9], [70, 10, 2555, 265], [84, 15, 199, 2759]]
    pairs = [(t, p) for t, row in enumerate(matrix) for p, n in enumerate(row) for _ in range(n)]
    label_ids, predicted = np.array(pairs).T
    names = ("World", "Sports", "Business", "Sci/Tech")
    scores = compute_scores(label_ids, np.eye(4)[predicted], names)
    assert scores.num_texts == 12_000
    assert round(scores.accuracy, 4) == 0.9176
    weighted = scores.weighted
    figures = (weighted.precision, weighted.recall, weighted.f1)
    assert [round(value, 4) for value in figures] == [0.9177, 0.9176, 0.9174]
    shares = [round(c.accuracy, 4) for c in scores.classes]
    assert shares == [0.8953, 0.9898, 0.8810, 0.9025]
    assert scores.classes[0].confusions[0].label == "Business"


def test_wilson_interval_equals_published_values():
    # Newcombe 1998, Statistics in Medicine 17, table I: 81 of 263 and 0 of 20.
    interval = compute_wilson_interval(81, 263)
    assert (round(interval.low, 4), round(interval.high, 4)) == (0.2553, 0.3662)
    interval = compute_wilson_interval(0, 20)
    assert (round(interval.low, 4), round(interval.high, 4)) == (0.0, 0.1611)
    assert compute_wilson_interval(0, 0).high == 1.0
