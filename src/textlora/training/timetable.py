"""What happens at which step of a run: rate, dropout, evaluations, lines of history."""

import math
from dataclasses import dataclass

from textlora.settings import Recipe
from textlora.training.schedules import compute_dropout, compute_learning_rate

_RECORDS_PER_EPOCH = 20  # lines of history between two evaluations, for the learning curves


@dataclass(frozen=True)
class Timetable:
    """What happens at which step: the schedules and the steps of a run, from its recipe."""

    recipe: Recipe
    steps_per_epoch: int

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        steps = self.recipe.training.epochs * self.steps_per_epoch
        return max(1, math.ceil(round(steps, 6)))  # 0.07 * 100 is 7.000000000000001

    @property
    def evaluate_every(self) -> int:
        """Steps between two evaluations."""
        wanted = self.recipe.training.evaluate_every or self.steps_per_epoch
        return min(wanted, self.total_steps)

    def is_evaluated(self, done: int) -> bool:
        """Whether validation follows after `done` steps."""
        return done % self.evaluate_every == 0 or done == self.total_steps

    def is_recorded(self, done: int) -> bool:
        """Whether a line of history is written after `done` steps."""
        every = max(1, self.evaluate_every // _RECORDS_PER_EPOCH)
        return done % every == 0 or self.is_evaluated(done)

    def learning_rate(self, step: int) -> float:
        """Rate applied at `step`, counted from 0."""
        settings = self.recipe.training
        return compute_learning_rate(
            step,
            peak=settings.learning_rate,
            warmup_steps=round(settings.warmup_share * self.total_steps),
            total_steps=self.total_steps,
            shape=settings.schedule,
        )

    def dropout(self, step: int) -> float:
        """Dropout applied at `step`, counted from 0."""
        settings = self.recipe.dropout
        return compute_dropout(
            step,
            start=settings.start,
            end=settings.end,
            total_steps=self.total_steps,
            shape=settings.shape,
        )
