"""From a recipe to a finished, verified and evaluated run folder: what `train` and the API do."""

import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

from safetensors import SafetensorError

from textlora.budgeting.cost import Texts, estimate_cost
from textlora.checking.findings import DataCheck
from textlora.data.labelled_texts import LabelledTexts
from textlora.errors import TextloraError, UnfinishedError
from textlora.evaluation.evaluation import AnyEvaluation
from textlora.evaluation.run_evaluation import evaluate_run
from textlora.model.batching import compute_epoch_batches, compute_padded_share, tokenize
from textlora.model.shapes import find_shapes
from textlora.model.torch_backend import compute_logits
from textlora.reporting.report import write_report
from textlora.reporting.results import save_results
from textlora.runs import run_folder
from textlora.runs.checkpoints import TrainingState
from textlora.runs.history import read_history
from textlora.runs.provenance import TrainingRecord, write_data_check, write_training
from textlora.runs.run_folder import FORMAT_VERSION, Manifest, TrainedModel
from textlora.runs.verify import verify_run
from textlora.scoring.validation import ValidationRecord
from textlora.settings import Recipe
from textlora.system.console import format_seconds
from textlora.system.files import lock_folder
from textlora.system.progress import Reporter
from textlora.system.runtime import describe_environment
from textlora.training import loop
from textlora.training.loop import Follow, Resume
from textlora.training.tracking import open_tracking
from textlora.training.training_setup import TrainingSetup, prepare_training

_NUM_PROBES = 64  # texts whose logits are compared after saving


@dataclass(frozen=True)
class TrainedRun:
    """A finished run. `evaluations` holds validation and, where the data has one, test."""

    folder: Path
    evaluations: tuple[AnyEvaluation, ...]
    pictures: tuple[Path, ...]
    report: Path
    steps: int
    best_step: int
    trainable_parameters: int
    total_parameters: int
    seconds: float
    training: TrainingRecord
    reload_difference: float  # largest difference of a logit after saving and loading


def train_run(
    recipe: Recipe,
    texts: LabelledTexts,
    run: Path,
    *,
    resume: Resume,
    report: Reporter,
    track: Sequence[str] = (),
    check: DataCheck | None = None,
) -> TrainedRun:
    """Train, save, verify in a fresh process, evaluate, draw; trackers are told on the way.

    `check` says what was found in the data; it is kept in the run and told about in its report.

    Raises:  TextloraError or one of its kinds; the run then has no manifest, or its old one.
    """
    start = time.perf_counter()
    with (
        _lock(run),
        open_tracking(track, run, recipe, report, afresh=resume == "never") as tracking,
    ):
        setup, state = _fit(recipe, texts, run, resume, report, tracking.record)
        fitted = _find_fitted(run, state.best_step)
        report.say("saving; a fresh process loads it and must give the same answers")
        difference = _save(setup, run, fitted, partial(_verify, setup, texts, run))
        record = _describe_training(setup, state)
        _save_provenance(run, record, check)
        assessments = evaluate_run(run, texts)
        pictures = save_results(run, assessments, read_history(run))
        page = write_report([run], assessments[-1].evaluation.split, run / run_folder.REPORT)
        scores = {item.evaluation.split: item.evaluation.scores for item in assessments}
        tracking.finish(scores, state.step)
    return TrainedRun(
        folder=run,
        evaluations=tuple(item.evaluation for item in assessments),
        pictures=tuple(pictures),
        report=page,
        steps=state.step,
        best_step=state.best_step,
        trainable_parameters=setup.plan.trainable,
        total_parameters=setup.plan.total,
        seconds=time.perf_counter() - start,
        training=record,
        reload_difference=difference,
    )


def fit_run(
    recipe: Recipe, texts: LabelledTexts, run: Path, *, resume: Resume, report: Reporter
) -> tuple[TrainingSetup, TrainingState]:
    """Train and save; the run loads from then on, but is not verified or evaluated yet.

    Raises:  as `train_run`.
    """
    with _lock(run):
        setup, state = _fit(recipe, texts, run, resume, report)
        _save(setup, run, _find_fitted(run, state.best_step))
        _save_provenance(run, _describe_training(setup, state), None)
    return setup, state


