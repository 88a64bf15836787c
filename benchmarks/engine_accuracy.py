"""What speed costs in accuracy: number format and length grouping, three seeds, on validation.

    python benchmarks/engine_accuracy.py AG_NEWS_FOLDER [--rows 4000] [--seeds 1 2 3] [--out FILE]

MiniLM, quickstart settings, 2,000 training and 2,000 validation texts of AG News' training part,
three epochs. Writes benchmarks/results/engine_accuracy.json.
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from textlora.data.labelled_texts import load_labelled_texts
from textlora.model.batching import compute_epoch_batches
from textlora.runs.history import read_history
from textlora.settings import load_recipe
from textlora.system.progress import Reporter
from textlora.system.runtime import describe_environment
from textlora.training import loop
from textlora.training.training_setup import prepare_training

OUT = Path(__file__).parent / "results" / "engine_accuracy.json"


def shuffle(lengths: Any, batch_size: int, seed: int, epoch: int) -> list[Any]:
    """The batches of an epoch in random order: texts that are all as long are not sorted."""
    return compute_epoch_batches(np.ones_like(lengths), batch_size, seed, epoch)


VARIANTS = {
    "bf16, grouped by length": ("bf16", compute_epoch_batches),
    "fp32, grouped by length": ("fp32", compute_epoch_batches),
    "bf16, in random order": ("bf16", shuffle),
}


def main() -> None:
    """Train each variant with each seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ag_news")
    parser.add_argument("--rows", type=int, default=4_000, help="half of them validate")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="two at least")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    found = {}
    for name, (precision, order) in VARIANTS.items():
        accuracies, losses, seconds = [], [], []
        for seed in options.seeds:
            changes = [
                f"data.max_train_rows={options.rows}", "data.validation_share=0.5",
                f"training.epochs={options.epochs}", f"training.seed={seed}",
                f"training.precision={precision}",
            ]  # fmt: skip
            recipe = load_recipe(
                "quickstart", changes, data__source=options.ag_news, model__name="embedded:minilm"
            )
            setup = prepare_training(recipe, load_labelled_texts(recipe.data))
            begin = time.perf_counter()
            with (
                tempfile.TemporaryDirectory() as folder,
                patch.object(loop, "compute_epoch_batches", order),
            ):
                loop.train_steps(setup, Path(folder), "never", Reporter(quiet=True))
                last = [r.validation for r in read_history(Path(folder)) if r.validation][-1]
            seconds.append(round(time.perf_counter() - begin, 1))
            assert last is not None
            accuracies.append(last.accuracy)
            losses.append(last.loss)
            print(f"{name}  seed {seed}  {last.accuracy:.2%}  loss {last.loss:.4f}", flush=True)
        found[name] = {
            "accuracy": accuracies, "mean": statistics.mean(accuracies),
            "standard_deviation": statistics.stdev(accuracies), "loss": losses, "seconds": seconds,
        }  # fmt: skip
    values = {
        "variants": found,
        "command": "python benchmarks/engine_accuracy.py <ag_news>",
        "environment": asdict(describe_environment()),
    }
    options.out.write_text(json.dumps(values, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
