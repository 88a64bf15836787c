"""A file of texts in, a file of predictions out, in the same order."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from textlora.data import clean_text
from textlora.errors import DataError
from textlora.predictor import Prediction, Predictor
from textlora.progress import Reporter
from textlora.sources import find_text_columns
from textlora.tables import Row, TableWriter, find_format, read_rows

_CHUNK_ROWS = 8192
_COLUMNS: dict[str, type | None] = {"ID": None, "Label": int, "LabelText": str, "Confidence": float}


@dataclass(frozen=True)
class FileSummary:
    """What happened to a file. Rows without a text are written with an empty label."""

    rows: int
    empty: int
    truncated: int


def predict_file(
    predictor: Predictor,
    source: Path,
    target: Path,
    *,
    text_column: str | None = None,
    probabilities: bool = False,
    encoding: str = "utf-8",
    report: Reporter | None = None,
) -> FileSummary:
    """Classify every row of `source` into `target`; the formats follow from the names.

    Columns written: ID (the input's own, else the row number from 0), Label (its number),
    LabelText, Confidence, and with `probabilities` one column a label. The target appears when it
    is whole.

    Raises:  DataError if the input cannot be read, has no text column, or on an unwritable output.
    """
    find_format(target)  # a mistake in the name is told before the work
    if source.exists() and target.exists() and source.samefile(target):
        raise DataError(f"{target}: is the input itself; name another --output")
    rows = read_rows(source, encoding)
    chunk = list(islice(rows, _CHUNK_ROWS))
    if not chunk:
        raise DataError(f"{source}: has no rows; give a file with texts")
    columns = _find_columns(chunk[0], source, text_column)
    extra = [f"P({label})" for label in predictor.labels] if probabilities else []
    done = empty = truncated = 0
    with (
        TableWriter(target, _COLUMNS | dict.fromkeys(extra, float)) as writer,
        (report or Reporter(quiet=True)).track("predicting", None) as bar,
    ):
        while chunk:
            texts = [_read_text(row, columns, source) for row in chunk]
            answers = iter(predictor.predict([text for text in texts if text]))
            found = [next(answers) if text else None for text in texts]
            writer.write(_format_rows(chunk, found, done, extra))
            done += len(chunk)
            empty += sum(answer is None for answer in found)
            truncated += sum(answer is not None and answer.truncated for answer in found)
            bar.advance(len(chunk))
            chunk = list(islice(rows, _CHUNK_ROWS))
    return FileSummary(done, empty, truncated)


def _find_columns(row: Row, source: Path, text_column: str | None) -> tuple[str, ...]:
    wanted = [text_column] if text_column else []
    return find_text_columns(list(row.values), str(source), wanted)


def _read_text(row: Row, columns: tuple[str, ...], source: Path) -> str:
    values = [row.values.get(column) for column in columns]
    if wrong := next((v for v in values if v is not None and not isinstance(v, str)), None):
        raise DataError(
            f"{source}:{row.line}: the text is {wrong!r}, not a string; check --text-column"
        )
    return clean_text("\n".join(value or "" for value in values))


def _format_rows(
    chunk: list[Row], found: list[Prediction | None], start: int, extra: list[str]
) -> Iterator[dict[str, Any]]:
    for number, (row, answer) in enumerate(zip(chunk, found, strict=True), start=start):
        own = next((row.values[name] for name in ("ID", "id", "Id") if name in row.values), number)
        values = {
            "ID": own,
            "Label": None if answer is None else answer.label_id,
            "LabelText": None if answer is None else answer.label,
            "Confidence": None if answer is None else round(answer.confidence, 6),
        }
        shares: list[Any] = (
            [] if answer is None else [round(p, 6) for p in answer.probabilities.values()]
        )
        yield values | dict(zip(extra, shares or [None] * len(extra), strict=False))
