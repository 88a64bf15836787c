"""What speed costs in accuracy: number format and length grouping, three seeds, on validation.

    python benchmarks/engine_accuracy.py AG_NEWS_FOLDER

MiniLM, quickstart settings, 2,000 training and 2,000 validation texts of AG News' training part,
three epochs. Writes benchmarks/results/engine_accuracy.json.
"""

import json
import statistics
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from textlora.data.labelled_texts import load_labelled_texts
from textlora.model import batching
from textlora.runs.history import read_history
from textlora.settings import load_recipe
from textlora.system.progress import Reporter
from textlora.system.runtime import describe_environment
from textlora.training.loop import train_steps
from textlora.training.training_setup import prepare_training

OUT = Path(__file__).parent / "results" / "engine_accuracy.json"
SEEDS = (1, 2, 3)
GROUPED, SHUFFLED = batching._WINDOW_BATCHES, 1  # batches of a window sorted by length
VARIANTS = {
    "bf16, grouped by length": ("bf16", GROUPED),
    "fp32, grouped by length": ("fp32", GROUPED),
    "bf16, in random order": ("bf16", SHUFFLED),
}


def main() -> None:
    """Train each variant with each seed."""
    found = {}
    for name, (precision, window) in VARIANTS.items():
        batching._WINDOW_BATCHES = window
        accuracies, losses, seconds = [], [], []
        for seed in SEEDS:
            changes = [
                "data.max_train_rows=4000", "data.validation_share=0.5", "training.epochs=3",
                f"training.seed={seed}", f"training.precision={precision}",
            ]  # fmt: skip
            recipe = load_recipe(
                "quickstart", changes, data__source=sys.argv[1], model__name="embedded:minilm"
            )
            setup = prepare_training(recipe, load_labelled_texts(recipe.data))
            begin = time.perf_counter()
            with tempfile.TemporaryDirectory() as folder:
                train_steps(setup, Path(folder), "never", Reporter(quiet=True))
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
    OUT.write_text(json.dumps(values, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
