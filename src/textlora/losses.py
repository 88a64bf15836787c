"""What training lowers: cross-entropy, with smoothed labels, weighted classes or a focus."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from textlora.settings import TrainingSettings


def compute_class_weights(
    label_ids: npt.NDArray[np.int64], num_labels: int, settings: TrainingSettings
) -> Tensor | None:
    """What each class counts.

    "balanced" is texts / (classes * texts of the class), as scikit-learn has it: the mean over the
    texts is 1. A class without texts counts 0.

    Shapes:  label_ids (texts,); returns (classes,) float32, or None where all count the same.
    """
    if settings.class_weights == "none":
        return None
    counts = np.bincount(label_ids, minlength=num_labels)
    present = counts > 0
    weights = np.zeros(num_labels, np.float32)
    weights[present] = len(label_ids) / (present.sum() * counts[present])
    return torch.from_numpy(weights)


def compute_loss(
    logits: Tensor, label_ids: Tensor, settings: TrainingSettings, weights: Tensor | None
) -> Tensor:
    """The loss summed over texts; a scalar.

    Shapes:  logits (texts, classes) float32; label_ids (texts,); weights (classes,).
    Source:  Szegedy et al. 2016 (arXiv 1512.00567): label smoothing; Lin et al. 2017 (arXiv
    1708.02002): focal loss.
    """
    gamma, smoothing = settings.focal_gamma, settings.label_smoothing
    if not gamma:
        return cross_entropy(logits, label_ids, weights, label_smoothing=smoothing, reduction="sum")
    losses = cross_entropy(logits, label_ids, weights, label_smoothing=smoothing, reduction="none")
    shares = logits.softmax(dim=1).gather(1, label_ids[:, None])[:, 0]
    return ((1.0 - shares) ** gamma * losses).sum()
