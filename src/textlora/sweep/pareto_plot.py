"""The picture of a sweep: accuracy against parameters and time."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from textlora.reporting.plots import MUTED, TRAINING, VALIDATION, clear_frame
from textlora.sweep.trials import Margin, Trial, find_front


def draw_pareto(trials: Sequence[Trial], margin: Margin) -> Figure:
    """Validation accuracy against trained parameters and against time, with both Pareto fronts.

    Pruned trials stand at their best evaluation; they and the band of one standard error below the
    winner are drawn pale.
    """
    figure = Figure(figsize=(11.0, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    finished = [trial for trial in trials if trial.outcome == "finished"]
    pruned = [trial for trial in trials if trial.outcome == "pruned" and trial.figures]
    panels = ((left, "parameters", "trained parameters"), (right, "seconds", "seconds of a trial"))
    for axes, cost, name in panels:
        _draw_trials(axes, finished, pruned, margin, cost)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter("{x:,g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(name)
        axes.grid(color="#e6e6e6")
        axes.set_axisbelow(True)
        axes.margins(x=0.08, y=0.08)  # room for the numbers of trials
        clear_frame(axes)
    left.yaxis.set_major_formatter("{x:.0%}")
    left.set_ylabel(f"accuracy on {margin.num_texts:,} validation texts")
    handles, names = left.get_legend_handles_labels()
    figure.legend(handles, names, frameon=False, fontsize=9, loc="outside lower center", ncols=5)
    figure.suptitle(
        f"{len(finished)} finished trials; trial {margin.best.number} wins by {margin.metric}: "
        f"accuracy {margin.best.accuracy:.2%}, {margin.best.parameters:,} parameters",
        fontsize=11,
    )
    return figure


def _draw_trials(
    axes: Any, finished: Sequence[Trial], pruned: Sequence[Trial], margin: Margin, cost: str
) -> None:
    best, error = margin.best, margin.standard_error
    costs = [getattr(trial, cost) for trial in finished]
    scores = [trial.accuracy for trial in finished]
    axes.axhspan(
        best.accuracy - error, best.accuracy, color=VALIDATION, alpha=0.08, linewidth=0,
        label="one standard error below the winner",
    )  # fmt: skip
    if pruned:
        at = [getattr(trial, cost) for trial in pruned]
        axes.scatter(at, [t.accuracy for t in pruned], marker="x", color=MUTED, label="pruned")
    axes.scatter(costs, scores, color=VALIDATION, s=28, label="finished")
    front = find_front(costs, scores)
    axes.step([costs[i] for i in front], [scores[i] for i in front], where="post", color=TRAINING,
              linewidth=1.4, marker="o", label="Pareto front")  # fmt: skip
    axes.scatter([getattr(best, cost)], [best.accuracy], marker="*", s=220, color=TRAINING,
                 edgecolor="white", zorder=3, label="winner")  # fmt: skip
    names: dict[tuple[float, float], list[str]] = {}
    for index in front:  # equal ones share a point, and so a text
        names.setdefault((costs[index], scores[index]), []).append(f"{finished[index].number}")
    for point, numbers in names.items():
        axes.annotate(
            ", ".join(numbers),
            point,
            xytext=(-5, 6),
            textcoords="offset points",
            ha="right",
            fontsize=9,
        )
