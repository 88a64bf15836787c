"""Ctrl-C, SIGTERM and a closed terminal as a wish that is granted between two steps of work."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from textlora.errors import Interrupted, Terminated

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequest:
    """While active, the first signal to stop is noted; a second one stops at once.

    With `at_once` the first one does, too: for work that waits on somebody else.

    Signals that the process was started to ignore (nohup) stay ignored. Outside the main thread
    Python delivers no signals, and this does nothing.
    """

    def __init__(self, *, at_once: bool = False) -> None:
        self._at_once = at_once
        self.received: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise for the signal that was noted: Interrupted for Ctrl-C, else Terminated."""
        if self.received is not None:
            kind = Interrupted if self.received == signal.SIGINT else Terminated
            raise kind("stopped")

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.received is None:
            self.received = number
            if self._at_once:
                self.check()
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            raise SystemExit(Terminated.exit_code)
