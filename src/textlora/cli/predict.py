"""The command predict: texts of files classified."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from textlora.cli.options import BackendOption, JsonOption, print_json
from textlora.errors import DataError, SettingsError
from textlora.system.progress import Reporter

if TYPE_CHECKING:
    from textlora.prediction.predictor import Predictor


def predict(
    run: Annotated[
        Path | None, typer.Argument(metavar="RUN", help="A run folder; none for --merge.")
    ] = None,
    sources: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            help="CSV, TSV, JSONL, Parquet or TXT: file, folder, pattern, or - for stdin; "
            "repeatable.",
        ),
    ] = None,
    target: Annotated[
        Path | None, typer.Option("--output", help="File to write, format by its name; - = stdout.")
    ] = None,
    text_columns: Annotated[
        list[str] | None,
        typer.Option(
            "--text-column",
            help="Column that holds the text, or a part of it; repeatable. Else as in training.",
        ),
    ] = None,
    keep_columns: Annotated[bool, typer.Option(help="Also write the input's columns.")] = False,
    probabilities: Annotated[bool, typer.Option(help="Add a column a label.")] = False,
    mark_truncated: Annotated[bool, typer.Option(help="Add a column Truncated.")] = False,
    min_confidence: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Leave out labels of less.")
    ] = 0.0,
    min_precision: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="The same, looked up: 0.99 = right 99 times of 100."),
    ] = None,
    csv_safe: Annotated[
        bool, typer.Option(help="Put ' before cells that a spreadsheet would calculate.")
    ] = False,
    strict: Annotated[bool, typer.Option(help="Stop at the first bad row, exit code 3.")] = False,
    rejects: Annotated[
        Path | None, typer.Option(help="File for bad rows; OUT.rejects.jsonl if not named.")
    ] = None,
    shard: Annotated[str, typer.Option(metavar="I/N", help="Do one part of N.")] = "1/1",
    merge: Annotated[bool, typer.Option(help="Join the shards named by --input.")] = False,
    resume: Annotated[
        Literal["auto", "never"], typer.Option(help="Continue an output, or start over.")
    ] = "auto",
    stream_format: Annotated[
        Literal["csv", "tsv", "jsonl", "txt"] | None,
        typer.Option("--format", help="Of stdin and stdout."),
    ] = None,
    encoding: Annotated[str, typer.Option(help="Of CSV, TSV, JSONL and TXT input.")] = "utf-8",
    backend: BackendOption = "torch",
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="ray: the same on a Ray cluster.")
    ] = "local",
    ray_address: Annotated[
        str | None, typer.Option(help="Of a running cluster; else one is started here.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Classify every text of files; without --input, a few example texts."""
    from textlora.prediction import shards
    from textlora.prediction.chunk_file import name_rejects
    from textlora.prediction.file_prediction import predict_files, refuse_foreign
    from textlora.prediction.inputs import find_inputs
    from textlora.prediction.output_columns import FileOptions
    from textlora.prediction.predictor import Predictor

    named = {
        "--output": target, "--text-column": text_columns, "--keep-columns": keep_columns,
        "--probabilities": probabilities, "--mark-truncated": mark_truncated,
        "--min-confidence": min_confidence, "--min-precision": min_precision,
        "--csv-safe": csv_safe, "--strict": strict, "--rejects": rejects,
        "--shard": shard != "1/1", "--format": stream_format, "--engine": engine == "ray",
        "--ray-address": ray_address,
    }  # fmt: skip
    given = [flag for flag, value in named.items() if value]
    _refuse_useless(given, run=run, sources=sources, merge=merge)
    if sources is None and not merge:
        assert run is not None
        _show_examples(Predictor.load(run, backend, Reporter(quiet=as_json)), as_json)
        return
    if sources is None:
        raise SettingsError("--input: missing for --merge; name the shards")
    if target is None:
        raise SettingsError(f"--output: missing for --input {sources[0]}; name the file to write")
    report = Reporter(quiet=as_json)
    found = find_inputs(sources, (target, rejects or name_rejects(target)))
    if merge:
        refuse_foreign(target)
        merged = shards.merge_shards(found, target)
        _print_written(target, merged.rows, merged, as_json)
        return
    assert run is not None
    options = FileOptions(
        text_columns=tuple(text_columns or ()),
        encoding=encoding,
        probabilities=probabilities,
        keep_columns=keep_columns,
        mark_truncated=mark_truncated,
        csv_safe=csv_safe,
        min_confidence=_find_confidence(run, min_confidence, min_precision, report),
        shard=shards.parse_shard(shard),
        strict=strict,
        stream_format=stream_format,
        rejects=rejects,
        resume=resume,
    )
    if engine == "ray":
        from textlora.prediction.ray_engine import RayEngine
    predictor = Predictor.load(run, backend, report)
    # What `auto` has chosen here, all workers take.
    workers = RayEngine(run, predictor.backend_name, ray_address) if engine == "ray" else None
    summary = predict_files(predictor, found, target, options, report, workers)
    for message in summary.explain():
        report.say(message)
    if summary.unreadable == summary.rows > 0 and options.shard == (1, 1):
        reason = summary.first_fault or f"see {summary.rejects}"  # told before it was stopped
        raise DataError(f"{found[0]}: no row can be read; the first: {reason}")
    _print_written(target, summary.rows, summary, as_json)


def _refuse_useless(
    given: list[str], *, run: Path | None, sources: list[str] | None, merge: bool
) -> None:
    """A flag that would do nothing is a mistake, and perhaps another flag was forgotten."""
    if run is None and not merge:
        raise SettingsError("RUN: missing; name the run folder of a classifier")
    if merge and (useless := [flag for flag in given if flag != "--output"]):
        raise SettingsError(f"{useless[0]}: does nothing with --merge; leave it out")
    if given and sources is None and not merge:
        raise SettingsError(f"--input: missing for {given[0]}; name the texts to classify")
    if "--ray-address" in given and "--engine" not in given:
        raise SettingsError("--ray-address: does nothing without --engine ray; add it")


def _find_confidence(run: Path, least: float, precision: float | None, report: Reporter) -> float:
    if precision is None:
        return least
    from textlora.evaluation.run_evaluation import find_confidence

    found = max(least, find_confidence(run, precision))
    report.say(f"labels of less than {found:.2%} confidence are left empty")
    return found


def _print_written(target: Path, rows: int, summary: Any, as_json: bool) -> None:
    if as_json and str(target) != "-":
        print_json({"output": target, **asdict(summary)})
    else:  # what is written to stdout stays alone there
        print(f"{rows:,} rows  {target}", file=sys.stderr if str(target) == "-" else sys.stdout)


def _show_examples(predictor: "Predictor", as_json: bool) -> None:
    from textlora.cli import score_tables
    from textlora.cli.examples import EXAMPLES
    from textlora.system import console

    found = predictor.predict(EXAMPLES)
    if as_json:
        pairs = zip(EXAMPLES, found, strict=True)
        answers = [{"text": text, **asdict(prediction)} for text, prediction in pairs]
        print_json({"predictions": answers})
        return
    rows = [(t, *score_tables.describe_answer(p)) for t, p in zip(EXAMPLES, found, strict=True)]
    console.show_rows(("text", "label", "confidence"), rows)
