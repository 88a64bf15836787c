import numpy as np
import pytest

from textlora.data.stratification import hold_out_sets


def make_matrix(count, shares, seed=0):
    return (np.random.default_rng(seed).random((count, len(shares))) < shares).astype(np.int64)


def test_the_parts_are_disjoint_and_whole_and_follow_the_seed():
    matrix = make_matrix(200, (0.5, 0.2, 0.05))
    kept, held_out = hold_out_sets(matrix, 40, seed=1)
    assert sorted([*kept, *held_out]) == list(range(200))
    assert np.array_equal(hold_out_sets(matrix, 40, seed=1)[1], held_out)
    assert not np.array_equal(hold_out_sets(matrix, 40, seed=2)[1], held_out)


@pytest.mark.parametrize("seed", range(5))
def test_each_label_keeps_its_share_far_better_than_by_chance(seed):
    matrix = make_matrix(400, (0.6, 0.3, 0.1, 0.04, 0.02), seed)
    kept, held_out = hold_out_sets(matrix, 80, seed)
    assert len(held_out) == 80
    counts = matrix[held_out].sum(axis=0)
    assert np.abs(counts - 0.2 * matrix.sum(axis=0)).max() <= 2
    drawn = np.random.default_rng(seed).permutation(400)[:80]
    by_chance = np.abs(matrix[drawn].sum(axis=0) - 0.2 * matrix.sum(axis=0)).max()
    assert by_chance > 2  # what a plain split does to these very labels


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_every_label_is_in_the_part_that_is_kept(share):
    matrix = make_matrix(60, (0.05,) * 12, seed=3)
    kept, held_out = hold_out_sets(matrix, round(60 * share), seed=0)
    assert matrix[kept].any(axis=0).tolist() == matrix.any(axis=0).tolist()
    assert len(held_out) > 0


@pytest.mark.parametrize("rows_each", [2, 3, 4])
@pytest.mark.parametrize("num_held_out", [6, 9, 12])
def test_of_rare_labels_as_many_rows_are_held_out_as_of_others(rows_each, num_held_out):
    matrix = np.eye(20, dtype=np.int64).repeat(rows_each, axis=0)
    kept, held_out = hold_out_sets(matrix, num_held_out, seed=0)
    assert len(held_out) == num_held_out
    assert matrix[held_out].sum(axis=0).max() == 1  # of many labels one, of none two
    assert matrix[kept].any(axis=0).all()


def test_the_only_row_of_a_label_is_kept_though_fewer_are_held_out():
    matrix = np.eye(10, dtype=np.int64)
    matrix[:3] = [1] + [0] * 9
    kept, held_out = hold_out_sets(matrix, 5, seed=0)
    assert len(held_out) == 2
    assert matrix[kept].any(axis=0).tolist() == matrix.any(axis=0).tolist()


def test_texts_without_a_label_are_dealt_out_too():
    matrix = np.zeros((50, 2), np.int64)
    matrix[:10, 0] = 1
    kept, held_out = hold_out_sets(matrix, 10, seed=0)
    assert len(held_out) == 10
    assert matrix[held_out, 0].sum() == 2
