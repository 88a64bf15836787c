"""What people look at: page, pictures, and what stands beside a score.

Modules:
    curves       The charts of the report: what a run has found, as lines in SVG's own
                 coordinates.
    plots        Pictures of an evaluation and of a training history, as PNG files.
    report       One page about one or more runs: a single HTML file without a request, from what
                 the runs hold.
    results      What evaluations leave in a folder: figures, answers and pictures.
    run_context  What the report says about a run besides its score: data, machine, cost, and the
                 luck of seeds.
"""
