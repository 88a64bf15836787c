"""The same recipe with several seeds: how much of a score is chance.

RUN/seed-42, RUN/seed-43, ...   the repeats, each a whole run folder
RUN/seeds.json                  the figures of all of them
RUN/                            a copy of the one that is best on validation
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from textlora.checking.findings import DataCheck
from textlora.data.labelled_texts import LabelledTexts, compute_fingerprint
from textlora.errors import SettingsError, TextloraError
from textlora.evaluation.evaluation import AnyEvaluation
from textlora.model.prefix import share_prefixes
from textlora.reporting.report import write_report
from textlora.runs.run_folder import (
    ADAPTER,
    CHECKPOINTS,
    LABELS,
    RECIPE,
    REPORT,
    copy_classifier,
    refuse_foreign,
    refuse_sweep,
)
from textlora.runs.seeds import Repeats, write_repeats
from textlora.scoring.significance import Spread, compute_spread
from textlora.scoring.validation import ValidationRecord
from textlora.settings import Metric, Recipe
from textlora.system.files import MANIFEST, stage_folder, write_atomically, write_file
from textlora.system.progress import Reporter
from textlora.training.loop import Resume
from textlora.training.pipeline import train_run

# The classifier is copied apart, and the page is about all repeats.
_NOT_COPIED = (ADAPTER, CHECKPOINTS, LABELS, MANIFEST, RECIPE, REPORT)


def train_repeats(
    recipe: Recipe,
    texts: LabelledTexts,
    run: Path,
    seeds: int,
    *,
    resume: Resume,
    report: Reporter,
    track: Sequence[str] = (),
    check: DataCheck | None = None,
) -> Repeats:
    """Train with so many seeds, counted from that of the recipe; the split of the data stays.

    Repeats that are finished take no step more; they are measured again, since the test split may
    have changed. Token ids and the output of frozen layers are made once for all.

    Raises:  as `train_run`; SettingsError for fewer than two, or a folder with a single run in it.
    """
    if seeds < 2:
        raise SettingsError(f"--seeds: at least 2, got {seeds}; leave it out for a single run")
    if (run / CHECKPOINTS).is_dir():
        raise SettingsError(f"{run}: holds a single run; choose another --out for --seeds")
    refuse_sweep(run)
    refuse_foreign(run)
    first = recipe.training.seed
    found: dict[int, tuple[AnyEvaluation, ...]] = {}
    with share_prefixes():
        for seed in range(first, first + seeds):
            training = recipe.training.model_copy(update={"seed": seed})
            repeat = recipe.model_copy(update={"training": training})
            folder = run / f"seed-{seed}"
            report.say(f"{folder}: seed {seed}")
            found[seed] = train_run(
                repeat, texts, folder, resume=resume, report=report, track=track, check=check
            ).evaluations
    best = max(found, key=lambda seed: _rate(found[seed][0], recipe.training.best_metric))
    repeats = Repeats(
        runs=tuple(f"seed-{seed}" for seed in found),
        seeds=tuple(found),
        best=f"seed-{best}",
        splits=_gather(found.values()),
        test=compute_fingerprint(texts.labels, texts.test) if texts.test else "",
    )
    try:
        _copy_run(run / repeats.best, run)
        write_repeats(run, repeats)
        write_report([run], list(repeats.splits)[-1], run / REPORT)
    except OSError as error:
        raise TextloraError(f"{run}: cannot be written ({error.strerror or error})") from None
    return repeats


def _rate(validation: AnyEvaluation, metric: Metric) -> tuple[float, float]:
    """As evaluations of a single run are compared."""
    scores = validation.scores
    record = ValidationRecord(scores.loss, scores.accuracy, scores.weighted.f1, scores.macro.f1)
    return record.rate(metric)


def _list_figures(evaluation: AnyEvaluation) -> dict[str, float]:
    scores = evaluation.scores
    return {
        "accuracy": scores.accuracy,
        "f1_macro": scores.macro.f1,
        "f1_weighted": scores.weighted.f1,
        "loss": scores.loss,
    }


def _gather(found: Iterable[Sequence[AnyEvaluation]]) -> dict[str, dict[str, Spread]]:
    splits = {}
    for parts in zip(*found, strict=True):
        figures = [_list_figures(part) for part in parts]
        splits[parts[0].split] = {
            name: compute_spread(
                [item[name] for item in figures], math.inf if name == "loss" else 1.0
            )
            for name in figures[0]
        }
    return splits


def _copy_run(source: Path, target: Path) -> None:
    """All but checkpoints: the classifier, whole or not at all, and then what is said about it."""
    copy_classifier(source, target)
    for path in sorted(source.iterdir()):
        if path.name in _NOT_COPIED or path.name[0] == ".":
            continue
        if path.is_dir():
            with stage_folder(target / path.name) as staged:
                for inner in sorted(path.rglob("*")):
                    place = staged / inner.relative_to(path)
                    if inner.is_dir():
                        place.mkdir()
                    else:
                        write_file(place, inner.read_bytes())
        else:
            write_atomically(target / path.name, path.read_bytes())
