"""Training, visible from top to bottom: the timetable, the loop, one step, validation, the best."""

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from textlora import checkpoints
from textlora.adapters import set_dropout
from textlora.batching import (
    TokenizedTexts,
    compute_epoch_batches,
    make_batch,
    split_by_tokens,
)
from textlora.checkpoints import Checkpoint, TrainingState
from textlora.errors import TextloraError
from textlora.history import StepRecord, ValidationRecord, append_record, cut_history
from textlora.interrupts import StopRequest
from textlora.learner import Learner, read_optimizer, write_optimizer
from textlora.metrics import compute_scores
from textlora.predictor import compute_logits, compute_softmax
from textlora.prefix import Prefix, open_prefix
from textlora.progress import Reporter
from textlora.runtime import set_seed
from textlora.schedules import compute_dropout, compute_learning_rate
from textlora.settings import Recipe

Resume = Literal["auto", "never"]
_RECORDS_PER_EPOCH = 20  # lines of history between two evaluations, for the learning curves


@dataclass(frozen=True)
class Timetable:
    """What happens at which step: the schedules and the steps of a run, from its recipe."""

    recipe: Recipe
    steps_per_epoch: int

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return max(1, math.ceil(self.recipe.training.epochs * self.steps_per_epoch))

    @property
    def evaluate_every(self) -> int:
        """Steps between two evaluations."""
        return self.recipe.training.evaluate_every or self.steps_per_epoch

    def is_evaluated(self, done: int) -> bool:
        """Whether validation follows after `done` steps."""
        return done % self.evaluate_every == 0 or done == self.total_steps

    def is_recorded(self, done: int) -> bool:
        """Whether a line of history is written after `done` steps."""
        every = max(1, self.evaluate_every // _RECORDS_PER_EPOCH)
        return done % every == 0 or self.is_evaluated(done)

    def learning_rate(self, step: int) -> float:
        """Rate applied at `step`, counted from 0."""
        settings = self.recipe.training
        return compute_learning_rate(
            step,
            peak=settings.learning_rate,
            warmup_steps=round(settings.warmup_share * self.total_steps),
            total_steps=self.total_steps,
            shape=settings.schedule,
        )

    def dropout(self, step: int) -> float:
        """Dropout applied at `step`, counted from 0."""
        settings = self.recipe.dropout
        return compute_dropout(
            step,
            start=settings.start,
            end=settings.end,
            total_steps=self.total_steps,
            shape=settings.shape,
        )


def train_steps(learner: Learner, run: Path, resume: Resume, report: Reporter) -> TrainingState:
    """Train to the last step or until nothing gets better; leave the best weights in the learner.

    Writes history and checkpoints into `run`. Started again, it continues from the newest whole
    checkpoint and takes exactly the steps that an uninterrupted run takes.

    Raises:  Interrupted or Terminated after a checkpoint; TextloraError if the loss is not finite.
    """
    settings = learner.recipe.training
    table = Timetable(learner.recipe, math.ceil(len(learner.train) / settings.batch_size))
    state = _start(learner, run, resume, report)
    batches: list[npt.NDArray[np.int64]] = []
    with (
        _open_prefix(learner, learner.train, table, report) as train_prefix,
        _open_prefix(learner, learner.validation, table, report) as validation_prefix,
        StopRequest() as stop,
        report.track("training", table.total_steps, state.step) as bar,
    ):
        while state.step < table.total_steps and not _is_exhausted(state, settings.patience):
            step = state.step
            epoch, position = divmod(step, table.steps_per_epoch)
            if not batches or position == 0:
                batches = compute_epoch_batches(
                    learner.train.lengths, settings.batch_size, settings.seed, epoch
                )
            rate, dropout = table.learning_rate(step), table.dropout(step)
            set_seed(settings.seed, step + 1)  # position 0 made the start values
            set_dropout(learner.model, dropout, learner.recipe.dropout.scope)
            outcome = _take_step(learner, batches[position], rate, train_prefix)
            state.step += 1
            state.loss_total += outcome.loss_total
            state.loss_texts += len(batches[position])
            if table.is_recorded(state.step):
                validation = None
                if table.is_evaluated(state.step):
                    validation = _validate(learner, validation_prefix)
                record = StepRecord(
                    step=state.step,
                    epoch=state.step / table.steps_per_epoch,
                    train_loss=state.loss_total / state.loss_texts,
                    learning_rate=rate,
                    dropout=dropout,
                    gradient_norm=outcome.gradient_norm,
                    validation=validation,
                )
                _record(run, record, state)
                bar.advance(0, f"loss {record.train_loss:.3f}")
                if validation is not None:
                    _keep_best(state, validation, settings.best_metric)
                    report.say(_describe(record, table.total_steps))
            if table.is_evaluated(state.step) or stop.received is not None:
                _save(learner, run, state)
            bar.advance()
            if stop.received is not None and state.step < table.total_steps:
                stop.raise_received(
                    f"{run}: stopped after step {state.step} of {table.total_steps}, checkpoint "
                    "saved; run the same command again to continue"
                )
    learner.weights.write(checkpoints.load_weights(run, state.best_step))
    return state


@dataclass(frozen=True)
class _StepOutcome:
    """Loss summed over the texts of the step, and the norm of the gradient before clipping."""

    loss_total: float
    gradient_norm: float


def _open_prefix(
    learner: Learner, tokens: TokenizedTexts, table: Timetable, report: Reporter
) -> AbstractContextManager[Prefix | None]:
    """The output of frozen layers, where it is read more than once and always the same."""
    settings, dropout = learner.recipe.training, learner.recipe.dropout
    random = dropout.scope == "all" and max(dropout.start, dropout.end) > 0.0
    if random or table.total_steps <= table.steps_per_epoch or not settings.prefix_cache_gb:
        return nullcontext()
    return open_prefix(
        learner.engine, tokens, learner.origin.encoder, settings.prefix_cache_gb, report
    )


def _take_step(
    learner: Learner,
    indices: npt.NDArray[np.int64],
    rate: float,
    prefix: Prefix | None = None,
) -> _StepOutcome:
    """One optimizer step over the texts `indices`, in pieces that fit the token budget."""
    learner.model.train()
    total = 0.0
    for group in split_by_tokens(learner.train.lengths, indices, learner.engine.max_tokens):
        batch = make_batch(learner.train, group).to(learner.device)
        label_ids = torch.from_numpy(learner.train_label_ids[group]).to(learner.device)
        rows = None if prefix is None else prefix.read(group, batch)
        logits = learner.engine(batch, rows).float()
        loss = cross_entropy(logits, label_ids, reduction="sum")
        # Divided by the whole step's count: the mean over texts, however they were cut.
        (loss / len(indices)).backward()  # type: ignore[no-untyped-call]
        total += loss.item()
    if not math.isfinite(total):
        raise TextloraError(
            f"training: the loss became {total} at learning rate {rate:.2g}; "
            "lower training.learning_rate"
        )
    learner.weights.collect_gradients()
    masters = list(learner.weights.masters.values())
    norm = nn.utils.clip_grad_norm_(masters, learner.recipe.training.max_grad_norm)
    for group_settings in learner.optimizer.param_groups:
        group_settings["lr"] = rate
    learner.optimizer.step()
    learner.weights.publish()
    return _StepOutcome(total, float(norm))


def _validate(learner: Learner, prefix: Prefix | None = None) -> ValidationRecord:
    logits = compute_logits(learner.engine, learner.validation, prefix)
    probabilities = compute_softmax(logits, len(learner.labels))
    scores = compute_scores(learner.validation_label_ids, probabilities, learner.labels)
    return ValidationRecord(scores.loss, scores.accuracy, scores.weighted.f1, scores.macro.f1)


def _keep_best(state: TrainingState, validation: ValidationRecord, metric: str) -> None:
    value = -validation.loss if metric == "loss" else getattr(validation, metric)
    if value > state.best_value or state.best_step == 0:
        state.best_step, state.best_value, state.stale_evaluations = state.step, value, 0
    else:
        state.stale_evaluations += 1


def _is_exhausted(state: TrainingState, patience: int) -> bool:
    return patience > 0 and state.stale_evaluations >= patience


def _start(learner: Learner, run: Path, resume: Resume, report: Reporter) -> TrainingState:
    """The state to go on from; a fresh one when nothing was found or nothing is wanted."""
    try:
        run.mkdir(parents=True, exist_ok=True)
        if resume == "never":
            checkpoints.delete_checkpoints(run)
        found, damaged = checkpoints.find_checkpoint(run, learner.origin)
        for message in damaged:
            report.say(message)
        state = TrainingState() if found is None else found.state
        if found is not None:
            learner.weights.write(found.weights)
            write_optimizer(learner, found.optimizer, state.step)
            report.say(f"{run}: continuing after step {state.step}")
        cut_history(run, state.num_records)
    except OSError as error:
        raise TextloraError(
            f"{run}: cannot be written ({error.strerror or error}); choose another --out"
        ) from None
    return state


def _save(learner: Learner, run: Path, state: TrainingState) -> None:
    checkpoint = Checkpoint(state, learner.weights.read(), read_optimizer(learner))
    checkpoints.save_checkpoint(run, checkpoint, learner.origin)


def _record(run: Path, record: StepRecord, state: TrainingState) -> None:
    try:
        append_record(run, record)
    except OSError as error:
        raise TextloraError(
            f"{run}: history cannot be written ({error.strerror or error}); make room and run the "
            "same command again, it continues from the last checkpoint"
        ) from None
    state.num_records += 1
    state.loss_total, state.loss_texts = 0.0, 0


def _describe(record: StepRecord, total_steps: int) -> str:
    assert record.validation is not None
    return (
        f"step {record.step}/{total_steps}  epoch {record.epoch:.2f}  "
        f"train loss {record.train_loss:.4f}  validation loss {record.validation.loss:.4f}  "
        f"accuracy {record.validation.accuracy:.2%}  F1 {record.validation.f1_weighted:.2%}"
    )
