"""What the shipped recipes reach under a million trained parameters, on the AG News test.

    python benchmarks/budget_recipes.py AG_NEWS_FOLDER [--model FOLDER] [--seeds 3] [--jobs 1]

Trains the recipes reference, best and frugal on the same rows, several seeds each, and scores each
once on the complete test split, beside TF-IDF with a linear model fitted to the same rows. The
encoder is the embedded one, at twice the rate, or MPNet-base in a folder. The recipes were fixed on
validation texts (accuracy_choices.py). What was measured is kept: a run that was stopped goes on.
`--jobs 2` trains two at a time, one core each; on a GPU take 6. Writes
results/budget_recipes_<encoder>.json, or what --out names.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accuracy import SIX_LAYERS

from textlora.data.labelled_texts import load_labelled_texts
from textlora.evaluation.baselines import fit_baselines
from textlora.prediction.predictor import Predictor
from textlora.runs.provenance import read_training
from textlora.runs.run_folder import ADAPTER
from textlora.scoring.metrics import compute_wilson_interval
from textlora.scoring.significance import compare_answers
from textlora.settings import Recipe, load_recipe
from textlora.system.progress import Reporter
from textlora.system.runtime import describe_environment
from textlora.training.pipeline import fit_run

RESULTS = Path(__file__).parent / "results"
RECIPES = ("reference", "best", "frugal")
LINEAR = "TF-IDF + linear"
AG_NEWS_TEST = 7_600  # texts, where a file does not say how many
# As in accuracy_choices.py, where a small encoder is best at twice the rate of a large one.
SMALL_RATES = {"best": 1.4e-3, "frugal": 2.8e-3}


def make_recipe(
    name: str, model: str, source: str, seed: int, small: bool, more: list[str]
) -> Recipe:
    """The recipe `name` for this encoder."""
    changes = [f"training.seed={seed}", *more]
    if small and name == "reference":
        changes.append(SIX_LAYERS)
    elif small:
        changes.append(f"training.learning_rate={SMALL_RATES[name]}")
    return load_recipe(name, changes, data__source=source, model__name=model)


def measure(recipe: Recipe) -> dict[str, Any]:
    """Train, and score once; `right` has a bit for each test text, in hexadecimal."""
    texts = load_labelled_texts(recipe.data)
    assert texts.test is not None
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        setup, state = fit_run(recipe, texts, run, resume="never", report=Reporter(quiet=True))
        answers = Predictor.load(run).predict_proba(texts.test.texts).values.argmax(axis=1)
        record = read_training(run)
        assert record is not None
        size = (run / ADAPTER / "adapter_model.safetensors").stat().st_size
    right = answers == texts.test.label_ids
    return {
        "seed": recipe.training.seed,
        "trainable_parameters": setup.plan.trainable,
        "total_parameters": setup.plan.total,
        "adapter_bytes": size,
        "train_texts": len(texts.train.texts),
        "train_seconds": round(record.seconds, 1),
        "validation": state.best_value,
        "test_accuracy": float(right.mean()),
        "right": np.packbits(right).tobytes().hex(),
    }


def score_linear(source: str, more: list[str]) -> dict[str, Any]:
    """TF-IDF on the same rows."""
    texts = load_labelled_texts(load_recipe("reference", more, data__source=source).data)
    assert texts.test is not None
    answers = fit_baselines(texts.train).predict_linear(texts.test.texts)
    right = answers == texts.test.label_ids
    return {
        "test_accuracy": float(right.mean()),
        "test_texts": len(right),
        "right": np.packbits(right).tobytes().hex(),
    }


def summarize(values: dict[str, Any]) -> None:
    """Means over seeds, and paired tests of the first seed of each."""
    linear, runs = values[LINEAR], values["runs"]
    count = linear.get("test_texts", AG_NEWS_TEST)
    first = {LINEAR: _unpack(linear["right"], count)}
    first |= {name: _unpack(found[0]["right"], count) for name, found in runs.items() if found}
    values["table"] = {}
    for name, right in first.items():
        accuracies = [run["test_accuracy"] for run in runs.get(name, [linear])]
        interval = compute_wilson_interval(int(right.sum()), len(right))
        values["table"][name] = {
            "accuracy_first_seed": float(right.mean()),
            "interval": asdict(interval),
            "accuracy_mean": statistics.mean(accuracies),
            "accuracies": accuracies,
            **{
                f"beside {other}": asdict(paired := compare_answers(right, theirs))
                | {"in words": paired.describe()}
                for other, theirs in first.items()
                if other != name
            },
        }


def _unpack(text: str, count: int) -> Any:
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8))[:count].astype(bool)


def main() -> None:
    """Measure what is missing and write the figures after each run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ag_news")
    parser.add_argument("--model", default="embedded:minilm")
    parser.add_argument("--recipe", action="append", choices=RECIPES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="SETTING")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    small = options.model == "embedded:minilm" or "minilm" in Path(options.model).name
    path = options.out or RESULTS / f"budget_recipes_{'minilm' if small else 'mpnet-base'}.json"
    values: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    values.setdefault(LINEAR, score_linear(options.ag_news, options.set))
    runs = values.setdefault("runs", {})
    missing = [
        (name, seed)
        for seed in range(42, 42 + options.seeds)
        for name in options.recipe or RECIPES
        if all(run["seed"] != seed for run in runs.get(name, []))
    ]
    spawn = multiprocessing.get_context("spawn")
    threads = max(1, len(os.sched_getaffinity(0)) // options.jobs)
    with ProcessPoolExecutor(options.jobs, spawn, torch.set_num_threads, (threads,)) as workers:
        running = {
            workers.submit(
                measure,
                make_recipe(name, options.model, options.ag_news, seed, small, options.set),
            ): name
            for name, seed in missing
        }
        for done in as_completed(running):
            name = running[done]
            found = [*runs.get(name, []), done.result()]
            runs[name] = sorted(found, key=lambda run: run["seed"])
            print(name, {k: v for k, v in runs[name][-1].items() if k != "right"}, flush=True)
            summarize(values)
            values |= {
                "command": "python benchmarks/budget_recipes.py <ag_news> [--model <folder>]",
                "date": datetime.now(UTC).date().isoformat(),
                "environment": asdict(describe_environment()),
                "jobs": options.jobs,
            }
            path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
