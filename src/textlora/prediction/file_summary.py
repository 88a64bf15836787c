"""What happened to a file of predictions, counted chunk by chunk."""

from dataclasses import dataclass
from pathlib import Path

from textlora.prediction.answer_row import AnswerFormat
from textlora.prediction.chunk_file import ChunkFile, StreamFile, name_rejects
from textlora.prediction.inputs import NO_TEXT, InputRow
from textlora.prediction.output_columns import FileOptions, Layout
from textlora.prediction.predictor import Answer


@dataclass(frozen=True)
class FileSummary:
    """What happened to a file; every row of the input is a row of the output.

    `empty` rows have no text and `unreadable` ones cannot be read, the first that was met because
    of `first_fault`: both have no label, and are listed in `rejects`. `unsure` rows have a label
    below the confidence asked for, which was left out. `resumed` rows were answered by an earlier
    process; the rate is that of the others. `left_out` has the first ten columns that were to be
    kept and come only after the first rows of a table.
    """

    rows: int
    empty: int
    unreadable: int
    truncated: int
    unsure: int
    resumed: int
    seconds: float
    rows_per_second: float
    rejects: str | None
    first_fault: str
    left_out: list[str]

    def explain(self) -> list[str]:
        """What a user should know, a line each."""
        listed = f", listed in {self.rejects}" if self.rejects else ""
        first = f"; the first: {self.first_fault}" if self.first_fault else ""
        notes = {
            f"{self.empty:,} rows have no text; their label is empty{listed}": self.empty,
            f"{self.unreadable:,} rows cannot be read; their label is empty{listed}"
            f"{first}": self.unreadable,
            f"{self.truncated:,} texts are longer than the model reads and were cut "
            "(--mark-truncated shows which)": self.truncated,
            f"{self.unsure:,} rows have a label below --min-confidence, which is left out": (
                self.unsure
            ),
            f"columns {', '.join(self.left_out)} come only in later rows and are left out "
            "(an output .jsonl keeps them)": len(self.left_out),
        }
        return [note for note, count in notes.items() if count]


def count_rows(
    chunk: list[InputRow], answers: list[Answer | None], answer_format: AnswerFormat
) -> dict[str, int]:
    """The counts of one chunk, by the names that `FileSummary` has."""
    given = [answer for answer in answers if answer is not None]
    empty = sum(item.fault == NO_TEXT for item in chunk)
    return {
        "rows": len(chunk),
        "empty": empty,
        "unreadable": len(chunk) - len(given) - empty,
        "truncated": sum(answer.truncated for answer in given),
        "unsure": sum(map(answer_format.is_unsure, given)),
    }


def summarize_output(
    out: ChunkFile | StreamFile,
    resumed: int,
    seconds: float,
    target: Path,
    options: FileOptions,
    layout: Layout,
    first_fault: str,
) -> FileSummary:
    """All chunks together; `seconds` is the time of those that are new."""
    counts = out.counts
    bad = counts["empty"] + counts["unreadable"]
    rejects = options.rejects or (name_rejects(target) if isinstance(out, ChunkFile) else None)
    return FileSummary(
        **{name: counts[name] for name in ("rows", "empty", "unreadable", "truncated", "unsure")},
        resumed=resumed,
        seconds=round(seconds, 3),
        rows_per_second=round((counts["rows"] - resumed) / seconds, 2),
        rejects=str(rejects) if bad and rejects else None,
        first_fault=first_fault,
        left_out=layout.late,
    )
