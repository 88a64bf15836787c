import copy
import csv
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import make_rows

from textlora.data.tables import read_rows
from textlora.errors import DataError, SettingsError
from textlora.prediction.file_prediction import predict_files
from textlora.prediction.inputs import find_inputs
from textlora.prediction.output_columns import FileOptions
from textlora.prediction.predictor import Predictor
from textlora.prediction.shards import merge_shards, parse_shard
from textlora.system.progress import Reporter

TEXTS = [text for text, _ in make_rows(20, seed=7)]


def predict_file(predictor, source, target, **options):
    return predict_files(predictor, [source], target, FileOptions(**options))


def change_data(predictor, **settings):
    """The same classifier, as if trained with these settings of the data."""
    changed = copy.copy(predictor)
    data = predictor.recipe.data.model_copy(update=settings)
    changed.recipe = predictor.recipe.model_copy(update={"data": data})
    return changed


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


def test_a_row_that_cannot_be_read_has_no_id_of_another_row(predictor, tmp_path):
    (tmp_path / "in.csv").write_text("id,text\n1,goal\n2,bank,loan,extra\n3,rocket\n")
    for kind in (".csv", ".jsonl", ".parquet"):
        summary = predict_file(predictor, tmp_path / "in.csv", tmp_path / f"out{kind}")
        assert (summary.rows, summary.unreadable) == (3, 1)
        found = [row.values["ID"] for row in read_rows(tmp_path / f"out{kind}")]
        assert [value or "" for value in found] == ["1", "", "3"]


def test_the_columns_of_training_are_read_where_a_file_has_them(predictor, tmp_path):
    trained = change_data(predictor, text_columns=("subject", "body"))
    (tmp_path / "in.csv").write_text("text,subject,body\nbank,goal,cup\n")
    (tmp_path / "other.csv").write_text("text\nbank\n")
    for name, text in (("in.csv", "goal\ncup"), ("other.csv", "bank")):
        predict_file(trained, tmp_path / name, tmp_path / "out.csv")
        (row,) = read_rows(tmp_path / "out.csv")
        (answer,) = predictor.predict([text])
        assert float(row.values["Confidence"]) == pytest.approx(answer.confidence, abs=1e-6)


def test_a_column_that_the_first_row_lacks_is_kept(predictor, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"text": "goal"}\n{"text": "bank", "customer": "me"}\n')
    predict_file(predictor, tmp_path / "in.jsonl", tmp_path / "out.csv", keep_columns=True)
    assert [row.values["customer"] for row in read_rows(tmp_path / "out.csv")] == ["", "me"]


def test_columns_of_later_rows_are_kept_in_json_lines_and_told_of_in_tables(predictor, tmp_path):
    rows = ['{"text": "goal"}', '{"text": "cup"}', '{"text": "bank", "customer": "me", "ID": 7}']
    (tmp_path / "in.jsonl").write_text("\n".join(rows))
    options = {"keep_columns": True, "chunk_rows": 2}
    summary = predict_file(predictor, tmp_path / "in.jsonl", tmp_path / "out.jsonl", **options)
    found = [row.values.get("customer") for row in read_rows(tmp_path / "out.jsonl")]
    assert (found, summary.left_out, summary.explain()) == ([None, None, "me"], [], [])
    summary = predict_file(predictor, tmp_path / "in.jsonl", tmp_path / "out.csv", **options)
    assert summary.left_out == ["customer", "ID"]
    assert "columns customer, ID come only in later rows" in "".join(summary.explain())


def test_a_later_column_of_json_lines_takes_no_name_that_is_there(predictor, tmp_path):
    rows = ['{"text": "a", "ID": 1}', '{"text": "b"}', '{"text": "c", "input_ID": 3, "Label": "x"}']
    (tmp_path / "in.jsonl").write_text("\n".join(rows))
    options = {"keep_columns": True, "chunk_rows": 2}
    predict_file(predictor, tmp_path / "in.jsonl", tmp_path / "out.jsonl", **options)
    first, second, third = (row.values for row in read_rows(tmp_path / "out.jsonl"))
    assert first["input_ID"] == 1
    assert (third["input_input_ID"], third["input_Label"]) == (3, "x")
    assert isinstance(third["Label"], int)
    # A row has its own later columns alone: else rows grow with the file.
    assert set(third) - set(second) == {"input_input_ID", "input_Label"}


