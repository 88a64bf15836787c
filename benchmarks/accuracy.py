"""What a recipe reaches and the time it takes: trains, evaluates, writes a JSON file.

    python benchmarks/accuracy.py demo AG_NEWS_FOLDER        # trained on the sample only
    python benchmarks/accuracy.py quickstart AG_NEWS_FOLDER
    python benchmarks/accuracy.py reference AG_NEWS_FOLDER

All are scored on the test split of the AG News copy in the folder given, beside baselines that were
fitted to the same rows. Add a folder to keep the run there; a run that was stopped goes on there.
`--set SETTING` changes the recipe. Writes results/accuracy_<case>.json, or what --out names.
"""

import argparse
import json
import subprocess
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from textlora.data.labelled_texts import load_labelled_texts
from textlora.evaluation.evaluation import Evaluation
from textlora.evaluation.run_evaluation import evaluate_split
from textlora.prediction.predictor import Predictor
from textlora.runs.provenance import read_training
from textlora.settings import DataSettings, Recipe, load_recipe
from textlora.system.progress import Reporter
from textlora.system.runtime import describe_environment
from textlora.training.pipeline import train_run

RESULTS = Path(__file__).parent / "results"
# The reference targets at the same relative depth of six layers, as the error message suggests.
SIX_LAYERS = 'adapter.targets={ 0 = ["query", "key"], 2 = ["query"], 5 = ["query"] }'


def make_recipe(case: str, ag_news: str, changes: list[str]) -> Recipe:
    """The recipe of a case."""
    if case == "demo":
        return load_recipe("quickstart", changes)
    if case == "quickstart":
        return load_recipe("quickstart", changes, data__source=ag_news)
    return load_recipe(
        "reference", [SIX_LAYERS, *changes], data__source=ag_news, model__name="embedded:minilm"
    )


def describe(evaluation: Evaluation) -> dict[str, Any]:
    """Figures without the texts that they are about, which belong to AG News."""
    values = asdict(evaluation)
    values["source"] = "embedded:headlines" if "headlines" in values["source"] else "AG News"
    for leaks in values["leaks"].values():
        del leaks["examples"]
    return values


def main() -> None:
    """Measure one case and write its file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", choices=["demo", "quickstart", "reference"])
    parser.add_argument("ag_news")
    parser.add_argument("keep", nargs="?", type=Path, help="folder for the run")
    parser.add_argument("--set", action="append", default=[], metavar="SETTING")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    case, ag_news = options.case, options.ag_news
    recipe = make_recipe(case, ag_news, options.set)
    with tempfile.TemporaryDirectory() as folder:
        run = (options.keep or Path(folder)) / "run"
        texts = load_labelled_texts(recipe.data)
        trained = train_run(recipe, texts, run, resume="auto", report=Reporter())
        record = read_training(run)
        assert record is not None
        result = trained.evaluations[-1]
        if case == "demo":  # trained on other data
            settings = DataSettings(source=ag_news)
            result = evaluate_split(run, Predictor.load(run), settings, "test").evaluation
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    values = {
        "case": case,
        "command": " ".join(
            [f"python benchmarks/accuracy.py {case} <ag_news>"]
            + [f"--set '{change}'" for change in options.set]
        ),
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit.stdout.strip(),
        "environment": asdict(describe_environment()),
        "train_texts": len(texts.train.texts),
        "train_seconds": round(record.seconds, 1),
        "trainable_parameters": trained.trainable_parameters,
        "total_parameters": trained.total_parameters,
        "own_evaluations": [describe(item) for item in trained.evaluations],
        "ag_news_test": describe(result),
    }
    path = options.out or RESULTS / f"accuracy_{case}.json"
    path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    print(
        f"{case}: {result.scores.accuracy:.2%} of AG News test, trained in {record.seconds:.0f} s"
    )


if __name__ == "__main__":
    main()
