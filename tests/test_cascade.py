"""Close calls are answered again by the exact backend, and by no other text."""

import numpy as np
import pytest

from textlora.batching import TokenizedTexts
from textlora.cascade import CascadeBackend, find_close_calls, find_margin

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


def test_rounding_changes_no_label_where_it_would_without_the_cascade():
    probe = make_logits(300, seed=0)
    margin = find_margin(probe[1], probe[0])
    exact, quick = make_logits(20_000, seed=1)
    alone = (quick.argmax(axis=1) != exact.argmax(axis=1)).mean()
    cascade = CascadeBackend(Table(quick), lambda: Table(exact), margin)
    found = cascade.compute_logits(make_tokens(20_000))
    assert alone > 0.005
    assert (found.argmax(axis=1) != exact.argmax(axis=1)).mean() < alone / 20
    assert len(find_close_calls(quick, margin)) < 0.1 * len(quick)


def test_each_text_is_answered_by_the_backend_that_it_belongs_to():
    quick = np.array([[0.0, 1.0], [0.50, 0.55], [2.0, 0.0], [0.3, 0.3]], np.float32)
    exact = Table(np.full((4, 2), 9.0, np.float32))
    found = CascadeBackend(Table(quick), lambda: exact, 0.1).compute_logits(make_tokens(4))
    assert exact.asked == [1, 3]
    assert np.array_equal(found, np.where([[0], [1], [0], [1]], np.float32(9.0), quick))


@pytest.mark.parametrize("count", [0, 5])
def test_the_exact_backend_is_not_opened_for_sure_answers(count):
    def refuse():
        raise AssertionError("opened")

    quick = Table(np.tile(np.array([[0.0, 5.0]], np.float32), (5, 1)))
    found = CascadeBackend(quick, refuse, 0.1).compute_logits(make_tokens(count))
    assert len(found) == count


def test_the_margin_covers_what_99_of_100_leads_move_by():
    exact, quick = make_logits(1_000, seed=2)
    margin = find_margin(quick, exact)
    rows, best = np.arange(1_000), quick.argmax(axis=1)
    second = np.argsort(quick, axis=1)[:, -2]
    leads = [logits[rows, best] - logits[rows, second] for logits in (quick, exact)]
    assert (np.abs(leads[0] - leads[1]) <= margin).mean() >= 0.99
    assert find_margin(exact, exact) == 0.0


def test_both_are_checked_before_they_compute():
    stops = []
    quick = Table(np.zeros((2, 2), np.float32))
    cascade = CascadeBackend(quick, lambda: quick, 0.1)
    cascade.compute_logits(make_tokens(2), lambda: stops.append(1))
    assert len(stops) == 2
