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
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

from textlora.data.labelled_texts import load_labelled_texts
from textlora.runs import checkpoints
from textlora.settings import load_recipe
from textlora.system.progress import Reporter
from textlora.system.runtime import describe_environment
from textlora.training import loop
from textlora.training.training_setup import prepare_training

OUT = Path(__file__).parent / "results" / "checkpoint_cost.json"


def count_time(owner: Any, name: str, seconds: list[float]) -> AbstractContextManager[Any]:
    """Adds the time of each call of a function to `seconds`."""
    real = getattr(owner, name)

    def call(*arguments: Any) -> Any:
        begin = time.perf_counter()
        result = real(*arguments)
        seconds.append(time.perf_counter() - begin)
        return result

    return patch.object(owner, name, call)


def measure(name: str, *changes: str, **flags: str) -> dict[str, Any]:
    """Train once and add up the time in saving."""
    recipe = load_recipe(name, changes, **flags)
    setup = prepare_training(recipe, load_labelled_texts(recipe.data))
    reads: list[float] = []
    saves: list[float] = []
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        with (
            count_time(setup.weights, "read", reads),
            count_time(setup.weights, "read_optimizer", reads),
            count_time(checkpoints, "save_checkpoint", saves),
        ):
            begin = time.perf_counter()
            loop.train_steps(setup, Path(folder), "never", Reporter(quiet=True))
            seconds = time.perf_counter() - begin
        newest = max((Path(folder) / "checkpoints").glob("step-*"))
        size = sum(path.stat().st_size for path in newest.iterdir())
    spent = sum(reads) + sum(saves)
    return {
        "trained parameters": setup.plan.trainable,
        "megabytes": round(size / 1e6, 2),
        "saves": len(saves),
        "milliseconds a save": round(1000 * spent / len(saves), 1),
        "seconds of training": round(seconds, 1),
        "share of time": round(spent / seconds, 5),
    }


def main() -> None:
    """Measure what is at hand."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data")
    parser.add_argument("--mpnet")
    parser.add_argument(
        "--set", action="append", default=[], metavar="SETTING", help="of the embedded sample's run"
    )
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    found = {"quickstart, embedded sample": measure("quickstart", *options.set)}
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
    options.out.write_text(json.dumps(values, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
