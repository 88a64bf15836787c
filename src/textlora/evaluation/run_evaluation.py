"""A saved run measured: on its own data or other, beside baselines, with leaks and thresholds."""

from dataclasses import dataclass, replace
from pathlib import Path

from textlora.data.examples import Examples
from textlora.data.labelled_texts import LabelledTexts, load_labelled_texts, load_split
from textlora.data.sources import is_same_source
from textlora.errors import DataError, ModelError, SettingsError
from textlora.evaluation.baselines import Baselines, open_baselines
from textlora.evaluation.evaluation import (
    AnyEvaluation,
    Background,
    SetEvaluation,
    evaluate_answers,
    read_evaluations,
)
from textlora.evaluation.stored_predictions import Answers, answer_examples
from textlora.prediction.predictor import Predictor
from textlora.runs.run_folder import read_manifest
from textlora.scoring.calibration import Threshold
from textlora.settings import DataSettings

_HELD = ("train", "validation")  # parts that a split of other data would draw anew


@dataclass(frozen=True)
class RunEvaluation:
    """Figures, and the answers they are about."""

    evaluation: AnyEvaluation
    answers: Answers


def evaluate_run(run: Path, texts: LabelledTexts) -> list[RunEvaluation]:
    """Measure a run on validation and test of the data that it was trained on.

    Thresholds are chosen on validation; test says what they deliver.
    """
    predictor = Predictor.load(run)
    found: list[RunEvaluation] = []
    for split in ("validation", "test"):
        part = texts.validation if split == "validation" else texts.test
        if part is not None:
            chosen = _list_thresholds(found[0].evaluation) if found else None
            background = _find_background(run, predictor, texts, split, chosen)
            source = predictor.recipe.data.source
            found.append(_assess(predictor, part, split, source, background))
    return found


def evaluate_split(
    run: Path, predictor: Predictor, settings: DataSettings, split: str
) -> RunEvaluation:
    """Measure a run on one split of its own data, as training saw it, or of other data.

    Raises:  DataError for data, a split or a column that is not there; SettingsError for settings
    that read one label a text where the run knows sets, or the other way round.
    """
    _check_task(predictor, settings)
    own: LabelledTexts | DataError
    if is_same_source(settings.source, predictor.recipe.data.source):
        own, known_as = load_labelled_texts(settings), split
        examples = _find_part(own, settings.source, split, predictor.labels)
        own = _renumber(own, predictor.labels)
    else:
        examples, known_as = load_split(settings, split, predictor.labels), "other"
        try:
            own = _renumber(load_labelled_texts(predictor.recipe.data), predictor.labels)
        except DataError as error:
            own = error
    missing = set(settings.slice_columns) - set(examples.slices)
    if missing:
        raise DataError(
            f"{settings.source}: no column {min(missing)!r} in its {split} split to group scores "
            "by; name one that is there with --slice"
        )
    chosen = None if known_as == "validation" else _read_thresholds(run)
    background = _find_background(run, predictor, own, known_as, chosen)
    return _assess(predictor, examples, split, settings.source, background)


def load_examples(predictor: Predictor, settings: DataSettings, split: str) -> Examples:
    """One split of a run's own data, as training saw it, or of other data.

    Raises:  DataError for data or a split that is not there.
    """
    _check_task(predictor, settings)
    if is_same_source(settings.source, predictor.recipe.data.source):
        texts = load_labelled_texts(settings)
        return _find_part(texts, settings.source, split, predictor.labels)
    return load_split(settings, split, predictor.labels)


def find_confidence(run: Path, precision: float) -> float:
    """The lowest confidence above which validation answers are as precise as wanted, 0..1.

    Raises:  ModelError if no answers are, or the run was not evaluated; SettingsError for a
    multi-label run.
    """
    validation = next((item for item in read_evaluations(run) if item.split == "validation"), None)
    if isinstance(validation, SetEvaluation):
        raise SettingsError(
            f"--min-precision: {run} gives sets of labels, which have no confidence as a whole; "
            "use --min-confidence, which holds for each label"
        )
    if validation is None:
        raise ModelError(f"{run}: holds no evaluation on validation; run textlora train again")
    for threshold in validation.coverage.thresholds:
        if threshold.wanted == precision:
            return threshold.confidence  # as the table has it
    curve = validation.coverage.curve  # a hundred places
    precise = [point.confidence for point in curve if point.precision >= precision]
    if not precise:
        best = max(point.precision for point in curve)
        raise ModelError(
            f"{run}: on validation no answers are {precision:.2%} precise, the surest are "
            f"{best:.2%}; ask for less"
        )
    return min(precise)


