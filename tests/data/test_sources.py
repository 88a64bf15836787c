import csv
import gzip
import os
import subprocess
import sys
import time

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from textlora.data.columns import find_text_columns
from textlora.data.sources import read_splits
from textlora.errors import DataError, SettingsError
from textlora.settings import DataSettings, load_recipe

AG_NEWS_LABELS = ("World", "Sports", "Business", "Sci/Tech")


@pytest.fixture(autouse=True)
def quiet_datasets():
    datasets.disable_progress_bars()


def save_csv(path, *rows, delimiter=","):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, delimiter=delimiter).writerows(rows)
    return path


def save_hub_parquet(path, texts, labels, names):
    """One file as the `datasets` library leaves it on the Hub, label names inside."""
    path.parent.mkdir(parents=True, exist_ok=True)
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)}
    )
    rows = {"text": texts, "label": labels}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(path))
    return path


def read(source, **settings):
    return read_splits(DataSettings(source=str(source), **settings))


def refuse(source, *parts, **settings):
    """Check that the source is refused in one line that holds the parts."""
    with pytest.raises(DataError) as caught:
        read(source, **settings)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
    return message


def test_a_folder_gives_one_split_a_file(tmp_path):
    save_csv(tmp_path / "train.csv", ("text", "label"), ("a", "x"), ("b", "y"))
    save_csv(tmp_path / "test.csv", ("label", "text"), ("x", "c"))
    save_csv(tmp_path / "other.csv", ("nothing",), ("here",))
    (tmp_path / "README.md").write_text("not data")
    parts = read(tmp_path)
    assert sorted(parts) == ["test", "train"]
    assert parts["train"].texts == ["a", "b"]
    assert parts["train"].labels == ["x", "y"]
    assert parts["train"].lines == [2, 3]
    assert parts["test"].texts == ["c"]
    assert parts["test"].labels == ["x"]
    assert parts["test"].files == [str(tmp_path / "test.csv")]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.csv", "train"),
        ("training.csv", "train"),
        ("Train.CSV", "train"),
        ("train-00000-of-00002.csv", "train"),
        ("validation.csv", "validation"),
        ("valid.csv", "validation"),
        ("val.csv", "validation"),
        ("dev_1.csv", "validation"),
        ("test.csv", "test"),
        ("testing.csv", "test"),
        ("data/test.csv", "test"),
    ],
)
def test_splits_are_known_by_their_usual_names(name, split, tmp_path):
    save_csv(tmp_path / name, ("text", "label"), ("a", "x"))
    assert list(read(tmp_path)) == [split]


def test_a_folder_reads_every_format_and_compressed_files(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"text": "a", "label": "x"}\n')
    (tmp_path / "dev.tsv").write_text("text\tlabel\nb\ty\n")
    (tmp_path / "test.csv.gz").write_bytes(gzip.compress(b"text,label\nc,x\n"))
    parts = read(tmp_path)
    assert {name: part.texts for name, part in parts.items()} == {
        "train": ["a"],
        "validation": ["b"],
        "test": ["c"],
    }


@pytest.mark.parametrize("other", ["train.csv.gz", "train.tsv", "train-1.csv", "data/train.csv"])
def test_a_copy_of_a_split_is_not_joined_to_it(other, tmp_path):
    """Else most validation texts would be trained on."""
    save_csv(tmp_path / "train.csv", ("text", "label"), ("a", "x"))
    (tmp_path / other).parent.mkdir(exist_ok=True)
    (tmp_path / other).write_bytes((tmp_path / "train.csv").read_bytes())
    with pytest.raises(DataError, match=r"the train split is there twice \(.*; keep one of them"):
        read(tmp_path)


def test_what_only_begins_like_a_split_is_no_data(tmp_path):
    for name in ("train.csv", "train.old.csv", "test.labelled.csv", "test_predictions.csv"):
        save_csv(tmp_path / name, ("text", "label"), ("a", "x"))
    assert {name: len(part.texts) for name, part in read(tmp_path).items()} == {"train": 1}


