"""Rows from CSV, TSV, JSON lines, Parquet and plain text, with the line each row came from.

Text formats may be compressed (`.gz`, `.zst`) and may come from stdin. Values stay what the file
says: the texts `NA`, `null` and `None` are texts.
"""

import csv
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, Literal

from textlora.errors import DataError, shorten_message
from textlora.system.text_stream import (
    STREAM,
    explain_encoding,
    find_compression,
    find_undecoded,
    open_raw,
    open_text,
)

Format = Literal["csv", "tsv", "jsonl", "parquet", "txt"]
SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".txt": "txt",
}
_DELIMITERS = ",;\t|"
_PEEKED_ROWS = 100
_MAX_FIELD_CHARS = 1 << 26  # the csv module's own limit of 131,072 refuses long texts


@dataclass(frozen=True)
class Row:
    """One row: its values by column, and the line (Parquet: row) it starts on, from 1.

    `fault` says what is wrong with a row that cannot be read; it has no values then.
    """

    line: int
    values: dict[str, Any]
    fault: str = ""


def find_format(path: Path, stream_format: Format | None = None) -> Format:
    """The format that a file's name says; for stdin and stdout it must be given.

    Raises:  DataError for an unknown ending.
    """
    if path == STREAM:
        if stream_format in (None, "parquet"):
            raise DataError("-: say its format with --format csv, tsv, jsonl or txt")
        return stream_format
    compression = find_compression(path)
    suffix = Path(path.stem if compression else path.name).suffix.lower()
    if suffix not in SUFFIXES or (compression and suffix == ".parquet"):
        known = ", ".join(SUFFIXES)
        raise DataError(
            f"{path}: unknown kind of file {path.suffix!r}; use one of {known} "
            "(all but .parquet also with .gz or .zst)"
        )
    return SUFFIXES[suffix]


def read_rows(
    path: Path,
    encoding: str = "utf-8",
    *,
    tolerant: bool = False,
    stream_format: Format | None = None,
) -> Iterator[Row]:
    """Read a table row by row, in constant memory.

    A text file has one column, `text`. A byte-order mark is dropped. The delimiter of a CSV file
    is read off its header, so semicolon files work. When `tolerant`, a row that cannot be read is
    given out with its fault, and reading goes on.

    Raises:  DataError naming file and line for what cannot be read.
    """
    kind = find_format(path, stream_format)
    if path != STREAM and not path.is_file():
        raise DataError(f"{path}: no such file; check the path")
    if kind == "parquet":
        yield from _read_parquet(path)
        return
    readers = {"csv": _read_csv, "tsv": _read_csv, "jsonl": _read_jsonl, "txt": _read_txt}
    position = _Position()
    try:
        with open_text(path, encoding, tolerant) as stream:
            for row in readers[kind](path, stream, position):
                if row.fault and not tolerant:
                    raise DataError(f"{path}:{row.line}: {row.fault}")
                yield row
    except UnicodeDecodeError as error:
        raise DataError(explain_encoding(path, position.line + 1, encoding, error)) from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: damaged or no gzip file ({error}); compress it again") from None
    except (OSError, LookupError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); check file and encoding") from None


def count_rows(path: Path) -> int:
    """About how many rows a file has: exact for Parquet, else its line breaks.

    0 for one that cannot be read: reading it says why.

    Raises:  DataError for an unknown ending.
    """
    if find_format(path) == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return int(pq.read_metadata(path).num_rows)
        except (pa.ArrowInvalid, OSError):
            return 0
    try:
        with open_raw(path) as stream:
            return sum(chunk.count(b"\n") for chunk in iter(lambda: stream.read(1 << 20), b""))
    except (EOFError, zlib.error, OSError):
        return 0


def name_columns(rows: Iterator[Row]) -> Iterator[tuple[Row, list[str]]]:
    """All rows, each with the columns of the first hundred: in JSON lines one row may lack some.

    Where none of those can be read there are no columns until a row has some.
    """
    first = list(islice(rows, _PEEKED_ROWS))
    names = list(dict.fromkeys(name for row in first for name in row.values))
    for row in chain(first, rows):
        names = names or list(row.values)
        yield row, names


@dataclass
class _Position:
    """The last line that was read whole, for messages about the next one."""

    line: int = 0


def _read_csv(path: Path, stream: IO[str], position: _Position) -> Iterator[Row]:
    csv.field_size_limit(_MAX_FIELD_CHARS)
    for header in stream:
        if header.strip():
            break
        position.line += 1
    else:
        return
    delimiter = _find_delimiter(path, header)
    # Strict, or a quote that is never closed would swallow the rows after it without a word.
    reader = csv.reader(chain([header], stream), delimiter=delimiter, strict=True)
    skipped = position.line
    columns = _read_header(path, reader, skipped + 1)
    position.line = skipped + reader.line_num
    while True:
        fault, fields = "", []
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            last = skipped + reader.line_num
            reach = f", it reaches to line {last}" if last > position.line + 1 else ""
            fault = f"cannot be read ({error}){reach}; mend the quotes there"
        line, position.line = position.line + 1, skipped + reader.line_num
        if len(fields) > len(columns):
            fault = (
                f"{len(fields)} fields, but the header has {len(columns)}; "
                f"quote texts that contain {delimiter!r}"
            )
        fault = fault or next(filter(None, map(find_undecoded, fields)), "")
        padded = fields + [None] * (len(columns) - len(fields))
        if fields or fault:  # not a blank line
            yield Row(line, {} if fault else dict(zip(columns, padded, strict=True)), fault)


def _find_delimiter(path: Path, header: str) -> str:
    if ".tsv" in [suffix.lower() for suffix in path.suffixes[-2:]]:
        return "\t"
    # Quoted parts do not count; the first of equally frequent delimiters wins.
    bare = re.sub(r'"[^"]*"', "", header)
    return max(_DELIMITERS, key=bare.count)


def _read_header(path: Path, reader: Any, line: int) -> list[str]:
    try:
        columns = [name.strip() for name in next(reader)]
    except csv.Error as error:
        raise DataError(f"{path}:{line}: cannot be read ({error}); mend the quotes there") from None
    if twice := [name for name in columns if name and columns.count(name) > 1]:
        raise DataError(f"{path}:1: two columns are called {twice[0]!r}; rename one of them")
    return columns


def _read_jsonl(_path: Path, stream: IO[str], position: _Position) -> Iterator[Row]:
    for line, text in enumerate(stream, start=1):
        position.line = line
        if not text.strip():
            continue
        fault, values = find_undecoded(text), None
        if not fault:
            try:
                values = json.loads(text)
            except (ValueError, RecursionError) as error:
                fault = f"not valid JSON ({error}); mend that line"
            else:
                if values == {}:
                    fault = "an empty JSON object; give it a text"
                elif not isinstance(values, dict):
                    fault = f"not a JSON object but {values!r:.40}; write one object a line"
        yield Row(line, {} if fault else values or {}, fault)


def _read_txt(_path: Path, stream: IO[str], position: _Position) -> Iterator[Row]:
    for line, text in enumerate(stream, start=1):
        position.line = line
        fault = find_undecoded(text)
        yield Row(line, {} if fault else {"text": text.rstrip("\r\n")}, fault)


def _read_parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as table:
            line = 0
            for batch in table.iter_batches(batch_size=8192):
                for values in batch.to_pylist():
                    line += 1
                    yield Row(line, values)
    except (pa.ArrowInvalid, OSError, UnicodeError, OverflowError) as error:
        raise DataError(
            f"{path}: not a readable Parquet file ({shorten_message(error)}); save it again"
        ) from None
