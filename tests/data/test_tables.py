import codecs
import gzip
import itertools
import json
import signal
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import uncovered

from textlora.data.tables import Row, count_rows, find_format, name_columns, read_rows
from textlora.errors import DataError
from textlora.prediction.row_encoder import RowEncoder

KINDS = [
    "csv", "tsv", "jsonl", "ndjson", "parquet", "csv.gz", "tsv.gz", "jsonl.gz", "csv.zst",
    "jsonl.zst",
]  # fmt: skip
ROWS = [
    {"text": 'He said "no", twice; a\ttab | a bar', "label": "x"},
    {"text": "two\nlines\r\nand three", "label": "y"},
    {"text": "Zürich 東京 🚀 \u2028 separator", "label": "NA"},
    {"text": "", "label": "null"},
    {"text": "  spaces stay  ", "label": "None"},
]


def read(path, encoding="utf-8"):
    return [row.values for row in read_rows(path, encoding)]


def refuse(path, *parts, encoding="utf-8"):
    """The message of the refusal, after checking that it is one line and holds the parts."""
    with pytest.raises(DataError) as caught:
        list(read_rows(path, encoding))
    message = str(caught.value)
    assert "\n" not in message
    for part in (str(path), *parts):
        assert part in message
    return message


def write(path, columns, *batches):
    encoder = RowEncoder(path, dict.fromkeys(columns))
    pieces = [encoder.encode(rows) for rows in batches]
    if encoder.is_joined:
        encoder.join(pieces, path)
    else:
        path.write_bytes(b"".join([encoder.encode_header(), *pieces]))


def save(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_read_back(kind, tmp_path):
    path = tmp_path / f"table.{kind}"
    write(path, ["text", "label"], ROWS[:2], iter(ROWS[2:]))
    assert read(path) == ROWS
    assert {tuple(names) for _, names in name_columns(read_rows(path))} == {("text", "label")}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_without_rows_is_read_back(kind, tmp_path):
    path = tmp_path / f"table.{kind}"
    write(path, ["text", "label"])
    assert read(path) == []


@pytest.mark.parametrize("kind", ["txt", "txt.gz", "txt.zst"])
def test_a_text_file_has_one_text_a_line(kind, tmp_path):
    path = tmp_path / f"texts.{kind}"
    write(path, ["text"], [{"text": "one, 1"}, {"text": ""}, {"text": " three"}])
    rows = list(read_rows(path))
    assert [row.values for row in rows] == [{"text": "one, 1"}, {"text": ""}, {"text": " three"}]
    assert [row.line for row in rows] == [1, 2, 3]


def test_written_columns_have_the_order_asked_for(tmp_path):
    path = tmp_path / "table.csv"
    write(path, ["b", "a"], [{"a": 1, "b": 2}])
    assert path.read_bytes().split() == [b"b,a", b"2,1"]


@pytest.mark.parametrize("name", ["NA", "null", "None", "nan", "N/A", "", "true", "007", "1e5"])
@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
def test_every_value_stays_the_text_it_is(kind, name, tmp_path):
    line = {
        "csv": f"text,label\n{name},x\n",
        "tsv": f"text\tlabel\n{name}\tx\n",
        "jsonl": json.dumps({"text": name, "label": "x"}) + "\n",
    }
    path = save(tmp_path / f"table.{kind}", line[kind])
    assert read(path) == [{"text": name, "label": "x"}]


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("csv", "text,label\na,b\n"),
        ("tsv", "text\tlabel\na\tb\n"),
        ("jsonl", '{"text": "a", "label": "b"}\n'),
    ],
)
def test_a_byte_order_mark_is_dropped(kind, content, tmp_path):
    path = save(tmp_path / f"table.{kind}", codecs.BOM_UTF8 + content.encode())
    assert read(path) == [{"text": "a", "label": "b"}]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_read_off_the_header(delimiter, tmp_path):
    other = ";" if delimiter == "," else ","
    content = f'"a{other}b{other}c"{delimiter}text{delimiter}label\n1{delimiter}a{other} b'
    path = save(tmp_path / "table.csv", f"{content}{delimiter}x\n")
    assert read(path) == [{f"a{other}b{other}c": "1", "text": f"a{other} b", "label": "x"}]


