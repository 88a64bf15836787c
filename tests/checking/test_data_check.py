import csv
import json

import pytest
from conftest import make_rows, write_csv

from textlora.checking.data_check import check_splits, find_variants, has_markup, is_misread
from textlora.data.sources import read_splits
from textlora.errors import DataError
from textlora.settings import DataSettings

ROWS = make_rows(60, seed=3)


def check(path, max_length=64, count_tokens=None, **settings):
    parts = read_splits(DataSettings(source=str(path), **settings), tolerant=True)
    return check_splits(str(path), parts, max_length, count_tokens)


def find(found, what):
    (finding,) = [item for item in found.findings if what in item.what]
    return finding


def test_clean_data_has_nothing_to_complain_about(tmp_path):
    found = check(write_csv(tmp_path / "rows.csv", ROWS))
    assert found.findings == ()
    assert found.is_usable
    assert found.splits[0].rows == 60
    assert sum(found.splits[0].labels.values()) == 60
    assert found.summarize() == ["train: 60 rows, sport 33%, money 33%, space 33%"]


# What is planted in row 61 and behind, how it is called, and the lines where it stands.
PLANTED = [
    ([("", "sport")], "empty texts", "warning", [62]),
    ([("a new match", "")], "rows without a label", "error", [62]),
    ([ROWS[4], ROWS[4]], "duplicates with the same label", "note", [62, 63]),
    ([("the same", "sport"), ("the  same", "money")], "different labels", "warning", [62, 63]),
    ([("a cup", "Sport"), ("a race", "S port")], "differ by case or spaces", "warning", [62, 63]),
    ([("the coachâ€™s team", "sport")], "wrong encoding", "warning", [62]),
    ([("a caf\ufffd", "money")], "replaced characters", "warning", [62]),
    ([("the coach#39;s <b>team</b>", "sport")], "entities or tags", "note", [62]),
    ([("the \x07 team", "sport")], "control characters", "note", [62]),
    ([("rain", "sport")], "texts of one word", "note", [62]),
    ([("a storm is near", "weather")], "labels with one row", "error", []),
]


@pytest.mark.parametrize(("rows", "what", "severity", "lines"), PLANTED)
def test_what_is_planted_is_found_at_its_line(tmp_path, rows, what, severity, lines):
    path = write_csv(tmp_path / "rows.csv", [*ROWS, *rows])
    found = check(path)
    finding = find(found, what)
    assert finding.severity == severity
    assert finding.advice
    if lines:
        assert finding.count == len(lines)
        shown = [example.split(": ")[0] for example in finding.examples]
        assert shown == [f"{path}:{line}" for line in lines]
    assert found.is_usable == (severity != "error")


