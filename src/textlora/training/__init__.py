"""From recipe and texts to a finished run.

Modules:
    loop            Training, visible from top to bottom: the loop, one step, validation, the
                    best.
    losses          What training lowers: cross-entropy, with smoothed labels, weighted classes or
                    a focus.
    master_weights  What is trained, in float32: masters of the model's parameters, their average,
                    their optimizer.
    pipeline        From a recipe to a finished, verified and evaluated run folder: what `train`
                    and the API do.
    repeats         The same recipe with several seeds: how much of a score is chance.
    schedules       Learning rate and dropout as pure functions of the step, so that they can be
                    tested and drawn.
    timetable       What happens at which step of a run: rate, dropout, evaluations, lines of
                    history.
    tracking        Training as others follow it: TensorBoard, MLflow, Weights & Biases, Trackio,
                    by Accelerate.
    training_setup  What is trained, ready for the loop: encoder, adapter, float32 masters,
                    tokens.
"""
