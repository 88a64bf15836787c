"""Files of texts in, a file of predictions out, in the same order, in constant memory.

Input is taken in chunks of a fixed number of rows, whose answers are written together. The same
command after a crash goes on behind the last chunk (see `chunk_file`).
"""

import hashlib
import itertools
import json
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

from textlora.data.tables import find_format, read_rows
from textlora.errors import DataError, UnfinishedError
from textlora.prediction import shards
from textlora.prediction.answer_row import AnswerFormat
from textlora.prediction.chunk_file import ChunkFile, StreamFile, name_rejects, open_output
from textlora.prediction.file_summary import FileSummary, count_rows, summarize_output
from textlora.prediction.inputs import NO_TEXT, Input, InputRow
from textlora.prediction.output_columns import FileOptions, Layout
from textlora.prediction.predictor import Answer, Predictor, Probabilities
from textlora.prediction.row_encoder import RowEncoder
from textlora.runs.run_folder import RUN_FILES
from textlora.system.files import MANIFEST, flush_file
from textlora.system.interrupts import StopRequest
from textlora.system.progress import Reporter
from textlora.system.text_stream import STREAM

# Sources, options, numbers of the chunks that are there: to numbers and answers of the others.
Engine = Callable[[list[Path], FileOptions, frozenset[int]], Generator[tuple[int, Probabilities]]]
_OWN = {"Label", "LabelText", "Confidence"}


def open_input(sources: list[Path], options: FileOptions) -> Input:
    """The rows of the sources, in chunks."""
    return Input(
        sources,
        options.encoding,
        text_columns=options.text_columns,
        usual_columns=options.usual_columns,
        repair_entities=options.repair_entities,
        stream_format=options.stream_format,
        strict=options.strict,
        chunk_rows=options.chunk_rows,
    )


def predict_files(
    predictor: Predictor,
    sources: list[Path],
    target: Path,
    options: FileOptions | None = None,
    report: Reporter | None = None,
    engine: Engine | None = None,
) -> FileSummary:
    """Classify every row of `sources` into `target`; the formats follow from the names.

    Columns written: those of the input if kept, ID (the input's own, else the row number from 0),
    those of `answer_row`, Truncated if marked, and with `probabilities` one column a label. The
    target appears when it is whole. With an `engine` such as `RayEngine` the answers come from
    there, and are written here.

    Raises:  DataError if the input cannot be read, has no text column, or on an unwritable output;
    SettingsError if an unfinished output was begun with other settings; Interrupted when stopped.
    """
    options, report = options or FileOptions(), report or Reporter(quiet=True)
    trained = predictor.recipe.data
    options = replace(
        options, usual_columns=trained.text_columns, repair_entities=trained.repair_entities
    )
    _check_places(sources, target, options)
    refuse_foreign(target)
    rows = open_input(sources, options)
    chunk = rows.read_chunk()
    if not chunk:
        raise DataError(f"{sources[0]}: has no rows; give a file with texts")
    answer_format = AnswerFormat(predictor.task, options.min_confidence)
    is_open = find_format(target, options.stream_format) == "jsonl"
    layout = Layout(predictor.labels, chunk, options, answer_format, is_open)
    encoder = RowEncoder(
        target, layout.columns, stream_format=options.stream_format, csv_safe=options.csv_safe
    )
    begin, fault = time.perf_counter(), ""
    key = _describe(predictor, rows, options)
    # A stop is granted between two batches; a pipe that says nothing would never let it come.
    stop = StopRequest(at_once=STREAM in sources)
    with (
        stop,
        open_output(target, options.rejects, key, options.resume) as out,
        _Answers(predictor, stop.check) as answerer,
    ):
        resumed = out.counts["rows"]
        _prepare(out, encoder)
        if resumed:
            report.say(f"{target}: {resumed:,} rows are there; going on")
        if engine is not None:
            answerer.follow(engine(sources, options, out.numbers))
        total = rows.count() if report.shows_bars else None
        with report.track("predicting", total, resumed) as bar:
            for number in itertools.count():
                if not chunk:
                    break
                layout.look(chunk)
                origin = _fingerprint(chunk) if STREAM in sources else ""
                if shards.is_mine(number, options.shard) and out.is_due(number, origin):
                    fault = fault or _find_fault(chunk)
                    answers = answerer.answer(number, chunk)
                    output = encoder.encode(layout.format(chunk, answers))
                    rejects = "".join(_format_reject(item) for item in chunk if item.fault)
                    counts = count_rows(chunk, answers, answer_format)
                    out.append(number, output, rejects.encode("utf-8", "replace"), counts, origin)
                    bar.advance(len(chunk), _describe_rate(out, resumed, begin))
                chunk = rows.read_chunk()
                stop.check()
        if isinstance(out, ChunkFile):
            _finish(out, encoder, target, rows, options, key)
    seconds = time.perf_counter() - begin
    return summarize_output(out, resumed, seconds, target, options, layout, fault)


