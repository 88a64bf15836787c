"""A folder that several processes work in: one at a time writes, and who has died is noticed."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from textlora.errors import TextloraError
from textlora.system.files import lock_file, lock_folder

_WAIT_S = 0.05  # between two looks at a lock that is held for tenths of a second
_LONGEST_WAIT_S = 120.0  # for it; a claim that counts a hundred large encoders takes a minute


@contextmanager
def hold_folder(folder: Path) -> Iterator[None]:
    """Be the only process that claims or writes in the folder; waits for the others.

    Raises:  TextloraError if one of them does not let go.
    """
    begin = time.monotonic()
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(lock_folder(folder))
                break
            except BlockingIOError as error:
                if time.monotonic() - begin > _LONGEST_WAIT_S:
                    raise TextloraError(
                        f"{folder}: process {error} has held it for {_LONGEST_WAIT_S:.0f} s; "
                        "wait for it, or choose another --out"
                    ) from None
                time.sleep(_WAIT_S)
        yield


def is_alive(lock: Path) -> bool:
    """Whether the process of a lock lives; the lock of a dead one is deleted."""
    if not lock.exists():
        return False
    try:
        with lock_file(lock, passing=True):
            return False
    except BlockingIOError:
        return True
