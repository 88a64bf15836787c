"""The losses against their formulas."""

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from textlora.settings import TrainingSettings
from textlora.training.losses import (
    OBJECTIVES,
    compute_class_weights,
    compute_loss,
    compute_positive_weights,
    compute_set_loss,
)

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.4, 0.3], [-1.0, 3.0, 0.0]])
LABELS = torch.tensor([0, 2, 0])


def by_hand(gamma=0.0, smoothing=0.0, weights=(1.0, 1.0, 1.0)):
    total = 0.0
    for row, label in zip(LOGITS.softmax(dim=1).tolist(), LABELS.tolist(), strict=True):
        wanted = [smoothing / 3 + (1 - smoothing) * (i == label) for i in range(3)]
        loss = -sum(w * t * np.log(p) for w, t, p in zip(weights, wanted, row, strict=True))
        total += (1 - row[label]) ** gamma * loss
    return total


@pytest.mark.parametrize("gamma", [0.0, 2.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, (0.5, 2.0, 3.0)])
def test_the_loss_is_its_formula(gamma, smoothing, weights):
    settings = TrainingSettings(focal_gamma=gamma, label_smoothing=smoothing)
    tensor = None if weights is None else torch.tensor(weights)
    found = compute_loss(LOGITS, LABELS, settings, tensor)
    assert float(found) == pytest.approx(by_hand(gamma, smoothing, weights or (1, 1, 1)), rel=1e-5)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_a_text_that_is_surely_right_has_a_gradient_of_nothing(gamma):
    settings = TrainingSettings(focal_gamma=gamma)
    for compute, label_ids in ((compute_loss, [0]), (compute_set_loss, [[1, 0, 0]])):
        logits = torch.tensor([[120.0, -120.0, -120.0]], requires_grad=True)
        compute(logits, torch.tensor(label_ids), settings, None).backward()
        assert logits.grad.abs().max() < 1e-6  # and no nan


def test_balanced_classes_weigh_the_same_together():
    label_ids = np.array([0] * 90 + [2] * 10)
    weights = compute_class_weights(label_ids, 3, TrainingSettings(class_weights="balanced"))
    assert weights.tolist() == pytest.approx([100 / 180, 0.0, 100 / 20])
    assert float(weights[label_ids].mean()) == pytest.approx(1.0)
    assert compute_class_weights(label_ids, 3, TrainingSettings()) is None


SETS = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1]])


@pytest.mark.parametrize("weights", [None, (0.5, 2.0, 3.0)])
def test_the_loss_of_sets_is_that_of_torch(weights):
    tensor = None if weights is None else torch.tensor(weights)
    found = compute_set_loss(LOGITS, SETS, TrainingSettings(), tensor)
    wanted = binary_cross_entropy_with_logits(
        LOGITS, SETS.float(), pos_weight=tensor, reduction="sum"
    )
    assert float(found) == float(wanted)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_sets_is_its_formula(gamma, smoothing):
    settings = TrainingSettings(focal_gamma=gamma, label_smoothing=smoothing)
    total = 0.0
    for share, truth in zip(
        LOGITS.sigmoid().flatten().tolist(), SETS.flatten().tolist(), strict=True
    ):
        wanted = truth * (1 - smoothing) + smoothing / 2
        loss = -wanted * np.log(share) - (1 - wanted) * np.log(1 - share)
        total += (1 - (share if truth else 1 - share)) ** gamma * loss
    found = compute_set_loss(LOGITS, SETS, settings, None)
    assert float(found) == pytest.approx(total, rel=1e-5)


def test_balanced_having_a_label_weighs_as_much_as_not_having_it():
    label_ids = np.array([[1, 0, 1]] * 10 + [[0, 0, 1]] * 30)
    weights = compute_positive_weights(label_ids, 3, TrainingSettings(class_weights="balanced"))
    assert weights.tolist() == [3.0, 1.0, 1.0]
    assert 10 * float(weights[0]) == 30
    assert compute_positive_weights(label_ids, 3, TrainingSettings()) is None


def test_each_kind_of_data_has_its_loss():
    assert OBJECTIVES["single_label_classification"].compute_loss is compute_loss
    assert OBJECTIVES["multi_label_classification"].compute_loss is compute_set_loss


@pytest.mark.parametrize("changes", [{"focal_gamma": 2.0}, {"label_smoothing": 0.2}, {}])
def test_what_is_told_of_a_loss_is_what_validation_has(changes):
    settings = TrainingSettings(**changes, class_weights="none" if changes else "balanced")
    objective = OBJECTIVES["single_label_classification"]
    weights = None if changes else torch.tensor([0.5, 2.0, 3.0])
    minimised = objective.compute_loss(LOGITS, LABELS, settings, weights)
    shown = objective.compute_shown(minimised, LOGITS, LABELS, settings)
    assert shown == pytest.approx(by_hand(), rel=1e-5)
    assert abs(shown - minimised.item()) > 0.01
    plain = objective.compute_loss(LOGITS, LABELS, TrainingSettings(), None)
    assert objective.compute_shown(plain, LOGITS, LABELS, TrainingSettings()) == plain.item()
