"""What a recipe reaches and the time it takes: trains, evaluates, writes a JSON file.

    python benchmarks/accuracy.py demo ../shared/ag_news   # trained on the sample only
    python benchmarks/accuracy.py reference ../shared/ag_news

Both are scored on the test split of the AG News copy in the folder given.
"""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from textlora.data import load_labelled_texts, load_split
from textlora.evaluation import evaluate_examples
from textlora.pipeline import train_run
from textlora.predictor import Predictor
from textlora.progress import Reporter
from textlora.runtime import describe_environment
from textlora.settings import DataSettings, Recipe, load_recipe

RESULTS = Path(__file__).parent / "results"
# The reference targets at the same relative depth of six layers, as the error message suggests.
SIX_LAYERS = 'adapter.targets={ 0 = ["query", "key"], 2 = ["query"], 5 = ["query"] }'


def make_recipe(case: str, ag_news: str) -> Recipe:
    """The recipe of a case."""
    if case == "demo":
        return load_recipe("quickstart")
    model = "embedded:minilm"
    return load_recipe("reference", [SIX_LAYERS], data__source=ag_news, model__name=model)


def main() -> None:
    """Measure one case and write benchmarks/results/accuracy_<case>.json."""
    case, ag_news = sys.argv[1:]
    recipe = make_recipe(case, ag_news)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        start = time.perf_counter()
        texts = load_labelled_texts(recipe.data)
        trained = train_run(recipe, texts, run, resume="never", report=Reporter())
        seconds = time.perf_counter() - start
        predictor = Predictor.load(run)
        examples = load_split(DataSettings(source=ag_news), "test", predictor.labels)
        result = evaluate_examples(predictor, examples, split="test", source="AG News")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    values = {
        "case": case,
        "command": f"python benchmarks/accuracy.py {case} <ag_news>",
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit.stdout.strip(),
        "environment": asdict(describe_environment()),
        "train_texts": len(texts.train.texts),
        "train_seconds": round(seconds, 1),
        "trainable_parameters": trained.trainable_parameters,
        "total_parameters": trained.total_parameters,
        "own_evaluations": [asdict(item) for item in trained.evaluations],
        "ag_news_test": asdict(result),
    }
    for item in values["own_evaluations"]:
        item["source"] = "embedded:headlines" if case == "demo" else "AG News"
    path = RESULTS / f"accuracy_{case}.json"
    path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    print(f"{case}: {result.scores.accuracy:.2%} of AG News test, trained in {seconds:.0f} s")


if __name__ == "__main__":
    main()
