"""Commands: options, call, print, exit code.

Modules:
    audit         The command audit: labels that are probably wrong.
    check         The command check: what is wrong with labelled texts, and a repaired copy.
    compare       The command compare: two classifiers on the same texts.
    demo          The command demo: train, evaluate and predict on what the package brings,
                  without a network.
    doctor        The command doctor: what this machine offers and which models are at hand.
    evaluate      The command evaluate: a classifier measured on labelled texts.
    examples      Texts that show what a classifier of news says, where nobody gives others.
    explain       The command explain: the words that drove an answer.
    main          The command `textlora`: parse, call, print, exit code. Work is done elsewhere.
    options       What several commands share: their options, and results as JSON.
    plan          The command plan: what would be trained, counted exactly, and what it costs
                  here.
    predict       The command predict: texts of files classified.
    report        The command report: one page about one run, or several side by side.
    score_tables  Scores as short tables for a terminal.
    sweep         The command sweep: a search for settings.
    train         The command train.
"""
