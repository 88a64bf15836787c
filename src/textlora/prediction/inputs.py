"""The rows to be predicted: from files, folders, patterns or stdin, numbered, in chunks.

A row that cannot be read keeps its number and says why, so that every row of the input has one in
the output.
"""

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from glob import glob
from itertools import islice
from pathlib import Path
from typing import Any

from textlora.data.cleaning import clean_text
from textlora.data.columns import find_text_columns, find_text_fault, join_texts
from textlora.data.tables import SUFFIXES, Format, Row, count_rows, name_columns, read_rows
from textlora.errors import DataError
from textlora.system.text_stream import STREAM

NO_TEXT = "no text"
_FINGERPRINT_BYTES = 1 << 20


@dataclass(frozen=True)
class InputRow:
    """A row with its number over all files, from 0, and its text or what is wrong with it."""

    number: int
    source: Path
    row: Row
    text: str
    fault: str


class Input:
    """All rows of some files; `num_rows` counts those that were read.

    Their text is in `text_columns`; where none is named in `usual_columns`, if a file has all of
    them, else in those with the usual names. With `repair_entities` a text of which the repair
    leaves nothing is none.

    Raises:  DataError, while reading, for a file that cannot be read or has no such column; where
    `strict`, also for the first row with a fault.
    """

    def __init__(
        self,
        sources: list[Path],
        encoding: str = "utf-8",
        *,
        text_columns: tuple[str, ...] = (),
        usual_columns: tuple[str, ...] = (),
        repair_entities: bool = False,
        stream_format: Format | None = None,
        strict: bool = False,
        chunk_rows: int = 8192,
    ) -> None:
        self.sources, self.num_rows = sources, 0
        self._encoding, self._stream_format, self._strict = encoding, stream_format, strict
        self._chunk_rows, self._repair_entities = chunk_rows, repair_entities
        self._wanted, self._usual = text_columns, usual_columns
        self._rows = self._read()

    def read_chunk(self) -> list[InputRow]:
        """The next rows, in a fixed number; fewer at the end."""
        return list(islice(self._rows, self._chunk_rows))

    def count(self) -> int | None:
        """About how many rows there are; None where only reading tells."""
        return None if STREAM in self.sources else sum(map(count_rows, self.sources))

    def describe(self) -> list[list[Any]]:
        """Name, size, time of change and SHA-256 of both ends of each file: what tells another."""
        return [[str(source), *_fingerprint(source)] for source in self.sources]

    def _read(self) -> Iterator[InputRow]:
        for source in self.sources:
            columns: tuple[str, ...] | None = None
            rows = read_rows(
                source, self._encoding, tolerant=True, stream_format=self._stream_format
            )
            for row, names in name_columns(rows):
                if columns is None and names:
                    wanted = self._wanted or (self._usual if {*self._usual} <= {*names} else ())
                    columns = find_text_columns(names, str(source), wanted)
                text, fault = ("", row.fault) if row.fault else self._read_text(row, columns or ())
                if fault and self._strict:
                    raise DataError(f"{source}:{row.line}: {fault}")
                self.num_rows += 1
                yield InputRow(self.num_rows - 1, source, row, text, fault)

    def _read_text(self, row: Row, columns: tuple[str, ...]) -> tuple[str, str]:
        """The text of a row, or what is wrong with it."""
        values = [row.values.get(column) for column in columns]
        if fault := find_text_fault(values):
            return "", f"{fault}; check --text-column"
        joined = join_texts(values)
        text = clean_text(joined)
        left = clean_text(joined, repair_entities=True) if self._repair_entities else text
        return text, "" if left else NO_TEXT


def find_inputs(names: list[str], outputs: Collection[Path] = ()) -> list[Path]:
    """The files that paths, folders and patterns such as `parts/*.csv` stand for, sorted by name.

    A folder may hold `outputs` of an earlier run of the same command; they are left out.

    Raises:  DataError for a name that stands for nothing.
    """
    found: list[Path] = []
    own = {path.resolve() for path in outputs}
    for name in names:
        path = Path(name)
        if path.is_dir():
            files = [p for p in sorted(path.iterdir()) if p.is_file() and p.name[0] != "."]
            files = [p for p in files if p.resolve() not in own]
            if not files:
                raise DataError(f"{path}: has no files; name a folder with {', '.join(SUFFIXES)}")
            found += files
        elif path.exists() or path == STREAM or not set("*?[") & set(name):
            found.append(path)
        else:
            # pathlib's own globs take no absolute pattern.
            matches = sorted(map(Path, glob(name, recursive=True)))  # noqa: PTH207
            if not matches:
                raise DataError(f"{name}: no file has such a name; check the pattern")
            found += matches
    return found


def _fingerprint(path: Path) -> list[Any]:
    """Size, time of change, and the SHA-256 of both ends: enough to notice another file."""
    if path == STREAM:
        return []
    try:
        status = path.stat()
        with path.open("rb") as stream:
            digest = hashlib.sha256(stream.read(_FINGERPRINT_BYTES))
            stream.seek(max(0, status.st_size - _FINGERPRINT_BYTES))
            digest.update(stream.read())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    return [status.st_size, status.st_mtime_ns, digest.hexdigest()]
