"""What checkpoints cost: size on disk, and the share of training time that saving takes.

    python benchmarks/checkpoint_cost.py [--data AG_NEWS_FOLDER] [--mpnet FOLDER]

Trains the quickstart recipe on the embedded sample, where epochs are a few seconds long; with
--data on 4,000 rows of AG News; with --mpnet also the reference adapter on an encoder of
RoBERTa-base's size. Checkpoints come as the recipes say: after each epoch and after five minutes.
Writes benchmarks/results/checkpoint_cost.json.
"""

import argparse
import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

from textlora.data.labelled_texts import load_labelled_texts
from textlora.settings import load_recipe
from textlora.system.progress import Reporter
from textlora.system.runtime import describe_environment
from textlora.training import loop
from textlora.training.training_setup import prepare_training

OUT = Path(__file__).parent / "results" / "checkpoint_cost.json"


def measure(name: str, *changes: str, **flags: str) -> dict[str, Any]:
    """Train once and add up the time in saving."""
    recipe = load_recipe(name, changes, **flags)
    setup = prepare_training(recipe, load_labelled_texts(recipe.data))
    saves: list[float] = []
    real = loop._Keeper.save

    def save(self: Any, state: Any) -> None:
        begin = time.perf_counter()
        real(self, state)
        saves.append(time.perf_counter() - begin)

    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        with patch.object(loop._Keeper, "save", save):
            begin = time.perf_counter()
            loop.train_steps(setup, Path(folder), "never", Reporter(quiet=True))
            seconds = time.perf_counter() - begin
        newest = max((Path(folder) / "checkpoints").glob("step-*"))
        size = sum(path.stat().st_size for path in newest.iterdir())
    return {
        "trained parameters": setup.plan.trainable,
        "megabytes": round(size / 1e6, 2),
        "saves": len(saves),
        "milliseconds a save": round(1000 * sum(saves) / len(saves), 1),
        "seconds of training": round(seconds, 1),
        "share of time": round(sum(saves) / seconds, 5),
    }


def main() -> None:
    """Measure what is at hand."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data")
    parser.add_argument("--mpnet")
    options = parser.parse_args()
    found = {"quickstart, embedded sample": measure("quickstart")}
    if options.data:
        rows = "data.max_train_rows=4000"
        found["quickstart, 4,000 rows of AG News"] = measure(
            "quickstart", rows, "training.epochs=2", data__source=options.data
        )
    if options.data and options.mpnet:
        found["reference, MPNet-base, 400 rows of AG News"] = measure(
            "reference", "data.max_train_rows=400", "training.epochs=3",
            data__source=options.data, model__name=options.mpnet,
        )  # fmt: skip
    for name, values in found.items():
        print(name, values, flush=True)
    values = {
        "found": found,
        "command": "python benchmarks/checkpoint_cost.py --data <ag_news> --mpnet <folder>",
        "environment": asdict(describe_environment()),
    }
    OUT.write_text(json.dumps(values, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
