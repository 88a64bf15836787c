"""Which columns a file of predictions has, and the rows for them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from textlora.data.tables import Format
from textlora.errors import DataError
from textlora.prediction.answer_row import AnswerFormat, round_share
from textlora.prediction.inputs import InputRow
from textlora.prediction.predictor import Answer

_IDS = ("ID", "id", "Id")
_MAX_LATE = 10  # to be told; there may be as many as rows


@dataclass(frozen=True)
class FileOptions:
    """How a file is predicted. Columns: see `Input`.

    `min_confidence` leaves out labels of less, 0..1. `shard` (i, n) takes every n-th chunk,
    beginning with the i-th, from 1. `strict` stops at the first bad row. `stream_format` is that of
    stdin and stdout. `rejects` is where bad rows are listed, beside the output if not named.
    """

    text_columns: tuple[str, ...] = ()
    usual_columns: tuple[str, ...] = ()  # of the classifier's training, where a file has them
    repair_entities: bool = False  # as in training
    encoding: str = "utf-8"
    probabilities: bool = False
    keep_columns: bool = False
    mark_truncated: bool = False
    csv_safe: bool = False
    min_confidence: float = 0.0
    shard: tuple[int, int] = (1, 1)
    strict: bool = False
    stream_format: Format | None = None
    rejects: Path | None = None
    resume: Literal["auto", "never"] = "auto"
    chunk_rows: int = 8192  # what a crash may cost; texts are sorted by length within


class Layout:
    """Which columns the output has, and the rows for them.

    A table's columns are those of the first rows; `late` has some that later ones have besides.
    Where each row names its own (`is_open`), those are kept with it.
    """

    def __init__(
        self,
        labels: tuple[str, ...],
        first: list[InputRow],
        options: FileOptions,
        answer_format: AnswerFormat,
        is_open: bool = False,
    ) -> None:
        self._options, self._format, self._is_open = options, answer_format, is_open
        self.late: list[str] = []
        self._shares = [f"P({label})" for label in labels] if options.probabilities else []
        own = answer_format.columns | ({"Truncated": bool} if options.mark_truncated else {})
        self._own = own | dict.fromkeys(self._shares, float)
        self._ids: dict[Path, str] = {}  # the column of each source that has its own
        self._kept: dict[str, str] = {}  # of the input -> of the output
        if options.keep_columns:
            names = _list_names(first)
            self._kept = {name: f"input_{name}" if name in self._own else name for name in names}
            if len(set(self._kept.values())) < len(self._kept):
                clash = next(name for name in self._kept if f"input_{name}" in self._kept)
                raise DataError(
                    f"input: has columns {clash!r} and 'input_{clash}'; rename the second, the "
                    "first is to be called so"
                )
        self.columns: dict[str, type | None] = dict.fromkeys(self._kept.values()) | self._own

    def look(self, chunk: list[InputRow]) -> None:
        """Learn the columns, also of rows that another process has answered."""
        if self._options.keep_columns and not self._is_open:
            new = [name for name in _list_names(chunk) if name not in self._kept]
            self.late = list(dict.fromkeys(self.late + new))[:_MAX_LATE]
        for source in {item.source for item in chunk} - self._ids.keys():
            names = _list_names([item for item in chunk if item.source == source])
            if names:
                self._ids[source] = next((name for name in _IDS if name in names), "")

    def format(
        self, chunk: list[InputRow], answers: list[Answer | None]
    ) -> Iterator[dict[str, Any]]:
        """A row of the output for each of the chunk."""
        for item, answer in zip(chunk, answers, strict=True):
            values = item.row.values
            found: dict[str, Any] = {new: values.get(old) for old, new in self._kept.items()}
            if self._options.keep_columns and self._is_open:
                for name in [name for name in values if name not in self._kept]:
                    found[self._find_free(name, found)] = values[name]
            own = self._ids.get(item.source, "")
            # A row that cannot be read has no ID of its own, and none of another row.
            found["ID"] = values.get(own) if own else item.number
            found |= self._format.fill(answer)
            if self._options.mark_truncated:
                found["Truncated"] = answer and answer.truncated
            shares = answer.probabilities.values() if answer else [None] * len(self._shares)
            for name, value in zip(self._shares, shares, strict=False):
                found[name] = value and round_share(value)
            yield found

    def _find_free(self, name: str, taken: dict[str, Any]) -> str:
        while name in taken or name in self._own:
            name = f"input_{name}"
        return name


def _list_names(rows: list[InputRow]) -> list[str]:
    """The columns of all these rows: in JSON lines one may lack some."""
    return list(dict.fromkeys(name for item in rows for name in item.row.values))
