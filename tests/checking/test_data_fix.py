import csv
import json
from dataclasses import asdict

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import make_rows, write_csv

from textlora.checking.data_check import check_splits
from textlora.checking.data_fix import fix_splits, repair_text
from textlora.data.labelled_texts import load_labelled_texts
from textlora.data.sources import read_splits
from textlora.errors import DataError
from textlora.settings import DataSettings

ROWS = make_rows(60, seed=3)
BROKEN = [
    ("", "sport"),
    ("a match without a name", ""),
    ROWS[4],
    ("the same words", "sport"),
    ("the same words", "money"),
    ("a cup for the team", "Sport "),
    ("the coachâ€™s <b>team</b> is #39;here", "sport"),
]


def fix(source, out, **settings):
    values = DataSettings(source=str(source), **settings)
    return fix_splits(values, read_splits(values, tolerant=True), out)


def read(path):
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_repaired_copy_passes_the_check_and_can_be_trained_on(tmp_path):
    source = write_csv(tmp_path / "rows.csv", [*ROWS, *BROKEN])
    before = source.read_bytes()
    (done,) = fix(source, tmp_path / "out")
    settings = DataSettings(source=str(tmp_path / "out"))
    parts = read_splits(settings, tolerant=True)
    assert check_splits("out", parts, 64).findings == ()
    assert len(load_labelled_texts(settings).labels) == 3
    assert done.rows == 62
    assert done.removed == {"empty text": 1, "no label": 1, "duplicate": 1, "different labels": 2}
    assert done.changed == {"texts repaired": 1, "labels unified": 1}
    rows = read(tmp_path / "out" / "train.csv")
    assert [(row["text"], row["label"]) for row in rows[:60]] == ROWS
    assert rows[-1]["text"] == "the coach’s team is 'here"
    assert source.read_bytes() == before


def test_what_was_mended_can_be_told_as_json(tmp_path):
    source = write_csv(tmp_path / "rows.csv", [*ROWS, *BROKEN])
    told = json.loads(json.dumps([asdict(item) for item in fix(source, tmp_path / "fixed")]))
    assert told[0]["changed"] == {"texts repaired": 1, "labels unified": 1}
    assert told[0]["removed"]["no label"] == 1


def test_files_with_other_columns_lose_nothing(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "train-1.csv").write_text("text,label\na cup,sport\na team,sport\n")
    (data / "train-2.csv").write_text(
        "topic,content,who\nmoney,a bank,me\nmoney,a loan,you\nbroken,row,is,here\n"
    )
    (done,) = fix(data, tmp_path / "out")
    assert (done.rows, done.removed) == (4, {"cannot be read": 1})
    rows = read(tmp_path / "out" / "train.csv")
    assert [(row["text"], row["label"], row["who"]) for row in rows] == [
        ("a cup", "sport", ""), ("a team", "sport", ""), ("a bank", "money", "me"),
        ("a loan", "money", "you"),
    ]  # fmt: skip
    (removed,) = read(tmp_path / "out" / "removed.csv")
    assert (removed["file"], removed["line"]) == (str(data / "train-2.csv"), "4")
    assert removed["reason"].startswith("cannot be read: 4 fields")


def test_rows_whose_text_is_no_string_shift_no_label(tmp_path):
    rows = ['{"text": 7, "label": "x"}', '{"label": "y"}', '{"text": "a cup", "label": "z"}']
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    (done,) = fix(tmp_path / "rows.jsonl", tmp_path / "out")
    assert read(tmp_path / "out" / "train.csv") == [{"label": "z", "text": "a cup"}]
    assert done.removed == {"cannot be read": 1, "empty text": 1}


def test_a_file_part_that_begins_with_an_empty_object_shifts_no_label(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "train-1.jsonl").write_text('{}\n{"text": "a loan", "label": "money"}\n')
    lines = [json.dumps({"text": f"a cup {i}", "label": "sport"}) for i in range(2)]
    (data / "train-2.jsonl").write_text("\n".join(["{}", *lines]))
    (done,) = fix(data, tmp_path / "out")
    rows = read(tmp_path / "out" / "train.csv")
    assert [row["label"] for row in rows] == ["money", "sport", "sport"]
    assert done.removed == {"cannot be read": 2}
    assert not done.changed


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    source = write_csv(tmp_path / "rows.csv", ROWS)
    with pytest.raises(DataError, match="cannot be written .*; name another with --fix"):
        fix(source, source / "out")


def test_half_a_pair_and_a_column_that_comes_later_are_written(tmp_path):
    lines = [{"text": "a \ud800 cup", "label": "sport"}, {"text": "b", "label": "x", "who": "me"}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
    fix(tmp_path / "rows.jsonl", tmp_path / "out")
    rows = read(tmp_path / "out" / "train.csv")
    assert [(row["text"], row["who"]) for row in rows] == [("a ? cup", ""), ("b", "me")]


def test_every_removed_row_is_listed_with_its_line_and_reason(tmp_path):
    source = write_csv(tmp_path / "rows.csv", [*ROWS, *BROKEN])
    fix(source, tmp_path / "out")
    removed = read(tmp_path / "out" / "removed.csv")
    assert [int(row["line"]) for row in removed] == [62, 63, 64, 65, 66]
    assert removed[3]["reason"] == "different labels: money, sport"
    kept = read(tmp_path / "out" / "train.csv")
    assert len(kept) + len(removed) == 67


def test_rows_of_a_test_split_all_stay(tmp_path):
    write_csv(tmp_path / "train.csv", ROWS)
    write_csv(tmp_path / "test.csv", [ROWS[0], ROWS[0], ("same", "money"), ("same", "sport")])
    _, done = sorted(fix(tmp_path, tmp_path / "out"), key=lambda item: item.name, reverse=True)
    assert (done.name, done.rows, done.removed) == ("test", 4, {})


def test_other_columns_stay_as_they_are(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [{"id": n, "text": t, "label": v, "note": "é;"} for n, (t, v) in enumerate(ROWS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]) + "{broken\n")
    (done,) = fix(path, tmp_path / "out")
    assert done.removed == {"cannot be read": 1, "duplicate": 1}
    found = read(tmp_path / "out" / "train.csv")
    assert list(found[0]) == ["id", "text", "label", "note"]
    assert [row["id"] for row in found] == [str(n) for n in range(60)]
    assert {row["note"] for row in found} == {"é;"}


def test_parquet_splits_of_several_files_lose_the_right_rows(tmp_path):
    for number, rows in enumerate((ROWS[:30], [*ROWS[30:], ("", "sport"), ROWS[0]])):
        table = pa.table({"text": [t for t, _ in rows], "label": [v for _, v in rows]})
        pq.write_table(table, tmp_path / f"train-{number}.parquet")
    (done,) = fix(tmp_path, tmp_path / "out")
    assert done.removed == {"empty text": 1, "duplicate": 1}
    found = read(tmp_path / "out" / "train.csv")
    assert [(row["text"], row["label"]) for row in found] == ROWS


def test_nothing_is_overwritten_and_nothing_fetched(tmp_path):
    source = write_csv(tmp_path / "rows.csv", ROWS)
    with pytest.raises(DataError, match="exists already; name a new folder"):
        fix(source, tmp_path)
    with pytest.raises(DataError, match="is no file or folder"):
        fix_splits(DataSettings(source="embedded:headlines"), {}, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.csv"]


def test_a_good_text_is_not_touched():
    for text in ("naïve café — “quotes”", "  two  spaces ", "a < b & c > d", "日本語\n2"):
        assert repair_text(text) == text
