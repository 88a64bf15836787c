"""Ctrl-C and SIGTERM as a wish that the training loop grants between two steps."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from textlora.errors import Interrupted, Terminated


class StopRequest:
    """While active, the first SIGINT or SIGTERM is noted; a second one stops at once.

    Outside the main thread Python delivers no signals, and this does nothing.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
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

    def raise_received(self, message: str) -> None:
        """Raise for the signal that was noted."""
        raise (Terminated if self.received == signal.SIGTERM else Interrupted)(message)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = number
