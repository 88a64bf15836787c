"""Close calls are answered again by the exact backend, and by no other text."""

import numpy as np
import pytest

from textlora.model.batching import TokenizedTexts
from textlora.prediction.cascade import CascadeBackend, find_margin
from textlora.scoring.tasks import MultiLabel, SingleLabel

TASKS = [SingleLabel(), MultiLabel((0.3, 0.5, 0.5, 0.8))]
TEMPERATURE = 1.4
NOISE = 0.02  # what int8 does to logits of MiniLM, rms (benchmarks/results/int8_variants.json)


class Table:
    """A backend that looks its logits up: the one token of a text is the row."""

    def __init__(self, logits):
        self.logits, self.identity, self.asked = logits, "table", []

    def compute_logits(self, tokens, check=lambda: None):
        check()
        self.asked.extend(tokens.token_ids.tolist())
        return self.logits[tokens.token_ids].copy()


def make_tokens(count):
    return TokenizedTexts(
        np.arange(count, dtype=np.int32), np.arange(count + 1), np.zeros(count, np.bool_)
    )


def make_logits(count, seed):
    """Some texts in a hundred are near a tie, as classifiers have them."""
    random = np.random.default_rng(seed)
    exact = random.normal(0, 1, (count, 4)).astype(np.float32)
    return exact, (exact + random.normal(0, NOISE, exact.shape)).astype(np.float32)


def decide(task, logits):
    return task.decide(task.compute_probabilities(logits, logits.shape[1], TEMPERATURE))


def lead_of(task):
    return lambda logits: task.margin(logits, TEMPERATURE)


@pytest.mark.parametrize("task", TASKS)
def test_rounding_changes_no_answer_where_it_would_without_the_cascade(task):
    probe = make_logits(300, seed=0)
    margin = find_margin(lead_of(task)(probe[1]), task.margin_shift(probe[1], probe[0]))
    exact, quick = make_logits(20_000, seed=1)
    expected = decide(task, exact)
    alone = 1 - task.match(decide(task, quick), expected).mean()
    exact_table = Table(exact)
    cascade = CascadeBackend(Table(quick), lambda: exact_table, lead_of(task), margin)
    found = decide(task, cascade.compute_logits(make_tokens(20_000)))
    assert alone > 0.005
    assert 1 - task.match(found, expected).mean() < 0.001
    assert len(exact_table.asked) < 0.1 * len(quick)


@pytest.mark.parametrize("task", TASKS)
def test_the_lead_is_the_least_change_that_gives_another_answer(task):
    logits = make_logits(200, seed=3)[0]
    leads = task.margin(logits, TEMPERATURE)
    before = decide(task, logits)
    steps = np.concatenate([np.eye(4), -np.eye(4)])  # one logit up or down
    for share, changed in ((0.99, False), (1.01, True)):
        moved = [logits + share * leads[:, None] * step for step in steps]
        found = np.array([~task.match(decide(task, m.astype(np.float32)), before) for m in moved])
        assert found.any(axis=0).all() == changed
        assert found.any() == changed


def test_each_text_is_answered_by_the_backend_that_it_belongs_to():
    quick = np.array([[0.0, 1.0], [0.50, 0.55], [2.0, 0.0], [0.3, 0.3]], np.float32)
    exact = Table(np.full((4, 2), 9.0, np.float32))
    cascade = CascadeBackend(Table(quick), lambda: exact, lead_of(SingleLabel()), 0.1)
    found = cascade.compute_logits(make_tokens(4))
    assert exact.asked == [1, 3]
    assert np.array_equal(found, np.where([[0], [1], [0], [1]], np.float32(9.0), quick))


@pytest.mark.parametrize("count", [0, 5])
def test_the_exact_backend_is_not_opened_for_sure_answers(count):
    def refuse():
        raise AssertionError("opened")

    quick = Table(np.tile(np.array([[0.0, 5.0]], np.float32), (5, 1)))
    cascade = CascadeBackend(quick, refuse, lead_of(SingleLabel()), 0.1)
    found = cascade.compute_logits(make_tokens(count))
    assert len(found) == count


def test_the_margin_is_the_smallest_that_leaves_one_in_a_thousand():
    random = np.random.default_rng(2)
    leads, shifts = random.exponential(1.0, 500), np.abs(random.normal(0, 0.05, 500))
    margin = find_margin(leads, shifts)

    def expect(least):
        pairs = shifts[None] >= leads[:, None]
        return pairs[leads >= least].sum() / 500**2

    assert expect(margin) <= 0.001 < expect(leads[leads < margin].max())
    assert find_margin(leads + 1, shifts) == 0.0  # no shift undoes any lead
    assert find_margin(leads, shifts + 100) > leads.max()  # every text is answered again


def test_both_are_checked_before_they_compute():
    stops = []
    quick = Table(np.zeros((2, 2), np.float32))
    cascade = CascadeBackend(quick, lambda: quick, lead_of(SingleLabel()), 0.1)
    cascade.compute_logits(make_tokens(2), lambda: stops.append(1))
    assert len(stops) == 2
