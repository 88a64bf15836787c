"""A quick backend whose close calls an exact one answers again: int8 that keeps the labels.

Rounding moves each logit by a little, so it can change an answer only where another one is near.
How far it moves them is measured on probe texts, of which a few hundred are enough; how often it
changes an answer would take thousands.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from textlora.batching import TokenizedTexts
from textlora.torchbackend import Backend, Check, go_on

_COVERED = 0.99  # share of the probe texts whose lead shifts by no more than the margin
Lead = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.floating]]


class CascadeBackend:
    """Answers by `quick`, and by `open_exact()` where the lead is smaller than `margin`.

    The exact backend is opened when the first text needs it.

    Shapes:  compute_lead takes logits (texts, labels), returns (texts,), in units of logits.
    """

    def __init__(
        self,
        quick: Backend,
        open_exact: Callable[[], Backend],
        compute_lead: Lead,
        margin: float,
        identity: str = "",
    ) -> None:
        self.identity = identity
        self._quick, self._open_exact = quick, open_exact
        self._compute_lead, self._margin = compute_lead, margin

    def compute_logits(
        self, tokens: TokenizedTexts, check: Check = go_on
    ) -> npt.NDArray[np.float32]:
        """Logits (texts, labels), in the order of `tokens`."""
        logits = self._quick.compute_logits(tokens, check)
        if not len(logits):
            return logits
        again = np.flatnonzero(self._compute_lead(logits) < self._margin)
        if len(again):
            logits[again] = self._open_exact().compute_logits(tokens.take(again), check)
        return logits


def find_margin(shifts: npt.NDArray[np.float32]) -> float:
    """The lead that is safe: 99 % of the leads shift by no more.

    A text beyond it changes its answer only if it is among the other 1 % and near a tie as well.

    Shapes:  shifts (texts,), in units of logits.
    """
    return float(np.quantile(shifts, _COVERED, method="higher"))
