"""What is wrong with labelled texts, and mending it.

Modules:
    audit       Labels that are probably wrong, found by a classifier that has not seen them.
    data_check  What is wrong with labelled texts, before anything is trained on them.
    data_fix    A repaired copy of labelled texts, as files: what was wrong and can be mended
                without a guess.
    findings    What a check of labelled texts has found, as it is kept with a run.
    leaks       Texts to be scored that training has seen, word for word or nearly so: they make a
                score lie.
"""
