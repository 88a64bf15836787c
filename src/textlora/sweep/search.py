"""A search for settings: trials of recipes under a budget, and the best of them ready to train.

Trials are compared on validation texts. No test split is looked at.
"""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from textlora.data.labelled_texts import LabelledTexts
from textlora.errors import (
    DivergedError,
    Interrupted,
    ModelError,
    SettingsError,
    TextloraError,
    shorten_message,
)
from textlora.model import encoder_files
from textlora.model.prefix import share_prefixes
from textlora.reporting.plots import save_figure
from textlora.runs.history import StepRecord
from textlora.settings import Metric, Recipe
from textlora.sweep.feasibility import Judge
from textlora.sweep.pareto_plot import draw_pareto
from textlora.sweep.space import Space, change_recipe
from textlora.sweep.study import Claim, Study, name_run, open_study
from textlora.sweep.study_store import WHOLE
from textlora.sweep.sweep_folder import (
    BEST,
    PICTURE,
    TABLE,
    SweepOrigin,
    claim_folder,
    drop_runs,
    write_found,
)
from textlora.sweep.trials import (
    TRAINED,
    Outcome,
    Sweep,
    Trial,
    compute_margin,
    format_figure,
    format_setting,
    rank_trials,
)
from textlora.system.interrupts import StopRequest
from textlora.system.progress import Reporter, Tracker
from textlora.system.sharing import hold_folder
from textlora.training.loop import train_steps
from textlora.training.timetable import Timetable
from textlora.training.training_setup import prepare_training

_WAIT_S = 0.5  # between two looks at what another process still trains


@dataclass(frozen=True)
class _Search:
    """What all trials of this process share."""

    recipe: Recipe
    texts: LabelledTexts
    folder: Path
    study: Study
    judge: Judge
    fitting: list[dict[str, Any]]
    num_trials: int
    report: Reporter
    stop: StopRequest


class _HopelessError(Exception):
    """A trial that is worse than others at the same point."""


def run_sweep(
    recipe: Recipe,
    texts: LabelledTexts,
    space: Space,
    folder: Path,
    *,
    budget: str | None,
    num_trials: int,
    report: Reporter,
) -> Sweep:
    """Train until the study of `folder` has `num_trials` trained trials, by whatever process.

    Trials over the budget are not trained and do not count. The first trial is the recipe itself
    where the space has it. A stopped trial goes on from its newest checkpoint.

    Raises:  SettingsError if the folder holds another sweep or nothing fits the budget;
    Interrupted, Terminated or UnfinishedError where the same command goes on.
    """
    judge = Judge(recipe, texts.labels, budget)
    fitting = judge.check_space(space)
    found = encoder_files.locate_encoder(recipe.model)
    encoder = encoder_files.compute_fingerprint(found.folder).whole
    claim_folder(folder, SweepOrigin(recipe, space, budget, texts.fingerprint, encoder))
    metric, seed = recipe.training.best_metric, recipe.training.seed
    with (
        StopRequest() as stop,
        share_prefixes(),
        open_study(folder, space, metric, seed) as study,
    ):
        search = _Search(recipe, texts, folder, study, judge, fitting, num_trials, report, stop)
        with hold_folder(folder):
            study.enqueue(space.find_start(recipe))
            _write(search)
        try:
            _train_trials(search)
        except Interrupted as error:
            raise type(error)(
                f"{folder}: stopped, {_count(study)} of {num_trials} trials are done and the "
                "one that was stopped is saved; run the same command again to continue"
            ) from None
        except SettingsError:
            with hold_folder(folder):
                _write(search)  # what was refused, and for how many parameters
            raise
        return _conclude(search)


def _train_trials(search: _Search) -> None:
    """Claim and train until there are enough; the last ones of other processes are waited for."""
    study, report, waiting = search.study, search.report, False
    done = _count(study)
    with report.track("trials", search.num_trials, done) as bar:
        while True:
            claim = study.claim(
                search.num_trials, search.judge.judge, search.fitting, search.stop.check
            )
            if claim is not None:
                _train_trial(search, claim, bar)
                with hold_folder(search.folder):
                    _write(search)
            before, done = done, _count(study)
            bar.advance(done - before)
            if claim is None and not study.is_shared:
                if done < search.num_trials:
                    report.say(f"no settings are left to try after {done} trials")
                return
            if claim is None:
                if not waiting:
                    report.say("waiting for the trials of another process")
                waiting = True
                time.sleep(_WAIT_S)


