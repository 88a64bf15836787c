"""A split of texts with sets of labels that keeps the share of each label in both parts."""

import numpy as np
import numpy.typing as npt


def hold_out_sets(
    matrix: npt.NDArray[np.int64], num_held_out: int, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows to keep and about `num_held_out` rows to hold out, both in rising order.

    The rarest label is dealt out first, each of its texts to the part that lacks it most; a label
    that no kept row would have gets one back.

    Shapes:  matrix (texts, labels), 1 where a text has the label.
    Source:  Sechidis et al. 2011, On the stratification of multi-label data, algorithm 1.
    """
    count = len(matrix)
    shares = np.array([count - num_held_out, num_held_out]) / count
    wanted = shares[:, None] * matrix.sum(axis=0)  # rows (kept, held out), a column a label
    room = shares * count
    part = np.full(count, -1)
    order = np.random.default_rng(seed).permutation(count)
    remaining = matrix.sum(axis=0).astype(np.int64)
    while remaining.any():
        label = int(np.where(remaining > 0, remaining, count + 1).argmin())
        for row in order[(part[order] < 0) & (matrix[order, label] > 0)]:
            chosen = _choose(wanted[:, label], room)
            part[row] = chosen
            wanted[chosen] -= matrix[row]
            room[chosen] -= 1
            remaining -= matrix[row]
    for row in order[part[order] < 0]:  # those without a label
        chosen = int(room.argmax())
        part[row] = chosen
        room[chosen] -= 1
    lost = matrix.any(axis=0) & ~matrix[part == 0].any(axis=0)
    part[matrix[:, lost].argmax(axis=0)] = 0  # the first text of each
    return np.flatnonzero(part == 0), np.flatnonzero(part == 1)


def _choose(wanted: npt.NDArray[np.float64], room: npt.NDArray[np.float64]) -> int:
    """The part that lacks the label most; of equals the one that has more room."""
    if wanted[0] != wanted[1]:
        return int(wanted.argmax())
    return int(room.argmax())
