"""What the report says about a run besides its score: data, machine, cost, and the luck of seeds.

All of it may be unknown: a run on texts in memory has no check of its data, and one of an earlier
version says nothing about its machine.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from textlora.checking.findings import DataCheck
from textlora.evaluation.evaluation import BaselineScore
from textlora.runs.provenance import TrainingRecord, read_data_check, read_training
from textlora.runs.seeds import Repeats, read_repeats
from textlora.scoring.metrics import Interval
from textlora.scoring.significance import Paired, Repeated, Spread
from textlora.system.console import format_seconds

_MAX_LABELS = 30  # of the table of labels
_SPLITS = {"train": 0, "validation": 1, "test": 2}
_NO_DIFFERENCE = "no difference shown"


@dataclass(frozen=True)
class Fact:
    """One line of a table of two columns."""

    name: str
    value: str


@dataclass(frozen=True)
class LabelCounts:
    """Rows of a label in each split, and its share there (0..1)."""

    label: str
    counts: tuple[int, ...]
    shares: tuple[float, ...]


@dataclass(frozen=True)
class Circumstances:
    """Data, machine and cost of a run, and its figures over seeds on the split reported.

    `balance` has the commonest labels, `num_labels` counts all. `trained_in` and `mean` are the
    time of training and the mean accuracy over seeds in words, empty where they are not known.
    """

    check: DataCheck | None
    balance: tuple[LabelCounts, ...]
    num_labels: int
    machine: tuple[Fact, ...]
    cost: tuple[Fact, ...]
    seeds: tuple[int, ...]
    spreads: dict[str, Spread]
    trained_in: str
    mean: str


def read_circumstances(run: Path, split: str) -> Circumstances:
    """All that the run holds.

    Raises:  ModelError for a file that is damaged.
    """
    check, training, repeats = _read_check(run), read_training(run), read_repeats(run)
    balance = () if check is None else _count_labels(check)
    found = {} if repeats is None else repeats.splits.get(split, {})
    spreads = {
        name: item if name == "loss" else replace(item, interval=_clip_shares(item.interval))
        for name, item in found.items()
    }
    spread = spreads.get("accuracy")
    return Circumstances(
        check=check,
        balance=balance[:_MAX_LABELS],
        num_labels=len(balance),
        machine=() if training is None else _describe_machine(training),
        cost=() if training is None else _describe_cost(training, repeats),
        seeds=() if repeats is None else repeats.seeds,
        spreads=spreads,
        trained_in="" if training is None else format_seconds(training.seconds),
        mean=f"{100 * spread.mean:.2f} % ± {100 * spread.deviation:.2f}" if spread else "",
    )


def judge_runs(paired: Paired, repeated: Repeated | None) -> str:
    """What one run is beside another, in words: better only where no noise explains it.

    `paired` says what other texts could have changed, `repeated` what other seeds could have;
    where both are known both must show the same.
    """
    if repeated is None:
        return paired.describe()
    if paired.verdict == repeated.verdict != _NO_DIFFERENCE:
        return f"{repeated.describe()} over seeds, {paired.describe()} between these two"
    return (
        f"{_NO_DIFFERENCE}: {100 * repeated.difference:+.1f} points over seeds, which spread by "
        f"{100 * repeated.noise:.1f}; {100 * paired.difference:+.1f} between these two "
        f"({100 * paired.interval.low:+.1f} to {100 * paired.interval.high:+.1f})"
    )


def judge_baseline(baseline: BaselineScore, spreads: dict[str, Spread]) -> str:
    """What a run is beside a baseline, in words: better only where the mean over seeds is, too."""
    spread = spreads.get("accuracy")
    if spread is None or baseline.comparison.verdict != "better":
        return baseline.verdict
    if spread.interval.low > baseline.accuracy:
        return baseline.verdict
    low, high = 100 * spread.interval.low, 100 * spread.interval.high
    return f"{_NO_DIFFERENCE}: the mean over seeds lies between {low:.1f} and {high:.1f} %"


def _clip_shares(interval: Interval) -> Interval:
    """An interval of shares within 0..1; Student's t, of two or three seeds, knows no bounds."""
    return Interval(max(0.0, interval.low), min(1.0, interval.high))


def _read_check(run: Path) -> DataCheck | None:
    """Its splits in the order of their use."""
    check = read_data_check(run)
    if check is None:
        return None
    splits = sorted(check.splits, key=lambda facts: _SPLITS.get(facts.name, len(_SPLITS)))
    return replace(check, splits=tuple(splits))


def _count_labels(check: DataCheck) -> tuple[LabelCounts, ...]:
    labels = dict.fromkeys(label for facts in check.splits for label in facts.labels)
    totals = [facts.total for facts in check.splits]
    found = []
    for label in labels:
        counts = tuple(facts.labels.get(label, 0) for facts in check.splits)
        shares = tuple(count / total for count, total in zip(counts, totals, strict=True))
        found.append(LabelCounts(label, counts, shares))
    return tuple(found)


def _describe_machine(training: TrainingRecord) -> tuple[Fact, ...]:
    found = training.environment
    units = f", {found.bf16_units} units" if found.bf16_units else ""
    return (
        Fact("processor", found.processor),
        Fact("device", f"{found.device}, threads: {found.num_threads}"),
        Fact("number format", f"{training.number_format} for frozen weights{units}"),
        Fact("system", f"{found.system}, Python {found.python}"),
        Fact("packages", ", ".join(f"{name} {number}" for name, number in found.packages.items())),
    )


def _describe_cost(training: TrainingRecord, repeats: Repeats | None) -> tuple[Fact, ...]:
    each = "" if repeats is None else ", this repeat alone"
    return (
        Fact(
            "training", f"{format_seconds(training.seconds)} for {training.epochs:g} epochs{each}"
        ),
        Fact("texts trained on", f"{training.texts:,}, {training.texts_per_s:,.1f} a second"),
        Fact("peak memory in training", f"{training.peak_bytes / 1e9:.2f} GB"),
    )
