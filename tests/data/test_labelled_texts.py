import csv
from collections import Counter

import datasets
import numpy as np
import pytest

from textlora.data.cleaning import clean_text
from textlora.data.labelled_texts import (
    check_labelled_texts,
    load_labelled_texts,
    load_split,
    make_labelled_texts,
)
from textlora.data.sources import read_splits
from textlora.errors import DataError, TextloraError
from textlora.settings import DataSettings

AG_NEWS_LABELS = ("World", "Sports", "Business", "Sci/Tech")
ROWS = [(f"text number {i}", "xyz"[i % 3]) for i in range(60)]


def save(path, rows, header=("text", "label")):
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return path


def load(source, **settings):
    return load_labelled_texts(DataSettings(source=str(source), **settings))


def make(rows, **settings):
    texts, labels = zip(*rows, strict=True)
    return make_labelled_texts(texts, labels, DataSettings(source="memory", **settings))


def refuse(call, *parts):
    """Check that the call raises a DataError of one line that holds the parts."""
    with pytest.raises(DataError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_loaded_texts_are_cleaned_as_the_settings_say(tmp_path):
    rows = [(f" it #39;s\n{i} ", "xy"[i % 2]) for i in range(20)]
    path = save(tmp_path / "table.csv", rows)
    assert sorted(load(path).train.texts)[0] == "it #39;s 0"
    assert sorted(load(path, repair_entities=True).train.texts)[0] == "it 's 0"


def test_title_and_description_become_one_text_with_a_space(tmp_path):
    rows = [(f"title {i}", f"body {i}", "xy"[i % 2]) for i in range(20)]
    path = save(tmp_path / "table.csv", rows, ("title", "description", "label"))
    data = load(path)
    assert set(data.train.texts + data.validation.texts) == {
        f"title {i} body {i}" for i in range(20)
    }


def test_labels_are_sorted_names_or_sorted_numbers(tmp_path):
    names = save(tmp_path / "names.csv", [(f"t{i}", ["b", "a", "C"][i % 3]) for i in range(30)])
    assert load(names, validation_share=0.2).labels == ("C", "a", "b")
    numbers = save(tmp_path / "numbers.csv", [(f"t{i}", [10, 9, 2][i % 3]) for i in range(30)])
    assert load(numbers, validation_share=0.2).labels == ("2", "9", "10")


def test_label_names_of_the_settings_give_the_order_and_the_names_of_numbers(tmp_path):
    path = save(tmp_path / "table.csv", [(f"t{i}", i % 3) for i in range(30)])
    data = load(path, label_names=("zoo", "bar", "ant"), validation_share=0.2)
    assert data.labels == ("zoo", "bar", "ant")
    for part in (data.train, data.validation):
        for text, label in zip(part.texts, part.label_ids, strict=True):
            assert int(text[1:]) % 3 == label


def test_the_order_of_a_hub_data_set_is_kept(tmp_path):
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["zoo", "ant"])}
    )
    rows = {"text": [f"t{i}" for i in range(20)], "label": [i % 2 for i in range(20)]}
    datasets.disable_progress_bars()
    (tmp_path / "data").mkdir()
    target = tmp_path / "data" / "train-00000-of-00001.parquet"
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(target))
    data = load(tmp_path)
    assert data.labels == ("zoo", "ant")
    assert all(
        int(t[1:]) % 2 == i for t, i in zip(data.train.texts, data.train.label_ids, strict=True)
    )


def test_splits_of_the_data_are_kept_as_they_are(tmp_path):
    save(tmp_path / "train.csv", ROWS)
    save(tmp_path / "dev.csv", ROWS[:6])
    save(tmp_path / "test.csv", ROWS[6:9])
    data = load(tmp_path)
    assert data.train.texts == tuple(text for text, _ in ROWS)
    assert data.validation.texts == tuple(text for text, _ in ROWS[:6])
    assert data.test.texts == tuple(text for text, _ in ROWS[6:9])
    assert data.labels == ("x", "y", "z")
    assert data.test.label_ids.tolist() == [0, 1, 2]
    assert data.train.label_ids.dtype == np.int64


def test_a_label_that_only_the_test_split_has_is_refused_with_its_place(tmp_path):
    save(tmp_path / "train.csv", ROWS)
    path = save(tmp_path / "test.csv", [("two\nlines", "x"), ("new", "w")])
    refuse(
        lambda: load(tmp_path),
        f"{path}:4: label 'w' is unknown to the training split",
        "known: x, y, z",
    )


def test_the_place_of_a_label_names_its_own_file_of_several(tmp_path):
    save(tmp_path / "train.csv", ROWS)
    save(tmp_path / "test-0.csv", ROWS[:3])
    path = save(tmp_path / "test-1.csv", [("a", "x"), ("b", "w")])
    refuse(lambda: load(tmp_path), f"{path}:3: label 'w'", "known: x, y, z")


def test_an_unknown_number_is_refused_with_the_setting_that_names_it(tmp_path):
    save(tmp_path / "train.csv", ROWS)
    path = save(tmp_path / "test.csv", [("a", "2")])
    refuse(lambda: load(tmp_path), f"{path}:2: label '2'", "known: x, y, z", "data.label_names")


