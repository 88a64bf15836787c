"""The losses against their formulas."""

import numpy as np
import pytest
import torch

from textlora.losses import compute_class_weights, compute_loss
from textlora.settings import TrainingSettings

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


def test_balanced_classes_weigh_the_same_together():
    label_ids = np.array([0] * 90 + [2] * 10)
    weights = compute_class_weights(label_ids, 3, TrainingSettings(class_weights="balanced"))
    assert weights.tolist() == pytest.approx([100 / 180, 0.0, 100 / 20])
    assert float(weights[label_ids].mean()) == pytest.approx(1.0)
    assert compute_class_weights(label_ids, 3, TrainingSettings()) is None
