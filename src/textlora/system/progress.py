"""What a long command shows while it works: messages on stderr, a bar on a terminal."""

import sys
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


class Reporter:
    """Messages and one progress bar, both on stderr; silent when `quiet`."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet

    @cached_property
    def _console(self) -> "Console":
        from rich.console import Console

        return Console(stderr=True, highlight=False, soft_wrap=True)

    @property
    def shows_bars(self) -> bool:
        """Whether somebody looks: a terminal, and not `quiet`."""
        return not self._quiet and sys.stderr.isatty()

    def say(self, message: str) -> None:
        """Show one line; above the bar if there is one."""
        if not self._quiet:
            self._console.print(message, markup=False, emoji=False)

    def track(self, what: str, total: int | None, done: int = 0) -> "Tracker":
        """A bar with the time that remains; use as a context manager."""
        return Tracker(self._console if self.shows_bars else None, what, total, done)


class Tracker:
    """One bar; does nothing where there is no terminal."""

    def __init__(self, console: "Console | None", what: str, total: int | None, done: int) -> None:
        self._bar = None
        if console is not None:
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
            )

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TimeRemainingColumn(compact=True),
            )
            self._bar = Progress(*columns, console=console, transient=True)
            self._task = self._bar.add_task(what, total=total, completed=done, note="")

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count work as done; `note` stands beside the bar."""
        if self._bar is not None:
            self._bar.update(self._task, advance=count, note=note)

    def __enter__(self) -> "Tracker":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
