import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from textlora.scoring.calibration import compute_set_calibration, fit_set_temperature
from textlora.scoring.tasks import MultiLabel, SingleLabel, find_task
from textlora.settings import DataSettings

LOGITS = np.random.default_rng(0).normal(0, 2, (300, 3)).astype(np.float32)
# Drawn from these very logits, so that their own temperature is 1.
TRUTH = (np.random.default_rng(1).random((300, 3)) < 1 / (1 + np.exp(-LOGITS))).astype(np.int64)
LABELS = ("a", "b", "c")


def test_the_data_say_which_task_it_is():
    assert find_task(DataSettings()) == SingleLabel()
    settings = DataSettings(multi_label=True, label_separator="|")
    assert find_task(settings, (0.2,)) == MultiLabel((0.2,), "|")


def test_probabilities_are_those_of_torch():
    found = MultiLabel().compute_probabilities(LOGITS, 3, temperature=1.5)
    assert np.allclose(found, torch.tensor(LOGITS / 1.5).sigmoid().numpy(), atol=1e-7)
    assert MultiLabel().compute_probabilities(np.zeros((0, 0), np.float32), 3).shape == (0, 3)


def test_a_label_is_given_from_its_threshold_on():
    task = MultiLabel((0.2, 0.5, 0.9))
    shares = np.array([[0.2, 0.49, 0.9], [0.19, 0.5, 0.89]], np.float64)
    assert task.decide(shares).tolist() == [[1, 0, 1], [0, 1, 0]]
    assert MultiLabel().decide(shares).tolist() == [[0, 0, 1], [0, 1, 1]]


def test_the_probability_of_a_set_sums_to_one_over_all_sets():
    task = MultiLabel()
    shares = np.array([[0.2, 0.7, 0.9]])
    sets = np.array([[(number >> bit) & 1 for bit in range(3)] for number in range(8)])
    assert task.probability_of(np.repeat(shares, 8, axis=0), sets).sum() == pytest.approx(1.0)
    assert task.probability_of(shares, np.array([[1, 0, 1]]))[0] == pytest.approx(0.2 * 0.3 * 0.9)


def test_names_of_sets_and_single_labels():
    ids = np.array([[1, 0, 1], [0, 0, 0]])
    assert MultiLabel((), "|").name(ids, LABELS) == ["a|c", ""]
    assert MultiLabel().match(ids, ids[::-1]).tolist() == [False, False]
    assert MultiLabel().find(ids, 2).tolist() == [True, False]
    assert SingleLabel().name(np.array([2, 0]), LABELS) == ["c", "a"]
    assert SingleLabel().find(np.array([2, 0]), 2).tolist() == [True, False]


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_the_temperature_is_found_again(factor):
    found = fit_set_temperature(LOGITS * factor, TRUTH)
    assert found == pytest.approx(factor, rel=0.15)  # 900 decisions say no more
    tempered = MultiLabel().compute_probabilities(LOGITS * factor, 3, found)
    calibration = compute_set_calibration(TRUTH, tempered, found)
    plain = MultiLabel().compute_probabilities(LOGITS * factor, 3)
    before = compute_set_calibration(TRUTH, plain, 1.0)
    assert calibration.error_before == pytest.approx(before.error, abs=1e-4)
    assert calibration.brier <= before.brier + 1e-3
    assert calibration.brier == pytest.approx(((tempered - TRUTH) ** 2).sum(axis=1).mean())


def test_validation_scores_the_classifier_that_would_be_saved():
    record = MultiLabel().validate(LOGITS * 3, TRUTH, LABELS)
    saved = MultiLabel(record.thresholds)
    shares = saved.compute_probabilities(LOGITS * 3, 3, record.temperature)
    scores = saved.score(TRUTH, shares, LABELS)
    assert (record.accuracy, record.f1_macro) == (scores.accuracy, scores.macro.f1)
    assert scores.macro.f1 > MultiLabel().score(TRUTH, shares, LABELS).macro.f1
    wanted = binary_cross_entropy_with_logits(
        torch.tensor(LOGITS * 3), torch.tensor(TRUTH).float(), reduction="sum"
    )
    assert record.loss == pytest.approx(float(wanted) / 300, rel=1e-5)
