"""The charts of the report: what a run has found, as lines in SVG's own coordinates."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from textlora.evaluation.evaluation import AnyEvaluation, Evaluation
from textlora.runs.history import StepRecord

WIDTH, HEIGHT = 300, 150  # of a chart, in its own units


@dataclass(frozen=True)
class Line:
    """One line of a chart, as SVG points."""

    name: str
    style: str
    points: str

    @property
    def mark(self) -> str:
        """How it looks, for those who see no colours."""
        return {"main": "──", "other": "╌╌", "ideal": "··"}[self.style]


@dataclass(frozen=True)
class Curve:
    """A chart of the training history."""

    name: str
    lines: tuple[Line, ...]
    low: str
    high: str


def draw_reliability(evaluation: AnyEvaluation) -> tuple[Line, ...]:
    """Share of right answers by confidence, beside what it should be."""
    bins = evaluation.calibration.bins
    return (
        Line("as it should be", "ideal", _trace([0, 1], [0, 1], 0, 1)),
        Line(
            "found", "main", _trace([b.confidence for b in bins], [b.accuracy for b in bins], 0, 1)
        ),
    )


def _coverage_floor(evaluation: Evaluation) -> float:
    lowest = min(point.precision for point in evaluation.coverage.curve)
    return max(0.0, np.floor(10 * lowest) * 10 - 10)


def draw_coverage(evaluation: Evaluation) -> Curve:
    """Share of right answers by share of texts answered, the surest first."""
    curve = evaluation.coverage.curve
    xs, ys = (
        [0.0, *(p.coverage for p in curve)],
        [curve[0].precision, *(p.precision for p in curve)],
    )
    low = _coverage_floor(evaluation)
    line = Line("right of those answered", "main", _trace(xs, ys, low / 100, 1))
    name = "Right answers (up) by share of texts answered (right)"
    return Curve(name, (line,), f"{low:.0f}", "100")


def draw_history(history: list[StepRecord]) -> tuple[Curve, ...]:
    """Loss, validation score, and both schedules, over epochs."""
    if len(history) < 2:
        return ()
    epochs = [record.epoch for record in history]
    checked = [(r.epoch, r.validation) for r in history if r.validation is not None]
    at = [epoch for epoch, _ in checked]
    series = [
        ("Loss", [("training", "other", epochs, [r.train_loss for r in history]),
                  ("validation", "main", at, [v.loss for _, v in checked])]),
        ("Validation score", [("accuracy", "main", at, [v.accuracy for _, v in checked]),
                              ("macro F1", "other", at, [v.f1_macro for _, v in checked])]),
        ("Learning rate", [("applied", "main", epochs, [r.learning_rate for r in history])]),
        ("Dropout of the adapters", [("applied", "main", epochs, [r.dropout for r in history])]),
    ]  # fmt: skip
    curves = []
    for name, lines in series:
        values = [value for *_, ys in lines for value in ys]
        if not values:
            continue  # not validated yet
        low = min(values) if name == "Validation score" else 0.0
        high = max(values) if max(values) > low else low + 1.0
        drawn = tuple(
            Line(label, style, _trace([x / epochs[-1] for x in xs], ys, low, high))
            for label, style, xs, ys in lines
        )
        curves.append(
            Curve(f"{name} by epoch, to {epochs[-1]:g}", drawn, f"{low:.3g}", f"{high:.3g}")
        )
    return tuple(curves)


def _trace(xs: Sequence[float], ys: Sequence[float], low: float, high: float) -> str:
    """SVG points; x in 0..1, y from `low` at the bottom to `high` at the top."""
    return " ".join(
        f"{WIDTH * x:.1f},{HEIGHT * (1 - (y - low) / (high - low)):.1f}"
        for x, y in zip(xs, ys, strict=True)
    )
