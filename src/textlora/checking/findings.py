"""What a check of labelled texts has found, as it is kept with a run."""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]
_SHOWN_LABELS = 8


@dataclass(frozen=True)
class Finding:
    """One kind of trouble in one split. `examples` are `file:line: text`."""

    severity: Severity
    split: str
    what: str
    count: int
    advice: str
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Lengths:
    """Tokens a text has, counted on `num_texts` of a split; `cut_share` is longer than is read."""

    num_texts: int
    median: int
    p95: int
    longest: int
    cut_share: float


@dataclass(frozen=True)
class SplitFacts:
    """Rows, and rows of each label, the largest first.

    Of multi-label data `unlabelled` counts the rows without a label; else it is None.
    """

    name: str
    rows: int
    labels: dict[str, int]
    lengths: Lengths | None
    unlabelled: int | None = None

    @property
    def is_multi_label(self) -> bool:
        """Whether a row has a set of labels."""
        return self.unlabelled is not None

    @property
    def total(self) -> int:
        """What shares are of: the rows with a label, or all rows where one may have many labels."""
        return (self.rows if self.is_multi_label else sum(self.labels.values())) or 1

    def describe(self) -> str:
        """The largest labels and their shares."""
        shown = [f"{label} {count / self.total:.0%}" for label, count in self.labels.items()]
        more = f", and {len(shown) - _SHOWN_LABELS} more" if len(shown) > _SHOWN_LABELS else ""
        sets = ""
        if self.is_multi_label:
            mean = sum(self.labels.values()) / (self.rows or 1)
            sets = f"; {mean:.2f} labels a row, {self.unlabelled:,} rows without"
        return ", ".join(shown[:_SHOWN_LABELS]) + more + sets


@dataclass(frozen=True)
class DataCheck:
    """All that was found, the worst first."""

    source: str
    splits: tuple[SplitFacts, ...]
    findings: tuple[Finding, ...]

    @property
    def is_usable(self) -> bool:
        """Whether nothing was found that forbids training."""
        return not any(item.severity == "error" for item in self.findings)

    def summarize(self) -> list[str]:
        """A few lines: the size of each split, and what is more than a note."""
        lines = [f"{facts.name}: {facts.rows:,} rows, {facts.describe()}" for facts in self.splits]
        grave = [item for item in self.findings if item.severity != "note"]
        lines += [f"{item.severity}: {item.split}: {item.what}: {item.count:,}" for item in grave]
        if grave:
            lines.append(f"textlora check {self.source} shows them")
        return lines
