import numpy as np
import pytest
from scipy.special import softmax

from textlora.scoring.calibration import (
    apply_temperature,
    compute_calibration,
    compute_coverage,
    fit_temperature,
)


def draw(count, temperature, labels=4, seed=0):
    """Logits, and labels drawn from the probabilities that they give at `temperature`."""
    random = np.random.default_rng(seed)
    logits = 2.5 * random.normal(size=(count, labels))
    shares = softmax(logits / temperature, axis=1).cumsum(axis=1)
    return logits, (random.random((count, 1)) > shares).sum(axis=1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_made_the_labels_is_found(temperature):
    assert fit_temperature(*draw(20_000, temperature)) == pytest.approx(temperature, rel=0.05)


def test_without_a_mistake_the_temperature_stays_near_one():
    logits = np.eye(3)[np.arange(30) % 3] * 5.0
    assert 0.3 < fit_temperature(logits, np.arange(30) % 3) <= 1.0


def test_the_right_temperature_lowers_the_error_and_changes_no_label():
    logits, label_ids = draw(20_000, 2.5)
    raw = softmax(logits, axis=1)
    mended = apply_temperature(raw, 2.5)
    found = compute_calibration(label_ids, mended, temperature=2.5)
    assert found.error < 0.02 < 0.1 < found.error_before
    assert found.error_before == pytest.approx(compute_calibration(label_ids, raw, 1.0).error)
    assert (mended.argmax(axis=1) == raw.argmax(axis=1)).all()


def test_bins_hold_every_text_once_and_brier_is_the_squared_distance():
    logits, label_ids = draw(1_000, 1.0)
    shares = softmax(logits, axis=1)
    found = compute_calibration(label_ids, shares, 1.0)
    assert sum(item.count for item in found.bins) == 1_000
    assert all(item.low <= item.confidence <= item.high for item in found.bins)
    distance = ((shares - np.eye(4)[label_ids]) ** 2).sum(axis=1).mean()
    assert found.brier == pytest.approx(distance)


def test_where_validation_has_found_no_threshold_the_test_chooses_none():
    logits, label_ids = draw(500, 1.0)
    assert compute_coverage(label_ids, softmax(logits, axis=1), ()).thresholds == ()


def test_a_threshold_keeps_what_it_promised_where_it_was_chosen():
    logits, label_ids = draw(5_000, 1.0)
    shares = softmax(logits, axis=1)
    found = compute_coverage(label_ids, shares)
    assert [item.wanted for item in found.thresholds] == [0.9, 0.95, 0.98, 0.99, 0.995]
    for item in found.thresholds:
        assert item.precision >= item.wanted
        accepted = shares.max(axis=1) >= item.confidence
        assert item.coverage == accepted.mean()
    coverages = [item.coverage for item in found.thresholds]
    assert coverages == sorted(coverages, reverse=True)


def test_the_curve_starts_with_the_surest_and_ends_with_all_texts():
    logits, label_ids = draw(3_000, 1.0)
    shares = softmax(logits, axis=1)
    found = compute_coverage(label_ids, shares)
    assert found.curve[-1].coverage == 1.0
    assert found.curve[-1].precision == pytest.approx((shares.argmax(1) == label_ids).mean())
    confidences = [point.confidence for point in found.curve]
    assert confidences == sorted(confidences, reverse=True)
    assert len(found.curve) <= 100


def test_thresholds_chosen_elsewhere_are_used_and_not_tuned_again():
    logits, label_ids = draw(2_000, 1.0)
    chosen = compute_coverage(label_ids, softmax(logits, axis=1)).thresholds
    logits, label_ids = draw(2_000, 1.0, seed=1)
    found = compute_coverage(label_ids, softmax(logits, axis=1), chosen).thresholds
    assert [item.confidence for item in found] == [item.confidence for item in chosen]
    assert [item.precision for item in found] != [item.precision for item in chosen]


def test_texts_of_equal_confidence_are_accepted_together():
    shares = np.array([[0.9, 0.1]] * 4 + [[0.6, 0.4]] * 4)
    found = compute_coverage(np.array([0, 0, 0, 1, 0, 0, 0, 0]), shares)
    order = [1, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0, 0, 0]
    areas = {compute_coverage(np.array(labels), shares).risk_area for labels in order}
    assert areas == {1 - (4 * 3 / 4 + 4 * 7 / 8) / 8}  # whichever of them stands first
    assert [point.coverage for point in found.curve] == [0.5, 1.0]


def test_of_levels_with_one_confidence_the_highest_is_shown():
    shares = np.array([[0.9, 0.1]] * 40 + [[0.6, 0.4]] * 4)
    found = compute_coverage(np.array([0] * 42 + [1] * 2), shares)  # all sure ones are right
    assert [item.wanted for item in found.thresholds] == [0.9, 0.95, 0.98, 0.99, 0.995]
    assert [(item.wanted, item.confidence) for item in found.levels] == [(0.95, 0.6), (0.995, 0.9)]
