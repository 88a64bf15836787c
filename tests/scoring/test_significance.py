import numpy as np
import pytest
from scipy.stats import chi2
from sklearn.metrics import confusion_matrix, f1_score

from textlora.scoring.significance import (
    compare_answers,
    compare_repeats,
    compare_set_f1,
    compute_f1_intervals,
    compute_set_f1_intervals,
    compute_spread,
)


def answers(only_first, only_second, both=100, neither=10):
    first = [True] * (only_first + both) + [False] * (only_second + neither)
    second = [False] * only_first + [True] * both + [True] * only_second + [False] * neither
    return np.array(first), np.array(second)


def test_a_classifier_does_not_differ_from_itself():
    first, _ = answers(20, 20)
    found = compare_answers(first, first)
    assert (found.difference, found.p_value) == (0.0, 1.0)
    assert found.verdict == "no difference shown"


def test_exchanging_the_two_exchanges_the_verdict():
    first, second = answers(60, 20)
    one, two = compare_answers(first, second), compare_answers(second, first)
    assert (one.verdict, two.verdict) == ("better", "worse")
    assert one.p_value == two.p_value
    assert one.difference == -two.difference
    assert one.describe().startswith("better by 21.1 points (1")
    assert two.describe().startswith("worse by 21.1 points (1")


def test_the_exact_test_is_near_the_usual_formula_for_many_texts():
    first, second = answers(520, 430, both=5_000)
    statistic = (abs(520 - 430) - 1) ** 2 / (520 + 430)
    assert compare_answers(first, second).p_value == pytest.approx(
        chi2.sf(statistic, df=1), rel=0.02
    )


def test_three_more_right_answers_are_no_difference_and_words_say_so():
    found = compare_answers(*answers(23, 20))
    assert found.verdict == "no difference shown"
    assert found.describe().startswith("no difference shown (+2.0 points, -")


@pytest.mark.parametrize("both", [0, 100, 100_000])
def test_the_interval_has_zero_inside_where_the_test_shows_nothing_and_only_there(both):
    """Five texts, all to one side: the exact test cannot tell, and drawing texts anew would."""
    for only_first in range(1, 9):
        for only_second in range(3):
            found = compare_answers(*answers(only_first, only_second, both=both))
            low, high = found.interval.low, found.interval.high
            assert low <= found.difference <= high
            if found.verdict == "no difference shown":
                assert low <= 0.0 <= high
            else:
                assert low >= 0.0
    assert compare_answers(*answers(5, 0)).verdict == "no difference shown"
    assert compare_answers(*answers(6, 0)).verdict == "better"


def test_the_interval_of_a_difference_holds_it_as_often_as_it_says():
    random = np.random.default_rng(5)
    held = 0
    for trial in range(300):
        first, second = random.random(400) < 0.9, random.random(400) < 0.85
        interval = compare_answers(first, second, seed=trial).interval
        held += interval.low <= 0.05 <= interval.high
    assert 0.91 <= held / 300 <= 0.985


def test_f1_intervals_are_those_of_drawing_the_texts_themselves():
    random = np.random.default_rng(0)
    true = random.integers(3, size=500)
    given = np.where(random.random(500) < 0.8, true, random.integers(3, size=500))
    found = compute_f1_intervals(tuple(map(tuple, confusion_matrix(true, given))))
    drawn = []
    for _ in range(600):
        rows = random.integers(500, size=500)
        drawn.append(f1_score(true[rows], given[rows], average="macro"))
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert found.macro.low == pytest.approx(low, abs=0.01)
    assert found.macro.high == pytest.approx(high, abs=0.01)
    assert found.weighted.low < f1_score(true, given, average="weighted") < found.weighted.high


def test_a_class_without_texts_does_not_lower_macro_f1():
    whole = compute_f1_intervals(((50, 0, 0), (0, 50, 0), (0, 0, 0)))
    assert whole.macro.low == whole.macro.high == 1.0


