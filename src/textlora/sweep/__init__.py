"""A search over recipes; its trials are trained by `training`.

Modules:
    feasibility   Whether a recipe of a sweep may be trained: its parameters counted exactly,
                  before any weight.
    pareto_plot   The picture of a sweep: accuracy against parameters and time.
    search        A search for settings: trials of recipes under a budget, and the best of them
                  ready to train.
    space         What a sweep may change: settings with a range or with choices, from a TOML
                  file.
    study         The trials of a sweep as an Optuna study in SQLite, shared by processes and by
                  later starts.
    study_store   An Optuna study in an SQLite file: opened, its values encoded, its trials as
                  ours.
    sweep_folder  The folder of a sweep: what it was started with, and the files that say what was
                  found.
    trials        What the trials of a sweep have found: their order, the Pareto front, what
                  chance explains.
"""
