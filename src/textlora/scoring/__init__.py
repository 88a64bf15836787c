"""Pure statistics on arrays of labels and probabilities.

Modules:
    calibration   Whether probabilities mean what they say, and what can be accepted above which
                  confidence.
    metrics       How good a set of predictions is: numpy and scikit-learn only, no model, no
                  files.
    set_metrics   How good predicted sets of labels are: numpy and scikit-learn only, no model, no
                  files.
    significance  What chance alone could have done: intervals of figures, and paired tests of two
                  classifiers.
    tasks         What an answer is: one label a text, or a set of labels.
    thresholds    From which probability on a text gets a label: chosen on validation for the best
                  F1.
    validation    The figures of one validation, and what was fitted to its texts.
"""
