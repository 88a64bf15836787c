import itertools

import pytest

from textlora.data.multilabel_cells import (
    are_indicators,
    find_separator,
    is_broken_list,
    join_labels,
    list_elements,
    read_list,
    split_labels,
)


def test_order_and_repeats_in_a_cell_do_not_matter():
    cells = [";".join(names) for names in itertools.permutations(("b", "a", "c"))] + ["a;b;c;a"]
    assert {join_labels(list_elements(cell, ";"), ";") for cell in cells} == {"a;b;c"}


@pytest.mark.parametrize("separator", [";", "|", ",", " / "])
def test_a_set_comes_back_from_its_text(separator):
    names = ("late delivery", "refund", "Zoll")
    assert set(split_labels(join_labels(names, separator), separator)) == set(names)
    assert split_labels("", separator) == ()


def test_a_cell_may_be_a_list_a_text_a_number_or_nothing():
    assert list_elements(["a", None, "b;c"], ";") == ["a", "b;c"]
    assert list_elements("a; b", ";") == ["a", " b"]
    assert list_elements(3, ";") == [3]
    assert list_elements(None, ";") == list_elements(float("nan"), ";") == []


@pytest.mark.parametrize("separator", [";", "|", ","])
def test_labels_that_are_several_are_noticed(separator):
    labels = [f"a{separator}b", f"b{separator}c", f"a{separator}c", f"c{separator}b", "a"]
    assert find_separator(labels) == separator


@pytest.mark.parametrize("labels", [["a|b", "a", "b", "c"], ["q", "food, drink", "drink", "food"]])
def test_one_label_whose_parts_are_all_labels_is_noticed(labels):
    assert find_separator(labels) in ("|", ",")


@pytest.mark.parametrize(
    ("text", "listed"),
    [
        ('["late", "refund; full"]', ["late", "refund; full"]),
        ("['late', \"it's\"]", ["late", "it's"]),  # as pandas writes a column of lists
        (r"['\d']", [r"\d"]),
        (" [1, 0] ", [1, 0]),
        ("[]", []),
        ("late;refund", None),
        ("[late]", None),
        ("[/b]", None),
        ("['late' 'refund']", None),  # numpy's: Python would join them
        ("['late'", None),
        ("[" * 100_000 + "]", None),
        ("(1, 2)", None),
    ],
)
def test_a_list_may_be_written_into_a_cell(text, listed):
    assert read_list(text) == listed
    assert list_elements(text, ";") == (text.split(";") if listed is None else listed)
    assert is_broken_list(text) == (text == "['late' 'refund']")


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ([[1, 0, 1], [0, 0, 1]], True),
        ([[True, False], [True, True]], True),
        ([["1", " 0", "0"], ["0", "0", "0"]], True),
        ([[1.0, 0.0, 0.0]], True),
        ([[0, 1], [1, 0]], False),  # sets of the labels 0 and 1
        ([[0], [1]], False),
        ([[0, 1, 2], [1, 0, 3]], False),
        ([[0, 1, 1], [1]], False),
        ([["a", "a"], ["a", "b"]], False),
        ([], False),
    ],
)
def test_ones_and_zeros_are_told_from_sets_of_the_labels_0_and_1(rows, found):
    assert are_indicators(rows) is found


@pytest.mark.parametrize(
    "labels",
    [
        ["World", "Sports"],
        ["Science, Technology", "Food, Drink", "Arts, Music"],  # no part recurs: names with commas
        ["a;b", "a", "c", "d"],
        [],
    ],
)
def test_names_that_only_hold_a_comma_are_left_alone(labels):
    assert find_separator(labels) == ""
