"""Training, visible from top to bottom: the loop, one step, validation, the best."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from textlora.errors import DivergedError, Interrupted, TextloraError, UnfinishedError
from textlora.model.adapters import set_dropout
from textlora.model.batching import (
    TokenizedTexts,
    compute_epoch_batches,
    make_batch,
    split_by_tokens,
)
from textlora.model.prefix import Prefix, open_prefix
from textlora.model.torch_backend import compute_logits
from textlora.runs import checkpoints
from textlora.runs.checkpoints import Checkpoint, Effort, TrainingState
from textlora.runs.history import History, StepRecord
from textlora.scoring.validation import ValidationRecord
from textlora.settings import Metric
from textlora.system.interrupts import StopRequest
from textlora.system.progress import Reporter
from textlora.system.runtime import measure_peak_memory, set_seed
from textlora.training.timetable import Timetable
from textlora.training.training_setup import TrainingSetup

Resume = Literal["auto", "never"]
Follow = Callable[[StepRecord], None]


def train_steps(
    setup: TrainingSetup,
    run: Path,
    resume: Resume,
    report: Reporter,
    follow: Follow = lambda _: None,
) -> TrainingState:
    """Train to the last step or until nothing gets better; leave the best weights in the setup.

    Writes history and checkpoints into `run`. Started again, it continues from the newest whole
    checkpoint and takes exactly the steps that an uninterrupted run takes. `follow` is given each
    record of the history; a run that goes on repeats those behind its checkpoint.

    Raises:  Interrupted or Terminated after a checkpoint; DivergedError if the loss is not finite;
    what `follow` raises, without a checkpoint.
    """
    settings = setup.recipe.training
    table = Timetable(setup.recipe, math.ceil(len(setup.train) / settings.batch_size))
    keeper, state = _start(setup, run, resume, report)
    batches: list[npt.NDArray[np.int64]] = []
    with (
        keeper.stop_safely(state, table.total_steps),
        StopRequest() as stop,
        _open_prefix(setup, setup.train, report, stop.check) as train_prefix,
        _open_prefix(setup, setup.validation, report, stop.check) as validation_prefix,
        report.track("training", table.total_steps, state.step) as bar,
    ):
        while True:
            # What follows a step depends on the state alone: a run that was stopped here goes on.
            if table.is_recorded(state.step) and state.recorded_step < state.step:
                validation = None
                if table.is_evaluated(state.step):
                    validation = _validate(setup, validation_prefix, stop.check)
                record = _make_record(state, table, validation)
                keeper.record(record, state)
                follow(record)
                bar.advance(0, f"loss {record.train_loss:.3f}")
                if validation is not None:
                    _keep_best(state, validation, settings.best_metric)
                    report.say(_describe(record, table.total_steps))
                    keeper.save(state)
            keeper.save_if_due(state)
            stop.check()
            if state.step == table.total_steps or _is_exhausted(state, settings.patience):
                break
            epoch, position = divmod(state.step, table.steps_per_epoch)
            if not batches or position == 0:
                batches = compute_epoch_batches(
                    setup.train.lengths, settings.batch_size, settings.seed, epoch
                )
            set_seed(settings.seed, state.step + 1)  # position 0 made the start values
            set_dropout(setup.model, table.dropout(state.step), setup.recipe.dropout.scope)
            rate = table.learning_rate(state.step)
            outcome = take_step(setup, batches[position], state.step, rate, train_prefix)
            state.step += 1
            state.loss_total += outcome.loss_total
            state.loss_texts += len(batches[position])
            state.gradient_norm = outcome.gradient_norm
            bar.advance()
    shapes = setup.weights.shapes
    setup.weights.write(checkpoints.load_weights(run, state.best_step, shapes))
    return state


class _Keeper:
    """Writes history and checkpoints of a run; each checkpoint once."""

    def __init__(
        self, setup: TrainingSetup, run: Path, history: History, saved: TrainingState
    ) -> None:
        self._setup, self._run, self._history = setup, run, history
        self._saved, self._saved_at = replace(saved), time.monotonic()
        self._counted_at = time.perf_counter()

    def record(self, record: StepRecord, state: TrainingState) -> None:
        try:
            self._history.append(record)
        except OSError as error:
            raise UnfinishedError(
                f"{self._run}: history cannot be written ({error.strerror or error}); make room "
                "and run the same command again, it continues from the last checkpoint"
            ) from None
        state.recorded_step = state.step
        state.loss_total, state.loss_texts = 0.0, 0

    def save(self, state: TrainingState) -> None:
        if state == self._saved:
            return
        state.effort = self._add_up(state.effort)
        weights = self._setup.weights
        checkpoint = Checkpoint(
            state, weights.read(), weights.read_optimizer(), self._history.content
        )
        checkpoints.save_checkpoint(self._run, checkpoint, self._setup.origin)
        self._saved, self._saved_at = replace(state), time.monotonic()

    def _add_up(self, effort: Effort) -> Effort:
        """Time is counted here alone: what is not in a checkpoint will be done once more."""
        since, self._counted_at = self._counted_at, time.perf_counter()
        peak = measure_peak_memory(self._setup.device)
        return Effort(effort.seconds + self._counted_at - since, max(effort.peak_bytes, peak))

    def save_if_due(self, state: TrainingState) -> None:
        """Where evaluations are far apart; when it is done changes nothing that is learned."""
        seconds = 60.0 * self._setup.recipe.training.checkpoint_minutes
        if seconds and time.monotonic() - self._saved_at >= seconds:
            self.save(state)

    @contextmanager
    def stop_safely(self, state: TrainingState, total_steps: int) -> Iterator[None]:
        """A wish to stop leaves a checkpoint, and says where the run stands."""
        try:
            yield
        except Interrupted as error:
            self.save(state)
            raise type(error)(
                f"{self._run}: stopped after step {state.step} of {total_steps}, all of it saved; "
                "run the same command again to continue"
            ) from None


@dataclass(frozen=True)
class StepOutcome:
    """Plain loss summed over the texts of the step; norm of the gradient before it was clipped."""

    loss_total: float
    gradient_norm: float


def _open_prefix(
    setup: TrainingSetup,
    tokens: TokenizedTexts,
    report: Reporter,
    check: Callable[[], None],
) -> AbstractContextManager[Prefix | None]:
    """The output of frozen layers, where it is read more than once and always the same."""
    if not setup.recipe.rereads_prefix:
        return nullcontext()
    most_gb = setup.recipe.training.prefix_cache_gb
    return open_prefix(setup.engine, tokens, setup.origin.encoder, most_gb, report, check)


def take_step(
    setup: TrainingSetup,
    indices: npt.NDArray[np.int64],
    step: int,
    rate: float,
    prefix: Prefix | None = None,
) -> StepOutcome:
    """Optimizer step `step` over the texts `indices`, in pieces that fit the token budget.

    `prefix` has the output of the frozen layers; without it they are computed.

    Shapes:  indices (texts,) positions in `setup.train`.
    Raises:  DivergedError if the loss is not finite.
    """
    settings = setup.recipe.training
    setup.model.train()
    total = shown = 0.0
    for group in split_by_tokens(setup.train.lengths, indices, setup.engine.max_tokens):
        batch = make_batch(setup.train, group).to(setup.device)
        label_ids = torch.from_numpy(setup.train_label_ids[group]).to(setup.device)
        rows = None if prefix is None else prefix.read(group, batch)
        logits = setup.engine(batch, rows).float()
        objective = setup.objective
        loss = objective.compute_loss(logits, label_ids, settings, setup.class_weights)
        # Divided by the whole step's count: the mean over texts, however they were cut.
        (loss / len(indices)).backward()  # type: ignore[no-untyped-call]
        total += loss.item()
        shown += objective.compute_shown(loss, logits, label_ids, settings)
    if not math.isfinite(total):
        raise DivergedError(
            f"training: the loss became {total} at learning rate {rate:.2g}; "
            "lower training.learning_rate"
        )
    return StepOutcome(shown, setup.weights.step(step, rate, settings.max_grad_norm))


def _validate(
    setup: TrainingSetup, prefix: Prefix | None, check: Callable[[], None]
) -> ValidationRecord:
    with setup.weights.show_counted():
        logits = compute_logits(setup.engine, setup.validation, prefix, check)
    if not np.isfinite(logits).all():
        raise DivergedError(
            "training: the loss became nan on validation; lower training.learning_rate"
        )
    return setup.task.validate(logits, setup.validation_label_ids, setup.labels)


def _make_record(
    state: TrainingState, table: Timetable, validation: ValidationRecord | None
) -> StepRecord:
    return StepRecord(
        step=state.step,
        epoch=state.step / table.steps_per_epoch,
        train_loss=state.loss_total / state.loss_texts,
        learning_rate=table.learning_rate(state.step - 1),
        dropout=table.dropout(state.step - 1),
        gradient_norm=state.gradient_norm,
        validation=validation,
    )


def _keep_best(state: TrainingState, validation: ValidationRecord, metric: Metric) -> None:
    found = validation.rate(metric)
    if found > (state.best_value, -state.best_loss) or state.best_step == 0:
        state.best_step, state.stale_evaluations = state.step, 0
        state.best_value, state.best_loss = found[0], validation.loss
    else:
        state.stale_evaluations += 1


def _is_exhausted(state: TrainingState, patience: int) -> bool:
    return patience > 0 and state.stale_evaluations >= patience


def _start(
    setup: TrainingSetup, run: Path, resume: Resume, report: Reporter
) -> tuple[_Keeper, TrainingState]:
    """The state to go on from; a fresh one when nothing was found or nothing is wanted."""
    try:
        run.mkdir(parents=True, exist_ok=True)
        if resume == "never":
            checkpoints.delete_checkpoints(run)
        shapes = setup.weights.shapes
        found, damaged = checkpoints.find_checkpoint(
            run, setup.origin, shapes, setup.weights.optimizer_shapes
        )
        for message in damaged:
            report.say(message)
        if found is None:
            state, history = TrainingState(), History(run, b"")
            if damaged:
                report.say(f"{run}: no whole checkpoint is left; starting over")
        else:
            state, history = found.state, History(run, found.history)
            setup.weights.write(found.weights)
            setup.weights.write_optimizer(found.optimizer, state.step)
            report.say(f"{run}: continuing after step {state.step}")
    except OSError as error:
        raise TextloraError(
            f"{run}: cannot be written ({error.strerror or error}); choose another --out"
        ) from None
    return _Keeper(setup, run, history, state), state


def _describe(record: StepRecord, total_steps: int) -> str:
    assert record.validation is not None
    return (
        f"step {record.step}/{total_steps}  epoch {record.epoch:.2f}  "
        f"train loss {record.train_loss:.4f}  validation loss {record.validation.loss:.4f}  "
        f"accuracy {record.validation.accuracy:.2%}  F1 {record.validation.f1_weighted:.2%}"
    )
