"""What a backend is: it computes logits of tokenized texts, in groups of similar length."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from textlora.model.batching import TokenizedTexts, split_by_tokens

Check = Callable[[], None]


def go_on() -> None:
    """The check that never ends the work."""


class Backend(Protocol):
    """Computes the logits of one classifier; `identity` says with what, for those who resume."""

    identity: str

    def compute_logits(
        self, tokens: TokenizedTexts, check: Check = go_on
    ) -> npt.NDArray[np.float32]:
        """Logits (texts, labels); `check` is called before each batch, and may raise."""
        ...


def compute_by_groups(
    compute: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float32]],
    tokens: TokenizedTexts,
    max_tokens: int,
    check: Check = go_on,
) -> npt.NDArray[np.float32]:
    """Logits of groups of texts of similar length, put back in the order of `tokens`.

    Shapes:  compute takes (some,) positions in `tokens`, returns (some, labels); returns (texts,
    labels).
    """
    results: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]] = []
    for group in split_by_tokens(tokens.lengths, np.arange(len(tokens)), max_tokens):
        check()
        results.append((group, compute(group)))
    if not results:
        return np.zeros((0, 0), np.float32)
    logits = np.empty((len(tokens), results[0][1].shape[1]), np.float32)
    for group, values in results:
        logits[group] = values
    return logits