def test_of_two_columns_that_differ_by_case_the_small_one_is_read(tmp_path):
    """`predict --keep-columns` writes Label beside label: the answer beside the truth."""
    for header in ("text,label,Label,Text", "Text,Label,label,text"):
        rows = "x,1,2,y" if header[0] == "t" else "y,2,1,x"
        (tmp_path / "train.csv").write_text(f"{header}\n{rows}\n")
        part = read(tmp_path)["train"]
        assert (part.texts, part.labels) == (["x"], ["1"])


def test_a_split_in_several_files_keeps_the_file_and_line_of_each_text(tmp_path):
    first = save_csv(tmp_path / "train-0.csv", ("text", "label"), ("a", "x"), ("b", "y"))
    second = save_csv(tmp_path / "train-1.csv", ("label", "text"), ("x", "c"))
    part = read(tmp_path)["train"]
    assert part.texts == ["a", "b", "c"]
    assert part.labels == ["x", "y", "x"]
    assert part.files == [str(first), str(first), str(second)]
    assert part.lines == [2, 3, 2]


def test_the_layout_of_a_hub_data_set_brings_its_label_names(tmp_path):
    names = ["zebra", "ant"]
    data = tmp_path / "data"
    save_hub_parquet(data / "train-00000-of-00002.parquet", ["a", "b"], [0, 1], names)
    save_hub_parquet(data / "train-00001-of-00002.parquet", ["c"], [1], names)
    save_hub_parquet(data / "test-00000-of-00001.parquet", ["d"], [0], names)
    parts = read(tmp_path)
    assert sorted(parts) == ["test", "train"]
    assert parts["train"].texts == ["a", "b", "c"]
    assert parts["train"].labels == ["zebra", "ant", "ant"]
    assert parts["train"].lines == [1, 2, 3]
    assert parts["train"].order == ("zebra", "ant")
    assert parts["test"].labels == ["zebra"]


def test_a_parquet_file_without_label_names_takes_those_of_the_settings(tmp_path):
    pq.write_table(pa.table({"text": ["a", "b"], "label": [1, 0]}), tmp_path / "train.parquet")
    assert read(tmp_path)["train"].labels == ["1", "0"]
    assert read(tmp_path, label_names=("no", "yes"))["train"].labels == ["yes", "no"]


def test_parquet_and_other_files_may_stand_side_by_side(tmp_path):
    pq.write_table(pa.table({"text": ["a"], "label": [1.0]}), tmp_path / "train.parquet")
    save_csv(tmp_path / "test.csv", ("text", "label"), ("b", "1"))
    parts = read(tmp_path)
    assert parts["train"].labels == parts["test"].labels == ["1"]


@pytest.mark.parametrize("content", [b"", b"junk", b"PAR1junkPAR1"])
def test_a_damaged_parquet_file_in_a_folder_is_refused(content, tmp_path):
    (tmp_path / "train.parquet").write_bytes(content)
    refuse(tmp_path, str(tmp_path), "train files cannot be read as Parquet", "give whole files")


def test_a_parquet_file_without_rows_is_refused(tmp_path):
    pq.write_table(pa.table({"text": [""][:0], "label": [""][:0]}), tmp_path / "train.parquet")
    refuse(tmp_path, str(tmp_path), "train files", "at least one row")


@pytest.mark.parametrize("name", ["notes.csv", "training_data/train.csv", "train.xlsx", "train"])
def test_a_folder_without_splits_is_refused_with_the_names_it_should_have(name, tmp_path):
    save_csv(tmp_path / name, ("text", "label"), ("a", "x"))
    refuse(tmp_path, f"{tmp_path}: no split files", "train.csv, validation.csv, test.csv")


def test_one_file_is_the_training_split(tmp_path):
    path = save_csv(tmp_path / "anything.csv", ("text", "label"), ("a", "x"), delimiter=";")
    parts = read(path)
    assert list(parts) == ["train"]
    assert (parts["train"].texts, parts["train"].where) == (["a"], str(path))


