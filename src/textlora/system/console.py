"""Lines and tables on a terminal."""

import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def make_table(columns: Sequence[str], right: set[int]) -> "Table":
    """An empty table; the columns numbered in `right` are of figures."""
    from rich.table import Table

    table = Table(box=None, pad_edge=True, header_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index in right else "left")
    return table


def show(table: "Table", title: str | None = None) -> None:
    """Print a table on stdout, no wider than it needs where that is not a terminal."""
    from rich.console import Console

    if title:
        print_line(title)
    width = None if sys.stdout.isatty() else 160
    Console(width=width, highlight=False).print(table)


def show_rows(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of texts under column names."""
    table = make_table(columns, right=set())
    for row in rows:
        table.add_row(*map(make_cell, row))
    show(table)


def make_cell(text: str) -> "Text":
    """A text of the user's in a table: nothing in it is read as markup."""
    from rich.text import Text

    return Text(show_controls(text))


def print_line(text: str) -> None:
    """Print one line on stdout, as it is; what would steer a terminal is written out."""
    from rich.console import Console

    Console(highlight=False, soft_wrap=True, emoji=False).print(show_controls(text), markup=False)


def show_controls(text: str) -> str:
    """Control characters, and those that turn the direction of writing, as their numbers."""
    return _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def shorten(text: str, limit: int = 150) -> str:
    """One line of a text."""
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def format_seconds(seconds: float) -> str:
    """A time as people say it, in the two largest units."""
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 100:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
