"""Which settings raise accuracy, on validation alone: one change at a time, several seeds.

    python benchmarks/accuracy_choices.py AG_NEWS_FOLDER [--question heads] [--seeds 3]

Trains the embedded encoder on some rows of AG News and reads the best validation accuracy and loss
from the history. The test split is not read. What was measured is kept: a run that was stopped goes
on, and to ask one question leaves the others as they are. Writes results/accuracy_questions.json.
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from textlora.data import load_labelled_texts
from textlora.history import read_history
from textlora.pipeline import fit_run
from textlora.prefix import share_prefixes
from textlora.progress import Reporter
from textlora.runtime import describe_environment
from textlora.settings import load_recipe

RESULT = Path(__file__).parent / "results" / "accuracy_questions.json"
ROWS, VALIDATION_SHARE, EPOCHS = 4_500, 0.45, 3
ALL = '["query", "key", "value", "output", "ffn"]'


def matrices(layers: str, names: str, rank: int) -> tuple[str, ...]:
    """Settings for these matrices, the update scaled by 2."""
    return (
        f'adapter.targets={{"{layers}" = {names}}}', f"adapter.rank={rank}",
        f"adapter.alpha={2 * rank}",
    )  # fmt: skip


# What each is beside: the quickstart recipe, 73,728 parameters in query and value of six layers.
BASE: dict[str, tuple[str, ...]] = {"quickstart": ()}
QUESTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "heads": {
        "mean": ("model.head=mean",),
        "first token": ("model.head=first",),
    },
    "rate": {
        "1e-4": ("training.learning_rate=1e-4",),
        "3e-4": ("training.learning_rate=3e-4",),
        "2e-3": ("training.learning_rate=2e-3",),
        "4e-3": ("training.learning_rate=4e-3",),
    },
    "matrices at equal budget": {
        "all matrices, rank 2 (82,944)": matrices("all", ALL, 2),
        "query, rank 16": matrices("all", '["query"]', 16),
        "last 3 layers, rank 16": matrices("last 3", '["query", "value"]', 16),
        "four matrices, rank 24": (
            'adapter.targets={ 0 = ["query", "key"], 2 = ["query"], 5 = ["query"] }',
            "adapter.rank=24", "adapter.alpha=48",
        ),
        "four matrices, rank 24, 3e-3": (
            'adapter.targets={ 0 = ["query", "key"], 2 = ["query"], 5 = ["query"] }',
            "adapter.rank=24", "adapter.alpha=48", "training.learning_rate=3e-3",
        ),
    },
    "budget": {
        "query and value, rank 32 (294,912)": matrices("all", '["query", "value"]', 32),
        "all matrices, rank 8 (331,776)": matrices("all", ALL, 8),
        "all matrices, rank 23 (953,856)": matrices("all", ALL, 23),
    },
    "length": {
        "6 epochs, linear": ("training.epochs=6",),
        "6 epochs, cosine": ("training.epochs=6", "training.schedule=cosine"),
        "cosine": ("training.schedule=cosine",),
    },
    "regularisation": {
        "label smoothing 0.1": ("training.label_smoothing=0.1",),
        "average of weights": ("training.average_decay=0.99",),
        "LoRA+ 4": ("training.loraplus_ratio=4",),
        "rates falling by 0.8 a layer": ("training.layer_decay=0.8",),
        "rsLoRA": ("adapter.variant=rslora",),
        "entities repaired": ("data.repair_entities=true",),
    },
    "dropout of the adapters": {
        "none": ("dropout.start=0", "dropout.end=0"),
        "0.05 throughout": ("dropout.start=0.05", "dropout.end=0.05"),
        "0.15 to 0.05": ("dropout.start=0.15", "dropout.end=0.05"),
        "0.1 throughout": ("dropout.start=0.1", "dropout.end=0.1"),
    },
}  # fmt: skip


def measure(settings: tuple[str, ...], source: str, seed: int) -> dict[str, float]:
    """Best validation figures of one run, and what it cost."""
    fixed = (
        f"data.max_train_rows={ROWS}", f"data.validation_share={VALIDATION_SHARE}",
        f"training.epochs={EPOCHS}",
    )  # fmt: skip
    recipe = load_recipe(
        "quickstart", [*fixed, *settings, f"training.seed={seed}"], data__source=source
    )
    texts = load_labelled_texts(recipe.data)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        learner, _ = fit_run(
            recipe, texts, Path(folder), resume="never", report=Reporter(quiet=True)
        )
        seconds = time.perf_counter() - start
        found = [r.validation for r in read_history(Path(folder)) if r.validation is not None]
    return {
        "seed": seed,
        "accuracy": max(item.accuracy for item in found),
        "loss": min(item.loss for item in found),
        "trainable": learner.plan.trainable,
        "train_rows": len(texts.train.texts),
        "validation_rows": len(texts.validation.texts),
        "seconds": round(seconds, 1),
    }


def summarize(runs: list[dict[str, float]], base: list[dict[str, float]]) -> dict[str, Any]:
    """Mean and spread over seeds, and the differences to the base with the same seed."""
    beside = {run["seed"]: run["accuracy"] for run in base}
    gains = [run["accuracy"] - beside[run["seed"]] for run in runs if run["seed"] in beside]
    accuracies = [run["accuracy"] for run in runs]
    return {
        "accuracy": round(statistics.mean(accuracies), 4),
        "spread": round(statistics.stdev(accuracies), 4) if len(runs) > 1 else None,
        "loss": round(statistics.mean(run["loss"] for run in runs), 4),
        "gain": round(statistics.mean(gains), 4) if gains else None,
        "gains": [round(gain, 4) for gain in gains],
        "runs": runs,
    }


def main() -> None:
    """Measure what is missing, seed by seed, and write the figures after each run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ag_news")
    parser.add_argument("--question", action="append", choices=list(QUESTIONS))
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    values: dict[str, Any] = json.loads(RESULT.read_text("utf-8")) if RESULT.is_file() else {}
    asked = {"base": BASE} | {name: QUESTIONS[name] for name in options.question or QUESTIONS}
    cases = values.setdefault("cases", {})
    with share_prefixes():
        for seed in range(options.seeds):
            for question, choices in asked.items():
                for case, changes in choices.items():
                    known = cases.setdefault(question, {}).setdefault(case, {"runs": []})
                    if any(run["seed"] == seed for run in known["runs"]):
                        continue
                    known["runs"].append(measure(changes, options.ag_news, seed))
                    base = cases["base"]["quickstart"]["runs"]
                    cases[question][case] = summarize(known["runs"], base)
                    print(question, case, cases[question][case], flush=True)
                    values |= {
                        "command": "python benchmarks/accuracy_choices.py <ag_news>",
                        "epochs": EPOCHS,
                        "date": datetime.now(UTC).date().isoformat(),
                        "environment": asdict(describe_environment()),
                    }
                    RESULT.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