def test_the_first_row_may_lack_an_id(predictor, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n{"text": "b", "id": "u7"}\n')
    predict_file(predictor, tmp_path / "in.jsonl", tmp_path / "out.csv")
    assert [row.values["ID"] for row in read_rows(tmp_path / "out.csv")] == ["", "u7"]


def test_the_first_rows_may_lack_a_text(predictor, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"id": 1}\nno JSON\n{"text": "bank", "id": 3}\n')
    summary = predict_file(predictor, tmp_path / "in.jsonl", tmp_path / "out.csv")
    assert (summary.rows, summary.empty, summary.unreadable) == (3, 1, 1)
    assert [row.values["ID"] for row in read_rows(tmp_path / "out.csv")] == ["1", "", "3"]


def test_a_text_of_which_the_repair_leaves_nothing_is_none(predictor, tmp_path):
    repairing = change_data(predictor, repair_entities=True)
    source = write_input(tmp_path / "in.csv", ["<br> &nbsp;", "goal"])
    for used, empty in ((predictor, 0), (repairing, 1)):
        summary = predict_file(used, source, tmp_path / "out.csv")
        assert (summary.rows, summary.empty) == (2, empty)


def test_text_output_is_a_line_a_row_whatever_is_kept(predictor, tmp_path):
    source = write_input(tmp_path / "in.csv", ["goal\r\ncup\tmatch", "bank"])
    predict_file(predictor, source, tmp_path / "out.txt", keep_columns=True)
    lines = (tmp_path / "out.txt").read_text().splitlines()
    assert [line.split("\t")[:2] for line in lines] == [["goal cup match", "0"], ["bank", "1"]]


def test_a_named_column_is_read(predictor, tmp_path):
    first, second = "bank profit market", "goal cup match"
    (tmp_path / "in.csv").write_text(f"text,note\n{first},{second}\n")
    found = []
    for column in ("text", "note"):
        predict_file(predictor, tmp_path / "in.csv", tmp_path / "out.csv", text_columns=(column,))
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
    assert "is the input itself" in refuse(predictor, good, out, rejects=good)
    assert "is the output itself" in refuse(predictor, good, out, rejects=out)
    other = write_input(tmp_path / "other.csv", TEXTS)
    assert "name a .jsonl with --rejects" in refuse(predictor, good, out, rejects=other)
    assert len(list(read_rows(other))) == len(TEXTS)
    assert len(list(read_rows(good))) == len(TEXTS)
    (tmp_path / "twice.csv").write_text("text,Label,input_Label\na,b,c\n")
    assert "'input_Label'; rename" in refuse(
        predictor, tmp_path / "twice.csv", out, keep_columns=True
    )
    assert "no column 'body'; it has 'text'" in refuse(predictor, good, out, text_columns=("body",))
    (tmp_path / "empty.csv").write_text("text\n")
    assert "has no rows" in refuse(predictor, tmp_path / "empty.csv", out)
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    assert "it has 'a', 'b'" in refuse(predictor, tmp_path / "other.csv", out)
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


def test_chunks_do_not_show_in_the_output(predictor, tmp_path):
    source = write_input(tmp_path / "in.csv", TEXTS)
    predict_file(predictor, source, tmp_path / "whole.csv")
    predict_file(predictor, source, tmp_path / "pieces.csv", chunk_rows=3)
    whole, pieces = (
        list(csv.reader((tmp_path / name).read_text("utf-8").splitlines()))
        for name in ("whole.csv", "pieces.csv")
    )
    assert [row[:3] for row in pieces] == [row[:3] for row in whole]
    # The neighbours of a text may change its last bit in float32, and so the sixth digit.
    for one, other in zip(pieces[1:], whole[1:], strict=True):
        assert float(one[3]) == pytest.approx(float(other[3]), abs=2e-6)


BAD = {
    "jsonl": (
        b'{"text": "goal"}\n{"text": 7}\n{broken\n{"text": ""}\n[1]\n{"note": "x"}\n'
        b'{"text": "caf\xe9"}\n{"text": "comet"}\n',
        {2: "the text is 7, not a string", 3: "not valid JSON", 4: "no text",
         5: "not a JSON object", 6: "no text", 7: "byte 0xe9 is not of the file's encoding"},
    ),
    "csv": (
        b'id,text\na,goal\nb,x,y\nc,\nd,caf\xe9\ne,"a"b\nf,comet\n',
        {3: "3 fields, but the header has 2", 4: "no text", 5: "byte 0xe9", 6: "mend the quotes"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_bad_rows_keep_their_place_and_are_listed_with_the_reason(predictor, tmp_path, kind):
    content, reasons = BAD[kind]
    source = tmp_path / f"in.{kind}"
    source.write_bytes(content)
    summary = predict_file(predictor, source, tmp_path / "out.csv", chunk_rows=2)
    first = 1 if kind == "jsonl" else 2
    rows = [row.values for row in read_rows(tmp_path / "out.csv")]
    assert [bool(row["LabelText"]) for row in rows] == [
        line not in reasons for line in range(first, first + len(rows))
    ]
    assert rows[0]["LabelText"]
    assert rows[-1]["LabelText"]
    listed = [row.values for row in read_rows(tmp_path / "out.csv.rejects.jsonl")]
    assert [item["line"] for item in listed] == list(reasons)
    for item in listed:
        assert reasons[item["line"]] in item["reason"]
        assert (item["file"], item["row"]) == (str(source), item["line"] - first)
    empty = sum(reason == "no text" for reason in reasons.values())
    assert (summary.rows, summary.empty) == (len(rows), empty)
    assert summary.unreadable == len(reasons) - empty
    assert summary.rejects == str(tmp_path / "out.csv.rejects.jsonl")
    told = " ".join(summary.explain())
    assert "rows cannot be read" in told
    line = next(line for line, reason in reasons.items() if reason != "no text")
    assert f"; the first: {source}:{line}: " in told


@pytest.mark.parametrize("kind", BAD)
def test_a_strict_run_stops_at_the_first_bad_row(predictor, tmp_path, kind):
    (tmp_path / f"in.{kind}").write_bytes(BAD[kind][0])
    line, reason = next(iter(BAD[kind][1].items()))
    message = refuse(predictor, tmp_path / f"in.{kind}", tmp_path / "out.csv", strict=True)
    assert f"in.{kind}:{line}: {reason}" in message
    assert not (tmp_path / "out.csv").exists()


def test_another_encoding_can_be_named(predictor, tmp_path):
    (tmp_path / "in.csv").write_bytes("text\ncafé\n".encode("latin-1"))
    summary = predict_file(predictor, tmp_path / "in.csv", tmp_path / "a.csv", encoding="latin-1")
    assert summary.unreadable == 0
    assert predict_file(predictor, tmp_path / "in.csv", tmp_path / "b.csv").unreadable == 1


@pytest.mark.parametrize("target", ["csv", "jsonl.gz", "parquet"])
def test_columns_of_the_input_are_kept_on_request(predictor, tmp_path, target):
    (tmp_path / "in.csv").write_text("id,text,Label,note\na,goal,1,x\nb,comet,2,\n")
    out = tmp_path / f"out.{target}"
    predict_file(predictor, tmp_path / "in.csv", out, keep_columns=True)
    rows = [row.values for row in read_rows(out)]
    assert list(rows[0]) == [
        "id", "text", "input_Label", "note", "ID", "Label", "LabelText", "Confidence",
    ]  # fmt: skip
    assert [row["input_Label"] for row in rows] == ["1", "2"]
    assert [row["ID"] for row in rows] == [row["id"] for row in rows] == ["a", "b"]
    assert [row["LabelText"] for row in rows] == ["sport", "space"]


def test_an_unsure_answer_is_left_empty_on_request(predictor, tmp_path):
    source = write_input(tmp_path / "in.csv", TEXTS)
    predict_file(predictor, source, tmp_path / "all.csv")
    shares = [float(row.values["Confidence"]) for row in read_rows(tmp_path / "all.csv")]
    limit = sorted(shares)[7]
    summary = predict_file(predictor, source, tmp_path / "sure.csv", min_confidence=limit + 1e-7)
    rows = [row.values for row in read_rows(tmp_path / "sure.csv")]
    for share, row in zip(shares, rows, strict=True):
        assert bool(row["LabelText"]) == bool(row["Label"]) == (share > limit + 1e-7)
        assert float(row["Confidence"]) == share
    assert summary.unsure == sum(share <= limit + 1e-7 for share in shares) > 0


def test_texts_that_are_cut_can_be_marked(predictor, tmp_path):
    source = write_input(tmp_path / "in.jsonl", ["goal " * 99, "goal", ""])
    predict_file(predictor, source, tmp_path / "out.jsonl", mark_truncated=True)
    marks = [row.values["Truncated"] for row in read_rows(tmp_path / "out.jsonl")]
    assert marks == [True, False, None]


def test_a_distinct_text_is_computed_once(predictor):
    computed = []
    hook = predictor._backend.engine.head.register_forward_pre_hook(
        lambda _, inputs: computed.append(len(inputs[0]))
    )
    texts = [TEXTS[number % 3] for number in range(50)]
    found = predictor.predict(texts)
    hook.remove()
    assert sum(computed) == 3
    assert [answer.label for answer in found] == [predictor.predict([t])[0].label for t in texts]


def test_folders_and_patterns_are_read_in_the_order_of_their_names(predictor, tmp_path):
    folder = tmp_path / "parts"
    folder.mkdir()
    for name, texts in (("b.jsonl", TEXTS[5:9]), ("a.csv", TEXTS[:5]), ("c.txt.gz", TEXTS[9:])):
        path = folder / name
        if name.endswith(".gz"):
            path.write_bytes(gzip.compress("\n".join(texts).encode()))
        else:
            write_input(path, texts)
    (folder / ".hidden").write_text("no table")
    assert find_inputs([str(folder)]) == find_inputs([str(folder / "*")])
    whole = write_input(tmp_path / "whole.csv", TEXTS)
    predict_file(predictor, whole, tmp_path / "a.csv")
    predict_files(predictor, find_inputs([str(folder)]), tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    (tmp_path / "nothing").mkdir()
    for name in (tmp_path / "nothing", tmp_path / "*.doc"):
        with pytest.raises(DataError, match="has no files|no file has such a name"):
            find_inputs([str(name)])


def test_an_output_in_the_folder_of_the_input_is_no_input(predictor, tmp_path):
    folder = tmp_path / "parts"
    folder.mkdir()
    write_input(folder / "a.csv", [*TEXTS, ""])
    target = folder / "labelled.csv"
    outputs = (target, folder / "labelled.csv.rejects.jsonl")
    first = predict_files(predictor, find_inputs([str(folder)], outputs), target)
    assert sorted(path.name for path in folder.iterdir()) == [
        "a.csv", "labelled.csv", "labelled.csv.rejects.jsonl",
    ]  # fmt: skip
    again = predict_files(predictor, find_inputs([str(folder)], outputs), target)
    assert again.rows == first.rows == len(TEXTS) + 1


@pytest.mark.parametrize(
    "name", ["mine.csv", "mine.jsonl", "mine.parquet", "mine.csv.gz", "mine.txt"]
)
def test_a_file_that_holds_no_predictions_is_not_replaced(predictor, tmp_path, name):
    source, mine = write_input(tmp_path / "in.csv", TEXTS), tmp_path / name
    if name == "mine.parquet":
        pq.write_table(pa.table({"text": TEXTS}), mine)
    else:
        lines = {"csv": b"text,label\na,b\n", "jsonl": b'{"text": "a"}\n', "txt": b"a b c\nd\n"}
        content = lines[name.split(".")[1]]
        mine.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    before = mine.read_bytes()
    with pytest.raises(DataError, match=rf"{name}: exists and holds no predictions; name another"):
        predict_file(predictor, source, mine)
    assert mine.read_bytes() == before
    mine.unlink()
    predict_file(predictor, source, mine)
    predict_file(predictor, source, mine)  # an older output is


# A command that was killed goes on; the bytes are those of one that was not.


@pytest.mark.parametrize("target", ["csv", "jsonl.gz", "csv.zst", "parquet"])
def test_a_killed_command_continues_to_the_same_bytes(tiny_run, tmp_path, target):
    texts = [text for text, _ in make_rows(400, seed=3)]
    texts[100] = texts[399] = ""
    source = write_input(tmp_path / "in.csv", texts)
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    code = f"""
import os, signal, sys
from pathlib import Path
from textlora.prediction import chunk_file, file_prediction
from textlora.prediction.file_prediction import predict_files
from textlora.prediction.output_columns import FileOptions
from textlora.prediction.inputs import find_inputs
from textlora.prediction.predictor import Predictor
from textlora.system.progress import Reporter
from textlora.prediction.shards import merge_shards, parse_shard
predictor = Predictor.load({str(tiny_run)!r})
for at in map(int, sys.argv[2:]):
    child = os.fork()
    if not child:
        calls = []
        real = os.fsync
        def fsync(descriptor):
            calls.append(None)
            if len(calls) == at:
                os.kill(os.getpid(), signal.SIGKILL)
            real(descriptor)
        os.fsync = fsync
        options = FileOptions(chunk_rows=50, keep_columns=True)
        predict_files(predictor, [Path({str(source)!r})], Path(sys.argv[1]), options)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    found = []
    for name, moments in (("whole", ["0"]), ("killed", ["5", "9", "1", "4", "13", "8", "0"])):
        words = [sys.executable, "-c", code, str(tmp_path / name / f"out.{target}"), *moments]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        found.append([int(word) for word in done.stdout.split()])
    assert found == [[0], [-9] * 6 + [0]]
    for name in (f"out.{target}", f"out.{target}.rejects.jsonl"):
        whole, killed = (tmp_path / folder / name for folder in ("whole", "killed"))
        assert whole.read_bytes() == killed.read_bytes()
    assert len(list((tmp_path / "killed").iterdir())) == 2


def interrupt(predictor, source, target, **options):
    """Leave an output with one chunk, as a crash would."""
    calls = []

    class Stop(Reporter):
        def track(self, *_):
            return self

        def advance(self, *_):
            calls.append(None)
            raise KeyboardInterrupt

        __enter__ = lambda self: self  # noqa: E731
        __exit__ = lambda *_: None  # noqa: E731

    with pytest.raises(KeyboardInterrupt):
        predict_files(
            predictor, [source], target, FileOptions(chunk_rows=5, **options), Stop(quiet=True)
        )


def test_what_was_answered_is_not_answered_again(predictor, tmp_path):
    source = write_input(tmp_path / "in.csv", TEXTS)
    interrupt(predictor, source, tmp_path / "out.csv")
    summary = predict_file(predictor, source, tmp_path / "out.csv", chunk_rows=5)
    assert (summary.rows, summary.resumed) == (20, 5)
    predict_file(predictor, source, tmp_path / "whole.csv", chunk_rows=5)
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_changed_input_model_or_setting_is_refused(predictor, tmp_path, monkeypatch):
    source, out = write_input(tmp_path / "in.csv", TEXTS), tmp_path / "out.csv"
    interrupt(predictor, source, out)

    def refuse_settings(**options):
        with pytest.raises(SettingsError, match="--resume never") as caught:
            predict_file(predictor, source, out, **{"chunk_rows": 5, **options})
        return str(caught.value)

    assert "min_confidence was 0.0, is 0.5" in refuse_settings(min_confidence=0.5)
    assert "chunk_rows was 5, is 6" in refuse_settings(chunk_rows=6)
    with monkeypatch.context() as patch:
        patch.setattr(predictor, "fingerprint", "another")
        assert "the classifier has changed" in refuse_settings()
    write_input(source, [*TEXTS, "one more"])
    assert "the input has changed" in refuse_settings()
    assert predict_file(predictor, source, out, chunk_rows=5, resume="never").rows == 21


# Shards.


def predict_shards(predictor, source, folder, kind, count=3):
    folder.mkdir()
    paths = [folder / f"part-{index}.{kind}" for index in range(1, count + 1)]
    for index, path in enumerate(paths, start=1):
        predict_file(predictor, source, path, shard=(index, count), chunk_rows=4)
    return paths


@pytest.mark.parametrize("kind", ["csv", "tsv.gz", "jsonl", "jsonl.zst", "parquet", "txt"])
def test_shards_are_joined_to_the_bytes_of_the_whole(predictor, tmp_path, kind):
    source = write_input(tmp_path / "in.csv", TEXTS[:18])
    predict_file(predictor, source, tmp_path / f"whole.{kind}", chunk_rows=4)
    paths = predict_shards(predictor, source, tmp_path / "parts", kind)
    merged = merge_shards(list(reversed(paths)), tmp_path / f"joined.{kind}")
    assert (merged.rows, merged.shards) == (18, 3)
    whole, joined = (tmp_path / f"{name}.{kind}" for name in ("whole", "joined"))
    assert whole.read_bytes() == joined.read_bytes()


def test_shards_of_copies_of_the_input_are_joined(predictor, tmp_path, monkeypatch):
    """As on two machines: the same path, another time of change."""
    for index in (1, 2):
        (tmp_path / f"{index}").mkdir()
        monkeypatch.chdir(tmp_path / f"{index}")
        source = write_input(Path("in.csv"), TEXTS[:18])
        os.utime(source, (index, index))
        predict_file(predictor, source, Path("part.csv"), shard=(index, 2), chunk_rows=4)
    parts = [tmp_path / f"{index}" / "part.csv" for index in (1, 2)]
    assert merge_shards(parts, tmp_path / "joined.csv").rows == 18
    os.utime("in.csv", (9, 9))  # to go on with a part, it must be the very file
    (tmp_path / "2" / "in.csv").write_text("text\nanother\n")
    predict_file(predictor, Path("in.csv"), Path("part.csv"), shard=(2, 2), chunk_rows=4)
    with pytest.raises(DataError, match="input differ"):
        merge_shards(parts, tmp_path / "joined.csv")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_more_shards_than_chunks_are_joined_too(predictor, tmp_path, kind):
    source = write_input(tmp_path / "in.csv", TEXTS[:6])
    predict_file(predictor, source, tmp_path / f"whole.{kind}", chunk_rows=4)
    paths = predict_shards(predictor, source, tmp_path / "parts", kind, count=4)
    merge_shards(paths, tmp_path / f"joined.{kind}")
    whole, joined = (tmp_path / f"{name}.{kind}" for name in ("whole", "joined"))
    assert whole.read_bytes() == joined.read_bytes()


def test_shards_with_other_types_are_one_line(predictor, tmp_path):
    rows = [{"text": "goal", "n": None}] * 4 + [{"text": "bank", "n": 7}] * 4
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    parts = []
    for index in (1, 2):
        parts.append(tmp_path / f"part-{index}.parquet")
        predict_file(
            predictor, tmp_path / "in.jsonl", parts[-1], keep_columns=True, shard=(index, 2),
            chunk_rows=4,
        )  # fmt: skip
    with pytest.raises(DataError, match=r"whole\.parquet: the shards do not fit together"):
        merge_shards(parts, tmp_path / "whole.parquet")


def test_shards_that_do_not_make_a_whole_are_refused(predictor, tmp_path):
    source = write_input(tmp_path / "in.csv", TEXTS)
    one, two, three = predict_shards(predictor, source, tmp_path / "parts", "csv")
    out = tmp_path / "out.csv"

    def refuse_shards(paths, reason, target=out):
        with pytest.raises(DataError, match=reason) as caught:
            merge_shards(paths, target)
        assert "\n" not in str(caught.value)
        assert not target.exists()

    refuse_shards([one, two], r"shards \[1, 2\] of 3 are given")
    refuse_shards([one, two, two], r"shards \[1, 2, 2\] of 3")
    refuse_shards([one, two, source], "is no finished shard")
    refuse_shards([one, two, three], "another format", tmp_path / "out.jsonl")
    with pytest.raises(DataError, match="is one of the shards"):
        merge_shards([one, two, three], two)
    predict_file(predictor, source, two, shard=(2, 3), chunk_rows=4, min_confidence=0.9)
    refuse_shards([one, two, three], "does not belong to .*min_confidence")
    predict_file(predictor, source, two, shard=(2, 3), chunk_rows=4)
    three.write_bytes(three.read_bytes() + b"x")
    refuse_shards([one, two, three], "was changed")


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "-1/2", ""])
def test_a_wrong_shard_is_refused(text):
    with pytest.raises(DataError, match="--shard"):
        parse_shard(text)


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
