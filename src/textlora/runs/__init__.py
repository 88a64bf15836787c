"""The run folder: saved, verified, loaded, resumed.

Modules:
    checkpoints  Checkpoints of a training run: written whole, found again, thrown away when no
                 longer needed.
    history      The history of a training run: one line of JSON a record, oldest first.
    loaded_run   A trained classifier read back: every file of it checked, and the encoder it was
                 trained on.
    model_card   The model card of an adapter: what it was trained from, and how others open it.
    provenance   What a classifier comes from besides its recipe: the data's check, the machine,
                 time and memory.
    run_folder   The run folder: the one owner of its file names. Save a trained classifier.
    seeds        The figures of repeats with several seeds, as `train --seeds` stores and others
                 read them.
    verify       Proof that a saved classifier is the trained one: loaded by a fresh process, its
                 logits compared.
"""
