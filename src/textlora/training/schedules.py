"""Learning rate and dropout as pure functions of the step, so that they can be tested and drawn.

Steps count from 0; a run has `total_steps` optimizer steps, the last is `total_steps - 1`.
"""

import math

from textlora.settings import Shape


def compute_learning_rate(
    step: int, *, peak: float, warmup_steps: int, total_steps: int, shape: Shape = "linear"
) -> float:
    """Linear warm-up to `peak`, then a linear or cosine fall that would reach 0 at `total_steps`.

    The first step trains already (rate peak / warmup_steps, not 0), and so does the last.

    Units:   learning rate per step.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return peak * (1.0 - _fall(min(1.0, progress), shape))


def compute_dropout(
    step: int, *, start: float, end: float, total_steps: int, shape: Shape = "linear"
) -> float:
    """Dropout probability at `step`: `start` at the first step, exactly `end` at the last.

    `start` may be 0 and may be smaller than `end`.

    Units:   probability 0..1.
    """
    if total_steps <= 1:
        return start
    progress = min(step, total_steps - 1) / (total_steps - 1)
    if progress == 1.0:
        return end  # exactly, not start + (end - start) with its rounding
    return start + (end - start) * _fall(progress, shape)


def _fall(progress: float, shape: Shape) -> float:
    """How much of the way is done, 0..1, at `progress` 0..1 of the steps."""
    return progress if shape == "linear" else (1.0 - math.cos(math.pi * progress)) / 2.0
