"""How good a classifier is, beside what, and where it fails.

Modules:
    baselines           What a score must beat: the most common label, and a linear model over
                        counted words.
    comparison          Two classifiers on the same texts: who is right where the other is wrong,
                        and at what cost.
    evaluation          How good a trained classifier is on labelled texts, in a form that is
                        stored and shown.
    explanation         The words that drove an answer: each is left out in turn, and the answer
                        is looked at again.
    run_evaluation      A saved run measured: on its own data or other, beside baselines, with
                        leaks and thresholds.
    slices              Accuracy on parts of the texts: by length, and by the values of columns.
    stored_predictions  What a classifier said about labelled texts, kept so that it can be looked
                        at and compared.
"""