def test_a_spread_is_that_of_student():
    found = compute_spread([0.90, 0.92, 0.91])
    assert (found.mean, found.deviation) == (pytest.approx(0.91), pytest.approx(0.01))
    assert found.interval.high - 0.91 == pytest.approx(4.3027 * 0.01 / 3**0.5, rel=1e-4)


def test_the_interval_of_a_share_is_one_of_shares():
    # Two that differ by a sixth: Student's alone reaches from -43 to 168 %.
    found = compute_spread([0.5417, 0.7083], most=1.0)
    assert (found.interval.low, found.interval.high) == (0.0, 1.0)
    assert compute_spread([0.5, 2.5]).interval.high > 10.0  # a loss has no upper end


def test_a_difference_within_the_spread_of_seeds_is_no_improvement():
    words = compare_repeats([0.912, 0.905, 0.918], [0.908, 0.911, 0.902]).describe()
    assert words.startswith("no difference shown (+0.5 points; seeds spread by 0.7)")
    assert (
        compare_repeats([0.95, 0.951, 0.949], [0.90, 0.901, 0.902])
        .describe()
        .startswith("better by 4.9")
    )
    assert (
        compare_repeats([0.90, 0.901, 0.902], [0.95, 0.951, 0.949])
        .describe()
        .startswith("worse by 4.9")
    )
    assert compare_repeats([0.9] * 3, [0.91, 0.92, 0.93]).p_value == pytest.approx(0.0742, abs=1e-4)
    for one, two in ((0.9, 0.91), (55 / 60, 56 / 60)):  # the second leaves rounding in the spread
        assert compare_repeats([one] * 3, [two] * 3).p_value == 1.0
    assert (
        compare_repeats([1.0, 1.0], [1.0, 1.0]).describe()
        == "+0.0 points, the same in every repeat"
    )


def test_f1_intervals_of_sets_of_one_are_those_of_single_labels():
    random = np.random.default_rng(3)
    true = random.integers(0, 3, 300)
    given = np.where(random.random(300) < 0.8, true, random.integers(0, 3, 300))
    single = compute_f1_intervals(confusion_matrix(true, given).tolist())
    sets = compute_set_f1_intervals(np.eye(3, dtype=int)[true], np.eye(3, dtype=int)[given])
    for name in ("macro", "weighted"):
        for end in ("low", "high"):
            # The same draws in another order: chance of 2,000 samples is left.
            wanted = getattr(getattr(single, name), end)
            assert getattr(getattr(sets, name), end) == pytest.approx(wanted, abs=0.01)
    assert sets.micro.low < np.mean(true == given) < sets.micro.high


def test_f1_intervals_of_sets_hold_the_figure_and_shrink_with_the_texts():
    random = np.random.default_rng(5)
    true = (random.random((1600, 4)) < 0.3).astype(int)
    given = np.where(random.random((1600, 4)) < 0.85, true, 1 - true)
    widths = []
    for count in (100, 1600):
        found = compute_set_f1_intervals(true[:count], given[:count])
        figure = f1_score(true[:count], given[:count], average="micro")
        assert found.micro.low < figure < found.micro.high
        widths.append(found.micro.high - found.micro.low)
    assert widths[1] < widths[0] / 2.5  # the square root of 16 is 4


def test_a_difference_of_f1_is_paired():
    random = np.random.default_rng(6)
    true = (random.random((400, 3)) < 0.4).astype(int)
    first = np.where(random.random((400, 3)) < 0.9, true, 1 - true)
    second = np.where(random.random((400, 3)) < 0.9, first, 1 - first)
    same = compare_set_f1(true, first, first)
    assert (same.low, same.high) == (0.0, 0.0)
    found, back = compare_set_f1(true, first, second), compare_set_f1(true, second, first)
    difference = f1_score(true, first, average="macro") - f1_score(true, second, average="macro")
    assert found.low < difference < found.high
    assert found.low > 0  # 80 % right beside 90 %, on 400 texts
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low), abs=0.01)
