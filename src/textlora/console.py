"""Lines and tables on a terminal."""

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text


def make_table(columns: Sequence[str], right: set[int]) -> Table:
    """An empty table; the columns numbered in `right` are of figures."""
    table = Table(box=None, pad_edge=True, header_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index in right else "left")
    return table


def show(table: Table, title: str | None = None) -> None:
    """Print a table on stdout, no wider than it needs where that is not a terminal."""
    if title:
        print_line(title)
    width = None if sys.stdout.isatty() else 160
    Console(width=width, highlight=False).print(table)


def show_rows(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of texts under column names."""
    table = make_table(columns, right=set())
    for row in rows:
        table.add_row(*map(Text, row))
    show(table)


def print_line(text: str) -> None:
    """Print one line on stdout, as it is."""
    Console(highlight=False, soft_wrap=True).print(text, markup=False)


def shorten(text: str, limit: int = 150) -> str:
    """One line of a text."""
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
