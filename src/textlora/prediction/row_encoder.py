"""Rows to bytes, a piece at a time: pieces put one after the other are a file.

The same rows give the same bytes: compressed pieces are members of their own (gzip without a time,
zstd frames). Parquet alone cannot be put together so; its pieces are joined at the end.
"""

import csv
import gzip
import io
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textlora.data.tables import Format, find_format
from textlora.errors import DataError, shorten_message
from textlora.system.text_stream import find_compression

if TYPE_CHECKING:
    import pyarrow as pa

_ARROW_TYPES = {str: "string", int: "int64", float: "float64", bool: "bool"}
_BREAKS = re.compile(r"[\t\r\n]+")  # a text file is a line a row, a tab between columns
# A spreadsheet takes a cell that begins so for a formula. The apostrophe is among them, so that
# taking one away from each cell that begins with one gives back what was written.
_FORMULA_STARTS = tuple("=+-@\t\r'")


class RowEncoder:
    """Encodes rows for the file `path`, whose name says format and compression.

    `columns` maps each name to the type of its values; None means that the first rows decide (only
    Parquet asks). `csv_safe` puts an apostrophe before cells that a spreadsheet would calculate.

    Raises:  DataError for an unknown ending.
    """

    def __init__(
        self,
        path: Path,
        columns: dict[str, type | None],
        *,
        stream_format: Format | None = None,
        csv_safe: bool = False,
    ) -> None:
        self._path, self._columns, self._csv_safe = path, columns, csv_safe
        self._kind = find_format(path, stream_format)
        self._compression = find_compression(path)
        self._schema: pa.Schema | None = None

    @property
    def is_joined(self) -> bool:
        """Whether the pieces, one after the other, are not yet the file."""
        return self._kind == "parquet"

    def encode_header(self) -> bytes:
        """What stands before the rows."""
        if self._kind not in ("csv", "tsv"):
            return b""
        return self._compress(self._format_table([list(self._columns)]))

    def encode(self, rows: Iterable[dict[str, Any]]) -> bytes:
        """A piece; every row has all columns.

        Raises:  DataError for values that the format cannot hold.
        """
        if self._kind == "parquet":
            return self._encode_parquet(list(rows))
        if self._kind == "jsonl":
            # A Parquet input may hold dates, decimals or bytes where JSON has only text.
            text = "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
        elif self._kind == "txt":
            text = "".join(
                "\t".join(_BREAKS.sub(" ", str(_format_cell(row[c]))) for c in self._columns) + "\n"
                for row in rows
            )
        else:
            text = self._format_table([_format_cell(row[c]) for c in self._columns] for row in rows)
        return self._compress(text)

    def join(self, pieces: Iterable[bytes], target: Path) -> None:
        """Write the Parquet file that holds the pieces as row groups."""
        import pyarrow.parquet as pq

        schema = self._schema or self._decide_schema([])
        with pq.ParquetWriter(target, schema, compression="zstd") as writer:
            for piece in filter(None, pieces):
                writer.write_table(pq.read_table(io.BytesIO(piece)))

    def adopt(self, piece: bytes) -> None:
        """Go on with the types of an earlier piece."""
        if self._kind == "parquet":
            import pyarrow.parquet as pq

            self._schema = pq.read_schema(io.BytesIO(piece))

    def _format_table(self, rows: Iterable[Sequence[Any]]) -> str:
        stream = io.StringIO(newline="")
        writer = csv.writer(stream, delimiter="\t" if self._kind == "tsv" else ",")
        writer.writerows(map(self._make_safe, rows) if self._csv_safe else rows)
        return stream.getvalue()

    def _make_safe(self, cells: Sequence[Any]) -> list[Any]:
        return [
            f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA_STARTS) else cell
            for cell in cells
        ]

    def _compress(self, text: str) -> bytes:
        # Half a surrogate pair cannot be encoded and becomes a question mark.
        content = text.encode("utf-8", errors="replace")
        if self._compression == "gz":
            return gzip.compress(content, mtime=0)
        if self._compression == "zst":
            import pyarrow as pa

            return bytes(pa.compress(content, codec="zstd", asbytes=True))
        return content

    def _encode_parquet(self, rows: list[dict[str, Any]]) -> bytes:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            if self._schema is None:
                self._schema = self._decide_schema(rows)
            stream = io.BytesIO()
            pq.write_table(pa.Table.from_pylist(rows, self._schema), stream, compression="none")
        except (pa.ArrowException, UnicodeEncodeError) as error:
            raise DataError(
                f"{self._path}: values that Parquet cannot hold ({shorten_message(error)}); "
                "write .csv or .jsonl instead"
            ) from None
        return stream.getvalue()

    def _decide_schema(self, first: list[dict[str, Any]]) -> "pa.Schema":
        import pyarrow as pa

        fields = []
        for name, kind in self._columns.items():
            values = [] if kind else [row[name] for row in first]
            found = pa.type_for_alias(_ARROW_TYPES[kind]) if kind else pa.array(values).type
            fields.append((name, pa.string() if pa.types.is_null(found) else found))
        return pa.schema(fields)


def _format_cell(value: Any) -> Any:
    """A value as a table has it: lists and objects as JSON, which other programs read too."""
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return "" if value is None else value


def merge_row_groups(sources: list[Path], places: list[tuple[int, int]], target: Path) -> None:
    """Write a Parquet file of row groups of others: `places` are (source, row group), in order."""
    import pyarrow.parquet as pq

    tables = [pq.ParquetFile(source) for source in sources]
    try:
        schema = tables[0].schema_arrow
        with pq.ParquetWriter(target, schema, compression="zstd") as writer:
            for source, group in places:
                writer.write_table(tables[source].read_row_group(group))
    finally:
        for table in tables:
            table.close()
