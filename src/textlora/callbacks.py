"""The dropout schedule and the metrics history for people who keep their own Hugging Face Trainer.

from textlora.callbacks import DropoutScheduler, MetricsTracker

tracker = MetricsTracker()
Trainer(..., callbacks=[DropoutScheduler(start=0.15, end=0.05), tracker])
tracker.draw("curves.png")
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from textlora.errors import SettingsError
from textlora.model.adapters import set_dropout
from textlora.reporting.plots import draw_learning_curves, save_figure
from textlora.runs.history import StepRecord
from textlora.scoring.validation import ValidationRecord
from textlora.settings import Shape
from textlora.system.files import write_json
from textlora.training.schedules import compute_dropout


class DropoutScheduler(TrainerCallback):  # type: ignore[misc]
    """Sets dropout at every optimizer step, from `start` at the first to exactly `end` at the last.

    `scope` "adapter" touches the LoRA dropouts only, "all" every dropout of the model. PEFT builds
    no dropout module for `lora_dropout=0`: give it a positive value, also for a schedule that
    starts at 0. It depends on the step alone, so a resumed Trainer continues it correctly.
    """

    def __init__(
        self,
        start: float,
        end: float,
        shape: Shape = "linear",
        scope: Literal["adapter", "all"] = "adapter",
    ) -> None:
        self.start, self.end, self.shape, self.scope = start, end, shape, scope
        self.applied: list[float] = []  # one probability an optimizer step

    def on_step_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """Apply the schedule before the forward pass."""
        assert model is not None  # the Trainer always passes it
        probability = compute_dropout(
            state.global_step,
            start=self.start,
            end=self.end,
            total_steps=state.max_steps,
            shape=self.shape,
        )
        if not set_dropout(model, probability, self.scope):
            raise SettingsError(
                f"DropoutScheduler: the model has no dropout module in scope {self.scope!r}; "
                "give LoraConfig a positive lora_dropout, or use scope 'all'"
            )
        self.applied.append(probability)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Add the applied probability to what the Trainer logs."""
        if logs is not None and self.applied:
            logs["dropout"] = self.applied[-1]


class MetricsTracker(TrainerCallback):  # type: ignore[misc]
    """Collects what the Trainer logs as `StepRecord`s, and draws or stores them.

    Validation figures come from `eval_loss` and, where `compute_metrics` returns them,
    `eval_accuracy`, `eval_f1_weighted` (or `eval_f1`) and `eval_f1_macro`.
    """

    def __init__(self) -> None:
        self.history: list[StepRecord] = []

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Add a record for a line of training or of evaluation."""
        logs = logs or {}
        if "eval_loss" in logs:
            self._add(state, logs, _read_validation(logs))
        elif "loss" in logs:
            self._add(state, logs, None)

    def draw(self, path: str | Path) -> Path:
        """Draw loss, validation scores and schedules as a PNG file."""
        return save_figure(draw_learning_curves(self.history), Path(path))

    def save(self, path: str | Path) -> None:
        """Store the history as JSON."""
        write_json(Path(path), [asdict(record) for record in self.history])

    def _add(
        self, state: TrainerState, logs: dict[str, Any], validation: ValidationRecord | None
    ) -> None:
        last = self.history[-1] if self.history else None
        self.history.append(
            StepRecord(
                step=state.global_step,
                epoch=float(state.epoch or 0.0),
                # An evaluation logs no training figures: those of the line before still hold.
                train_loss=logs.get("loss", last.train_loss if last else float("nan")),
                learning_rate=logs.get("learning_rate", last.learning_rate if last else 0.0),
                dropout=logs.get("dropout", last.dropout if last else 0.0),
                gradient_norm=float(logs.get("grad_norm", last.gradient_norm if last else 0.0)),
                validation=validation,
            )
        )


def _read_validation(logs: dict[str, Any]) -> ValidationRecord:
    missing = float("nan")
    f1 = logs.get("eval_f1_weighted", logs.get("eval_f1", missing))
    return ValidationRecord(
        loss=logs["eval_loss"],
        accuracy=logs.get("eval_accuracy", missing),
        f1_weighted=f1,
        f1_macro=logs.get("eval_f1_macro", missing),
    )
