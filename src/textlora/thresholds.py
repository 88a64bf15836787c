"""From which probability on a text gets a label: chosen on validation for the best F1.

The best threshold of a well calibrated label is half the best F1, which is far below 0.5 for a
label that is hard to find; so each label has its own.
"""

import numpy as np
import numpy.typing as npt

USUAL = 0.5  # where nothing better is known
_MIN_TEXTS = 10  # that have a label on validation; fewer say too little about that label alone


def tune_thresholds(
    label_ids: npt.NDArray[np.int64], probabilities: npt.NDArray[np.floating]
) -> tuple[float, ...]:
    """One threshold a label, by its F1 on these texts.

    A label with fewer than ten texts gets the one that is best for all labels together (micro F1),
    and 0.5 where all have fewer than ten: tuned on a handful it would fit chance.

    Shapes:  label_ids (texts, labels) of 0 and 1; probabilities the same.
    Source:  Lipton et al. 2014 (arXiv 1402.1892), also on what goes wrong with rare labels.
    """
    counts = label_ids.sum(axis=0)
    shared = USUAL
    if counts.sum() >= _MIN_TEXTS:
        shared = find_best_threshold(label_ids.ravel(), probabilities.ravel())
    return tuple(
        find_best_threshold(label_ids[:, label], probabilities[:, label])
        if count >= _MIN_TEXTS
        else shared
        for label, count in enumerate(counts)
    )


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
