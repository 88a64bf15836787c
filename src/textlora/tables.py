"""Rows from and to CSV, TSV, JSON lines, Parquet and plain text, with the line each row came from.

Text formats may be compressed (`.gz`). Values stay what the file says: the texts `NA`, `null` and
`None` are texts.
"""

import csv
import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from textlora.errors import DataError

Format = Literal["csv", "tsv", "jsonl", "parquet", "txt"]
SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".txt": "txt",
}
_ARROW_TYPES = {str: pa.string(), int: pa.int64(), float: pa.float64()}
_DELIMITERS = ",;\t|"
_MAX_FIELD_CHARS = 1 << 26  # the csv module's own limit of 131,072 refuses long texts


@dataclass(frozen=True)
class Row:
    """One row: its values by column, and the line (Parquet: row) it starts on, from 1."""

    line: int
    values: dict[str, Any]


def find_format(path: Path) -> Format:
    """The format that a file's name says.

    Raises:  DataError for an unknown ending.
    """
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix not in SUFFIXES or (path.name.endswith(".gz") and suffix == ".parquet"):
        known = ", ".join(SUFFIXES)
        raise DataError(
            f"{path}: unknown kind of file {path.suffix!r}; use one of {known} "
            "(all but .parquet also with .gz)"
        )
    return SUFFIXES[suffix]


