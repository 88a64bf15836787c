"""A split of texts with sets of labels that keeps the share of each label in both parts."""

import numpy as np
import numpy.typing as npt


def hold_out_sets(
    matrix: npt.NDArray[np.int64], num_held_out: int, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows to keep and `num_held_out` rows to hold out, both in rising order.

    The rarest label is dealt out first, each of its texts to the part that lacks it most. Rows
    that a part has too many of, as where labels are rare, go to the other one; but each label keeps
    a row, so that fewer may be held out.

    Shapes:  matrix (texts, labels), 1 where a text has the label.
    Source:  Sechidis et al. 2011, On the stratification of multi-label data, algorithm 1; the
    exact number is ours.
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
    _level(part, matrix, order, num_held_out)
    return np.flatnonzero(part == 0), np.flatnonzero(part == 1)


def _choose(wanted: npt.NDArray[np.float64], room: npt.NDArray[np.float64]) -> int:
    """The part that lacks the label most; of equals the one that has more room."""
    if wanted[0] != wanted[1]:
        return int(wanted.argmax())
    return int(room.argmax())


def _level(
    part: npt.NDArray[np.int64],
    matrix: npt.NDArray[np.int64],
    order: npt.NDArray[np.int64],
    num_held_out: int,
) -> None:
    """Move rows until `num_held_out` are held out, first those whose labels that part lacks."""
    missing = num_held_out - int((part == 1).sum())
    giver, taker = (0, 1) if missing > 0 else (1, 0)
    share = (num_held_out if taker else len(part) - num_held_out) / len(part)
    lacking = share * matrix.sum(axis=0) - matrix[part == taker].sum(axis=0)
    rows = order[part[order] == giver]
    rows = rows[np.argsort(-(matrix[rows] @ lacking), kind="stable")]
    kept = matrix[part == 0].sum(axis=0)
    left = abs(missing)
    for only_lacking in (True, False):
        for row in rows[part[rows] == giver]:
            if not left:
                return
            if only_lacking and matrix[row] @ lacking <= 0:
                continue
            if giver == 0:
                if (kept[matrix[row] > 0] < 2).any():
                    continue  # the only kept row of a label
                kept -= matrix[row]
            lacking -= matrix[row]
            part[row] = taker
            left -= 1