def test_a_source_that_is_nothing_is_refused_with_what_it_could_be(tmp_path):
    missing = str(tmp_path / "nowhere")
    ways = ["path", "hub:owner/name", "ag_news", "embedded:headlines"]
    refuse(missing, "data.source", repr(missing), "no file or folder", *ways)
    refuse(tmp_path / "nowhere.csv", f"{tmp_path}/nowhere.csv: no such file", "check the path")
    refuse("embedded:nothing", "data.source", "'embedded:nothing'", "there is embedded:headlines")


def test_a_text_file_has_no_labels_and_is_refused(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("a\n")
    refuse(path, f"{path}: a text file has no labels", "CSV, TSV, JSONL or Parquet")


@pytest.mark.parametrize("name", ["table.csv", "table.tsv", "table.jsonl"])
@pytest.mark.parametrize("content", ["", "text,label\n"])
def test_a_file_without_rows_is_refused(name, content, tmp_path):
    path = tmp_path / name
    path.write_text("" if name.endswith("jsonl") else content)
    refuse(path, f"{path}: has no rows", "header and labelled texts")


@pytest.mark.parametrize("text", ["text", "Text", "sentence", "CONTENT", "headline", "review"])
@pytest.mark.parametrize("label", ["label", "Category", "class", "TOPIC", "sentiment"])
def test_columns_are_found_by_their_usual_names(text, label, tmp_path):
    path = save_csv(tmp_path / "table.csv", ("id", label, text), ("7", "x", "a"))
    part = read(path)["train"]
    assert (part.texts, part.labels) == (["a"], ["x"])


@pytest.mark.parametrize("body", ["description", "text", "body"])
def test_title_and_body_are_joined(body, tmp_path):
    path = save_csv(
        tmp_path / "table.csv", (body, "label", "Title"), ("more", "x", "first"), ("", "y", "only")
    )
    assert read(path)["train"].texts == ["first\nmore", "only\n"]


def test_title_and_description_are_joined_in_parquet_files_too(tmp_path):
    table = pa.table({"title": ["a", None], "description": ["b", "c"], "label": ["x", "y"]})
    pq.write_table(table, tmp_path / "train.parquet")
    assert read(tmp_path)["train"].texts == ["a\nb", "\nc"]


def test_named_columns_win_over_found_ones(tmp_path):
    path = save_csv(
        tmp_path / "table.csv", ("text", "label", "one", "two", "kind"), ("t", "l", "1", "2", "k")
    )
    part = read(path, text_columns=("two", "one"), label_column="kind")["train"]
    assert (part.texts, part.labels) == (["2\n1"], ["k"])


def test_a_missing_column_is_refused_with_those_there_are(tmp_path):
    path = save_csv(tmp_path / "train.csv", ("id", "words", "kind"), ("1", "a", "x"))
    there = ["'id', 'words', 'kind'"]
    refuse(path, f"{path}: no text column", *there, "data.text_columns")
    named = {"text_columns": ("words",)}
    refuse(path, f"{path}: no label column", *there, "--set data.label_column=", **named)
    refuse(path, f"{path}: no column 'wrods'", *there, text_columns=("words", "wrods"))
    refuse(path, f"{path}: no column 'kin'", *there, label_column="kin", **named)


def test_a_missing_column_is_refused_in_parquet_folders_too(tmp_path):
    pq.write_table(pa.table({"words": ["a"], "kind": ["x"]}), tmp_path / "train.parquet")
    refuse(tmp_path, f"{tmp_path} train: no text column", "'words', 'kind'", "data.text_columns")


def test_prediction_needs_no_label_column():
    assert find_text_columns(["ID", "Headline"], "there") == ("Headline",)
    assert find_text_columns(["ID", "Headline"], "there", ["ID"]) == ("ID",)
    with pytest.raises(DataError, match="there: no text column; it has 'ID'; .*--text-column"):
        find_text_columns(["ID"], "there")


@pytest.mark.parametrize("name", ["NA", "null", "None", "nan"])
def test_labels_and_texts_that_look_missing_are_kept(name, tmp_path):
    path = save_csv(tmp_path / "table.csv", ("text", "label"), (name, name))
    part = read(path)["train"]
    assert (part.texts, part.labels) == ([name], [name])


def test_integer_labels_get_their_names(tmp_path):
    path = save_csv(
        tmp_path / "table.csv", ("text", "label"), ("a", "1"), ("b", " 0 "), ("c", "two")
    )
    assert read(path)["train"].labels == ["1", "0", "two"]
    assert read(path, label_names=("zero", "one", "two"))["train"].labels == ["one", "zero", "two"]


def test_a_label_name_that_is_a_number_is_a_name(tmp_path):
    path = save_csv(tmp_path / "table.csv", ("text", "label"), ("a", "1"), ("b", "2"))
    assert read(path, label_names=("2", "1"))["train"].labels == ["1", "2"]


def test_json_labels_may_be_numbers_or_truth_values(tmp_path):
    path = tmp_path / "table.jsonl"
    path.write_text('{"text": "a", "label": 0}\n{"text": "b", "label": true}\n')
    assert read(path)["train"].labels == ["0", "True"]


@pytest.mark.parametrize("label", ["", "   ", "-1"])
def test_a_row_without_a_usable_label_is_refused_with_its_line(label, tmp_path):
    path = save_csv(tmp_path / "train.csv", ("text", "label"), ("a\nb", "0"), ("c", label))
    refuse(
        tmp_path, f"{path}:4: no label", repr(label), "label this row", label_names=("no", "yes")
    )


def test_a_number_behind_the_last_name_says_what_names_there_are(tmp_path):
    path = save_csv(tmp_path / "train.csv", ("text", "label"), ("a", "1"), ("b", "2"))
    refuse(tmp_path, f"{path}:3: label 2 has no name: there are 2 names, for 0 to 1",
           label_names=("no", "yes"))  # fmt: skip
    path.write_text("text,label\na," + "9" * 5_000 + "\n")
    refuse(tmp_path, "train.csv:2: label 99999999999999999999 has no name", label_names=("n", "y"))


def test_one_column_may_be_named_without_a_list(tmp_path):
    recipe = load_recipe("quickstart", ["data.text_columns=subject", "data.slice_columns=team"])
    assert (recipe.data.text_columns, recipe.data.slice_columns) == (("subject",), ("team",))
    with pytest.raises(SettingsError, match=r'data.label_names: give a list, such as \["a", "b"'):
        load_recipe("quickstart", ["data.label_names=World"])


@pytest.mark.parametrize("label", ["[]", '["x"]'])
def test_a_list_of_labels_says_which_setting_reads_it(label, tmp_path):
    path = tmp_path / "table.jsonl"
    path.write_text(f'{{"text": "a", "label": {label}}}\n')
    refuse(path, f"{path}:1: the label is a list", "set data.multi_label=true")


@pytest.mark.parametrize("label", ["null", '{"x": 1}'])
def test_a_json_label_that_is_no_name_or_number_is_refused(label, tmp_path):
    path = tmp_path / "table.jsonl"
    path.write_text(f'{{"text": "a", "label": {label}}}\n')
    refuse(path, f"{path}:1: no label", "label this row")


@pytest.mark.parametrize("text", ["7", '["a"]', '{"a": 1}', "true"])
def test_a_text_that_is_no_string_is_refused_with_its_line(text, tmp_path):
    rows = ['{"text": "a", "label": "x"}', f'{{"text": {text}, "label": "y"}}']
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    refuse(tmp_path / "a.jsonl", "a.jsonl:2: the text is ", "not a string; check data.text_columns")
    values = DataSettings(source=str(tmp_path / "a.jsonl"))
    part = read_splits(values, tolerant=True)["train"]
    assert (part.texts, part.labels, len(part.faults)) == (["a"], ["x"], 1)


def test_texts_that_are_no_strings_are_refused_in_parquet_folders_too(tmp_path):
    pq.write_table(pa.table({"text": [7, None], "label": ["x", "y"]}), tmp_path / "train.parquet")
    refuse(tmp_path, "train:1: the text is 7, not a string")
    part = read_splits(DataSettings(source=str(tmp_path)), tolerant=True)["train"]
    assert (part.texts, part.labels, part.lines, len(part.faults)) == ([""], ["y"], [2], 1)


def test_a_split_without_a_usable_text_is_told_of_also_by_a_check(tmp_path):
    """An empty one looks like a split whose labels are kept secret."""
    pq.write_table(pa.table({"text": ["a"], "label": ["x"]}), tmp_path / "train.parquet")
    pq.write_table(pa.table({"text": [7], "label": ["x"]}), tmp_path / "validation.parquet")
    with pytest.raises(
        DataError,
        match="validation:1: the text is 7, not a string; check data.text_columns; no row can",
    ):
        read_splits(DataSettings(source=str(tmp_path)), tolerant=True)
    (tmp_path / "a.jsonl").write_text('{"text": ["a"], "label": "x"}\n')
    with pytest.raises(
        DataError, match=r"a.jsonl:1: the text is \['a'\], not a string; check .*; no row"
    ):
        read_splits(DataSettings(source=str(tmp_path / "a.jsonl")), tolerant=True)


def test_the_first_row_may_lack_columns(tmp_path):
    rows = ['{"label": "x"}', '{"text": "a", "label": "y", "who": "me"}']
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    part = read(tmp_path / "a.jsonl", slice_columns=("who",))["train"]
    assert (part.texts, part.slices) == (["", "a"], {"who": ["(empty)", "me"]})


def test_a_row_cut_short_has_no_label_and_is_refused(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("text,label\na,x\nb\n")
    refuse(path, f"{path}:3: no label, got None", "label this row")


def test_a_label_outside_the_class_names_is_refused(tmp_path):
    save_hub_parquet(tmp_path / "test.parquet", ["a", "b"], [0, -1], ["no", "yes"])
    refuse(tmp_path, f"{tmp_path} test:2: no label, got -1", "label this row")


def test_the_encoding_of_the_settings_is_used(tmp_path):
    path = tmp_path / "train.csv"
    path.write_bytes("text,label\ncafé,x\n".encode("latin-1"))
    refuse(tmp_path, str(path), "not utf-8", "--set data.encoding=latin-1")
    assert read(tmp_path, encoding="latin-1")["train"].texts == ["café"]


def test_ag_news_has_its_four_labels_in_order(ag_news):
    parts = read(ag_news)
    assert sorted(parts) == ["test", "train"]
    for part in parts.values():
        assert part.order == AG_NEWS_LABELS
        assert set(part.labels) == set(AG_NEWS_LABELS)
        assert len(part.texts) == len(part.labels) == len(part.lines)
    assert len(parts["test"].texts) == 7600
    counts = [parts["test"].labels.count(name) for name in AG_NEWS_LABELS]
    assert counts == [1900] * 4


@pytest.mark.parametrize("source", ["ag_news", "hub:nobody/nothing@v1"])
def test_the_hub_without_network_is_a_data_error_within_seconds(source, tmp_path):
    script = """
import sys
from textlora.errors import DataError
from textlora.settings import DataSettings
from textlora.data.sources import read_splits
try:
    read_splits(DataSettings(source=sys.argv[1]))
except DataError as error:
    print(error)
    sys.exit(error.exit_code)
"""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", script, source], capture_output=True, text=True, env=environment
    )
    assert time.monotonic() - start < 10
    assert done.returncode == 3, done.stderr
    name = {"ag_news": "fancyzhx/ag_news"}.get(source, "nobody/nothing")
    assert done.stdout.startswith(f"hub:{name}: cannot be loaded")
    assert "check name and network" in done.stdout
    assert "--data" in done.stdout
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize("name", ["test.csv", "test-00000-of-00001.parquet"])
def test_a_split_that_is_not_wanted_is_not_opened(name, tmp_path):
    save_csv(tmp_path / "train.csv", ("text", "label"), ("a", "x"))
    (tmp_path / name).write_bytes(b"\xff\xfe\x00 neither text nor Parquet")
    settings = DataSettings(source=str(tmp_path))
    assert list(read_splits(settings, only=("train", "validation"))) == ["train"]
    with pytest.raises(DataError):
        read_splits(settings)
