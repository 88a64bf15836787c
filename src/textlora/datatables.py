"""Labelled texts as short tables for a terminal: findings, repairs, doubtful labels."""

from collections.abc import Sequence
from pathlib import Path

from textlora.console import make_cell, make_table, print_line, shorten, show
from textlora.corrections import DoubtfulLabel
from textlora.datafix import REMOVED, SplitFix
from textlora.findings import DataCheck

_MAX_ROWS = 12


def show_check(check: DataCheck) -> None:
    """Print the size of each split, and each finding with examples and what to do."""
    for facts in check.splits:
        print_line(f"{facts.name}: {facts.rows:,} rows, {facts.describe()}")
        lengths = facts.lengths
        if lengths is not None:
            sample = f" (of {lengths.num_texts:,} texts)" if lengths.num_texts < facts.rows else ""
            print_line(
                f"  tokens: median {lengths.median}, 95 % up to {lengths.p95}, longest "
                f"{lengths.longest:,}; {lengths.cut_share:.1%} cut{sample}"
            )
    for item in check.findings:
        print_line(f"{item.severity}: {item.split}: {item.what}: {item.count:,}; {item.advice}")
        for example in item.examples:
            print_line(f"    {example}")
    if not check.findings:
        print_line("nothing to complain about")


def show_doubtful(doubtful: Sequence[DoubtfulLabel]) -> None:
    """Print the labels that are most doubtful."""
    table = make_table(("label", "suggested", "where", "text"), right=set())
    for item in doubtful[:_MAX_ROWS]:
        pair = (f"{item.label} {item.label_confidence:.0%}",
                f"{item.suggested} {item.suggested_confidence:.0%}")  # fmt: skip
        cells = (*pair, f"{item.line}", shorten(item.text, 90))
        table.add_row(*map(make_cell, cells))
    show(table)


def show_fixes(fixes: Sequence[SplitFix], folder: Path | None) -> None:
    """Print what was changed in each split of a repaired copy."""
    for item in fixes:
        counts = [f"{what}: {count:,}" for what, count in item.changed.items()]
        counts += [f"rows removed ({why}): {count:,}" for why, count in item.removed.items()]
        print_line(f"{folder}/{item.name}.csv: {item.rows:,} rows; {'; '.join(counts) or 'as was'}")
    if any(item.removed for item in fixes):
        print_line(f"{folder}/{REMOVED}: the rows that were removed, and why")
