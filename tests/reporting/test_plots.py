import struct
from dataclasses import replace

import numpy as np
import pytest

from textlora.evaluation.evaluation import read_evaluations
from textlora.reporting.plots import (
    draw_confusion_matrix,
    draw_learning_curves,
    draw_prediction_distribution,
    save_figure,
    save_pictures,
)
from textlora.runs.history import read_history
from textlora.scoring.metrics import compute_scores


def texts_of(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_the_confusion_matrix_shows_counts_and_shares_with_true_labels_as_rows(tiny_run):
    evaluation = read_evaluations(tiny_run)[-1]
    figure = draw_confusion_matrix(evaluation)
    shown = texts_of(figure)
    for row, counts in enumerate(evaluation.scores.confusion_matrix):
        for column, count in enumerate(counts):
            assert shown[3 * row + column] == f"{count:,}\n{count / sum(counts):.1%}"
    assert figure.axes[0].get_ylabel() == "true label"
    assert "test" in figure.axes[0].get_title()


def test_learning_curves_show_loss_scores_and_both_schedules(tiny_run):
    history = read_history(tiny_run)
    figure = draw_learning_curves(history)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["Loss", "Validation score", "Learning rate", "Dropout of the adapters"]
    rates = figure.axes[2].lines[0].get_ydata()
    assert list(rates) == [record.learning_rate for record in history]


def test_the_distribution_shows_true_and_predicted_counts(tiny_run):
    figure = draw_prediction_distribution(read_evaluations(tiny_run)[-1])
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    assert sum(heights[:3]) == sum(heights[3:]) == 60


def test_labels_of_any_signs_and_length_can_be_drawn(tmp_path, tiny_run):
    """In silence: a warning is an error here."""
    evaluation = read_evaluations(tiny_run)[-1]
    shares = np.random.default_rng(0).dirichlet(np.ones(3), size=30)
    labels = ("日本語", "شكوى", "word " * 600)
    scores = compute_scores(np.arange(30) % 3, shares, labels)
    assert len(save_pictures(tmp_path, replace(evaluation, scores=scores), [])) == 2
    figure = draw_confusion_matrix(replace(evaluation, scores=scores))
    assert max(len(label.get_text()) for label in figure.axes[0].get_yticklabels()) <= 30


@pytest.mark.parametrize("num_labels", [2, 12, 60])
def test_any_number_of_labels_can_be_drawn(tmp_path, tiny_run, num_labels):
    labels = tuple(f"label {index} <b>&$x_1$ {'$' * (index + 1)}" for index in range(num_labels))
    random = np.random.default_rng(0)
    shares = random.dirichlet(np.ones(num_labels), size=300)
    scores = compute_scores(random.integers(num_labels, size=300), shares, labels)
    evaluation = replace(read_evaluations(tiny_run)[-1], scores=scores)
    for picture in save_pictures(tmp_path, evaluation, []):
        content = picture.read_bytes()
        assert content.startswith(b"\x89PNG")
        width, height = struct.unpack(">II", content[16:24])
        assert 500 < width < 12_000
        assert 500 < height < 4_000


def test_a_picture_is_written_where_it_is_wanted(tmp_path, tiny_run):
    figure = draw_learning_curves(read_history(tiny_run))
    path = save_figure(figure, tmp_path / "new" / "folder" / "curves.png")
    assert path.stat().st_size > 10_000
