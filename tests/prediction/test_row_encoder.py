import datetime
import decimal
import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from textlora.data.tables import read_rows
from textlora.errors import DataError
from textlora.prediction.row_encoder import RowEncoder, merge_row_groups

KINDS = ["csv", "tsv", "jsonl", "parquet", "csv.gz", "jsonl.gz", "jsonl.zst", "txt"]


def write(path, columns, *batches, **options):
    encoder = RowEncoder(path, columns, **options)
    pieces = [encoder.encode_header(), *(encoder.encode(rows) for rows in batches)]
    if encoder.is_joined:
        encoder.join(pieces, path)
    else:
        path.write_bytes(b"".join(pieces))
    return [row.values for row in read_rows(path)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_rows_give_the_same_bytes(kind, tmp_path):
    rows = [[{"text": "a"}, {"text": "b"}], [{"text": "c"}]]
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        found = write(tmp_path / name / f"table.{kind}", {"text": str}, *rows)
        assert [row["text"] for row in found] == ["a", "b", "c"]
    assert (tmp_path / "one" / f"table.{kind}").read_bytes() == (
        tmp_path / "two" / f"table.{kind}"
    ).read_bytes()


def test_a_compressed_file_holds_no_time(tmp_path):
    write(tmp_path / "a.csv.gz", {"text": str}, [{"text": "a"}])
    assert (tmp_path / "a.csv.gz").read_bytes()[4:8] == bytes(4)
    assert gzip.decompress((tmp_path / "a.csv.gz").read_bytes()) == b"text\r\na\r\n"


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_half_a_surrogate_pair_is_written_as_a_question_mark(kind, tmp_path):
    found = write(tmp_path / f"table.{kind}", {"text": str}, [{"text": "a \ud83d b"}])
    assert found == [{"text": "a ? b"}]


@pytest.mark.parametrize(
    "batches",
    [[[{"a": 1}], [{"a": "x"}]], [[{"a": 1}, {"a": "x"}]]],
    ids=["second batch", "one batch"],
)
def test_a_parquet_column_of_two_kinds_is_a_data_error(batches, tmp_path):
    path = tmp_path / "table.parquet"
    with pytest.raises(DataError) as caught:
        write(path, {"a": None}, *batches)
    message = str(caught.value)
    assert message.startswith(f"{path}: values that Parquet cannot hold")
    assert message.endswith("write .csv or .jsonl instead")
    assert "\n" not in message


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "csv.gz"])
def test_rows_without_a_value_may_come_first(kind, tmp_path):
    first, later = {"id": None, "label": None, "share": None}, {"id": "x", "label": 3, "share": 0.5}
    columns = {"id": None, "label": int, "share": float}
    found = write(tmp_path / f"table.{kind}", columns, [first, first], [later])
    assert [set(row.values()) for row in found[:2]] in ([{None}] * 2, [{""}] * 2)
    assert [str(value) for value in found[2].values()] == ["x", "3", "0.5"]


def test_text_output_leaves_what_is_not_there_empty(tmp_path):
    write(tmp_path / "out.txt", {"id": None, "label": None}, [{"id": 0, "label": None}])
    assert (tmp_path / "out.txt").read_text() == "0\t\n"


def test_json_output_holds_what_only_parquet_knows(tmp_path):
    rows = [{"id": datetime.date(2026, 1, 2)}, {"id": decimal.Decimal("1.50")}]
    found = write(tmp_path / "out.jsonl", {"id": None}, rows)
    assert [row["id"] for row in found] == ["2026-01-02", "1.50"]


def test_later_pieces_keep_the_types_of_earlier_ones(tmp_path):
    """After a restart the first rows may be of another kind."""
    path = tmp_path / "a.parquet"
    piece = RowEncoder(path, {"a": None}).encode([{"a": "x"}])
    again = RowEncoder(path, {"a": None})
    again.adopt(piece)
    again.join([piece, again.encode([{"a": None}])], path)
    assert pq.read_table(path).to_pylist() == [{"a": "x"}, {"a": None}]
    assert pq.read_schema(path).field("a").type == pa.string()


@pytest.mark.parametrize("kind", ["csv", "tsv", "txt"])
def test_lists_and_objects_are_json_in_a_table(kind, tmp_path):
    cells = [["a", "é"], {"b": None}]
    rows = [{"cell": cell} for cell in cells]
    write(tmp_path / f"a.{kind}", {"cell": None}, rows)
    found = [list(row.values.values())[0] for row in read_rows(tmp_path / f"a.{kind}")]
    assert list(map(json.loads, found)) == cells


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_formulas_are_made_harmless_and_come_back(kind, tmp_path):
    cells = ["=1+1", "+49", "-x", "@a", "\ttab", "\rreturn", "'quoted", "plain", "", "a=b", "''"]
    path = tmp_path / f"a.{kind}"
    found = write(path, {"text": str}, [{"text": cell} for cell in cells], csv_safe=True)
    written = [row["text"] for row in found]
    assert not any(cell.startswith(tuple("=+-@\t\r")) for cell in written)
    assert [cell[1:] if cell.startswith("'") else cell for cell in written] == cells
    plain = write(path, {"n": float}, [{"n": -0.5}], csv_safe=True)
    assert plain == [{"n": "-0.5"}]  # a number is no formula


def test_row_groups_are_put_in_order(tmp_path):
    for name, groups in (("a", ["0", "2"]), ("b", ["1"])):
        pieces = [[{"n": group}] for group in groups]
        write(tmp_path / f"{name}.parquet", {"n": str}, *pieces)
    sources = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    merge_row_groups(sources, [(0, 0), (1, 0), (0, 1)], tmp_path / "whole.parquet")
    assert [row.values["n"] for row in read_rows(tmp_path / "whole.parquet")] == ["0", "1", "2"]
    assert json.dumps(pq.read_metadata(tmp_path / "whole.parquet").num_row_groups) == "3"