def _train_trial(search: _Search, claim: Claim, bar: Tracker) -> None:
    study, number = search.study, claim.number
    settings = ", ".join(f"{k} {format_setting(v)}" for k, v in claim.settings.items())
    search.report.say(f"trial {number}: {settings}; {claim.parameters:,} parameters")
    start = time.perf_counter() - claim.seconds
    try:
        value = _train_whole(search, claim, bar, start)
        study.finish(value, time.perf_counter() - start)
    except (_HopelessError, TextloraError, torch.OutOfMemoryError) as error:
        outcome = _find_outcome(error, claim)
        if outcome is None:
            study.release()
            raise
        study.drop(outcome, shorten_message(error), time.perf_counter() - start)
    search.report.say(f"trial {number}: {_describe(study.list_trials()[number], study.metric)}")


def _train_whole(search: _Search, claim: Claim, bar: Tracker, start: float) -> float:
    """The figure that decides, after the last step."""
    study, number = search.study, claim.number
    recipe = change_recipe(search.recipe, claim.settings, f"trial {number}")
    num_batches = math.ceil(len(search.texts.train.texts) / recipe.training.batch_size)
    total_steps = Timetable(recipe, num_batches).total_steps

    def follow(record: StepRecord) -> None:
        bar.advance(0, f"trial {number}: {record.step / total_steps:.0%}")
        share = round(WHOLE * record.step / total_steps)
        seconds = time.perf_counter() - start
        if record.validation and study.report(share, record.validation, seconds):
            raise _HopelessError(f"below the median after {record.step / total_steps:.0%}")

    setup = prepare_training(recipe, search.texts)
    search.stop.check()  # a signal that came while the encoder was loaded
    run = name_run(search.folder, number)
    state = train_steps(setup, run, "auto", Reporter(quiet=True), follow)
    value = -state.best_value if study.smaller_is_better else state.best_value
    if not math.isfinite(value):
        raise DivergedError(f"{study.metric} became {value}")
    return value


def _find_outcome(error: Exception, claim: Claim) -> Outcome | None:
    """What becomes of a trial that an error has ended; None where others would end so too."""
    if isinstance(error, _HopelessError):
        return "pruned"
    if isinstance(error, DivergedError):
        return "diverged"
    own_model = any(name.startswith("model.") for name in claim.settings)
    if isinstance(error, SettingsError | torch.OutOfMemoryError):
        return "failed"
    return "failed" if own_model and isinstance(error, ModelError) else None


def _describe(trial: Trial, metric: Metric) -> str:
    figure = "" if trial.value is None else f"{metric} {format_figure(trial.value, metric)}, "
    reason = f" ({trial.reason})" if trial.reason else ""
    return f"{figure}{trial.seconds:.0f} s, {trial.outcome}{reason}"


def _count(study: Study) -> int:
    return sum(trial.outcome in TRAINED for trial in study.list_trials())


def _write(search: _Search) -> None:
    """Bring the files up to date, so that a sweep that is ended early has its best recipe."""
    trials = search.study.list_trials()
    ranked = rank_trials(trials, smaller_is_better=search.study.smaller_is_better)
    best = ranked[0] if ranked else None
    recipe = change_recipe(search.recipe, best.settings if best else {}, "best trial")
    write_found(search.folder, trials, best, recipe)
    drop_runs(search.folder, [t.number for t in trials if t.outcome == "unfinished"])


def _conclude(search: _Search) -> Sweep:
    study, folder = search.study, search.folder
    trials = study.list_trials()
    ranked = rank_trials(trials, smaller_is_better=study.smaller_is_better)
    if not ranked:
        tried = [trial for trial in trials if trial.outcome in TRAINED]
        if not tried:
            raise SettingsError(
                f"{folder}: nothing that the space combines may be trained; see {TABLE} there, "
                "widen --space or raise --budget"
            )
        raise TextloraError(
            f"{folder}: none of {len(tried)} trials was finished, the last one: "
            f"{tried[-1].reason}; narrow --space, learning rates first"
        )
    margin = compute_margin(ranked, len(search.texts.validation.texts), study.metric)
    with hold_folder(folder):
        _write(search)  # another process may have told its last trial, and not yet the files
        picture = save_figure(draw_pareto(trials, margin), folder / PICTURE)
    return Sweep(
        folder=folder,
        metric=study.metric,
        trials=tuple(trials),
        ranked=tuple(ranked),
        margin=margin,
        verdict=margin.describe(),
        recipe=folder / BEST,
        table=folder / TABLE,
        picture=picture,
    )
