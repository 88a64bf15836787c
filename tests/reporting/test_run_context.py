"""The page's words about data, cost and seeds; and that noise is never called better."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from textlora.checking.findings import DataCheck, SplitFacts
from textlora.evaluation.evaluation import read_evaluations
from textlora.reporting.run_context import (
    format_seconds,
    judge_baseline,
    judge_runs,
    read_circumstances,
)
from textlora.runs.provenance import write_data_check
from textlora.scoring.significance import compare_answers, compare_repeats, compute_spread

CLEAR = ([0.95, 0.951, 0.949], [0.90, 0.901, 0.902])
NOISY = ([0.95, 0.89, 0.92], [0.91, 0.93, 0.90])
EQUAL = ([0.9, 0.9], [0.9, 0.9])


def answers(share, count=400):
    return np.arange(count) < share * count


@pytest.mark.parametrize("texts", [(0.95, 0.80), (0.90, 0.90), (0.80, 0.95)])
@pytest.mark.parametrize("seeds", [CLEAR, NOISY, EQUAL, CLEAR[::-1]])
def test_better_needs_both_tests(texts, seeds):
    paired = compare_answers(*map(answers, texts))
    repeated = compare_repeats(*seeds)
    words = judge_runs(paired, repeated)
    agree = paired.verdict == repeated.verdict != "no difference shown"
    assert ("better" in words or "worse" in words) == agree
    assert words.startswith("no difference shown") == (not agree)
    if agree:
        assert words.startswith(paired.verdict)


def test_without_seeds_the_texts_decide():
    for texts in itertools.product((0.8, 0.9), repeat=2):
        paired = compare_answers(*map(answers, texts))
        assert judge_runs(paired, None) == paired.describe()


def test_a_baseline_within_the_seeds_is_not_beaten(tiny_run):
    baseline = replace(read_evaluations(tiny_run)[1].baselines[0], accuracy=0.9)
    assert baseline.verdict.startswith("better")
    assert judge_baseline(baseline, {}) == baseline.verdict
    apart = {"accuracy": compute_spread([0.95, 0.951, 0.949])}
    assert judge_baseline(baseline, apart) == baseline.verdict
    around = {"accuracy": compute_spread([0.95, 0.88, 0.92])}
    assert judge_baseline(baseline, around).startswith("no difference shown")
    below = {"accuracy": compute_spread([0.5, 0.51, 0.52])}
    assert judge_baseline(baseline, below).startswith("no difference shown")
    # What one run is shown to be worse than stays so.
    worse = replace(baseline, comparison=compare_answers(answers(0.5), answers(0.9)), verdict="w")
    assert judge_baseline(worse, around) == "w"


def test_labels_are_counted_in_every_split_and_the_rest_are_told(tiny_run, tmp_path):
    many = {f"label {i}": 100 - i for i in range(50)}
    splits = (SplitFacts("test", 10, {"label 2": 5}, None), SplitFacts("train", 1_000, many, None))
    write_data_check(tmp_path, DataCheck("x.csv", splits, ()))
    found = read_circumstances(tmp_path, "test")
    assert found.num_labels == 50
    assert len(found.balance) == 30
    assert found.balance[2].counts == (98, 5)
    assert found.balance[2].shares == (98 / sum(many.values()), 1.0)
    sets = (SplitFacts("train", 60, {"a": 30, "b": 15}, None, unlabelled=20),)
    write_data_check(tmp_path, DataCheck("x.csv", sets, ()))
    balance = read_circumstances(tmp_path, "test").balance
    assert [item.shares for item in balance] == [(0.5,), (0.25,)]  # of the rows, as in `check`
    assert found.cost == found.machine == ()
    assert found.trained_in == found.mean == ""
    facts = {fact.name: fact.value for fact in read_circumstances(tiny_run, "test").machine}
    assert facts["number format"].split()[0] in ("float32", "bfloat16")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.44, "0.4 s"), (71.2, "71 s"), (119.7, "2 min 0 s"), (7_265, "2 h 1 min"), (99.99, "100 s")],
)
def test_times_are_said_in_two_units(seconds, words):
    assert format_seconds(seconds) == words
