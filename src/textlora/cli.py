"""The command `textlora`: parse, call, print, exit code. Work is done elsewhere.

Results go to stdout, messages and progress to stderr. Heavy modules are imported by the command
that needs them, so that `--help` is quick.
"""

import json
import os
import shlex
import signal
import sys
from dataclasses import asdict, is_dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from textlora.errors import DataError, SettingsError, TextloraError, UnfinishedError
from textlora.progress import Reporter
from textlora.settings import BackendName, Recipe, list_recipes, load_recipe

if TYPE_CHECKING:
    from textlora.data import LabelledTexts
    from textlora.pipeline import TrainedRun
    from textlora.predictor import Predictor
    from textlora.seeds import Repeats

app = typer.Typer(
    name="textlora",
    help="Text classifiers from pretrained encoders and LoRA adapters.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

RecipeOption = Annotated[str, typer.Option(help=f"{', '.join(list_recipes())} or a TOML file.")]
DataOption = Annotated[
    str | None,
    typer.Option(help="ag_news, hub:owner/name, a folder, a file, or embedded:headlines."),
]
ModelOption = Annotated[str | None, typer.Option(help="Hub id, folder, or embedded:minilm.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.NAME=VALUE", help="Change one setting; repeatable."),
]
BudgetOption = Annotated[
    str | None,
    typer.Option(help="Most parameters to train: 1M, 500k, 0.5%; decides head, matrices and rank."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object, nothing else.")]
BackendOption = Annotated[
    BackendName,
    typer.Option(help="What computes; auto is the fastest here that keeps the labels."),
]
_LONGEST = 1 << 20  # tokens: so that a text that would be cut is counted whole
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder made by train.")]


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; anywhere.")] = False,  # noqa: ARG001 - read by main
) -> None:
    if version:
        from textlora import __version__

        print(__version__)
        raise typer.Exit


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the result.")] = Path("runs/demo"),
    as_json: JsonOption = False,
) -> None:
    """Train, evaluate and predict on the embedded sample; under two minutes, no network."""
    from textlora.demo import run_demo

    result = run_demo(out, Reporter(quiet=as_json))
    if as_json:
        _print_json({"run": _summarise(result.run), "output": result.output})
        return
    from textlora import console

    _show_trained(result.run)
    rows = [(text, label, f"{share:.1%}") for text, label, share in result.predictions]
    console.show_rows(("text", "label", "confidence"), rows)
    print(f"\npredictions   {result.output}")
    print("\nNext:")
    print("  textlora train --recipe quickstart --data YOUR.csv --out runs/mine")
    print(f"  textlora predict {out} --input YOUR.csv --output labelled.csv")
    print("  textlora plan --recipe reference")


@app.command()
def plan(
    recipe: RecipeOption = "reference",
    model: ModelOption = None,
    num_labels: Annotated[int, typer.Option(min=2, help="Number of labels, without --data.")] = 4,
    data: DataOption = None,
    budget: BudgetOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what would be trained, counted exactly, and what it costs here; builds no model."""
    from textlora.budget import fit_budget, plan_recipe
    from textlora.cost import plan_cost

    resolved = _load(recipe, settings, model__name=model, data__source=data)
    texts = None if data is None else _read_texts(resolved)
    labels = texts.labels if texts else tuple(f"label {index}" for index in range(num_labels))
    fitted = None if budget is None else fit_budget(resolved, labels, budget)
    planned = plan_recipe(resolved, labels) if fitted is None else fitted.plan
    cost = plan_cost(resolved if fitted is None else fitted.recipe, planned, labels, texts)
    if as_json:
        totals = {"trainable": planned.trainable, "trainable_share": planned.trainable_share}
        limits = {} if fitted is None else {"budget": fitted.budget, "smallest": fitted.smallest}
        costs = {"cost": asdict(cost)}
        _print_json({"model": resolved.model.name, **asdict(planned), **totals, **limits, **costs})
        return
    from textlora import console

    console.show_plan(planned, resolved.model.name)
    if fitted is not None:
        console.show_budget(fitted)
    console.show_cost(cost)


@app.command()
def check(
    data: Annotated[str, typer.Argument(metavar="DATA", help="As --data of train.")],
    fix: Annotated[
        Path | None, typer.Option(metavar="OUT", help="Write a repaired copy to a new folder.")
    ] = None,
    model: ModelOption = None,
    recipe: RecipeOption = "quickstart",
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look for what is wrong with labelled texts; exit code 3 if they cannot be trained on."""
    from textlora import encoder
    from textlora.batching import tokenize
    from textlora.datacheck import check_splits
    from textlora.sources import read_splits

    resolved = _load(recipe, settings, data__source=data, model__name=model)
    parts = read_splits(resolved.data, tolerant=True)
    files = encoder.locate_encoder(resolved.model)
    tokenizer = encoder.load_tokenizer(files.folder, files.name)
    found = check_splits(
        data, parts, resolved.model.max_length,
        lambda texts: tokenize(tokenizer, texts, _LONGEST).lengths.tolist(),
    )  # fmt: skip
    fixes = []
    if fix is not None:
        from textlora.datafix import fix_splits

        fixes = fix_splits(resolved.data, parts, fix)
    if as_json:
        _print_json({**asdict(found), "fixes": [asdict(item) for item in fixes]})
    else:
        from textlora import console

        console.show_check(found)
        console.show_fixes(fixes, fix)
    raise typer.Exit(0 if found.is_usable else DataError.exit_code)


@app.command()
def audit(
    data: Annotated[str, typer.Argument(metavar="DATA", help="As --data of train.")],
    out: Annotated[Path, typer.Option(help="File to review.")] = Path("review.csv"),
    accept_above: Annotated[
        float,
        typer.Option(min=0.0, help="Accept suggestions of that confidence; 2 = none."),
    ] = 2.0,
    model: ModelOption = None,
    recipe: RecipeOption = "quickstart",
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find training labels that are probably wrong; train --corrections uses the review."""
    from textlora.audit import embed_texts, find_doubtful_labels
    from textlora.corrections import write_review
    from textlora.data import load_training_rows

    resolved = _load(recipe, settings, data__source=data, model__name=model)
    if resolved.data.multi_label:
        raise SettingsError(
            "audit: finds wrong labels where a text has exactly one, and data.multi_label is set; "
            "look through the mistakes of textlora evaluate --split validation --mistakes 50"
        )
    raw, examples, labels = load_training_rows(resolved.data)
    doubtful = find_doubtful_labels(raw, examples, labels, embed_texts(examples.texts, resolved))
    write_review(out, doubtful, accept_above)
    accepted = sum(item.suggested_confidence >= accept_above for item in doubtful)
    if as_json:
        counts = {"rows": len(examples.texts), "doubtful": len(doubtful), "accepted": accepted}
        _print_json({"review": out, **counts})
        return
    from textlora import console

    console.show_doubtful(doubtful)
    print(
        f"{len(doubtful):,} of {len(examples.texts):,} labels are doubtful, {accepted:,} accepted"
    )
    print(f"review        {out}: write keep, change, drop or a label into the column action, then")
    print(f"              textlora train --data {data} --corrections {out}")


@app.command()
def train(
    recipe: RecipeOption = "reference",
    data: DataOption = None,
    model: ModelOption = None,
    out: Annotated[Path, typer.Option(help="Run folder to write.")] = Path("runs/latest"),
    settings: SetOption = None,
    resume: Annotated[
        Literal["auto", "never"], typer.Option(help="Continue a stopped run, or start over.")
    ] = "auto",
    budget: BudgetOption = None,
    seeds: Annotated[
        int | None, typer.Option(help="Repeat with so many seeds; mean and spread are told.")
    ] = None,
    track: Annotated[
        list[str] | None,
        typer.Option(help="Also tell tensorboard, mlflow, wandb or trackio; repeatable."),
    ] = None,
    corrections: Annotated[
        str | None, typer.Option(help="A reviewed file of audit; for training rows alone.")
    ] = None,
    pictures: Annotated[
        Path | None, typer.Option(help="Also copy the pictures to this folder.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Train a classifier, verify that it reloads, and evaluate it."""
    from textlora.data import load_labelled_texts
    from textlora.datacheck import check_splits
    from textlora.pipeline import copy_pictures, train_run
    from textlora.sources import read_splits

    flags = {"data__source": data, "model__name": model, "data__corrections": corrections}
    resolved = _load(recipe, settings, **flags)
    report = Reporter(quiet=as_json)
    parts = read_splits(resolved.data)
    texts = load_labelled_texts(resolved.data, parts)
    checked = check_splits(resolved.data.source, parts, resolved.model.max_length)
    for line in checked.summarize():
        report.say(line)
    if budget is not None:
        from textlora.budget import fit_budget

        resolved = fit_budget(resolved, texts.labels, budget).recipe
    if seeds is not None:
        from textlora.repeats import train_repeats

        _show_repeats(
            train_repeats(
                resolved,
                texts,
                out,
                seeds,
                resume=resume,
                report=report,
                track=track or (),
                check=checked,
            ),  # fmt: skip
            out,
            as_json,
        )
        return
    result = train_run(
        resolved, texts, out, resume=resume, report=report, track=track or (), check=checked
    )
    if pictures is not None:
        copy_pictures(result.pictures, pictures)
    if as_json:
        _print_json(_summarise(result))
    else:
        _show_trained(result)


@app.command()
def sweep(
    recipe: RecipeOption = "quickstart",
    space: Annotated[
        str, typer.Option(help="TOML file of settings to search; default ships with textlora.")
    ] = "default",
    data: DataOption = None,
    model: ModelOption = None,
    budget: Annotated[
        str | None, typer.Option(help="Most parameters that a trial may train: 1M, 500k, 0.5%.")
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Trials to train, by all processes.")] = 20,
    out: Annotated[Path, typer.Option(help="Folder of the sweep.")] = Path("runs/sweep"),
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search for settings on validation texts; the best recipe is written, ready to train."""
    from textlora.data import load_labelled_texts
    from textlora.sources import read_splits
    from textlora.space import load_space
    from textlora.sweep import run_sweep

    resolved = _load(recipe, settings, data__source=data, model__name=model)
    searched, report = load_space(space, resolved), Reporter(quiet=as_json)
    # Without the test split: what is not read can choose nothing.
    parts = read_splits(resolved.data, only=("train", "validation"))
    texts = load_labelled_texts(resolved.data, parts)
    found = run_sweep(
        resolved, texts, searched, out, budget=budget, num_trials=trials, report=report
    )
    if as_json:
        _print_json(found)
        return
    from textlora import console

    console.show_sweep(found)
    words = ["textlora", "train", "--recipe", f"{found.recipe}", "--out", f"{out / 'best'}"]
    print(f"train it with  {shlex.join(words)}")


@app.command()
def evaluate(
    run: RunArgument,
    data: DataOption = None,
    split: Annotated[str, typer.Option(help="Which split of the data.")] = "test",
    out: Annotated[
        Path | None, typer.Option(help="Folder for evaluation.json and the pictures.")
    ] = None,
    slices: Annotated[
        list[str] | None,
        typer.Option("--slice", metavar="COLUMN", help="Also by the values of a column."),
    ] = None,
    mistakes: Annotated[int, typer.Option(min=0, help="The surest mistakes shown.")] = 3,
    settings: SetOption = None,
    backend: BackendOption = "torch",
    as_json: JsonOption = False,
) -> None:
    """Measure a classifier on labelled texts (default: the data of its recipe)."""
    from textlora.assessment import assess_split, save_assessments
    from textlora.predictor import Predictor
    from textlora.rundir import RECIPE

    predictor = Predictor.load(run, backend, Reporter(quiet=as_json))
    chosen = [] if slices is None else [f"data.slice_columns={json.dumps(slices)}"]
    resolved = _load(str(run / RECIPE), [*(settings or ()), *chosen], data__source=data)
    result = assess_split(run, predictor, resolved.data, split)
    if out is not None:
        save_assessments(out, [result], history=[])
    if as_json:
        _print_json(result.evaluation)
        return
    from textlora import console

    console.show_evaluation(result.evaluation)
    console.show_details(result, mistakes)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="A run folder.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another one, of the same labels.")],
    data: DataOption = None,
    split: Annotated[str, typer.Option(help="Which split of the data.")] = "test",
    examples: Annotated[int, typer.Option(min=0, max=20, help="Texts of each kind shown.")] = 3,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two classifiers on the same texts (default: the data of the first one's recipe)."""
    from textlora.comparison import compare_runs
    from textlora.rundir import RECIPE, read_manifest

    read_manifest(first)
    resolved = _load(str(first / RECIPE), settings, data__source=data)
    result = compare_runs(first, second, resolved.data, split)
    if as_json:
        _print_json(result)
        return
    from textlora import console

    console.show_comparison(result, examples)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN [RUN ...]", help="Run folders.")],
    split: Annotated[str, typer.Option(help="Figures on which split.")] = "test",
    out: Annotated[Path | None, typer.Option(help="File; RUN/report.html if not named.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write one HTML page about one run, or several side by side."""
    from textlora.report import REPORT, write_report

    path = write_report(runs, split, out or runs[0] / REPORT)
    if as_json:
        _print_json({"report": path, "bytes": path.stat().st_size})
    else:
        print(f"report        {path}")


@app.command()
def explain(
    run: RunArgument,
    text: Annotated[str, typer.Argument(help="The text, in quotes.")],
    label: Annotated[
        str | None, typer.Option(help="What speaks for this label; none = the answer.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show which words of a text drove the answer."""
    from textlora.explanation import explain_text
    from textlora.predictor import Predictor

    found = explain_text(Predictor.load(run), text, label)
    if as_json:
        _print_json(found)
        return
    from textlora import console

    console.show_explanation(found)


@app.command()
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
    text_column: Annotated[str, typer.Option(help="Column that holds the text.")] = "",
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
    from textlora import shards
    from textlora.filepredict import FileOptions, predict_files
    from textlora.inputs import find_inputs
    from textlora.predictor import Predictor

    if run is None and not merge:
        raise SettingsError("RUN: missing; name the run folder of a classifier")
    if sources is None and not merge:
        assert run is not None
        _show_examples(Predictor.load(run, backend, Reporter(quiet=as_json)), as_json)
        return
    if sources is None:
        raise SettingsError("--input: missing for --merge; name the shards")
    if target is None:
        raise SettingsError(f"--output: missing for --input {sources[0]}; name the file to write")
    report, found = Reporter(quiet=as_json), find_inputs(sources)
    if merge:
        merged = shards.merge_shards(found, target)
        _print_written(target, merged.rows, merged, as_json)
        return
    assert run is not None
    options = FileOptions(
        text_column=text_column,
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
        from textlora.rayengine import RayEngine
    predictor = Predictor.load(run, backend, report)
    # What `auto` has chosen here, all workers take.
    workers = RayEngine(run, predictor.backend_name, ray_address) if engine == "ray" else None
    summary = predict_files(predictor, found, target, options, report, workers)
    for message in summary.explain():
        report.say(message)
    _print_written(target, summary.rows, summary, as_json)


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """Show versions, device, number formats, threads and the models at hand."""
    from textlora.doctor import examine

    found = examine()
    if as_json:
        _print_json(found)
        return
    environment = found.environment
    print(f"machine    {environment.processor}, {environment.system}")
    print(f"device     {environment.device}, {environment.num_threads} threads")
    print(f"training   {found.training_format}")
    print(f"python     {environment.python}")
    for package, version in environment.packages.items():
        print(f"{package:<15} {version}")
    print(f"embedded:minilm  {found.embedded_model}")
    print(f"cached models    {', '.join(found.cached_models) or 'none'}")


def _read_texts(recipe: Recipe) -> "LabelledTexts":
    from textlora.data import load_labelled_texts

    return load_labelled_texts(recipe.data)


def _find_confidence(run: Path, least: float, precision: float | None, report: Reporter) -> float:
    if precision is None:
        return least
    from textlora.assessment import find_confidence

    found = max(least, find_confidence(run, precision))
    report.say(f"labels of less than {found:.2%} confidence are left empty")
    return found


def _print_written(target: Path, rows: int, summary: Any, as_json: bool) -> None:
    if as_json and str(target) != "-":
        _print_json({"output": target, **asdict(summary)})
    else:  # what is written to stdout stays alone there
        print(f"{rows:,} rows  {target}", file=sys.stderr if str(target) == "-" else sys.stdout)


def _show_examples(predictor: "Predictor", as_json: bool) -> None:
    from textlora import console
    from textlora.demo import EXAMPLES

    found = predictor.predict(EXAMPLES)
    if as_json:
        pairs = zip(EXAMPLES, found, strict=True)
        _print_json([{"text": text, **asdict(prediction)} for text, prediction in pairs])
        return
    rows = [(t, *console.describe_answer(p)) for t, p in zip(EXAMPLES, found, strict=True)]
    console.show_rows(("text", "label", "confidence"), rows)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with 0, or with the code of the error (see `errors`)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    # A tokenizer that was used before a fork warns on stderr; we start no workers.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    previous = signal.signal(signal.SIGTERM, _stop)
    try:
        code = app([word for word in words if word != "--debug"], standalone_mode=False)
    except TextloraError as error:
        code = _fail(f"{error}", error.exit_code, debug)
        if isinstance(error, UnfinishedError):
            print(f"continue with: {_format_command(words)}", file=sys.stderr)
    except typer.TyperException as error:
        code = _fail(error.format_message(), error.exit_code, debug)
    except (KeyboardInterrupt, typer.Abort, _Stopped) as error:
        code = _fail("stopped", 143 if isinstance(error, _Stopped) else 130, debug)
        if words[:1] in (["train"], ["predict"], ["sweep"]):
            print(f"continue with: {_format_command(words)}", file=sys.stderr)
    except BrokenPipeError:
        # The reader has gone (`| head`); the interpreter must not complain when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    finally:
        signal.signal(signal.SIGTERM, previous)
    sys.exit(code)


class _Stopped(BaseException):
    pass


def _stop(_number: int, _frame: FrameType | None) -> None:
    """What training does not handle itself: what is staged is cleared away, what is done stays."""
    raise _Stopped


def _format_command(words: list[str]) -> str:
    """The command to type again; --resume never would throw away what is to be continued."""
    kept = [word for word in words if word != "--resume=never"]
    if "--resume" in kept:
        at = kept.index("--resume")
        del kept[at : at + 2]
    return shlex.join(["textlora", *kept])


def _fail(message: str, code: int, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exc()
    print(f"textlora: {' '.join(message.split())}", file=sys.stderr)
    return code


def _load(recipe: str, settings: list[str] | None, **flags: str | None) -> Recipe:
    return load_recipe(recipe, settings or (), **flags)


def _summarise(result: "TrainedRun") -> dict[str, Any]:
    return asdict(result)


def _show_trained(result: "TrainedRun") -> None:
    from textlora import console

    print()
    for evaluation in result.evaluations:
        console.show_evaluation(evaluation)
        print()
    print(
        f"trained       {result.trainable_parameters:,} of {result.total_parameters:,} parameters, "
        f"{result.steps:,} steps (best: {result.best_step:,}), {result.seconds:.0f} s in all"
    )
    print(f"classifier    {result.folder}")
    for picture in result.pictures:
        print(f"picture       {picture}")
    print(f"report        {result.report}")


def _show_repeats(repeats: "Repeats", out: Path, as_json: bool) -> None:
    if as_json:
        _print_json(repeats)
        return
    from textlora import console

    console.show_repeats(repeats)
    print(f"classifier    {out}, a copy of {repeats.best}, the best on validation")


def _print_json(value: Any) -> None:
    content = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
    print(json.dumps(content, default=str, ensure_ascii=False))


if __name__ == "__main__":
    main()