def test_a_label_that_the_settings_do_not_name_is_refused(tmp_path):
    path = save(tmp_path / "table.csv", ROWS)
    refuse(
        lambda: load(path, label_names=("x", "y")),
        f"{path}:4: label 'z' is unknown to data.label_names",
        "known: x, y",
    )


@pytest.mark.parametrize(
    ("rows", "settings"),
    [
        (ROWS, {}),
        (ROWS, {"stratified": False}),
        (ROWS, {"max_train_rows": 30}),
        (ROWS, {"max_train_rows": 4}),
        (ROWS, {"validation_share": 0.01}),
        (ROWS, {"validation_share": 0.97}),
        (ROWS, {"label_names": ("x", "y")}),
        (ROWS, {"label_names": ("x", "y", "z", "w")}),
        (ROWS[:2], {}),
        (ROWS[:6], {}),
        (ROWS[::3], {}),
        ([*ROWS, ("one", "w")], {}),
        ([("", "x"), (" ", "y")], {}),
        ([("a b", "x;y"), ("c d", "x"), ("e f", "y")] * 3, {"multi_label": True}),
        ([("a b", "x;y"), ("c d", "x")], {"multi_label": True}),
        (ROWS, {"multi_label": True, "corrections": "review.csv"}),
        (ROWS, {"corrections": "nowhere.csv"}),
    ],
)
def test_a_check_refuses_what_loading_refuses(tmp_path, rows, settings):
    source = DataSettings(source=str(save(tmp_path / "train.csv", rows)), **settings)
    parts = read_splits(source, tolerant=True)
    said = []
    for ask in (check_labelled_texts, load_labelled_texts):
        try:
            ask(source, parts)
            said.append((None, ""))
        except TextloraError as error:
            said.append((type(error), str(error)))
    assert said[0] == said[1]


def test_one_class_only_is_refused(tmp_path):
    path = save(tmp_path / "table.csv", [(f"t{i}", "x") for i in range(9)])
    refuse(lambda: load(path), f"{path}: one class only, 'x'", "needs at least two")


def test_a_class_with_one_example_is_refused(tmp_path):
    path = save(tmp_path / "table.csv", [*ROWS, ("lonely", "w")])
    refuse(lambda: load(path), f"{path}: label 'w' has 1 example", "add examples or remove")


def test_a_source_without_a_training_split_is_refused(tmp_path):
    save(tmp_path / "test.csv", ROWS)
    refuse(lambda: load(tmp_path), f"{tmp_path}: no train split", "train.csv")


def test_empty_texts_are_left_out_and_noted_with_their_lines(tmp_path):
    path = save(tmp_path / "table.csv", [("", "x"), *ROWS[:9], (" \t\u3000", "y"), *ROWS[9:]])
    data = load(path)
    assert sorted(data.train.texts + data.validation.texts) == sorted(text for text, _ in ROWS)
    assert data.notes == (f"2 empty texts left out: {path}:2, {path}:12",)
    assert load(save(tmp_path / "whole.csv", ROWS)).notes == ()


def test_a_note_shows_the_first_five_of_many_empty_texts(tmp_path):
    path = save(tmp_path / "table.csv", [*ROWS, *[("", "x")] * 9])
    (note,) = load(path).notes
    assert note.startswith("9 empty texts left out: ")
    assert note.count(str(path)) == 5
    assert note.endswith(f"{path}:66, ...")


def test_a_label_of_empty_texts_only_is_no_class(tmp_path):
    path = save(tmp_path / "table.csv", [*ROWS, ("", "w")])
    assert load(path).labels == ("x", "y", "z")


def test_empty_texts_only_are_refused(tmp_path):
    path = save(tmp_path / "table.csv", [("", "x"), ("  ", "y"), ("\n", "y")])
    refuse(lambda: load(path), f"{path}: all 3 texts are empty", "check the text column")


def test_the_fingerprint_is_the_same_for_the_same_data(tmp_path):
    one = save(tmp_path / "one.csv", ROWS)
    two = save(tmp_path / "two.csv", [(f"  {text}\n", label) for text, label in ROWS])
    assert load(one).fingerprint == load(two).fingerprint == make(ROWS).fingerprint


@pytest.mark.parametrize(
    "rows",
    [
        [("text number 0!", "x"), *ROWS[1:]],
        [(ROWS[0][0], "y"), *ROWS[1:]],
        [(text, label.upper()) for text, label in ROWS],
        ROWS[:-1],
        [*ROWS[1:], ROWS[0]],
    ],
    ids=["a text", "a label", "a label name", "a row less", "another order"],
)
def test_the_fingerprint_changes_with_the_data(rows):
    # The plain split, because the stratified one moves with the labels.
    changed, original = (make(each, stratified=False) for each in (rows, ROWS))
    assert changed.fingerprint != original.fingerprint


def test_the_fingerprint_changes_with_the_split():
    assert make(ROWS, split_seed=1).fingerprint != make(ROWS, split_seed=2).fingerprint


