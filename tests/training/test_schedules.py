import pytest

from textlora.training.schedules import compute_dropout, compute_learning_rate


def rates(**changes):
    settings = {"peak": 1.0, "warmup_steps": 10, "total_steps": 100} | changes
    return [compute_learning_rate(step, **settings) for step in range(settings["total_steps"])]


def test_the_rate_rises_to_the_peak_and_falls_towards_zero():
    values = rates()
    assert values[9] == 1.0
    assert max(values) == 1.0
    assert values[:10] == sorted(values[:10])
    assert values[9:] == sorted(values[9:], reverse=True)
    assert 0.0 < values[0] <= 0.1
    assert 0.0 < values[-1] < 0.02


def test_no_step_is_wasted_without_warm_up():
    values = rates(warmup_steps=0)
    assert values[0] == 1.0
    assert min(values) > 0.0


def test_cosine_is_above_linear_first_and_below_it_later():
    linear, cosine = rates(warmup_steps=0), rates(warmup_steps=0, shape="cosine")
    assert cosine[25] > linear[25]
    assert cosine[75] < linear[75]
    assert cosine[50] == pytest.approx(linear[50])


@pytest.mark.parametrize("shape", ["linear", "cosine"])
@pytest.mark.parametrize(("start", "end"), [(0.15, 0.05), (0.0, 0.1), (0.1, 0.0), (0.1, 0.1)])
def test_dropout_starts_and_ends_exactly_and_moves_one_way(start, end, shape):
    values = [
        compute_dropout(step, start=start, end=end, total_steps=37, shape=shape)
        for step in range(37)
    ]
    assert values[0] == start
    assert values[-1] == end
    assert values == sorted(values, reverse=start > end)
    if start != end:
        assert len(set(values)) == 37  # at every step, not at epoch starts


def test_dropout_of_a_single_step_is_its_start():
    assert compute_dropout(0, start=0.2, end=0.0, total_steps=1) == 0.2
