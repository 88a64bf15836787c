"""The trials of a sweep as an Optuna study in SQLite, shared by processes and by later starts.

    FOLDER/study.db       the study
    FOLDER/running/       run folders of trials that are not at their end
    FOLDER/.lock          held while a process claims a trial
    FOLDER/.worker-*      held by each process as long as it lives

A trial belongs to the process that claimed it. When that one is gone, another takes the trial over
under its number and with its settings; nobody waits for a time to run out.
"""

import secrets
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from textlora.errors import SettingsError, UnfinishedError, shorten_message
from textlora.runs.checkpoints import find_newest_step
from textlora.scoring.validation import ValidationRecord
from textlora.settings import Metric
from textlora.sweep.feasibility import Feasibility
from textlora.sweep.space import Space
from textlora.sweep.study_store import WHOLE, encode_value, open_store, read_trial, suggest_value
from textlora.sweep.trials import TRAINED, Outcome, Trial, find_twin, list_untried
from textlora.system.files import lock_file
from textlora.system.sharing import hold_folder, is_alive

try:
    import optuna
    from optuna.trial import FrozenTrial, TrialState
    from sqlalchemy.exc import SQLAlchemyError
except ImportError:
    raise SettingsError("sweep: Optuna is not installed; pip install 'textlora[sweep]'") from None

STUDY, RUNNING = "study.db", "running"
_FIGURES = ("loss", "accuracy", "f1_weighted", "f1_macro")  # of validation, kept for each trial
_WORKER = ".worker-"
_MAX_REFUSED = 100  # in a row, before a claim is given up
_PATIENCE = 10  # refusals in a row, before one that fits is taken instead of the sampler's
_MAX_STARTS = 3  # of a trial whose process always ends before it got further, as for lack of memory


@dataclass(frozen=True)
class Claim:
    """A trial to be trained by this process. `seconds` were spent on it before."""

    number: int
    settings: dict[str, Any]
    parameters: int
    seconds: float


