import itertools

import pytest

from textlora.labelsets import find_separator, join_labels, list_elements, split_labels


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


@pytest.mark.parametrize(
    "labels",
    [
        ["World", "Sports"],
        ["Science, Technology", "Food, Drink", "Arts, Music"],  # no part recurs: names with commas
        ["a;b", "a", "b", "c"],
        [],
    ],
)
def test_names_that_only_hold_a_comma_are_left_alone(labels):
    assert find_separator(labels) == ""
