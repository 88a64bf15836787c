"""Figures of sets of labels, against scikit-learn and torch."""

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    hamming_loss,
    precision_recall_fscore_support,
)
from torch.nn.functional import binary_cross_entropy

from textlora.scoring.metrics import compute_wilson_interval
from textlora.scoring.set_metrics import compute_set_scores

LABELS = ("a", "b", "c", "never")
THRESHOLDS = (0.3, 0.5, 0.6, 0.5)


@pytest.fixture(scope="module")
def drawn():
    random = np.random.default_rng(4)
    truth = (random.random((120, 4)) < (0.5, 0.3, 0.1, 0.0)).astype(np.int64)
    shares = np.clip(0.5 * truth + 0.6 * random.random((120, 4)), 0.01, 0.99).astype(np.float32)
    return truth, (shares >= THRESHOLDS).astype(np.int64), shares


def test_every_figure_is_that_of_scikit_learn(drawn):
    truth, given, shares = drawn
    found = compute_set_scores(truth, given, shares, LABELS, THRESHOLDS)
    assert found.accuracy == accuracy_score(truth, given)
    assert found.accuracy_interval == compute_wilson_interval(round(found.accuracy * 120), 120)
    assert found.hamming_loss == pytest.approx(hamming_loss(truth, given))
    for way in ("micro", "macro", "weighted"):
        # Micro counts what was given of a label that no text has; the others leave it out.
        kept = None if way == "micro" else [0, 1, 2]
        wanted = precision_recall_fscore_support(truth, given, labels=kept, average=way)[:3]
        average = getattr(found, way)
        assert (average.precision, average.recall, average.f1) == pytest.approx(wanted), way
    each = precision_recall_fscore_support(truth, given, average=None, zero_division=0)
    for index, item in enumerate(found.labels):
        assert (item.precision, item.recall, item.f1) == pytest.approx([f[index] for f in each[:3]])
        assert item.missed == ((truth == 1) & (given == 0))[:, index].sum()
        assert item.added == ((truth == 0) & (given == 1))[:, index].sum()
        assert item.threshold == THRESHOLDS[index]
    wanted = average_precision_score(truth[:, 1], shares[:, 1])
    assert found.labels[1].average_precision == pytest.approx(wanted)


def test_the_loss_is_the_negative_log_likelihood_of_a_set(drawn):
    truth, given, shares = drawn
    found = compute_set_scores(truth, given, shares, LABELS, THRESHOLDS)
    wanted = binary_cross_entropy(
        torch.tensor(shares, dtype=torch.float64), torch.tensor(truth).double(), reduction="sum"
    )
    assert found.loss == pytest.approx(float(wanted) / 120)
    sure = compute_set_scores(truth, truth, truth.astype(np.float32), LABELS, THRESHOLDS)
    wrong = compute_set_scores(truth, truth, 1 - truth.astype(np.float32), LABELS, THRESHOLDS)
    assert sure.loss == 0.0
    assert np.isfinite(wrong.loss)


def test_texts_and_their_order_are_counted_once(drawn):
    truth, given, shares = drawn
    found = compute_set_scores(truth, given, shares, LABELS, THRESHOLDS)
    assert found.num_without == (truth.sum(axis=1) == 0).sum()
    assert found.num_predicted_without == (given.sum(axis=1) == 0).sum()
    assert found.labels_per_text == truth.sum() / 120
    order = np.random.default_rng(1).permutation(120)
    moved = compute_set_scores(truth[order], given[order], shares[order], LABELS, THRESHOLDS)
    assert moved.loss == pytest.approx(found.loss)
    assert (moved.micro, moved.macro, moved.accuracy) == (found.micro, found.macro, found.accuracy)


def test_nothing_true_and_nothing_given_is_all_right():
    none = np.zeros((5, 4), np.int64)
    found = compute_set_scores(none, none, none.astype(np.float32), LABELS, THRESHOLDS)
    assert (found.accuracy, found.hamming_loss, found.macro.f1, found.micro.f1) == (1, 0, 0, 0)