class Study:
    """What one process sees of the study. It trains one trial at a time."""

    def __init__(self, folder: Path, space: Space, metric: Metric, seed: int, worker: str) -> None:
        self.metric = metric
        self._folder, self._space, self._seed, self._worker = folder, space, seed, worker
        self._study = open_store(folder / STUDY, metric)
        self._all = space.list_all()
        self._trial: Any = None
        self._is_shared = False

    @property
    def smaller_is_better(self) -> bool:
        """Whether the figure that decides is a loss."""
        return self.metric == "loss"

    def enqueue(self, settings: dict[str, Any] | None) -> None:
        """Make these, if any, the settings of the first trial, if there is none yet."""
        if settings is not None and not self._study.get_trials(deepcopy=False):
            self._enqueue(settings)

    def claim(
        self,
        num_trials: int,
        judge: Callable[[dict[str, Any]], Feasibility],
        fitting: Sequence[dict[str, Any]] = (),
        check: Callable[[], None] = lambda: None,
    ) -> Claim | None:
        """The next trial for this process; None where no more are wanted, or nothing is untried.

        Refused trials are told as such and do not count. Nor do those whose settings were tried
        before: they would give the same figures. `fitting` are settings that are known to be
        granted, perhaps some of each trial's; `check` is called before each draw.

        Raises:  SettingsError if a hundred in a row are refused, and what `check` raises.
        """
        refused: list[Feasibility] = []
        repeated = 0
        with hold_folder(self._folder):
            while len(refused) < _MAX_REFUSED:
                check()
                if repeated == _MAX_REFUSED or not self._take(num_trials, judge):
                    return None
                settings = self._suggest()
                if self._is_stuck():
                    self.drop("failed", f"ended its process {_MAX_STARTS} times")
                    continue
                twin = find_twin(self.list_trials(), settings, self._trial.number)
                if twin is not None:
                    self.drop("repeated", f"has the settings of trial {twin}")
                    repeated += 1
                    # The sampler circles around what is good: the next is one of the others.
                    self._enqueue_fitting(judge, ())
                    continue
                judged = judge(settings)
                if judged.parameters is not None:
                    self._trial.set_user_attr("parameters", judged.parameters)
                if judged.parameters is not None and judged.fits:
                    seconds = self._find(self._trial.number).user_attrs.get("seconds", 0.0)
                    return Claim(self._trial.number, settings, judged.parameters, seconds)
                self.drop("refused", judged.refusal)
                refused.append(judged)
                if len(refused) % _PATIENCE == 0:
                    self._enqueue_fitting(judge, fitting)
        counted = [item.parameters for item in refused if item.parameters]
        smallest = f"; the smallest of them trains {min(counted):,} parameters" if counted else ""
        raise SettingsError(
            f"{self._folder}: {len(refused)} trials in a row were refused, the last one for "
            f"{refused[-1].refusal}{smallest}; narrow --space or raise --budget"
        )

    def report(self, share: int, found: ValidationRecord, seconds: float) -> bool:
        """Tell an evaluation of the claimed trial; True if the trial is not worth its time.

        Units:   share in thousandths of the steps: trials are compared where their learning rates
        are in the same phase, also when one is longer.
        """
        figures = {name: getattr(found, name) for name in _FIGURES}
        trial, known = self._trial, self._find(self._trial.number)
        best = known.user_attrs.get("figures")
        if best is None or found.rate(self.metric) > ValidationRecord(**best).rate(self.metric):
            trial.set_user_attr("figures", figures)
        trial.set_user_attr("seconds", seconds)
        if share not in known.intermediate_values:  # a run that goes on may repeat it
            trial.report(figures[self.metric], share)
        return share < WHOLE and bool(trial.should_prune())

    def finish(self, value: float, seconds: float) -> None:
        """Tell that the claimed trial was trained to its end."""
        self._trial.set_user_attr("seconds", seconds)
        self._study.tell(self._trial, value)

    def drop(self, outcome: Outcome, reason: str, seconds: float | None = None) -> None:
        """Tell that the claimed trial ends before its time, and why."""
        self._trial.set_user_attr("outcome", outcome)
        self._trial.set_user_attr("reason", reason)
        if seconds is not None:
            self._trial.set_user_attr("seconds", seconds)
        # What has failed or was tried before says nothing about where to look.
        silent = outcome in ("failed", "repeated")
        self._study.tell(self._trial, state=TrialState.FAIL if silent else TrialState.PRUNED)

    def release(self) -> None:
        """Leave the claimed trial to a later start; that this one ends is not its fault."""
        self._trial.set_user_attr("starts", 0)

    @property
    def is_shared(self) -> bool:
        """Whether another process was training a trial when this one last claimed."""
        return self._is_shared

    def list_trials(self) -> list[Trial]:
        """All trials that any process has begun, in their order."""
        stored = self._study.get_trials(deepcopy=False)
        return [self._read(item) for item in stored if item.state != TrialState.WAITING]

    def _take(self, num_trials: int, judge: Callable[[dict[str, Any]], Feasibility]) -> bool:
        """Make a trial ours: one that a process has left behind, else a new one."""
        stored = self._study.get_trials(deepcopy=False)
        running = [item for item in stored if item.state == TrialState.RUNNING]
        left = [item for item in running if not self._is_owned(item)]
        self._is_shared = len(left) < len(running)
        trained = sum(self._read(item).outcome in TRAINED for item in stored)
        if trained + len(running) - len(left) >= num_trials:
            return False
        if self._all is not None and not left and self._find_untried(self._all, judge) is None:
            return False
        begun = sum(item.state != TrialState.WAITING for item in stored)
        self._study.sampler = self._make_sampler(left[0].number if left else begun)
        # Optuna has no public way to go on with a trial that another process has begun.
        self._trial = (
            optuna.trial.Trial(self._study, left[0]._trial_id) if left else self._study.ask()
        )
        self._trial.set_user_attr("worker", self._worker)
        return True

    def _make_sampler(self, number: int) -> Any:
        """Draws as a function of seed and trial: no random state is lost with a process."""
        seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
        # The liar: what others train counts as bad, so that two processes do not try the same.
        return optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)

    def _suggest(self) -> dict[str, Any]:
        return {item.name: suggest_value(self._trial, item) for item in self._space.dimensions}

    def _is_stuck(self) -> bool:
        """Whether the taken trial has ended its process again and again."""
        known = self._find(self._trial.number)
        # An epoch may last longer than any process lives: checkpoints count too.
        step = find_newest_step(name_run(self._folder, self._trial.number))
        progress = [len(known.intermediate_values), step]
        starts = 1
        if known.user_attrs.get("progress") == progress:
            starts += known.user_attrs["starts"]
        self._trial.set_user_attr("progress", progress)
        self._trial.set_user_attr("starts", starts)
        return starts > _MAX_STARTS

    def _enqueue_fitting(
        self,
        judge: Callable[[dict[str, Any]], Feasibility],
        fitting: Sequence[dict[str, Any]],
    ) -> None:
        """Make the next trial an untried one that is granted, where the space can be counted.

        Else one of `fitting`: the sampler draws what that leaves open.
        """
        if self._all is not None:
            if (untried := self._find_untried(self._all, judge)) is not None:
                self._enqueue(untried)
        elif fitting:
            random = np.random.default_rng([self._seed, self._trial.number])
            self._enqueue(fitting[int(random.integers(len(fitting)))])

    def _find_untried(
        self, everything: list[dict[str, Any]], judge: Callable[[dict[str, Any]], Feasibility]
    ) -> dict[str, Any] | None:
        """Any of what no trial has, and what is granted; None where all such were tried."""
        trials = self.list_trials()
        untried = list_untried(trials, everything)
        order = np.random.default_rng([self._seed, len(trials)]).permutation(len(untried))
        return next((untried[i] for i in order if judge(untried[i]).fits), None)

    def _enqueue(self, settings: dict[str, Any]) -> None:
        self._study.enqueue_trial({
            dimension.name: encode_value(dimension, settings[dimension.name])
            for dimension in self._space.dimensions
            if dimension.name in settings
        })  # fmt: skip

    def _is_owned(self, stored: FrozenTrial) -> bool:
        worker = stored.user_attrs.get("worker")
        return worker is not None and is_alive(self._folder / worker)

    def _read(self, stored: FrozenTrial) -> Trial:
        return read_trial(stored, self._space, self.metric)

    def _find(self, number: int) -> FrozenTrial:
        return self._study.get_trials(deepcopy=False)[number]


def name_run(folder: Path, number: int) -> Path:
    """The run folder of a trial while it lasts."""
    return folder / RUNNING / f"trial-{number}"


@contextmanager
def open_study(folder: Path, space: Space, metric: Metric, seed: int) -> Iterator[Study]:
    """Open or make the study of a folder; this process counts as alive until the block ends.

    Raises:  UnfinishedError if the folder or the study cannot be read or written.
    """
    worker = f"{_WORKER}{secrets.token_hex(6)}"
    try:
        with ExitStack() as held:
            with hold_folder(folder):
                for path in folder.glob(f"{_WORKER}*"):
                    is_alive(path)  # clears away what the dead have left
                held.enter_context(lock_file(folder / worker, passing=True))
                study = Study(folder, space, metric, seed, worker)
            yield study
    except (
        optuna.exceptions.StorageInternalError, SQLAlchemyError, sqlite3.Error, OSError
    ) as error:  # fmt: skip
        reason = shorten_message(error.__cause__ or error)
        raise UnfinishedError(
            f"{folder}: cannot be read or written ({reason}); make room and run the same "
            "command again, or choose another --out"
        ) from None
