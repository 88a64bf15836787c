"""From which probability on a text gets a label: chosen on validation for the best F1.

The best threshold of a well calibrated label is half the best F1, which is far below 0.5 for a
label that is hard to find; so each label has its own.
"""

import numpy as np
import numpy.typing as npt

USUAL = 0.5  # where nothing better is known
_MIN_TEXTS = 10  # that have a label on validation; fewer say too little about that label alone
_MIN_GAIN = 0.05  # of the way from the F1 of giving a label to every text up to 1


def tune_thresholds(
    label_ids: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.floating],
    min_gain: float = _MIN_GAIN,
) -> tuple[float, ...]:
    """One threshold a label, by its F1 on these texts.

    A label with fewer than ten texts, or one that the classifier hardly knows, gets the one that is
    best for all labels together (micro F1), and 0.5 where that cannot be told either. Tuned on a
    handful it would fit chance; and for a label that is not known F1 is best when nearly every text
    gets it, which nobody wants: `min_gain` is the share of the way from there up to 1 that counts.

    Shapes:  label_ids (texts, labels) of 0 and 1; probabilities the same.
    Source:  Lipton et al. 2014 (arXiv 1402.1892), also on what goes wrong with rare labels.
    """
    shared = _find_trusted(label_ids.ravel(), probabilities.ravel(), USUAL, min_gain)
    pairs = zip(label_ids.T, probabilities.T, strict=True)
    return tuple(_find_trusted(truth, shares, shared, min_gain) for truth, shares in pairs)


def _find_trusted(
    truth: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.floating],
    otherwise: float,
    min_gain: float,
) -> float:
    count = int(truth.sum())
    if count < _MIN_TEXTS:
        return otherwise
    found = find_best_threshold(truth, probabilities)
    given = probabilities >= found
    best = 2 * int(truth[given].sum()) / (int(given.sum()) + count)
    everywhere = 2 * count / (len(truth) + count)
    return found if best - everywhere >= min_gain * (1 - everywhere) else otherwise


def find_best_threshold(
    truth: npt.NDArray[np.int64], probabilities: npt.NDArray[np.floating]
) -> float:
    """The threshold that gives the best F1, in the middle between two neighbouring probabilities.

    The middle, because an answer in another number format differs in its last digits. Of several
    equally good ones the nearest to 0.5.

    Shapes:  truth (pairs,) of 0 and 1, at least one of them 1; probabilities (pairs,).
    """
    order = np.argsort(-probabilities, kind="stable")
    ranked = probabilities[order].astype(np.float64)
    found = np.cumsum(truth[order])
    # Equal probabilities are accepted together: a place counts where the next one is lower.
    ends = np.flatnonzero(np.append(np.diff(ranked) < 0, True))
    f1 = 2 * found[ends] / (ends + 1 + truth.sum())
    middles = (ranked[ends] + np.append(ranked, 0.0)[ends + 1]) / 2
    best = middles[f1 == f1.max()]
    return float(best[np.abs(best - USUAL).argmin()])