def test_a_tsv_file_with_one_column_may_hold_commas(tmp_path):
    path = save(tmp_path / "table.tsv", "a,b\nc,d\n")
    assert read(path) == [{"a,b": "c,d"}]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_numbers_count_quoted_and_blank_lines(end, tmp_path):
    lines = ["text,label", '"one', 'more",x', "", "two,y", '"', '",z', "four,x"]
    path = save(tmp_path / "table.csv", end.join(lines) + end)
    rows = list(read_rows(path))
    assert [row.line for row in rows] == [2, 5, 6, 8]
    assert rows[0].values["text"] == f"one{end}more"


def test_a_header_may_hold_a_line_break_and_follow_blank_lines(tmp_path):
    path = save(tmp_path / "table.csv", '\n\n"the\ntext",label\na,x\n"b\n",y\nc,z,3\n')
    rows = read_rows(path)
    assert [next(rows).line, next(rows).line] == [5, 6]
    refuse(path, f"{path}:8: 3 fields")
    rows = list(name_columns(read_rows(path, tolerant=True)))
    assert [names for _, names in rows] == [["the\ntext", "label"]] * 3


def test_too_many_fields_are_refused_with_their_line(tmp_path):
    path = save(tmp_path / "table.csv", 'text,label\n"a\nb",x\nc, d,y\n')
    refuse(path, f"{path}:4: 3 fields", "header has 2", "quote texts that contain ','")


def test_missing_fields_are_none(tmp_path):
    path = save(tmp_path / "table.csv", "text,label\na\n")
    assert read(path) == [{"text": "a", "label": None}]


def test_a_quote_never_closed_is_refused_where_it_opens(tmp_path):
    path = save(tmp_path / "table.csv", 'label,text\nx,a\ny,"b\nx,c\ny,d\n')
    refuse(path, f"{path}:3: ", "mend the quotes")
    path.write_text('text,label\n"never closed,a\n' + "word,b\n" * 50)
    refuse(path, f"{path}:2: ", "it reaches to line 52")


def test_a_text_longer_than_the_csv_module_allows_is_read(tmp_path):
    path = save(tmp_path / "table.csv", f"text,label\n{'a' * 200_000},x\n")
    assert len(read(path)[0]["text"]) == 200_000


@pytest.mark.parametrize(
    ("encoding", "byte"), [("latin-1", "0xe9"), ("utf-16", "0xff")], ids=["latin-1", "utf-16"]
)
@pytest.mark.parametrize("kind", ["csv", "csv.gz", "tsv", "jsonl", "txt"])
def test_another_encoding_is_refused_by_name_and_read_when_named(encoding, byte, kind, tmp_path):
    lines = {
        "csv": "text,label\ncafé,x\n",
        "tsv": "text\tlabel\ncafé\tx\n",
        "jsonl": '{"text": "café", "label": "x"}\n',
        "txt": "café\n",
    }
    content = lines[kind.removesuffix(".gz")].encode(encoding)
    path = save(
        tmp_path / f"table.{kind}", gzip.compress(content) if kind.endswith(".gz") else content
    )
    refuse(path, "line 1", "not utf-8", byte, f"data.encoding={encoding}", f"--encoding {encoding}")
    assert read(path, encoding)[0]["text"] == "café"


def test_a_stray_byte_is_never_said_to_stand_before_a_line_that_was_read(tmp_path):
    lines = [b"text,label\n", *(b"some words of text,x\n" for _ in range(5000)), b"caf\xe9,x\n"]
    path = save(tmp_path / "table.csv", b"".join(lines))
    message = refuse(path, "at or after line ")
    assert 4000 < int(message.partition("after line ")[2].partition(":")[0]) <= 5002


