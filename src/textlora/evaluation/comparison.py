"""Two classifiers on the same texts: who is right where the other is wrong, and at what cost."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from textlora.data.examples import Examples
from textlora.data.labelled_texts import load_labelled_texts
from textlora.data.sources import is_same_source
from textlora.errors import DataError, ModelError
from textlora.evaluation.run_evaluation import load_examples
from textlora.evaluation.stored_predictions import Answers, answer_examples, list_answers
from textlora.prediction.predictor import Predictor
from textlora.runs.provenance import read_training
from textlora.runs.run_folder import ADAPTER, find_classifier, read_manifest
from textlora.runs.seeds import compare_seeds
from textlora.scoring.metrics import Interval
from textlora.scoring.significance import Paired, compare_answers
from textlora.scoring.tasks import MultiLabel
from textlora.settings import DataSettings

_MAX_EXAMPLES = 20  # of each kind of flip


@dataclass(frozen=True)
class Contender:
    """One of the two: its score, and what it costs. `adapter_bytes` is what has to be kept.

    `seconds` are those of its answers here, `training_seconds` those that it was trained in; None
    where the run does not say.
    """

    run: str
    base: str
    accuracy: float
    accuracy_interval: Interval
    f1_macro: float
    trainable_parameters: int
    total_parameters: int
    adapter_bytes: int
    seconds: float
    training_seconds: float | None = None


@dataclass(frozen=True)
class ClassFlips:
    """The texts of one true label, by who is right; of sets, about the whole set."""

    label: str
    both: int
    only_first: int
    only_second: int
    neither: int


@dataclass(frozen=True)
class Flip:
    """A text that exactly one of the two gets right."""

    text: str
    label: str
    first: str
    second: str
    first_confidence: float
    second_confidence: float


@dataclass(frozen=True)
class Comparison:
    """All of it. `agreement` is the share of texts with equal answers; `verdict` is in words."""

    split: str
    source: str
    num_texts: int
    first: Contender
    second: Contender
    paired: Paired
    verdict: str
    agreement: float
    classes: tuple[ClassFlips, ...]
    only_first: tuple[Flip, ...]
    only_second: tuple[Flip, ...]
    repeats: str | None = None  # the same over seeds, where both were trained with several
    notes: tuple[str, ...] = ()  # what makes figures doubtful


def compare_runs(first: Path, second: Path, settings: DataSettings, split: str) -> Comparison:
    """Let two runs answer the same labelled texts.

    Raises:  ModelError if they know different labels, or one gives sets of them and the other does
    not; DataError as `load_examples`.
    """
    one, two = Predictor.load(first), Predictor.load(second)
    if type(one.task) is not type(two.task):
        raise ModelError(
            f"{first} and {second}: one gives a label a text, the other sets of labels; "
            "compare classifiers of one kind"
        )
    if set(one.labels) != set(two.labels):
        differ = sorted(set(one.labels) ^ set(two.labels))
        raise ModelError(
            f"{first} and {second}: know different labels ({', '.join(differ[:5])}); "
            "compare classifiers of the same labels"
        )
    examples = load_examples(one, settings, split)
    ours, theirs = answer_examples(one, examples), answer_examples(two, examples)
    theirs = _order_labels(theirs, one.labels)
    found = compare_contenders((first, ours), (second, theirs), settings.source, split)
    return replace(
        found,
        repeats=_compare_repeats(first, second, settings, one, split),
        notes=_describe_trained({"A": one, "B": two}, examples),
    )


def _describe_trained(runs: dict[str, Predictor], examples: Examples) -> tuple[str, ...]:
    """How many of the texts a run was trained on: to those it knows the answers."""
    trained: dict[DataSettings, set[str]] = {}  # two runs of the same data read it once
    notes = []
    for name, run in runs.items():
        data = run.recipe.data
        try:
            if data not in trained:
                trained[data] = set(load_labelled_texts(data).train.texts)
        except DataError as error:
            notes.append(f"whether {name} was trained on some of the texts is not known ({error})")
            continue
        count = sum(text in trained[data] for text in examples.texts)
        if count:
            total = len(examples.texts)
            notes.append(f"{name} was trained on {count:,} of the {total:,} texts: it is flattered")
    return tuple(notes)


def _order_labels(answers: Answers, labels: tuple[str, ...]) -> Answers:
    """Columns in the order of `labels`: labels are matched by name."""
    order = [answers.labels.index(label) for label in labels]
    task = answers.task
    if isinstance(task, MultiLabel):
        limits = task.list_thresholds(len(labels))[order]
        task = replace(task, thresholds=tuple(limits.tolist()))
    shares = answers.probabilities[:, order]
    return replace(answers, labels=labels, probabilities=shares, task=task)


def _compare_repeats(
    first: Path, second: Path, settings: DataSettings, one: Predictor, split: str
) -> str | None:
    """Only of the data that both were trained on: their figures are about that."""
    if not is_same_source(settings.source, one.recipe.data.source):
        return None
    found = compare_seeds(first, second, split)
    return None if found is None else found.describe()


def compare_contenders(
    first: tuple[Path, Answers], second: tuple[Path, Answers], source: str, split: str
) -> Comparison:
    """The same from answers to the same texts, over the same labels in the same order."""
    ours, theirs = first[1], second[1]
    paired = compare_answers(ours.right, theirs.right)
    return Comparison(
        split=split,
        source=source,
        num_texts=len(ours.right),
        first=_describe(*first),
        second=_describe(*second),
        paired=paired,
        verdict=paired.describe(),
        agreement=float(ours.task.match(ours.label_ids, theirs.label_ids).mean()),
        classes=_count_flips(ours, theirs),
        only_first=_list_flips(ours, theirs, ours.right & ~theirs.right),
        only_second=_list_flips(ours, theirs, theirs.right & ~ours.right),
    )


def _describe(run: Path, answers: Answers) -> Contender:
    manifest = read_manifest(run)
    label_ids = answers.examples.label_ids
    scores = answers.task.score(label_ids, answers.probabilities, answers.labels)
    folder = find_classifier(run) / ADAPTER
    training = read_training(run)
    return Contender(
        run=str(run),
        base=manifest.base.name,
        accuracy=scores.accuracy,
        accuracy_interval=scores.accuracy_interval,
        f1_macro=scores.macro.f1,
        trainable_parameters=manifest.trainable_parameters,
        total_parameters=manifest.total_parameters,
        adapter_bytes=sum(path.stat().st_size for path in folder.glob("*.safetensors")),
        seconds=answers.seconds,
        training_seconds=None if training is None else training.seconds,
    )


def _count_flips(ours: Answers, theirs: Answers) -> tuple[ClassFlips, ...]:
    found = []
    for index, label in enumerate(ours.labels):
        inside = ours.task.find(ours.examples.label_ids, index)
        one, two = ours.right[inside], theirs.right[inside]
        counts = ((one & two), (one & ~two), (two & ~one), ~(one | two))
        found.append(ClassFlips(label, *(int(kind.sum()) for kind in counts)))
    return tuple(found)


def _list_flips(ours: Answers, theirs: Answers, chosen: npt.NDArray[np.bool_]) -> tuple[Flip, ...]:
    """Those first of which both were sure: they say most."""
    first, second = ours.confidence, theirs.confidence
    places = np.flatnonzero(chosen)
    places = places[np.argsort(-(first + second)[places], kind="stable")][:_MAX_EXAMPLES]
    one, two = (list_answers(answers, places) for answers in (ours, theirs))
    return tuple(
        Flip(
            text=a.text,
            label=a.label,
            first=a.predicted,
            second=b.predicted,
            first_confidence=float(first[place]),
            second_confidence=float(second[place]),
        )
        for place, a, b in zip(places, one, two, strict=True)
    )
