import numpy as np
import pytest
from sklearn.metrics import f1_score

from textlora.scoring.thresholds import find_best_threshold, tune_thresholds


def draw(count, share, seed):
    random = np.random.default_rng(seed)
    truth = (random.random(count) < share).astype(np.int64)
    noise = random.normal(size=count)
    return truth, (1 / (1 + np.exp(-(noise + 1.5 * truth - 1)))).astype(np.float32)


@pytest.mark.parametrize("seed", range(8))
def test_no_other_threshold_has_a_better_f1(seed):
    truth, shares = draw(40, 0.3, seed)
    if seed % 2:
        shares = np.round(shares, 1)  # with ties
    found = find_best_threshold(truth, shares)
    scores = [f1_score(truth, shares >= limit) for limit in (*np.unique(shares), found)]
    assert scores[-1] == max(scores)


def test_a_threshold_lies_between_two_probabilities():
    truth, shares = draw(60, 0.4, 1)
    found = find_best_threshold(truth, shares)
    near = np.abs(shares.astype(np.float64) - found)
    assert near.min() > 0
    moved = shares + np.float32(near.min() / 2)
    assert np.array_equal(moved >= found, shares >= found)


def test_of_equally_good_ones_the_nearest_to_a_half_is_taken():
    truth, shares = np.array([1, 1, 0]), np.array([0.99, 0.9, 0.02])
    assert find_best_threshold(truth, shares) == pytest.approx(0.46)
    # One of two found without a mistake, or both with two: F1 is 2/3 behind 0.9 and behind 0.1.
    truth, shares = np.array([1, 0, 0, 1]), np.array([0.9, 0.3, 0.2, 0.1])
    assert find_best_threshold(truth, shares) == pytest.approx(0.6)


def test_a_label_with_few_texts_takes_the_shared_threshold():
    truth = np.stack([draw(200, 0.4, 0)[0], np.r_[1, np.zeros(199, np.int64)]], axis=1)
    shares = np.stack([draw(200, 0.4, 0)[1], draw(200, 0.0, 5)[1]], axis=1)
    own, shared = tune_thresholds(truth, shares)
    assert own == find_best_threshold(truth[:, 0], shares[:, 0])
    assert shared == find_best_threshold(truth.ravel(), shares.ravel())


def test_a_label_that_is_not_known_is_not_given_to_every_text():
    random = np.random.default_rng(2)
    truth = (random.random((300, 2)) < (0.07, 0.4)).astype(np.int64)
    shares = np.stack([0.05 + 0.02 * random.random(300), draw(300, 0.4, 0)[1]], axis=1)
    truth[:, 1] = draw(300, 0.4, 0)[0]
    assert (shares[:, 0] >= find_best_threshold(truth[:, 0], shares[:, 0])).mean() > 0.5
    unknown, known = tune_thresholds(truth, shares)
    assert (shares[:, 0] >= unknown).mean() == 0
    assert known == find_best_threshold(truth[:, 1], shares[:, 1])


def test_with_next_to_no_label_at_all_it_is_a_half():
    truth = np.zeros((30, 2), np.int64)
    truth[:4] = 1
    assert tune_thresholds(truth, np.full((30, 2), 0.1)) == (0.5, 0.5)
    assert tune_thresholds(np.zeros((30, 2), np.int64), np.full((30, 2), 0.9)) == (0.5, 0.5)