def read_rows(path: Path, encoding: str = "utf-8") -> Iterator[Row]:
    """Read a table row by row, in constant memory.

    A text file has one column, `text`. A byte-order mark is dropped. The delimiter of a CSV file
    is read off its header, so semicolon files work.

    Raises:  DataError naming file and line for what cannot be read.
    """
    kind = find_format(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file; check the path")
    if kind == "parquet":
        yield from _read_parquet(path)
        return
    readers = {"csv": _read_csv, "tsv": _read_csv, "jsonl": _read_jsonl, "txt": _read_txt}
    position = _Position()
    try:
        with _open_text(path, encoding) as stream:
            yield from readers[kind](path, stream, position)
    except UnicodeDecodeError as error:
        raise DataError(_explain_encoding(path, position.line + 1, encoding, error)) from None
    except csv.Error as error:
        raise DataError(
            f"{path}:{position.line + 1}: cannot be read ({error}); mend the quotes there"
        ) from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: damaged or no gzip file ({error}); compress it again") from None
    except (OSError, LookupError) as error:
        raise DataError(f"{path}: cannot be read ({error}); check file and encoding") from None


def read_column_names(path: Path, encoding: str = "utf-8") -> list[str]:
    """Column names of a table; those of its first row for JSON lines.

    Raises:  DataError as `read_rows`, and for an empty file.
    """
    for row in read_rows(path, encoding):
        return list(row.values)
    raise DataError(f"{path}: has no rows; give a file with a header and at least one row")


class TableWriter:
    """Writes rows to a file that appears under its name only when it is whole.

    `columns` maps each name to the type of its values; None means that the first rows decide (only
    Parquet asks). Use as a context manager; leaving it by an exception removes what was staged.

    Raises:  DataError for an unknown ending or a place that cannot be written.
    """

    def __init__(self, path: Path, columns: dict[str, type | None]) -> None:
        self._path, self._columns = path, columns
        self._kind = find_format(path)
        self._staged = path.with_name(f".{path.name}.partial")
        if path.is_dir():
            raise DataError(f"{path}: is a folder; name a file to write")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self._open()
        except OSError as error:
            raise DataError(
                f"{path}: cannot be written ({error.strerror}); choose another place"
            ) from None
        self._parquet: pq.ParquetWriter | None = None
        if self._kind in ("csv", "tsv"):
            csv.writer(self._stream, delimiter=self._delimiter).writerow(columns)

    def write(self, rows: Iterable[dict[str, Any]]) -> None:
        """Append rows; every row has all columns."""
        try:
            self._write(rows)
        except OSError as error:
            raise self._explain(error) from None
        except (pa.ArrowException, UnicodeEncodeError) as error:
            raise DataError(
                f"{self._path}: values that Parquet cannot hold ({str(error).splitlines()[0]}); "
                "write .csv or .jsonl instead"
            ) from None

    def __enter__(self) -> "TableWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._close()
            if kind is None:
                self._staged.replace(self._path)
        except OSError as failure:  # what was buffered did not fit on the disk
            if kind is None:
                raise self._explain(failure) from None
        finally:
            self._staged.unlink(missing_ok=True)

    @property
    def _delimiter(self) -> str:
        return "\t" if self._kind == "tsv" else ","

    def _open(self) -> IO[Any]:
        if self._kind == "parquet":
            return self._staged.open("wb")
        opener = gzip.open if self._path.name.endswith(".gz") else open
        # Half a surrogate pair cannot be encoded and becomes a question mark.
        return opener(self._staged, "wt", encoding="utf-8", errors="replace", newline="")

    def _close(self) -> None:
        try:
            if self._kind == "parquet" and self._parquet is None:
                self._parquet = pq.ParquetWriter(self._stream, self._decide_schema([]))
            if self._parquet is not None:
                self._parquet.close()
        finally:
            self._stream.close()

    def _decide_schema(self, first: list[dict[str, Any]]) -> pa.Schema:
        fields = []
        for name, kind in self._columns.items():
            found = _ARROW_TYPES[kind] if kind else pa.array([row[name] for row in first]).type
            fields.append((name, pa.string() if pa.types.is_null(found) else found))
        return pa.schema(fields)

    def _explain(self, error: OSError) -> DataError:
        return DataError(
            f"{self._path}: cannot be written ({error.strerror or error}); free some space"
        )

    def _write(self, rows: Iterable[dict[str, Any]]) -> None:
        if self._kind == "jsonl":
            # A Parquet input may hold dates, decimals or bytes where JSON has only text.
            self._stream.writelines(
                json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows
            )
        elif self._kind == "txt":
            self._stream.writelines(
                "\t".join("" if row[c] is None else str(row[c]) for c in self._columns) + "\n"
                for row in rows
            )
        elif self._kind == "parquet":
            values = list(rows)
            if self._parquet is None:
                self._parquet = pq.ParquetWriter(self._stream, self._decide_schema(values))
            self._parquet.write_table(pa.Table.from_pylist(values, self._parquet.schema))
        else:
            writer = csv.writer(self._stream, delimiter=self._delimiter)
            writer.writerows([row[c] for c in self._columns] for row in rows)


@dataclass
class _Position:
    """The last line that was read whole, for messages about the next one."""

    line: int = 0


@contextmanager
def _open_text(path: Path, encoding: str) -> Iterator[IO[str]]:
    codec = "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding
    opener = gzip.open if path.name.endswith(".gz") else open
    with opener(path, "rb") as raw:
        start = raw.read(1024)
        marked = start[:2] in (b"\xff\xfe", b"\xfe\xff")  # decoding will fail and say so
        if codec == "utf-8-sig" and b"\0" in start and not marked:
            guess = "utf-16-le"
            raise DataError(
                f"{path}: has zero bytes, so it is not {encoding} but perhaps UTF-16; save it as "
                f"UTF-8 or name its encoding (train: --set data.encoding={guess}, "
                f"predict: --encoding {guess})"
            )
    with opener(path, "rt", encoding=codec, newline="") as stream:
        yield stream


def _read_csv(path: Path, stream: IO[str], position: _Position) -> Iterator[Row]:
    csv.field_size_limit(_MAX_FIELD_CHARS)
    for header in stream:
        if header.strip():
            break
        position.line += 1
    else:
        return
    tabs = path.name.removesuffix(".gz").lower().endswith(".tsv")
    # Quoted parts do not count; the first of equally frequent delimiters wins.
    bare = re.sub(r'"[^"]*"', "", header)
    delimiter = "\t" if tabs else max(_DELIMITERS, key=bare.count)
    # Strict, or a quote that is never closed would swallow the rows after it without a word.
    reader = csv.reader(chain([header], stream), delimiter=delimiter, strict=True)
    skipped = position.line
    columns = [name.strip() for name in next(reader)]
    if twice := [name for name in columns if name and columns.count(name) > 1]:
        raise DataError(f"{path}:1: two columns are called {twice[0]!r}; rename one of them")
    position.line = skipped + reader.line_num
    for fields in reader:
        line, position.line = position.line + 1, skipped + reader.line_num
        if not fields:
            continue  # a blank line
        if len(fields) > len(columns):
            raise DataError(
                f"{path}:{line}: {len(fields)} fields, but the header has {len(columns)}; "
                f"quote texts that contain {delimiter!r}"
            )
        padded = fields + [None] * (len(columns) - len(fields))
        yield Row(line, dict(zip(columns, padded, strict=True)))


def _read_jsonl(path: Path, stream: IO[str], position: _Position) -> Iterator[Row]:
    for line, text in enumerate(stream, start=1):
        position.line = line
        if not text.strip():
            continue
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}:{line}: not valid JSON ({error}); mend that line") from None
        if not isinstance(values, dict):
            raise DataError(
                f"{path}:{line}: not a JSON object but {values!r:.40}; write one object a line"
            )
        yield Row(line, values)


def _read_txt(_path: Path, stream: IO[str], position: _Position) -> Iterator[Row]:
    for line, text in enumerate(stream, start=1):
        position.line = line
        yield Row(line, {"text": text.rstrip("\r\n")})


def _read_parquet(path: Path) -> Iterator[Row]:
    try:
        with pq.ParquetFile(path) as table:
            line = 0
            for batch in table.iter_batches(batch_size=8192):
                for values in batch.to_pylist():
                    line += 1
                    yield Row(line, values)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(
            f"{path}: not a readable Parquet file ({str(error).splitlines()[0]}); save it again"
        ) from None


def _explain_encoding(path: Path, line: int, encoding: str, error: UnicodeDecodeError) -> str:
    opener = gzip.open if path.name.endswith(".gz") else open
    with opener(path, "rb") as stream:
        start = stream.read(2)
    guess = "utf-16" if start in (b"\xff\xfe", b"\xfe\xff") else "latin-1"
    # Buffered decoding fails ahead of the line being read, so the line is "at or after".
    byte = error.object[error.start]
    return (
        f"{path}: at or after line {line}: not {encoding} (byte 0x{byte:02x}); save it as UTF-8 or "
        f"name its encoding, such as {guess} (train: --set data.encoding={guess}, "
        f"predict: --encoding {guess})"
    )
