"""Pictures of an evaluation and of a training history, as PNG files."""

import warnings
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from textlora.evaluation.evaluation import AnyEvaluation, Evaluation, SetEvaluation
from textlora.runs.history import StepRecord
from textlora.runs.run_folder import VISUALIZATIONS
from textlora.scoring.set_metrics import SetScores
from textlora.system.console import shorten
from textlora.system.files import write_atomically

_DPI = 150
# The colours of all pictures.
TRAINING, VALIDATION, MUTED = "#c2571a", "#1f5fa8", "#8a8f98"
_LONGEST_LABEL = 30  # characters
_MAX_ANNOTATED = 20  # labels; more cells than that are too small for numbers


def draw_confusion_matrix(evaluation: Evaluation) -> Figure:
    """Counts, and the share of each row, with true labels as rows."""
    labels = [_escape(scores.label) for scores in evaluation.scores.classes]
    counts = np.array(evaluation.scores.confusion_matrix)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(18.0, max(5.2, 1.15 * len(labels) + 1.8))
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    if len(labels) <= _MAX_ANNOTATED:
        for row, column in np.ndindex(counts.shape):
            axes.text(
                column,
                row,
                f"{counts[row, column]:,}\n{shares[row, column]:.1%}",
                ha="center",
                va="center",
                fontsize=10 if len(labels) <= 8 else 7,
                color="white" if shares[row, column] > 0.5 else "#222222",
            )
    rotation = 0 if sum(map(len, labels)) <= 60 else 60
    axes.set_xticks(range(len(labels)), labels, rotation=rotation)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel("predicted label")
    axes.set_ylabel("true label")
    axes.set_title(
        f"Confusion matrix, {evaluation.split}: {evaluation.scores.accuracy:.2%} of "
        f"{evaluation.scores.num_texts:,} texts correct",
        fontsize=11,
    )
    colorbar = figure.colorbar(image, ax=axes, shrink=0.8, format="{x:.0%}")
    colorbar.set_label("share of the true label")
    return figure


def draw_label_scores(evaluation: SetEvaluation) -> Figure:
    """Precision, recall and F1 of each label of a multi-label classifier."""
    labels = evaluation.scores.labels
    positions = np.arange(len(labels))
    figure = Figure(figsize=(7.6, max(3.0, 0.55 * len(labels) + 1.6)), layout="constrained")
    axes = figure.add_subplot()
    kinds = (
        ("precision", MUTED, -0.26),
        ("recall", TRAINING, 0.0),
        ("f1", VALIDATION, 0.26),
    )
    for name, colour, shift in kinds:
        widths = [getattr(item, name) for item in labels]
        shown = name.upper() if name == "f1" else name
        bars = axes.barh(positions + shift, widths, height=0.24, color=colour, label=shown)
        if len(labels) <= _MAX_ANNOTATED:
            axes.bar_label(bars, fmt="{:.0%}", fontsize=7, padding=2)
    axes.set_yticks(positions, [f"{_escape(item.label)} ({item.total:,})" for item in labels])
    axes.invert_yaxis()  # the first label on top, as in the tables
    axes.set_xlim(0.0, 1.08)
    axes.xaxis.set_major_formatter("{x:.0%}")
    figure.legend(frameon=False, ncols=3, loc="outside lower center")
    axes.set_title(
        f"Labels, {evaluation.split}: {evaluation.scores.accuracy:.2%} of "
        f"{evaluation.scores.num_texts:,} texts with all labels right",
        fontsize=11,
    )
    clear_frame(axes)
    return figure


def draw_prediction_distribution(evaluation: AnyEvaluation) -> Figure:
    """How often each label is true and how often it is predicted."""
    scores = evaluation.scores
    classes = scores.labels if isinstance(scores, SetScores) else scores.classes
    positions = np.arange(len(classes))
    figure = Figure(figsize=(max(6.0, 1.3 * len(classes)), 4.2), layout="constrained")
    axes = figure.add_subplot()
    pairs = (
        ("true", MUTED, -0.2, "total"),
        ("predicted", VALIDATION, 0.2, "predicted"),
    )
    for name, colour, shift, field in pairs:
        heights = [getattr(item, field) for item in classes]
        bars = axes.bar(positions + shift, heights, width=0.38, color=colour, label=name)
        axes.bar_label(bars, fmt="{:,.0f}", fontsize=8, padding=2)
    axes.set_xticks(positions, [_escape(item.label) for item in classes])
    axes.set_ylabel("texts")
    axes.margins(y=0.18)
    axes.legend(frameon=False, ncols=2, loc="upper right")
    axes.set_title(f"Distribution of predictions, {evaluation.split}", fontsize=11)
    clear_frame(axes)
    return figure


def draw_learning_curves(history: list[StepRecord]) -> Figure:
    """Loss, validation accuracy and F1, and the two schedules as they were applied."""
    figure = Figure(figsize=(11.0, 7.0), layout="constrained")
    (loss, score), (rate, dropout) = figure.subplots(2, 2, sharex=True)
    epochs = [record.epoch for record in history]
    checked = [record for record in history if record.validation is not None]
    at = [record.epoch for record in checked]
    loss.plot(epochs, [record.train_loss for record in history], color=TRAINING, label="training")
    values = [record.validation for record in checked if record.validation is not None]
    style = {"marker": "o", "markersize": 4}
    loss.plot(at, [v.loss for v in values], color=VALIDATION, label="validation", **style)
    score.plot(at, [v.accuracy for v in values], color=VALIDATION, label="accuracy", **style)
    score.plot(at, [v.f1_macro for v in values], color=MUTED, label="macro F1", **style)
    rate.plot(epochs, [record.learning_rate for record in history], color=TRAINING)
    dropout.plot(epochs, [record.dropout for record in history], color=TRAINING)
    titles = ("Loss", "Validation score", "Learning rate", "Dropout of the adapters")
    for axes, title in zip((loss, score, rate, dropout), titles, strict=True):
        axes.set_title(title, fontsize=11)
        axes.grid(color="#e6e6e6")
        clear_frame(axes)
    score.yaxis.set_major_formatter("{x:.1%}")
    dropout.set_ylim(bottom=0.0)
    rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    for axes in (rate, dropout):
        axes.set_xlabel("epoch")
    for axes in (loss, score):
        axes.legend(frameon=False)
    return figure


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, atomically."""
    from io import BytesIO

    buffer = BytesIO()
    with warnings.catch_warnings():
        # A sign that no font has is drawn as a box, and what finds no room is cut.
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        warnings.filterwarnings("ignore", "constrained_layout not applied", UserWarning)
        figure.savefig(buffer, format="png", dpi=_DPI)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, buffer.getvalue())
    return path


def save_pictures(run: Path, evaluation: AnyEvaluation, history: list[StepRecord]) -> list[Path]:
    """Draw everything into RUN/visualizations; returns the files."""
    folder = run / VISUALIZATIONS
    if isinstance(evaluation, SetEvaluation):
        figures = {"label_scores.png": draw_label_scores(evaluation)}
    else:
        figures = {"confusion_matrix.png": draw_confusion_matrix(evaluation)}
    figures["prediction_distribution.png"] = draw_prediction_distribution(evaluation)
    if history:
        figures["learning_curves.png"] = draw_learning_curves(history)
    return [save_figure(figure, folder / name) for name, figure in figures.items()]


def _escape(label: str) -> str:
    """Short; and matplotlib would read what stands between two dollar signs as a formula."""
    return shorten(label, _LONGEST_LABEL).replace("$", r"\$")


def clear_frame(axes: object) -> None:
    """Take away the lines on top and at the right."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)  # type: ignore[attr-defined]
