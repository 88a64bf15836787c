import csv
import io
import random
from dataclasses import replace

import pytest

from textlora.sweep.trials import (
    Trial,
    compute_margin,
    compute_standard_error,
    find_front,
    format_table,
    rank_trials,
)


def make_trial(number, accuracy, parameters=100, seconds=1.0, outcome="finished"):
    figures = {"accuracy": accuracy}
    return Trial(number, outcome, {"adapter.rank": number}, accuracy, figures, {}, parameters,
                 seconds)  # fmt: skip


@pytest.mark.parametrize("seed", range(20))
def test_the_front_is_what_no_other_point_beats(seed):
    draw = random.Random(seed)
    # Few values, so that there are ties in either and in both.
    points = [(draw.randrange(6), draw.randrange(6)) for _ in range(draw.randrange(1, 25))]
    beaten = {
        i
        for i, (cost, score) in enumerate(points)
        for other_cost, other_score in points
        if other_cost <= cost and other_score >= score and (other_cost, other_score) != points[i]
    }
    front = find_front([cost for cost, _ in points], [score for _, score in points])
    assert set(front) == set(range(len(points))) - beaten
    assert len(front) == len(set(front))
    assert [points[i][0] for i in front] == sorted(points[i][0] for i in front)


def test_equal_trials_are_ranked_by_parameters_then_by_time():
    trials = [
        make_trial(0, 0.9, 300),
        make_trial(1, 0.9, 200, 5.0),
        make_trial(2, 0.9, 200, 4.0),
        make_trial(3, 0.95, 900),
        make_trial(4, 0.99, 1, outcome="pruned"),
    ]
    assert [t.number for t in rank_trials(trials, smaller_is_better=False)] == [3, 2, 1, 0]
    assert [t.number for t in rank_trials(trials, smaller_is_better=True)] == [2, 1, 0, 3]


def test_the_standard_error_is_that_of_drawing_texts():
    draw = random.Random(0)
    shares = [sum(draw.random() < 0.8 for _ in range(200)) / 200 for _ in range(4_000)]
    spread = (sum((share - 0.8) ** 2 for share in shares) / len(shares)) ** 0.5
    assert compute_standard_error(0.8, 200) == pytest.approx(spread, rel=0.05)
    assert compute_standard_error(1.0, 50) > 0.0


def describe(*ranked, metric="accuracy"):
    return compute_margin(ranked, 180, metric).describe()


def test_the_verdict_says_what_these_texts_cannot_tell_apart():
    ranked = [make_trial(4, 0.90, 500), make_trial(2, 0.89, 90), make_trial(1, 0.70, 10)]
    margin = compute_margin(ranked, 180, "accuracy")
    assert [trial.number for trial in margin.close] == [2]
    assert margin.describe().endswith(
        "1 of the 2 others are within that, and these texts cannot tell them apart: the smallest "
        "of them is trial 2 with 90 parameters"
    )
    assert "may still be chance" in describe(ranked[0], make_trial(3, 0.87))
    assert "two standard errors" in describe(ranked[0], ranked[2])
    assert "no other trial" in describe(ranked[0])


def test_the_best_by_loss_is_not_called_the_most_accurate():
    found = describe(make_trial(0, 0.80), make_trial(1, 0.95), metric="loss")
    assert found.endswith(
        "another has 15.0 points more: the loss of validation has chosen, see training.best_metric"
    )


def test_by_another_metric_the_smallest_of_equals_is_shown_with_what_it_lacks():
    best, other = make_trial(0, 0.80, 500), make_trial(1, 0.81, 90)
    best, other = replace(best, value=0.744), replace(other, value=0.167)
    assert describe(best, other, metric="f1_macro").endswith(
        "cannot tell them apart by accuracy: the smallest of them is trial 1 with 90 parameters "
        "(f1_macro 16.70% beside 74.40%)"
    )


def test_of_equals_as_large_as_the_best_none_is_named():
    ranked = [make_trial(0, 0.9, 500, seconds=9.0), make_trial(1, 0.9, 500, seconds=1.0)]
    assert describe(*ranked).endswith("apart: none of them is smaller")


def test_the_table_holds_every_trial_with_its_settings():
    trials = [
        make_trial(0, 0.5),
        Trial(1, "refused", {"adapter.targets": {"all": ["query"]}}, reason="over, far over"),
    ]
    rows = list(csv.DictReader(io.StringIO(format_table(trials))))
    assert [row["trial"] for row in rows] == ["0", "1"]
    assert (rows[0]["adapter.rank"], rows[0]["accuracy"], rows[0]["value"]) == ("0", "0.5", "0.5")
    assert rows[1]["adapter.targets"] == '{"all": ["query"]}'
    assert (rows[1]["reason"], rows[1]["value"]) == ("over, far over", "")
