"""What training lowers: cross-entropy, with smoothed labels, weighted classes or a focus.

Of one label a text, or of each label of a set on its own.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from textlora.settings import ProblemType, TrainingSettings


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
    return (_weigh_doubt(shares, gamma) * losses).sum()


def _weigh_doubt(shares: Tensor, gamma: float) -> Tensor:
    """The factor of the focal loss. At a share of 1 its slope would be infinite for gamma < 1."""
    return (1.0 - shares).clamp_min(torch.finfo(shares.dtype).eps) ** gamma


def compute_positive_weights(
    label_ids: npt.NDArray[np.int64], num_labels: int, settings: TrainingSettings
) -> Tensor | None:
    """What having a label counts, beside not having it.

    "balanced" is texts without the label / texts with it, so that both weigh the same together. A
    label that no text has, or that all have, counts 1.

    Shapes:  label_ids (texts, labels) of 0 and 1; returns (labels,) float32, or None where all
    count the same.
    """
    if settings.class_weights == "none":
        return None
    counts = label_ids.sum(axis=0)
    weights = np.ones(num_labels, np.float32)
    mixed = (counts > 0) & (counts < len(label_ids))
    weights[mixed] = (len(label_ids) - counts[mixed]) / counts[mixed]
    return torch.from_numpy(weights)


def compute_set_loss(
    logits: Tensor, label_ids: Tensor, settings: TrainingSettings, weights: Tensor | None
) -> Tensor:
    """Binary cross-entropy summed over texts and labels; a scalar.

    The sum over the labels of a text, not their mean: the negative log likelihood of its set, whose
    gradient at each logit is as large as that of the cross-entropy.

    Shapes:  logits (texts, labels) float32; label_ids (texts, labels) of 0 and 1; weights (labels,)
    of the label's positive texts.
    Source:  as `compute_loss`; Lin et al. define the focal loss in this binary form.
    """
    gamma, smoothing = settings.focal_gamma, settings.label_smoothing
    truth = label_ids.to(logits.dtype)
    wanted = truth * (1.0 - smoothing) + smoothing / 2.0
    losses = binary_cross_entropy_with_logits(logits, wanted, pos_weight=weights, reduction="none")
    if gamma:
        shares = logits.sigmoid()
        losses = _weigh_doubt(torch.where(truth > 0.5, shares, 1.0 - shares), gamma) * losses
    return losses.sum()


@dataclass(frozen=True)
class Objective:
    """The loss of one kind of data, and what weighs its labels."""

    compute_loss: Callable[[Tensor, Tensor, TrainingSettings, Tensor | None], Tensor]
    compute_weights: Callable[[npt.NDArray[np.int64], int, TrainingSettings], Tensor | None]

    def compute_shown(
        self, loss: Tensor, logits: Tensor, label_ids: Tensor, settings: TrainingSettings
    ) -> float:
        """What is told of a `loss` that was minimised: its plain form, as validation has it.

        Weights of classes, label smoothing and the focal factor change its scale.
        """
        if settings.has_plain_loss:
            return loss.item()
        with torch.no_grad():
            return self.compute_loss(logits, label_ids, TrainingSettings(), None).item()


OBJECTIVES: dict[ProblemType, Objective] = {
    "single_label_classification": Objective(compute_loss, compute_class_weights),
    "multi_label_classification": Objective(compute_set_loss, compute_positive_weights),
}
