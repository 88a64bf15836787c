"""What the trials of a sweep have found: their order, the Pareto front, what chance explains."""

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from textlora.settings import Metric

Outcome = Literal["finished", "pruned", "diverged", "failed", "refused", "repeated", "unfinished"]
# Whether a trial has used up one of those that were asked for.
TRAINED: frozenset[Outcome] = frozenset({"finished", "pruned", "diverged", "failed"})


@dataclass(frozen=True)
class Trial:
    """One recipe that a sweep has tried. `figures` are those of validation at its best evaluation.

    `value` is the figure that decides; `reason` says why a trial ended before its time. `failed`
    ones could not be trained here, `refused` ones may not be, `repeated` ones were before.
    """

    number: int
    outcome: Outcome
    settings: dict[str, Any]
    value: float | None = None
    figures: dict[str, float] = field(default_factory=dict)
    curve: dict[int, float] = field(default_factory=dict)  # thousandths of the run -> the figure
    parameters: int = 0
    seconds: float = 0.0
    reason: str = ""

    @property
    def accuracy(self) -> float:
        """Share of validation texts that are right."""
        return self.figures["accuracy"]


@dataclass(frozen=True)
class Margin:
    """How far the best trial is above the others, in accuracy on `num_texts` validation texts.

    `close` are the finished ones whose accuracy is within one standard error of it. The best by
    another `metric` may be less accurate than others: `lead` is below 0 then.
    """

    num_texts: int
    best: Trial
    standard_error: float
    others: int
    close: tuple[Trial, ...]
    lead: float | None  # over the most accurate other one; None without one
    metric: Metric = "accuracy"

    def describe(self) -> str:
        """The same in words."""
        points, error = f"{self.best.accuracy:.2%}", f"{100 * self.standard_error:.1f} points"
        start = (
            f"trial {self.best.number} has {points} of {self.num_texts:,} validation texts right, "
            f"give or take {error} (one standard error)"
        )
        if self.lead is None:
            return f"{start}; no other trial was finished"
        if self.lead < -self.standard_error:
            return (
                f"{start}; another has {-100 * self.lead:.1f} points more: the {self.metric} of "
                "validation has chosen, see training.best_metric"
            )
        if self.close:
            return (
                f"{start}; {len(self.close)} of the {self.others} others are within that, and "
                f"these texts cannot tell them apart{self._describe_smallest()}"
            )
        lead = f"{100 * self.lead:.1f} points"
        if self.lead < 2 * self.standard_error:
            return f"{start}; it leads by {lead}, which may still be chance"
        return f"{start}; it leads by {lead}, more than two standard errors"

    def _describe_smallest(self) -> str:
        smallest = min((self.best, *self.close), key=lambda trial: trial.parameters)
        where = "" if self.metric == "accuracy" else " by accuracy"
        if smallest is self.best:
            return f"{where}: none of them is smaller"
        found = (
            f"{where}: the smallest of them is trial {smallest.number} with "
            f"{smallest.parameters:,} parameters"
        )
        if self.metric == "accuracy":
            return found
        values = [format_figure(trial.value or 0.0, self.metric) for trial in (smallest, self.best)]
        return f"{found} ({self.metric} {values[0]} beside {values[1]})"


@dataclass(frozen=True)
class Sweep:
    """What a sweep has found. `ranked` are the finished trials, the best one first.

    `recipe`, `table` and `picture` are files.
    """

    folder: Path
    metric: Metric
    trials: tuple[Trial, ...]
    ranked: tuple[Trial, ...]
    margin: Margin
    verdict: str
    recipe: Path
    table: Path
    picture: Path


def rank_trials(trials: Sequence[Trial], *, smaller_is_better: bool) -> list[Trial]:
    """The finished trials, best first; of equal ones those with fewer parameters, then seconds."""
    sign = 1.0 if smaller_is_better else -1.0
    finished = [trial for trial in trials if trial.outcome == "finished"]
    return sorted(
        finished,
        key=lambda trial: (sign * (trial.value or 0.0), trial.parameters, trial.seconds),
    )


def find_twin(trials: Sequence[Trial], settings: dict[str, Any], own: int) -> int | None:
    """The number of another trial than `own` with these settings; None if it is the first."""
    others = (t for t in trials if t.number != own and t.outcome != "repeated")
    return next((trial.number for trial in others if trial.settings == settings), None)


def list_untried(
    trials: Sequence[Trial], everything: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Of all that a space combines, what no trial has."""
    tried = {json.dumps(trial.settings, default=str) for trial in trials}
    return [settings for settings in everything if json.dumps(settings, default=str) not in tried]


def find_front(costs: Sequence[float], scores: Sequence[float]) -> list[int]:
    """Indices of the Pareto front, cheapest first.

    On it is what no other beats: none is at least as good in both, and better in one. Of points
    that are equal in both, all are on it or none.
    """
    order = sorted(range(len(costs)), key=lambda i: (costs[i], -scores[i]))
    front: list[int] = []
    for index in order:
        point = (costs[index], scores[index])
        last = (costs[front[-1]], scores[front[-1]]) if front else None
        if last is None or point[1] > last[1] or point == last:
            front.append(index)
    return front


def compute_standard_error(share: float, count: int) -> float:
    """Standard error of a share of `count` texts; above 0 also where all are right.

    Source:  Agresti and Coull 1998, The American Statistician 52(2): two more of each kind.
    """
    total = count + 4
    adjusted = (share * count + 2) / total
    return math.sqrt(adjusted * (1 - adjusted) / total)


def compute_margin(ranked: Sequence[Trial], num_texts: int, metric: Metric) -> Margin:
    """The first of ranked trials beside the others; `metric` has ranked them.

    Source:  Breiman et al. 1984, Classification and Regression Trees, 3.4.3: what is within one
    standard error of the best is as good.
    """
    best, *others = ranked
    error = compute_standard_error(best.accuracy, num_texts)
    return Margin(
        num_texts=num_texts,
        best=best,
        standard_error=error,
        others=len(others),
        close=tuple(trial for trial in others if abs(best.accuracy - trial.accuracy) <= error),
        lead=best.accuracy - max(t.accuracy for t in others) if others else None,
        metric=metric,
    )


def format_setting(value: Any) -> str:
    """A value as a person writes it; layers and matrices as `all: query, value`."""
    if isinstance(value, dict):
        return "; ".join(f"{key}: {', '.join(map(str, item))}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def format_figure(value: float, metric: str) -> str:
    """A loss in nats, everything else as a percentage."""
    return f"{value:.4f}" if metric == "loss" else f"{value:.2%}"


def format_table(trials: Sequence[Trial]) -> str:
    """All trials as CSV; what is no number or text is JSON."""
    names = list(dict.fromkeys(name for trial in trials for name in trial.settings))
    figures = list(dict.fromkeys(name for trial in trials for name in trial.figures))
    columns = ["trial", "outcome", "value", *figures, "parameters", "seconds", "reason", *names]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    for trial in trials:
        cells = [trial.settings.get(name, "") for name in names]
        writer.writerow([
            trial.number,
            trial.outcome,
            "" if trial.value is None else trial.value,
            *(trial.figures.get(name, "") for name in figures),
            trial.parameters,
            round(trial.seconds, 1),
            trial.reason,
            *(json.dumps(c) if isinstance(c, dict | list | bool) else c for c in cells),
        ])  # fmt: skip
    return stream.getvalue()
