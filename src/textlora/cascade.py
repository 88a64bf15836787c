"""A quick backend whose close calls an exact one answers again: int8 that keeps the labels.

Rounding moves each logit by a little, so it can change a label only where the best two are close.
How far it moves them is measured on probe texts, of which a few hundred are enough; how often it
changes a label would take thousands.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from textlora.batching import TokenizedTexts
from textlora.torchbackend import Backend, Check, go_on

_COVERED = 0.99  # share of the probe texts whose lead moves by less than the margin


class CascadeBackend:
    """Answers by `quick`, and by `open_exact()` where the best label leads by less than `margin`.

    The exact backend is opened when the first text needs it. `margin` is in units of logits.
    """

    def __init__(
        self, quick: Backend, open_exact: Callable[[], Backend], margin: float, identity: str = ""
    ) -> None:
        self.identity = identity
        self._quick, self._open_exact, self._margin = quick, open_exact, margin

    def compute_logits(
        self, tokens: TokenizedTexts, check: Check = go_on
    ) -> npt.NDArray[np.float32]:
        """Logits (texts, labels), in the order of `tokens`."""
        logits = self._quick.compute_logits(tokens, check)
        again = find_close_calls(logits, self._margin)
        if len(again):
            logits[again] = self._open_exact().compute_logits(tokens.take(again), check)
        return logits


def find_close_calls(logits: npt.NDArray[np.float32], margin: float) -> npt.NDArray[np.int64]:
    """Positions of the texts whose best label leads by less than `margin`.

    Shapes:  logits (texts, labels); returns (close calls,).
    """
    if not len(logits):
        return np.zeros(0, np.int64)
    best = np.partition(logits, -2, axis=1)[:, -2:]
    return np.flatnonzero(best[:, 1] - best[:, 0] < margin)


def find_margin(quick: npt.NDArray[np.float32], exact: npt.NDArray[np.float32]) -> float:
    """The lead that is safe: the quick one is wrong by less on 99 % of the texts.

    A text beyond it changes its label only if it is among the other 1 % and near a tie as well.

    Shapes:  quick and exact (texts, labels), logits of the same texts.
    """
    rows = np.arange(len(quick))
    best = quick.argmax(axis=1)
    leads = [logits[rows, best, None] - logits for logits in (quick, exact)]
    moved = np.abs(leads[0] - leads[1]).max(axis=1)
    return float(np.quantile(moved, _COVERED, method="higher"))
