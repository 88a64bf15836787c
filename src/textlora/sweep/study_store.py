"""An Optuna study in an SQLite file: opened, its values encoded, its trials as ours."""

import sqlite3
from pathlib import Path
from typing import Any

from textlora.errors import SettingsError
from textlora.settings import Metric
from textlora.sweep.space import Choices, Range, Space
from textlora.sweep.trials import Outcome, Trial

try:
    import optuna
    from optuna.trial import FrozenTrial, TrialState
except ImportError:
    raise SettingsError("sweep: Optuna is not installed; pip install 'textlora[sweep]'") from None

WHOLE = 1_000  # a whole run, in the thousandths that evaluations are told by
_NAME = "textlora"
_SQLITE_WAIT_S = 120.0  # for a writer that a busy machine has stopped in the middle
_NUM_UNPRUNED = 4  # finished trials before any is pruned
_UNPRUNED_SHARE = WHOLE // 5  # of each run: the learning rate warms up there


def open_store(path: Path, metric: Metric) -> Any:
    """Open or make the study of a file, which prunes what is below the median.

    Raises:  what Optuna, SQLAlchemy and sqlite3 raise for a file that cannot be used.
    """
    # Its lines would stand between ours; what it raises is enough.
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(path, timeout=_SQLITE_WAIT_S, check_same_thread=False)

    # Through `creator`, because a path may have characters that mean something in a URL.
    storage = optuna.storages.RDBStorage("sqlite://", engine_kwargs={"creator": connect})
    # The median compares a trial with whole ones at the same point. Halving (Hyperband) would drop
    # two thirds after a first evaluation, where the order of learning rates is not yet the last.
    pruner = optuna.pruners.MedianPruner(_NUM_UNPRUNED, n_warmup_steps=_UNPRUNED_SHARE)
    return optuna.create_study(
        storage=storage,
        study_name=_NAME,
        load_if_exists=True,
        direction="minimize" if metric == "loss" else "maximize",
        pruner=pruner,
    )


def read_trial(stored: FrozenTrial, space: Space, metric: Metric) -> Trial:
    """A stored trial as the rest of the package knows it."""
    known = stored.user_attrs
    outcomes: dict[TrialState, Outcome] = {
        TrialState.COMPLETE: "finished",
        TrialState.PRUNED: known.get("outcome", "pruned"),
        TrialState.FAIL: known.get("outcome", "failed"),
    }
    figures = known.get("figures", {})
    return Trial(
        number=stored.number,
        outcome=outcomes.get(stored.state, "unfinished"),
        settings={
            item.name: _decode(item, stored.params[item.name])
            for item in space.dimensions
            if item.name in stored.params
        },
        value=figures.get(metric),
        figures=figures,
        curve=dict(sorted(stored.intermediate_values.items())),
        parameters=known.get("parameters", 0),
        seconds=known.get("seconds", 0.0),
        reason=known.get("reason", ""),
    )


def suggest_value(trial: Any, item: Range | Choices) -> Any:
    """Let the sampler of an Optuna trial choose."""
    if isinstance(item, Choices):
        return _decode(item, trial.suggest_categorical(item.name, item.keys))
    suggest = trial.suggest_int if item.whole else trial.suggest_float
    step = item.step or (1 if item.whole else None)
    return _decode(item, suggest(item.name, item.low, item.high, step=step, log=item.log))


def encode_value(item: Range | Choices, value: Any) -> Any:
    """A value as the study stores it."""
    if isinstance(item, Choices):
        return item.keys[item.values.index(value)]
    return value


def _decode(item: Range | Choices, stored: Any) -> Any:
    return item.values[item.keys.index(stored)] if isinstance(item, Choices) else item.round(stored)