def test_an_unknown_encoding_is_refused(tmp_path):
    path = save(tmp_path / "table.csv", "text,label\na,b\n")
    refuse(path, "klingon", "check file and encoding", encoding="klingon")


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ('{"text": "b", "label"', ["not valid JSON", "mend that line"]),
        ('{"text": ' + "1" * 5000 + "}", ["not valid JSON", "digits", "mend that line"]),
        ("[" * 100_000, ["not valid JSON", "mend that line"]),
        ('["b", "x"]', ["not a JSON object", "['b', 'x']", "one object a line"]),
        ("7", ["not a JSON object", "7", "one object a line"]),
    ],
    ids=["cut off", "huge number", "deeply nested", "list", "number"],
)
def test_a_broken_json_line_is_refused_with_its_number(line, parts, tmp_path):
    path = save(tmp_path / "table.jsonl", f'{{"text": "a"}}\n\n{line}\n{{"text": "c"}}\n')
    refuse(path, f"{path}:3: ", *parts)


def test_rows_before_a_broken_one_are_given_out(tmp_path):
    path = save(tmp_path / "table.jsonl", '{"text": "a"}\n{"te')
    assert next(read_rows(path)).values == {"text": "a"}


@pytest.mark.parametrize("name", ["table.xlsx", "table", "table.csv.zip", "table.parquet.gz"])
def test_an_unknown_ending_is_refused_for_reading_and_writing(name, tmp_path):
    path = save(tmp_path / name, "text,label\na,b\n")
    refuse(path, "unknown kind of file", repr(path.suffix), ".csv, .tsv", "also with .gz")
    with pytest.raises(DataError, match="unknown kind of file"):
        RowEncoder(path, {"text": None})


def test_an_ending_may_be_in_capitals(tmp_path):
    assert find_format(tmp_path / "TABLE.CSV") == "csv"
    assert find_format(tmp_path / "Table.JsonL.gz") == "jsonl"


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_file_and_a_folder_are_refused(kind, tmp_path):
    path = tmp_path / f"table.{kind}"
    refuse(path, "no such file", "check the path")
    path.mkdir()
    refuse(path, "no such file", "check the path")


@pytest.mark.parametrize("content", ["", "\n\n", "text,label\n"])
def test_a_file_without_rows_has_no_column_names(content, tmp_path):
    path = save(tmp_path / "table.csv", content)
    assert read(path) == []
    assert list(name_columns(read_rows(path))) == []


def test_columns_are_those_of_the_first_hundred_rows_together():
    rows = [Row(1, {}, "bad"), Row(2, {"id": 1}), Row(3, {"text": "a"}), *[Row(4, {})] * 100]
    found = list(name_columns(iter([*rows, Row(5, {"late": 1})])))
    assert [row for row, _ in found[:104]] == [*rows, Row(5, {"late": 1})]
    assert {tuple(names) for _, names in found} == {("id", "text")}


def test_rows_that_cannot_be_read_are_not_held_back():
    """A pipe of them would fill the memory, or never give one."""
    endless = (Row(line, {}, "bad") for line in itertools.count(1))
    assert next(name_columns(endless)) == (Row(1, {}, "bad"), [])
    rows = itertools.chain([Row(1, {}, "bad")] * 150, [Row(2, {"text": "a"}), Row(3, {"id": 1})])
    assert [names for _, names in name_columns(rows)][149:] == [[], ["text"], ["text"]]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-6],
        lambda content: content[:100] + bytes(60) + content[160:],
        lambda content: content[:-8] + bytes(8),
        lambda content: b"text,label\na,b\n",
    ],
    ids=["cut off", "overwritten", "wrong checksum", "not compressed"],
)
def test_a_damaged_compressed_file_is_refused(damage, tmp_path):
    content = "text,label\n" + "".join(f"{i * 7919 % 10007},x\n" for i in range(500))
    path = save(tmp_path / "table.csv.gz", damage(gzip.compress(content.encode())))
    refuse(path, "damaged or no gzip file", "compress it again")


@pytest.mark.parametrize("content", ["", "text,label\na,b\n", "PAR1junkPAR1"])
def test_a_damaged_parquet_file_is_refused(content, tmp_path):
    refuse(save(tmp_path / "table.parquet", content), "not a readable Parquet", "save it again")