def test_rows_that_cannot_be_read_are_counted_and_the_others_are_checked(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a match", "label": "x"}\n{broken\n{"text": "b c", "label": "y"}\n')
    found = check(path)
    assert find(found, "cannot be read").examples[0].startswith(f"{path}:2: ")
    assert found.splits[0].rows == 2


def test_few_and_unequal_rows_are_told(tmp_path):
    rows = [*make_rows(300, seed=1), *[(f"a storm {n} is near", "weather") for n in range(4)]]
    found = check(write_csv(tmp_path / "rows.csv", rows))
    assert find(found, "fewer than 10 rows").examples == ("weather",)
    assert find(found, "largest label to one").count == 25


def test_numbers_and_one_class_are_told(tmp_path):
    found = check(write_csv(tmp_path / "rows.csv", [(text, "1") for text, _ in ROWS]))
    assert find(found, "classes").severity == "error"
    assert find(found, "labels are numbers").advice.endswith("data.label_names")


def test_exchanged_columns_are_seen(tmp_path):
    exchanged = [(label, text) for text, label in ROWS]
    found = check(write_csv(tmp_path / "rows.csv", exchanged))
    assert find(found, "nearly one for each row").severity == "error"
    assert find(found, "texts of one word").severity == "warning"


def test_splits_are_compared(tmp_path):
    write_csv(tmp_path / "train.csv", ROWS)
    test = [(ROWS[0][0].upper(), ROWS[0][1]), ("a storm", "weather"), ("the cup", "sport")]
    write_csv(tmp_path / "test.csv", test)
    found = check(tmp_path)
    assert find(found, "also in train").count == 1
    assert find(found, "train does not have").severity == "error"
    assert find(found, "without a row here").examples == ("money", "space")


def test_a_folder_without_train_is_an_error(tmp_path):
    write_csv(tmp_path / "test.csv", ROWS)
    assert find(check(tmp_path), "rows to train on").severity == "error"


def test_long_texts_are_counted_by_tokens(tmp_path):
    rows = [*ROWS, *[("word " * 100, "sport")] * 10]
    found = check(
        write_csv(tmp_path / "rows.csv", rows), 64, lambda texts: [len(t.split()) for t in texts]
    )
    lengths = found.splits[0].lengths
    assert (lengths.longest, lengths.num_texts) == (100, 70)
    assert lengths.cut_share == pytest.approx(1 / 7)
    finding = find(found, "longer than 64 tokens")
    assert (finding.count, finding.severity) == (10, "warning")


@pytest.mark.parametrize("content", [b"", b"text,label\n", b"\x00\x01\x02" * 500])
def test_files_without_rows_are_one_line(tmp_path, content):
    (tmp_path / "rows.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"rows\.csv"):
        check(tmp_path / "rows.csv")


def test_an_excel_export_with_semicolons_is_read(tmp_path):
    path = tmp_path / "rows.csv"
    with path.open("w", encoding="utf-8-sig", newline="") as stream:
        csv.writer(stream, delimiter=";").writerows([("text", "label"), *ROWS])
    assert check(path).findings == ()


def test_variants_go_to_the_most_common_form():
    labels = (
        ["Sci/Tech"] * 3 + ["sci/tech", "Sci / Tech", "World"] + ["new_york"] * 2 + ["New York"]
    )
    assert find_variants(labels) == {
        "sci/tech": "Sci/Tech", "Sci / Tech": "Sci/Tech", "New York": "new_york",
    }  # fmt: skip


def test_labels_that_say_something_else_are_no_variants():
    for labels in (("-1", "0", "1"), ("A", "A-", "B"), ("1-2", "12"), ("1 2", "12"), ("C++", "C")):
        assert find_variants(labels) == {}
    assert find_variants(["e-mail", "e-mail", "email"]) == {"email": "e-mail"}
    assert find_variants(["part 1", "part 1", "Part1"]) == {"Part1": "part 1"}


def test_a_label_that_is_no_number_is_none(tmp_path):
    """As pandas writes a missing one into JSON lines; the text "nan" may be a name."""
    path = tmp_path / "rows.jsonl"
    rows = [json.dumps({"text": text, "label": label}) for text, label in ROWS]
    path.write_text("\n".join([*rows, '{"text": "a new match", "label": NaN}']))
    found = check(path)
    assert find(found, "without a label").examples[0].startswith(f"{path}:{len(rows) + 1}: ")
    assert "nan" not in found.splits[0].labels


@pytest.mark.parametrize("names", [[f"intent {n}" for n in range(77)], ["x" * 90, "y" * 90]])
def test_many_or_long_labels_are_not_taken_for_texts(tmp_path, names):
    rows = [(f"a match of team {n}", names[n % len(names)]) for n in range(20 * len(names))]
    write_csv(tmp_path / "train.csv", rows)
    write_csv(tmp_path / "test.csv", [(f"{text} again", label) for text, label in rows[:100]])
    assert check(tmp_path).is_usable


def test_good_texts_are_left_alone():
    for text in ("naïve café — “quotes”", "日本語", "a < b & c > d", "R&D; then more", "😀 ok"):
        assert not is_misread(text)
        assert not has_markup(text)


def test_names_that_no_row_has_are_told(tmp_path):
    rows = [(f"text number {i}", 1 + i % 2) for i in range(40)]
    path = write_csv(tmp_path / "a.csv", rows)
    settings = DataSettings(source=str(path), label_names=("billing", "delivery", "other"))
    found = check_splits(str(path), read_splits(settings, tolerant=True), 512)
    (finding,) = [item for item in found.findings if "without a row" in item.what]
    assert (finding.count, finding.examples) == (1, ("billing",))
    assert "count from 0" in finding.advice
