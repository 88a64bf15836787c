"""Which settings raise accuracy, on validation alone: one change at a time, several seeds.

    python benchmarks/accuracy_choices.py AG_NEWS_FOLDER [--model FOLDER] [--question heads]

Trains an encoder (the embedded one, or MPNet-base in a folder) on some rows of AG News and reads
the best validation accuracy and loss from the history. The test split is not read. What was
measured is kept: a run that was stopped goes on, and to ask one question leaves the others as they
are. Seeds are compared on the same rows alone: a source that gives others is refused. `--jobs 2`
trains two at a time, one core each, which on two cores is a fifth faster than one after the other;
on a GPU take 8. What was tried and is no part of the package is in `tricks.py`. Writes
results/accuracy_questions_<encoder>.json, or what --out names.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from accuracy import SIX_LAYERS
from tricks import TRICKS

from textlora.data.labelled_texts import load_labelled_texts
from textlora.runs.history import read_history
from textlora.settings import load_recipe
from textlora.system.progress import Reporter
from textlora.system.runtime import describe_environment
from textlora.training.loop import train_steps
from textlora.training.training_setup import prepare_training

RESULTS = Path(__file__).parent / "results"
ALL = '["query", "key", "value", "output", "ffn"]'
# The reference recipe's four matrices, by the number of layers.
FOUR = {
    6: SIX_LAYERS,
    12: 'adapter.targets={ 0 = ["query", "key"], 5 = ["query"], 10 = ["query"] }',
}


def matrices(layers: str, names: str, rank: int) -> tuple[str, ...]:
    """Settings for these matrices, the update scaled by 2."""
    return (
        f'adapter.targets={{"{layers}" = {names}}}', f"adapter.rank={rank}",
        f"adapter.alpha={2 * rank}",
    )  # fmt: skip


def list_questions(layers: int) -> dict[str, dict[str, tuple[str, ...]]]:
    """Cases by question. The base is first: what each of the others is beside, one change apart."""
    small = layers == 6
    four = (
        FOUR[layers],
        "adapter.rank=24" if small else "adapter.rank=36",
        "adapter.alpha=48" if small else "adapter.alpha=72",
    )
    mean, twice = ("model.head=mean",), f"training.learning_rate={2e-3 if small else 1e-3}"
    last = "last 3" if small else "last 6"
    return {
        "base": {"query and value of all layers, rank 8": ()},
        "heads": {
            "mean": ("model.head=mean",),
            "first token": ("model.head=first",),
        },
        "rate": {
            "1e-4": ("training.learning_rate=1e-4",),
            "3e-4": ("training.learning_rate=3e-4",),
            "2e-3" if small else "1e-3": (f"training.learning_rate={2e-3 if small else 1e-3}",),
            "4e-3" if small else "2e-3": (f"training.learning_rate={4e-3 if small else 2e-3}",),
        },
        "matrices at equal budget": {
            "all matrices, rank 2": matrices("all", ALL, 2),
            "query, rank 16": matrices("all", '["query"]', 16),
            f"query and value of the {last} layers, rank 16": matrices(
                last, '["query", "value"]', 16
            ),
            "four matrices": four,
            "four matrices, 3 times the rate": (
                *four, f"training.learning_rate={3e-3 if small else 1.5e-3}"
            ),
        },
        "budget": {
            "query and value, rank 32": matrices("all", '["query", "value"]', 32),
            "all matrices, rank 6": matrices("all", ALL, 6),
            "all matrices, rank 6, mean": (*matrices("all", ALL, 6), "model.head=mean"),
            **({"all matrices, rank 24": matrices("all", ALL, 24)} if small else {}),
            **({"all matrices, rank 24, mean": (*matrices("all", ALL, 24), "model.head=mean")}
               if small else {}),
        },
        "budget with a linear head": {
            "query and value, rank 1": (*matrices("all", '["query", "value"]', 1), *mean),
            # On six layers this is the mean among the heads.
            **({} if small else
               {"query and value, rank 8": (*matrices("all", '["query", "value"]', 8), *mean)}),
            "all matrices, rank 1": (*matrices("all", ALL, 1), *mean),
            "all matrices, rank 6, twice the rate": (*matrices("all", ALL, 6), *mean, twice),
            "all matrices, rank 1, twice the rate": (*matrices("all", ALL, 1), *mean, twice),
        },
        "length": {
            "5 epochs": ("training.epochs=5",),
            "5 epochs, cosine": ("training.epochs=5", "training.schedule=cosine"),
            "cosine": ("training.schedule=cosine",),
            "batches of 32": ("training.batch_size=32",),
        },
        "regularisation": {
            "label smoothing 0.1": ("training.label_smoothing=0.1",),
            "average of weights": ("training.average_decay=0.99",),
            "LoRA+ 4": ("training.loraplus_ratio=4",),
            "rates falling by 0.8 a layer": ("training.layer_decay=0.8",),
            "rsLoRA": ("adapter.variant=rslora",),
            "entities repaired": ("data.repair_entities=true",),
        },
        "tricks": {
            "R-Drop": ("trick=R-Drop",),
            "mean, started from a linear probe": (*mean, "trick=probe"),
        },
        "dropout of the adapters": {
            "none": ("dropout.start=0", "dropout.end=0"),
            "0.05 throughout": ("dropout.start=0.05", "dropout.end=0.05"),
            "0.1 throughout": ("dropout.start=0.1", "dropout.end=0.1"),
            "0.15 to 0.05": ("dropout.start=0.15", "dropout.end=0.05"),
            "0.3 to 0": ("dropout.start=0.3", "dropout.end=0"),
        },
    }  # fmt: skip


def measure(changes: tuple[str, ...], fixed: tuple[str, ...], source: str) -> dict[str, float]:
    """Best validation figures of one run, and what it cost."""
    tricks = [change.partition("=")[2] for change in changes if change.startswith("trick=")]
    settings = [change for change in changes if not change.startswith("trick=")]
    recipe = load_recipe("quickstart", [*fixed, *settings], data__source=source)
    texts = load_labelled_texts(recipe.data)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        setup = prepare_training(recipe, texts)
        for trick in tricks:
            setup = TRICKS[trick](setup)
        train_steps(setup, Path(folder), "never", Reporter(quiet=True))
        seconds = time.perf_counter() - start
        found = [r.validation for r in read_history(Path(folder)) if r.validation is not None]
    return {
        "seed": recipe.training.seed,
        "accuracy": max(item.accuracy for item in found),
        "loss": min(item.loss for item in found),
        "trainable": setup.plan.trainable,
        "train_rows": len(texts.train.texts),
        "validation_rows": len(texts.validation.texts),
        "seconds": round(seconds, 1),
    }


def summarize(runs: list[dict[str, float]], base: list[dict[str, float]]) -> dict[str, Any]:
    """Mean and spread over seeds, and the differences to the base with the same seed."""
    beside = {run["seed"]: run for run in base}
    gains = [r["accuracy"] - beside[r["seed"]]["accuracy"] for r in runs if r["seed"] in beside]
    losses = [r["loss"] - beside[r["seed"]]["loss"] for r in runs if r["seed"] in beside]
    accuracies = [run["accuracy"] for run in runs]
    return {
        "accuracy": round(statistics.mean(accuracies), 4),
        "spread": round(statistics.stdev(accuracies), 4) if len(runs) > 1 else None,
        "loss": round(statistics.mean(run["loss"] for run in runs), 4),
        "gain": round(statistics.mean(gains), 4) if gains else None,
        "gains": [round(gain, 4) for gain in gains],
        "loss_change": round(statistics.mean(losses), 4) if losses else None,
        "runs": runs,
    }


def main() -> None:
    """Measure what is missing, seed by seed, and write the figures after each run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ag_news")
    parser.add_argument("--model", default="embedded:minilm")
    asked = [question for question in list_questions(6) if question != "base"]
    parser.add_argument("--question", action="append", choices=asked)
    parser.add_argument("--case", action="append", help="one case of a question, by its name")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=10_000, help="of them 4 in 10 validate")
    parser.add_argument("--epochs", type=int, default=3, help="where a case says nothing else")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    small = options.model == "embedded:minilm" or "minilm" in Path(options.model).name
    name, layers, rate = ("minilm", 6, 1e-3) if small else ("mpnet-base", 12, 5e-4)
    path = options.out or RESULTS / f"accuracy_questions_{name}.json"
    values: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    cases = values.setdefault("cases", {})
    fixed = (
        f"model.name={options.model}", f"data.max_train_rows={options.rows}",
        "data.validation_share=0.4", f"training.epochs={options.epochs}",
        f"training.learning_rate={rate}",
    )  # fmt: skip
    rows = load_labelled_texts(
        load_recipe("quickstart", fixed, data__source=options.ag_news).data
    ).fingerprint
    if values.setdefault("data", rows) != rows:
        # Which rows a stratified split draws depends on the order of the labels: a Parquet file may
        # name one, a CSV file has none.
        parser.error(
            f"{path.name}: was measured on other rows than {options.ag_news} gives; "
            "name its source, or move the file away"
        )
    missing = [
        (question, case, changes, seed)
        for seed in range(options.seeds)
        for question, choices in list_questions(layers).items()
        if question == "base" or question in (options.question or [question])
        for case, changes in choices.items()
        if question == "base" or case in (options.case or [case])
        if all(run["seed"] != seed for run in _find_runs(cases, question, case))
    ]
    spawn = multiprocessing.get_context("spawn")
    threads = max(1, len(os.sched_getaffinity(0)) // options.jobs)
    with ProcessPoolExecutor(options.jobs, spawn, torch.set_num_threads, (threads,)) as workers:
        running = {
            workers.submit(
                measure, changes, (*fixed, f"training.seed={seed}"), options.ag_news
            ): (question, case)
            for question, case, changes, seed in missing
        }  # fmt: skip
        for done in as_completed(running):
            question, case = running[done]
            known = cases.setdefault(question, {}).setdefault(case, {"runs": []})
            known["runs"].append(done.result())
            print(question, "|", case, known["runs"][-1], flush=True)
            _write(path, values, options.rows)


def _find_runs(cases: dict[str, Any], question: str, case: str) -> list[dict[str, float]]:
    runs: list[dict[str, float]] = cases.get(question, {}).get(case, {"runs": []})["runs"]
    return runs


def _write(path: Path, values: dict[str, Any], rows: int) -> None:
    cases = values["cases"]
    base = next(iter(cases.get("base", {}).values()), {"runs": []})["runs"]
    for choices in cases.values():  # the base may have come after what is beside it
        for case, known in choices.items():
            choices[case] = summarize(known["runs"], base)
    values |= {
        "command": "python benchmarks/accuracy_choices.py <ag_news> [--model <folder>]",
        "rows": rows,
        "date": datetime.now(UTC).date().isoformat(),
        "environment": asdict(describe_environment()),
    }
    path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