def copy_pictures(pictures: Sequence[Path], folder: Path) -> None:
    """Copy pictures to another folder.

    Raises:  TextloraError if it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for picture in pictures:
            if picture.parent.resolve() == folder.resolve():
                continue  # they lie there already
            shutil.copyfile(picture, folder / picture.name)
    except OSError as error:
        reason = error.strerror or error
        raise TextloraError(f"{folder}: cannot be written ({reason}); name another") from None


@contextmanager
def _lock(run: Path) -> Iterator[None]:
    """Make the run folder and keep other processes from training in it."""
    run_folder.refuse_sweep(run)
    run_folder.refuse_repeats(run)
    run_folder.refuse_foreign(run)
    with ExitStack() as held:
        try:
            run.mkdir(parents=True, exist_ok=True)
            held.enter_context(lock_folder(run))
        except BlockingIOError as error:
            raise TextloraError(
                f"{run}: process {error} is training in it; wait for it, or choose another --out"
            ) from None
        except OSError as error:
            raise TextloraError(
                f"{run}: cannot be written ({error.strerror or error}); choose another --out"
            ) from None
        yield


def _fit(
    recipe: Recipe,
    texts: LabelledTexts,
    run: Path,
    resume: Resume,
    report: Reporter,
    follow: Follow = lambda _: None,
) -> tuple[TrainingSetup, TrainingState]:
    for note in texts.notes:
        report.say(note)
    setup = prepare_training(recipe, texts)
    _say_plan(setup, report)
    return setup, loop.train_steps(setup, run, resume, report, follow)


def _save(
    setup: TrainingSetup,
    run: Path,
    fitted: ValidationRecord | None,
    check: Callable[[Path], float] = lambda _: 0.0,
) -> float:
    weights = setup.weights.read()
    trained = TrainedModel(setup.model, weights, setup.tokenizer, setup.labels, setup.files)
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        textlora_version=version("textlora"),
        base=run_folder.describe_base(setup.files, setup.fingerprint),
        data_fingerprint=setup.origin.data,
        max_length=setup.max_length,
        trainable_parameters=setup.plan.trainable,
        total_parameters=setup.plan.total,
        files={},
        temperature=fitted.temperature if fitted else 1.0,
        thresholds=fitted.thresholds if fitted else (),
    )
    try:
        return run_folder.save_classifier(run, trained, setup.recipe, manifest, check)
    except (OSError, SafetensorError) as error:
        raise UnfinishedError(
            f"{run}: cannot be written ({error}); make room and run the same command again, "
            "it continues from the last checkpoint"
        ) from None


def _describe_training(setup: TrainingSetup, state: TrainingState) -> TrainingRecord:
    count, size = len(setup.train), setup.recipe.training.batch_size
    epochs, rest = divmod(state.step, math.ceil(count / size))
    return TrainingRecord(
        environment=describe_environment(),
        number_format=f"{setup.engine.dtype}".removeprefix("torch."),
        epochs=state.step / math.ceil(count / size),
        texts=epochs * count + rest * size,  # the last batch of an epoch alone may be smaller
        seconds=state.effort.seconds,
        peak_bytes=state.effort.peak_bytes,
    )


def _save_provenance(run: Path, record: TrainingRecord, check: DataCheck | None) -> None:
    try:
        write_training(run, record)
        write_data_check(run, check)
    except OSError as error:
        raise UnfinishedError(
            f"{run}: cannot be written ({error.strerror or error}); make room and run the same "
            "command again"
        ) from None


def _find_fitted(run: Path, best_step: int) -> ValidationRecord | None:
    """What was fitted on validation for the best checkpoint."""
    records = [record.validation for record in read_history(run) if record.step == best_step]
    return next(filter(None, records), None)


def _verify(setup: TrainingSetup, texts: LabelledTexts, run: Path, folder: Path) -> float:
    probes = texts.validation.texts[:_NUM_PROBES]
    tokens = tokenize(setup.tokenizer, probes, setup.max_length)
    return verify_run(folder, probes, compute_logits(setup.engine, tokens), where=str(run))


def _say_plan(setup: TrainingSetup, report: Reporter) -> None:
    plan, train, validation = setup.plan, setup.train, setup.validation
    report.say(
        f"{len(train):,} training and {len(validation):,} validation texts, "
        f"{len(setup.labels)} labels; {plan.trainable:,} of {plan.total:,} parameters trained "
        f"({plan.trainable_share:.4%})"
    )
    settings = setup.recipe.training
    batches = compute_epoch_batches(train.lengths, settings.batch_size, settings.seed, epoch=0)
    share = compute_padded_share(train.lengths, batches, packed=setup.engine.is_packed)
    report.say(f"{share:.1%} of the tokens computed in training are padding")
    cut = int(train.truncated.sum() + validation.truncated.sum())
    if cut:
        report.say(f"{cut:,} texts are longer than {setup.max_length} tokens and were cut")
    known = Texts(train.lengths, len(train), len(validation), setup.recipe.model.name)
    shapes = find_shapes(setup.recipe.model, len(setup.labels))
    cost = estimate_cost(setup.recipe, plan, shapes, known)
    report.say(
        f"about {format_seconds(cost.epoch_seconds)} an epoch here, "
        f"{format_seconds(cost.seconds)} from the first step to the last"
    )
