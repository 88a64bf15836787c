"""One page about one or more runs: a single HTML file without a request, from what the runs hold.

No model is loaded and no data is read: a run whose encoder or data is gone can still be told about.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from textlora.data.multilabel_cells import split_labels
from textlora.errors import ModelError, TextloraError
from textlora.evaluation.evaluation import (
    AnyEvaluation,
    Evaluation,
    SetEvaluation,
    read_evaluations,
)
from textlora.evaluation.stored_predictions import StoredAnswer, read_answers
from textlora.reporting.curves import (
    Curve,
    Line,
    draw_coverage,
    draw_history,
    draw_reliability,
)
from textlora.reporting.run_context import (
    Circumstances,
    judge_baseline,
    judge_runs,
    read_circumstances,
)
from textlora.runs.history import StepRecord, read_history
from textlora.runs.run_folder import ADAPTER, RECIPE, find_classifier, read_manifest
from textlora.runs.seeds import compare_seeds
from textlora.scoring.significance import compare_answers
from textlora.settings import DataSettings, load_recipe
from textlora.system.files import write_atomically

_MAX_MISTAKES = 400  # with 400 characters each: less than 2 MB also for several runs
_MAX_CHARS = 400
_START = b"<!doctype html>"


@dataclass(frozen=True)
class Mistake:
    """A wrong answer; one label each, or as many as a set has."""

    labels: tuple[str, ...]
    predicted: tuple[str, ...]
    confidence: float
    text: str


@dataclass(frozen=True)
class RunView:
    """All that the page says about one run."""

    name: str
    evaluation: AnyEvaluation
    answer: tuple[str, ...]
    doubts: tuple[str, ...]
    reliability: tuple[Line, ...]
    coverage: Curve | None  # none for sets of labels
    curves: tuple[Curve, ...]
    mistakes: tuple[Mistake, ...]
    num_mistakes: int
    trainable: int
    total: int
    base: str
    version: str
    adapter_bytes: int
    recipe: str
    verdicts: tuple[str, ...]  # beside each baseline
    circumstances: Circumstances

    @property
    def has_sets(self) -> bool:
        """Whether answers are sets of labels."""
        return isinstance(self.evaluation, SetEvaluation)


def write_report(runs: Sequence[Path], split: str, out: Path) -> Path:
    """Write the page; with several runs they stand side by side, each tested against the first.

    Raises:  ModelError for a run without figures on that split; TextloraError if `out` cannot be
    written.
    """
    _refuse_foreign(out)
    answers = [read_answers(run, split) for run in runs]
    views = [_view(run, split, found) for run, found in zip(runs, answers, strict=True)]
    title = f"{views[0].name}: {split}" if len(views) == 1 else f"{len(views)} classifiers: {split}"
    page = _render(
        title=title,
        runs=views,
        comparisons=[
            _compare((run, found), (runs[0], answers[0]), split)
            for run, found in zip(runs, answers, strict=True)
        ]
        if len(runs) > 1
        else [],
    )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, page)
    except OSError as error:
        reason = error.strerror or error
        raise TextloraError(f"{out}: cannot be written ({reason}); name another --out") from None
    return out


def _refuse_foreign(out: Path) -> None:
    try:
        with out.open("rb") as stream:
            start = stream.read(len(_START))
    except OSError:
        return  # not there, or no file: told when it is written
    if start and start.lower() != _START:
        raise TextloraError(f"{out}: exists and is no page; name another --out")


def _render(**values: object) -> str:
    environment = Environment(
        loader=PackageLoader("textlora.reporting", "page"),
        autoescape=True,
        undefined=StrictUndefined,
    )
    folder = resources.files("textlora") / "reporting" / "page"
    # Ours, and never a text or a label: these two are not escaped.
    style = Markup((folder / "report.css").read_text("utf-8"))
    script = Markup((folder / "report.js").read_text("utf-8"))
    return environment.get_template("report.html").render(style=style, script=script, **values)


def _view(run: Path, split: str, answers: list[StoredAnswer]) -> RunView:
    found = {item.split: item for item in read_evaluations(run)}
    if split not in found:
        known = ", ".join(found)
        raise ModelError(f"{run}: was not evaluated on {split!r}, only on {known}; name --split")
    evaluation, manifest = found[split], read_manifest(run)
    folder, circumstances = find_classifier(run), read_circumstances(run, split)
    settings = _read_settings(run)
    wrong = [item for item in answers if item.label != item.predicted]
    wrong.sort(key=lambda item: -item.confidence)
    return RunView(
        name=str(run),
        evaluation=evaluation,
        answer=_answer(evaluation, circumstances),
        doubts=_doubt(evaluation),
        reliability=draw_reliability(evaluation),
        coverage=draw_coverage(evaluation) if isinstance(evaluation, Evaluation) else None,
        curves=draw_history(_read_history(run)),
        mistakes=tuple(_show_mistake(item, settings) for item in wrong[:_MAX_MISTAKES]),
        num_mistakes=len(wrong),
        trainable=manifest.trainable_parameters,
        total=manifest.total_parameters,
        base=manifest.base.name,
        version=manifest.textlora_version,
        adapter_bytes=sum(p.stat().st_size for p in (folder / ADAPTER).glob("*.safetensors")),
        recipe=(folder / RECIPE).read_text("utf-8"),
        verdicts=tuple(
            judge_baseline(item, circumstances.spreads) for item in evaluation.baselines
        ),
        circumstances=circumstances,
    )


def _answer(evaluation: AnyEvaluation, known: Circumstances) -> tuple[str, ...]:
    scores = evaluation.scores
    low, high = 100 * scores.accuracy_interval.low, 100 * scores.accuracy_interval.high
    what = "exactly their labels" if isinstance(evaluation, SetEvaluation) else "the right label"
    sentences = [
        f"of {scores.num_texts:,} {evaluation.split} texts of {evaluation.source} get "
        f"{what}; with 95 % certainty the true share lies between {low:.1f} and {high:.1f} %."
    ]
    spread = known.spreads.get("accuracy")
    if spread is not None:
        low, high = 100 * spread.interval.low, 100 * spread.interval.high
        sentences.append(
            f"Over {len(known.seeds)} seeds the mean is {100 * spread.mean:.1f} % ({low:.1f} to "
            f"{high:.1f}), and they spread by {100 * spread.deviation:.1f} points."
        )
    for item in evaluation.baselines[-1:]:
        verdict = judge_baseline(item, known.spreads)
        sentences.append(f"Beside {item.name} ({100 * item.accuracy:.1f} %): {verdict}.")
    return tuple(sentences)


def _doubt(evaluation: AnyEvaluation) -> tuple[str, ...]:
    scores, doubts = evaluation.scores, list(evaluation.notes)
    if evaluation.chose_checkpoint:
        chosen = "checkpoint"
        if isinstance(evaluation, SetEvaluation):
            chosen = "checkpoint and the thresholds"
        doubts.append(f"These rows chose the {chosen}: the score is too good.")
    if scores.accuracy_interval.high - scores.accuracy_interval.low > 0.1:
        doubts.append("Few texts: the interval is wide.")
    for part, leaks in (evaluation.leaks or {}).items():
        if leaks.count:
            rest = f"without them {100 * leaks.accuracy_without:.1f} %"
            doubts.append(
                f"{leaks.count:,} texts are also in {part}, or nearly so; "
                f"{rest if leaks.num_left else 'none is left'}."
            )
    if evaluation.num_truncated:
        doubts.append(f"{evaluation.num_truncated:,} texts were too long and cut.")
    return tuple(doubts)


def _compare(
    this: tuple[Path, list[StoredAnswer]], other: tuple[Path, list[StoredAnswer]], split: str
) -> str:
    ours, first = this[1], other[1]
    if ours is first:
        return ""
    if [item.text for item in ours] != [item.text for item in first]:
        return "measured on other texts"
    if _list_labels(*this) != _list_labels(*other):
        return "measured on other labels"
    right = [np.array([a.label == a.predicted for a in found]) for found in (ours, first)]
    seeds = compare_seeds(this[0], other[0], split)
    return judge_runs(compare_answers(right[0], right[1]), seeds)


def _show_mistake(item: StoredAnswer, settings: DataSettings) -> Mistake:
    labels, predicted = (_split(name, settings) for name in (item.label, item.predicted))
    text = item.text if len(item.text) <= _MAX_CHARS else f"{item.text[:_MAX_CHARS]}..."
    return Mistake(labels, predicted, item.confidence, text)


def _split(label: str, settings: DataSettings) -> tuple[str, ...]:
    if not settings.multi_label:
        return (label,)
    return split_labels(label, settings.label_separator) or ("(no label)",)


def _list_labels(run: Path, answers: list[StoredAnswer]) -> list[tuple[str, ...]]:
    """The true labels of each text; runs may have other separators."""
    settings = _read_settings(run)
    return [_split(item.label, settings) for item in answers]


def _read_settings(run: Path) -> DataSettings:
    return load_recipe(str(find_classifier(run) / RECIPE)).data


def _read_history(run: Path) -> list[StepRecord]:
    try:
        return read_history(run)
    except OSError:
        return []  # deleted; the figures are still there