def _assess(
    predictor: Predictor, examples: Examples, split: str, source: str, background: Background
) -> RunEvaluation:
    answers = answer_examples(predictor, examples)
    evaluation = evaluate_answers(answers, split=split, source=source, background=background)
    return RunEvaluation(evaluation, answers)


def _find_background(
    run: Path,
    predictor: Predictor,
    own: LabelledTexts | DataError,
    split: str,
    thresholds: tuple[Threshold, ...] | None,
) -> Background:
    """`own` is the data that the run was trained on, or why it cannot be had."""
    fingerprint, notes = read_manifest(run).data_fingerprint, []
    parts: dict[str, Examples] = {}
    changed = not isinstance(own, DataError) and own.fingerprint != fingerprint
    if isinstance(own, DataError):
        notes.append(f"leaks were not searched for: the training data cannot be read ({own})")
    else:
        if changed:
            again = "; some of these texts may have been trained on" if split in _HELD else ""
            notes.append(f"the training data has changed since this run was trained{again}")
        fingerprint = own.fingerprint
        parts = {"train": own.train, "validation": own.validation}
    if split in parts:  # the part itself is no leak, and what follows it was not read before it
        parts = {} if split == "train" else {"train": parts["train"]}
    return Background(
        temperature=predictor.temperature,
        chose_checkpoint=split == "validation" and not changed,
        thresholds=thresholds,
        baselines=_find_baselines(run, fingerprint, own, notes),
        parts=parts,
        notes=tuple(notes),
    )


def _find_baselines(
    run: Path, fingerprint: str, own: LabelledTexts | DataError, notes: list[str]
) -> Baselines | None:
    def load() -> Examples:
        if isinstance(own, DataError):
            raise own
        return own.train

    try:
        return open_baselines(run, fingerprint, load)
    except DataError:
        notes.append("no baselines: they are fitted to the training data")
        return None


def _renumber(own: LabelledTexts, labels: tuple[str, ...]) -> LabelledTexts | DataError:
    """The parts that a run is measured beside, in the numbers of its classifier."""
    try:
        train, validation = (
            part.renumber(own.labels, labels) for part in (own.train, own.validation)
        )
    except DataError as error:
        return DataError(f"it has changed: {error}")
    return replace(own, labels=labels, train=train, validation=validation, test=None)


def _find_part(texts: LabelledTexts, source: str, split: str, labels: tuple[str, ...]) -> Examples:
    """A single file has no test part, and its rows must not be taken for one."""
    parts = {"train": texts.train, "validation": texts.validation, "test": texts.test}
    part = parts.get(split)
    if part is None:
        raise DataError(
            f"{source}: the run was trained on it, and it has no {split!r} split; "
            "measure --split validation, or give other labelled texts with --data"
        )
    try:
        return part.renumber(texts.labels, labels)
    except DataError as error:
        raise DataError(f"{source}: {split}: {error}") from None


def _check_task(predictor: Predictor, settings: DataSettings) -> None:
    if settings.multi_label != predictor.recipe.data.multi_label:
        what = "sets of labels" if predictor.recipe.data.multi_label else "one label a text"
        raise SettingsError(
            f"data.multi_label: is {settings.multi_label}, and the classifier gives {what}; "
            "leave the setting as the run has it"
        )


def _list_thresholds(evaluation: AnyEvaluation) -> tuple[Threshold, ...]:
    """Those of the whole answer; sets of labels have none."""
    return () if isinstance(evaluation, SetEvaluation) else evaluation.coverage.thresholds


def _read_thresholds(run: Path) -> tuple[Threshold, ...]:
    """Those chosen on validation when the run was trained; none if that was not evaluated."""
    try:
        stored = read_evaluations(run)
    except ModelError:
        return ()
    chosen = (_list_thresholds(item) for item in stored if item.split == "validation")
    return next(chosen, ())