def test_the_fingerprint_does_not_depend_on_the_test_split(tmp_path):
    save(tmp_path / "train.csv", ROWS)
    alone = load(tmp_path).fingerprint
    save(tmp_path / "test.csv", ROWS[:3])
    assert load(tmp_path).fingerprint == alone


def test_max_train_rows_is_a_seeded_sample_in_the_order_of_the_data(tmp_path):
    save(tmp_path / "train.csv", ROWS)
    save(tmp_path / "dev.csv", ROWS[:5])
    save(tmp_path / "test.csv", ROWS[:7])
    data = load(tmp_path, max_train_rows=20)
    assert len(data.train.texts) == 20
    pairs = list(zip(data.train.texts, ("xyz"[i] for i in data.train.label_ids), strict=True))
    assert pairs == [row for row in ROWS if row in pairs]
    assert pairs != ROWS[:20]
    assert (len(data.validation.texts), len(data.test.texts)) == (5, 7)
    assert load(tmp_path, max_train_rows=20).train.texts == data.train.texts
    assert load(tmp_path, max_train_rows=20, split_seed=7).train.texts != data.train.texts
    assert load(tmp_path, max_train_rows=600).train.texts == load(tmp_path).train.texts


def test_texts_in_memory_are_treated_as_those_of_a_file(tmp_path):
    path = save(tmp_path / "table.csv", ROWS)
    for settings in ({}, {"max_train_rows": 30}, {"stratified": False}):
        ours, theirs = make(ROWS, **settings), load(path, **settings)
        assert ours.fingerprint == theirs.fingerprint
        assert ours.train.texts == theirs.train.texts


def test_texts_and_labels_in_memory_must_be_as_many():
    refuse(
        lambda: make_labelled_texts(["a", "b"], ["x"], DataSettings()),
        "texts and labels: 2 texts, 1 labels; give as many",
    )


def test_texts_in_memory_are_refused_with_their_index():
    refuse(
        lambda: make(ROWS, label_names=("x", "y")),
        "texts:2: label 'z' is unknown to data.label_names",
        "known: x, y",
    )
    assert make([*ROWS, (" ", "x")]).notes == ("1 empty texts left out: texts:60",)


def test_evaluation_matches_labels_by_name_not_by_position(tmp_path):
    save(tmp_path / "train.csv", ROWS)
    save(tmp_path / "test.csv", [("a", "y"), ("b", "x"), ("c", "y")])
    settings = DataSettings(source=str(tmp_path))
    assert load_split(settings, "test", ("x", "y", "z")).label_ids.tolist() == [1, 0, 1]
    assert load_split(settings, "test", ("z", "y", "x")).label_ids.tolist() == [1, 2, 1]


def test_evaluation_reads_the_names_of_a_parquet_files_own_numbers(tmp_path):
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["b", "a"])}
    )
    datasets.disable_progress_bars()
    table = datasets.Dataset.from_dict({"text": ["t", "u"], "label": [0, 1]}, features=features)
    table.to_parquet(str(tmp_path / "test.parquet"))
    examples = load_split(DataSettings(source=str(tmp_path)), "test", ("a", "b"))
    assert examples.label_ids.tolist() == [1, 0]


def test_a_source_with_one_split_gives_it_under_every_name(tmp_path):
    settings = DataSettings(source=str(save(tmp_path / "some.csv", [*ROWS, ("", "x")])))
    assert load_split(settings, "test", ("x", "y", "z")).texts == tuple(text for text, _ in ROWS)


def test_a_missing_split_is_refused_with_those_there_are(tmp_path):
    save(tmp_path / "train.csv", ROWS)
    save(tmp_path / "test.csv", ROWS)
    settings = DataSettings(source=str(tmp_path))
    refuse(
        lambda: load_split(settings, "validation", ("x",)),
        f"{tmp_path}: no 'validation' split; it has ",
        "train",
        "test",
    )


def test_a_label_that_the_classifier_does_not_know_is_refused_with_its_place(tmp_path):
    path = save(tmp_path / "some.csv", ROWS)
    settings = DataSettings(source=str(path))
    refuse(
        lambda: load_split(settings, "test", ("x", "y")),
        f"{path}:4: label 'z' is unknown to the classifier",
        "known: x, y",
    )


def test_ag_news_is_split_as_the_datasets_library_splits_it(ag_news):
    data = load(ag_news, stratified=False)
    assert data.labels == AG_NEWS_LABELS
    assert len(data.test.texts) == 7600
    assert Counter(data.test.label_ids.tolist()) == dict.fromkeys(range(4), 1900)
    table = datasets.Dataset.from_parquet(
        str(ag_news / "data" / "train-00000-of-00001.parquet"), keep_in_memory=True
    )
    theirs = table.train_test_split(test_size=0.1, seed=42, keep_in_memory=True)
    assert data.validation.label_ids.tolist() == list(theirs["test"]["label"])
    assert data.train.label_ids.tolist() == list(theirs["train"]["label"])
    assert data.validation.texts[0] == clean_text(theirs["test"]["text"][0])