class _Answers:
    """Answers of chunks: from the predictor, or from an engine that is followed."""

    def __init__(self, predictor: Predictor, check: Callable[[], None]) -> None:
        self._predictor, self._check = predictor, check
        self._stream: Iterator[tuple[int, Probabilities]] | None = None
        self._open = ExitStack()

    def __enter__(self) -> "_Answers":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def follow(self, stream: Generator[tuple[int, Probabilities]]) -> None:
        """Take the answers from there."""
        self._stream = self._open.enter_context(closing(stream))

    def answer(self, number: int, chunk: list[InputRow]) -> list[Answer | None]:
        """The answer of each row that has a text."""
        texts = [item.text for item in chunk if not item.fault]
        if self._stream is None:
            found = self._predictor.predict(texts, self._check)
        else:
            came, shares = next(self._stream, (None, None))
            if shares is None or came != number or len(shares.truncated) != len(texts):
                raise UnfinishedError(
                    f"chunk {number}: the workers answered another one (they read other files "
                    "than this process?); run the same command again"
                )
            found = self._predictor.name_answers(shares)
        answers = iter(found)
        return [None if item.fault else next(answers) for item in chunk]


def _check_places(sources: list[Path], target: Path, options: FileOptions) -> None:
    """Refuse what would only be found after the work, or would overwrite the input."""
    find_format(target, options.stream_format)
    places = {"--output": target, "--rejects": options.rejects or name_rejects(target)}
    for source in sources:
        find_format(source, options.stream_format)
        for flag, place in places.items():
            if source.exists() and place.exists() and source.samefile(place):
                raise DataError(f"{place}: is the input itself; name another {flag}")
    if target.name in RUN_FILES and (target.parent / MANIFEST).exists():
        raise DataError(f"{target}: is a file of the run itself; name another --output")
    if options.rejects is not None and options.rejects.resolve() == target.resolve():
        raise DataError(f"{target}: is the output itself; name another --rejects")
    if options.rejects is not None and options.rejects.suffix != ".jsonl":
        raise DataError(f"{options.rejects}: bad rows are JSON lines; name a .jsonl with --rejects")


def refuse_foreign(target: Path) -> None:
    """See that a file which an output would replace is an older output.

    Raises:  DataError if it is not.
    """
    if target == STREAM or not target.is_file() or not target.stat().st_size:
        return
    try:
        first = next(read_rows(target, tolerant=True), None)
    except DataError:
        first = None
    values = {} if first is None else first.values
    if find_format(target) == "txt":  # without a header: ID, label, name, confidence
        is_ours = str(values.get("text", "")).count("\t") >= len(_OWN)
    else:
        is_ours = values.keys() >= _OWN
    if not is_ours:
        raise DataError(f"{target}: exists and holds no predictions; name another --output")


def _prepare(out: ChunkFile | StreamFile, encoder: RowEncoder) -> None:
    """The header, as a chunk of its own, or the types of the rows that are there."""
    if isinstance(out, ChunkFile) and out.chunks:
        for content in islice(out.read_chunks(), 1, 2):
            encoder.adopt(content)
    else:
        out.append(shards.HEADER, encoder.encode_header(), b"", {})


def _find_fault(chunk: list[InputRow]) -> str:
    bad = (item for item in chunk if item.fault and item.fault != NO_TEXT)
    return next((f"{item.source}:{item.row.line}: {item.fault}" for item in bad), "")


def _format_reject(item: InputRow) -> str:
    values = {"file": str(item.source), "line": item.row.line, "row": item.number}
    return json.dumps({**values, "reason": item.fault}, ensure_ascii=False) + "\n"


def _describe(predictor: Predictor, rows: Input, options: FileOptions) -> dict[str, Any]:
    """All that the output follows from, in JSON."""
    free = {"rejects", "resume", "strict"}
    settings = {f.name: getattr(options, f.name) for f in fields(options) if f.name not in free}
    settings = {k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()}
    return {
        "model": predictor.fingerprint,
        "backend": predictor.backend,
        "input": rows.describe(),
        **settings,
    }


def _fingerprint(chunk: list[InputRow]) -> str:
    rows = [[item.row.values, item.fault] for item in chunk]
    return hashlib.sha256(json.dumps(rows, default=str).encode()).hexdigest()


def _describe_rate(out: ChunkFile | StreamFile, resumed: int, begin: float) -> str:
    counts = out.counts
    rate = (counts["rows"] - resumed) / (time.perf_counter() - begin)
    rejects = counts["empty"] + counts["unreadable"]
    return f"{rate:,.0f} rows/s" + (f", {rejects:,} rejects" if rejects else "")


def _finish(
    out: ChunkFile,
    encoder: RowEncoder,
    target: Path,
    rows: Input,
    options: FileOptions,
    key: dict[str, Any],
) -> None:
    joined = target.with_name(f".{target.name}.joined") if encoder.is_joined else None
    try:
        if joined is not None:
            encoder.join(out.read_chunks(), joined)
            flush_file(joined)
        if options.shard[1] > 1:
            # Before the journal goes: what ends the process here costs no chunk.
            shards.describe_shard(target, joined or out.content, out.chunks, key, rows.num_rows)
        out.finish(joined)
    except OSError as error:
        raise UnfinishedError(
            f"{target}: cannot be written ({error.strerror or error}); free some space and run the "
            "same command again, it continues"
        ) from None
    finally:
        if joined is not None:
            joined.unlink(missing_ok=True)
