import csv
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import make_rows

from textlora.errors import DataError
from textlora.filepredict import predict_file
from textlora.predictor import Predictor
from textlora.tables import read_rows

TEXTS = [text for text, _ in make_rows(20, seed=7)]


@pytest.fixture(scope="module")
def predictor(tiny_run):
    return Predictor.load(tiny_run)


def write_input(path, texts):
    kind = path.suffix
    if kind == ".parquet":
        pq.write_table(pa.table({"text": texts}), path)
    elif kind == ".jsonl":
        path.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts), encoding="utf-8")
    elif kind == ".txt":
        path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as stream:
            delimiter = "\t" if kind == ".tsv" else ","
            csv.writer(stream, delimiter=delimiter).writerows([["text"], *([t] for t in texts)])
    return path


@pytest.mark.parametrize("source", [".csv", ".tsv", ".jsonl", ".parquet", ".txt"])
@pytest.mark.parametrize("target", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_every_format_gives_the_same_answers_in_the_same_order(predictor, tmp_path, source, target):
    output = tmp_path / f"out{target}"
    summary = predict_file(predictor, write_input(tmp_path / f"in{source}", TEXTS), output)
    assert (summary.rows, summary.empty, summary.truncated) == (20, 0, 0)
    rows = [row.values for row in read_rows(output)]
    assert list(rows[0]) == ["ID", "Label", "LabelText", "Confidence"]
    expected = predictor.predict(TEXTS)
    assert [row["LabelText"] for row in rows] == [answer.label for answer in expected]
    assert [int(row["ID"]) for row in rows] == list(range(20))
    assert [int(row["Label"]) for row in rows] == [answer.label_id for answer in expected]
    for row, answer in zip(rows, expected, strict=True):
        assert float(row["Confidence"]) == pytest.approx(answer.confidence, abs=1e-6)


def test_probabilities_are_a_column_a_label_on_request(predictor, tmp_path):
    source = write_input(tmp_path / "in.csv", TEXTS)
    predict_file(predictor, source, tmp_path / "out.csv", probabilities=True)
    for row in read_rows(tmp_path / "out.csv"):
        shares = [float(row.values[f"P({label})"]) for label in predictor.labels]
        assert sum(shares) == pytest.approx(1.0, abs=1e-5)
        assert max(shares) == float(row.values["Confidence"])


def test_rows_without_a_text_stay_in_place_without_a_label(predictor, tmp_path):
    for kind in (".csv", ".parquet", ".jsonl"):
        source = write_input(tmp_path / f"in{kind}", ["goal", "", "   ", "NA", "comet"])
        summary = predict_file(predictor, source, tmp_path / f"out{kind}", probabilities=True)
        assert (summary.rows, summary.empty) == (5, 2)
        labels = [row.values["LabelText"] for row in read_rows(tmp_path / f"out{kind}")]
        assert [bool(label) for label in labels] == [True, False, False, True, True]


def test_ids_of_the_input_are_kept(predictor, tmp_path):
    (tmp_path / "in.csv").write_text("id,text\na7,goal\nb9,bank\n")
    predict_file(predictor, tmp_path / "in.csv", tmp_path / "out.csv")
    assert [row.values["ID"] for row in read_rows(tmp_path / "out.csv")] == ["a7", "b9"]


def test_a_named_column_is_read(predictor, tmp_path):
    first, second = "bank profit market", "goal cup match"
    (tmp_path / "in.csv").write_text(f"text,note\n{first},{second}\n")
    found = []
    for column in ("text", "note"):
        predict_file(predictor, tmp_path / "in.csv", tmp_path / "out.csv", text_column=column)
        found += [float(row.values["Confidence"]) for row in read_rows(tmp_path / "out.csv")]
    expected = [answer.confidence for answer in predictor.predict([first, second])]
    assert found == pytest.approx(expected, abs=1e-6)


def test_texts_that_are_cut_are_counted(predictor, tmp_path):
    source = write_input(tmp_path / "in.csv", ["goal " * 99, "goal"])
    assert predict_file(predictor, source, tmp_path / "out.csv").truncated == 1


def refuse(predictor, source, target, **options):
    with pytest.raises(DataError) as caught:
        predict_file(predictor, source, target, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_bad_files_are_refused_and_nothing_is_left_behind(predictor, tmp_path):
    good = write_input(tmp_path / "in.csv", TEXTS)
    out = tmp_path / "out.csv"
    assert "no such file" in refuse(predictor, tmp_path / "nowhere.csv", out)
    assert "unknown kind of file '.doc'" in refuse(predictor, good, tmp_path / "out.doc")
    assert "is the input itself" in refuse(predictor, good, good)
    assert "no column 'body'; it has 'text'" in refuse(predictor, good, out, text_column="body")
    (tmp_path / "empty.csv").write_text("text\n")
    assert "has no rows" in refuse(predictor, tmp_path / "empty.csv", out)
    (tmp_path / "numbers.jsonl").write_text('{"text": 7}\n')
    assert "numbers.jsonl:1: the text is 7" in refuse(predictor, tmp_path / "numbers.jsonl", out)
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    assert "it has 'a', 'b'" in refuse(predictor, tmp_path / "other.csv", out)
    (tmp_path / "latin.csv").write_bytes("text\ncaf\xe9\n".encode("latin-1"))
    assert "--encoding latin-1" in refuse(predictor, tmp_path / "latin.csv", out)
    predict_file(predictor, tmp_path / "latin.csv", out, encoding="latin-1")
    out.unlink()
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


def test_a_fault_in_the_middle_leaves_the_old_output(predictor, tmp_path, monkeypatch):
    from textlora import filepredict

    monkeypatch.setattr(filepredict, "_CHUNK_ROWS", 4)
    lines = ['{"text": "goal"}\n'] * 10 + ["{broken\n"]
    (tmp_path / "in.jsonl").write_text("".join(lines))
    (tmp_path / "out.csv").write_text("old")
    message = refuse(predictor, tmp_path / "in.jsonl", tmp_path / "out.csv")
    assert "in.jsonl:11: not valid JSON" in message
    assert (tmp_path / "out.csv").read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"in.jsonl", "out.csv"}


def test_chunks_do_not_show_in_the_output(predictor, tmp_path, monkeypatch):
    from textlora import filepredict

    source = write_input(tmp_path / "in.csv", TEXTS)
    predict_file(predictor, source, tmp_path / "whole.csv")
    monkeypatch.setattr(filepredict, "_CHUNK_ROWS", 3)
    predict_file(predictor, source, tmp_path / "pieces.csv")
    whole = [row.values["LabelText"] for row in read_rows(tmp_path / "whole.csv")]
    assert [row.values["LabelText"] for row in read_rows(tmp_path / "pieces.csv")] == whole


def test_an_output_that_cannot_be_written_is_told_before_the_work(predictor, tmp_path):
    source = write_input(tmp_path / "in.csv", TEXTS)
    assert "is a folder" in refuse(predictor, source, make_folder(tmp_path / "folder.csv"))
    (tmp_path / "file").write_text("in the way")
    assert "cannot be written" in refuse(predictor, source, tmp_path / "file" / "out.csv")
    if os.geteuid():  # root may write anywhere
        locked = make_folder(tmp_path / "locked")
        locked.chmod(0o500)
        assert "cannot be written" in refuse(predictor, source, locked / "out.csv")


def make_folder(path):
    path.mkdir()
    return path
