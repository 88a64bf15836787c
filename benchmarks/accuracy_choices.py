"""Which settings raise accuracy, on validation alone: one change at a time, several seeds.

    python benchmarks/accuracy_choices.py AG_NEWS_FOLDER [--rows 4500] [--seeds 2]

Trains the embedded encoder on some rows of AG News and reads the best validation accuracy and loss
from the history. The test split is not read. What is finished is kept if the run is stopped.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from textlora.data import LabelledTexts, load_labelled_texts
from textlora.history import read_history
from textlora.pipeline import fit_run
from textlora.progress import Reporter
from textlora.runtime import describe_environment
from textlora.settings import load_recipe

RESULT = Path(__file__).parent / "results" / "accuracy_choices.json"
MEAN = ("model.head=mean",)
CASES = {
    "own head": (),
    "mean": MEAN,
    "mean, average": (*MEAN, "training.average_decay=0.99"),
    "first token": ("model.head=first",),
    "mean, all matrices, rank 2": (
        *MEAN, "adapter.rank=2", "adapter.alpha=4",
        'adapter.targets={all = ["query", "key", "value", "output", "ffn"]}',
    ),
    "mean, smoothing 0.1": (*MEAN, "training.label_smoothing=0.1"),
    "mean, LoRA+ 4": (*MEAN, "training.loraplus_ratio=4"),
}  # fmt: skip


def measure(settings: list[str], texts: LabelledTexts, source: str, seed: int) -> dict[str, float]:
    """Best validation figures of one run, and what it cost."""
    recipe = load_recipe("quickstart", [*settings, f"training.seed={seed}"], data__source=source)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        learner, _ = fit_run(
            recipe, texts, Path(folder), resume="never", report=Reporter(quiet=True)
        )
        seconds = time.perf_counter() - start
        found = [r.validation for r in read_history(Path(folder)) if r.validation is not None]
    return {
        "accuracy": max(item.accuracy for item in found),
        "loss": min(item.loss for item in found),
        "trainable": learner.plan.trainable,
        "seconds": round(seconds, 1),
    }


def main() -> None:
    """Measure every case with each seed, seed by seed, and write the figures after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ag_news")
    parser.add_argument("--rows", type=int, default=4_500)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    fixed = [
        f"data.max_train_rows={options.rows}", "data.validation_share=0.45",
        f"training.epochs={options.epochs}",
    ]  # fmt: skip
    texts = load_labelled_texts(load_recipe("quickstart", fixed, data__source=options.ag_news).data)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in CASES}
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    for seed in range(options.seeds):
        for name, changes in CASES.items():
            found = measure([*fixed, *changes], texts, options.ag_news, seed)
            runs[name].append(found)
            print(f"{name:<30} seed {seed}  {found}", flush=True)
            rows: list[dict[str, Any]] = [
                {
                    "case": case,
                    "accuracy": round(statistics.mean(run["accuracy"] for run in done), 4),
                    "loss": round(statistics.mean(run["loss"] for run in done), 4),
                    "runs": done,
                }
                for case, done in runs.items()
                if done
            ]
            values = {
                "command": "python benchmarks/accuracy_choices.py <ag_news>",
                "rows": len(texts.train.texts),
                "validation_rows": len(texts.validation.texts),
                "epochs": options.epochs,
                "date": datetime.now(UTC).date().isoformat(),
                "commit": commit.stdout.strip(),
                "environment": asdict(describe_environment()),
                "cases": rows,
            }
            RESULT.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
