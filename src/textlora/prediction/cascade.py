"""A quick backend whose close calls an exact one answers again: int8 that keeps the labels.

Rounding moves each logit by a little, so it can change an answer only where another one is near.
How far it moves them is measured on probe texts, of which a few hundred are enough; how often it
changes an answer would take thousands.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from textlora.model.batching import TokenizedTexts
from textlora.model.logits import Backend, Check, go_on

_EXPECTED_FLIPS = 0.001  # of all texts: a fifth of what is allowed (converted.MAX_FLIPS)
MeasureMargin = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.floating]]


class CascadeBackend:
    """Answers by `quick`, and by `open_exact()` where the lead is smaller than `margin`.

    The exact backend is opened when the first text needs it.

    Shapes:  measure_margin takes logits (texts, labels), returns (texts,), in units of logits.
    """

    def __init__(
        self,
        quick: Backend,
        open_exact: Callable[[], Backend],
        measure_margin: MeasureMargin,
        margin: float,
        identity: str = "",
    ) -> None:
        self.identity = identity
        self._quick, self._open_exact = quick, open_exact
        self._measure_margin, self._margin = measure_margin, margin

    def compute_logits(
        self, tokens: TokenizedTexts, check: Check = go_on
    ) -> npt.NDArray[np.float32]:
        """Logits (texts, labels), in the order of `tokens`."""
        logits = self._quick.compute_logits(tokens, check)
        if not len(logits):
            return logits
        again = np.flatnonzero(self._measure_margin(logits) < self._margin)
        if len(again):
            logits[again] = self._open_exact().compute_logits(tokens.take(again), check)
        return logits


def find_margin(leads: npt.NDArray[np.floating], shifts: npt.NDArray[np.floating]) -> float:
    """The smallest margin beyond which 0.1 % of all texts are expected to change their answer.

    A text changes only if its lead shifts by at least as much as it is. Leads and shifts are taken
    as independent, so that each shift that was seen could have met each lead: of n probe texts
    that makes n^2 pairs, where counting changed answers would have n. Half of the shifts widen a
    lead, so that the true share is lower still.

    Shapes:  leads and shifts (texts,), in units of logits.
    """
    ordered, count = np.sort(leads), len(leads)
    larger = count - np.searchsorted(np.sort(shifts), ordered)  # shifts that would undo a lead
    expected = np.cumsum(larger[::-1])[::-1] / count**2  # of texts with at least this lead
    allowed = np.flatnonzero(expected <= _EXPECTED_FLIPS)
    if not len(allowed):
        return float(np.nextafter(ordered[-1], np.inf))
    return 0.0 if allowed[0] == 0 else float(ordered[allowed[0]])