def test_parquet_values_keep_their_types_and_rows_their_numbers(tmp_path):
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table({"text": ["a", None, "c"], "label": [2, 0, None]}), path)
    rows = list(read_rows(path))
    assert [row.line for row in rows] == [1, 2, 3]
    assert [row.values["label"] for row in rows] == [2, 0, None]
    assert rows[1].values["text"] is None


def test_two_columns_of_one_name_are_refused(tmp_path):
    refuse(save(tmp_path / "a.csv", "text,label,text\na,b,c\n"), "'text'", "rename")


@pytest.mark.parametrize("encoding", ["no-such", "base64", "a\0b", ""])
def test_what_is_no_encoding_is_told(tmp_path, encoding):
    path = save(tmp_path / "a.csv", "text,label\ngoal,sport\n")
    with pytest.raises(DataError, match=r"a\.csv: cannot be read .*; check file and encoding"):
        list(read_rows(path, encoding))


@pytest.mark.parametrize("order", ["le", "be"])
@pytest.mark.parametrize("named", ["utf-16", "utf-16-le", "UTF_16BE"])
def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path, order, named):
    table = "text,label\ngoal,sport\n"
    path = save(tmp_path / "a.csv", ("\ufeff" + table).encode(f"utf-16-{order}"))
    assert list(read_rows(path, named))[0].values == {"text": "goal", "label": "sport"}


def test_utf_16_without_a_mark_is_told(tmp_path):
    path = save(tmp_path / "a.csv", "text,label\ngoal,sport\n".encode("utf-16-le"))
    refuse(path, "UTF-16", "--encoding utf-16-le")
    assert list(read_rows(path, "utf-16-le"))[0].values == {"text": "goal", "label": "sport"}


FAULTY = {
    "a.csv": (b"text,n\ngoal,1\nbank,1,2\nca\xe9,3\n\nstar,4\n", [3, 4]),
    "a.jsonl": (
        b'{"text": "goal"}\n{broken\n[1]\n{"text": "ca\xe9"}\n{"text": "star"}\n',
        [2, 3, 4],
    ),
    "a.txt": (b"goal\nca\xe9\nstar\n", [2]),
    "b.csv": (b'text\ngoal\n"a"b\nstar\n', [3]),
    "c.csv": (b'text\ngoal\nstar\n"never closed\nbank\n', [4]),
}


@pytest.mark.parametrize("name", FAULTY)
def test_a_tolerant_reader_gives_out_the_others_and_names_the_faulty(name, tmp_path):
    content, lines = FAULTY[name]
    path = save(tmp_path / name, content)
    rows = list(read_rows(path, tolerant=True))
    assert [row.line for row in rows if row.fault] == lines
    assert all(row.values == {} for row in rows if row.fault)
    assert [row.values["text"] for row in rows if not row.fault] == ["goal", "star"]
    with pytest.raises(DataError):  # the strict one stops
        list(read_rows(path))


def test_a_file_that_is_wholly_in_another_encoding_is_told(tmp_path):
    path = save(tmp_path / "a.csv", "text\ngoal\n".encode("utf-16"))
    with pytest.raises(DataError, match="--encoding utf-16"):
        list(read_rows(path, tolerant=True))


def test_rows_are_counted_without_reading_them(tmp_path):
    for kind in ("csv", "jsonl.gz", "parquet", "txt.zst"):
        path = tmp_path / f"table.{kind}"
        write(path, ["text"], [{"text": str(number)} for number in range(1000)])
        assert count_rows(path) - kind.startswith("csv") == 1000


def test_a_signal_that_no_read_notices_still_ends_the_wait():
    """Another thread takes it, as a moment before the read would: nothing interrupts the read."""
    code = """
import signal, threading, time
from pathlib import Path
from textlora.data.tables import read_rows
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
try:
    print("reading", flush=True)  # the signal may come at once
    list(read_rows(Path("-"), stream_format="txt"))
except KeyboardInterrupt:
    print("stopped", flush=True)
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": uncovered()}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as process:
        assert process.stdout.readline() == "reading\n"
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        assert process.stdout.read() == "stopped\n"
