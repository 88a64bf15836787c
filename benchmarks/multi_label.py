"""Sets of labels end to end, and which rule for their thresholds holds on texts not tuned on.

    python benchmarks/multi_label.py AG_NEWS_FOLDER [--keep FOLDER] [--out FILE]

AG News has one topic a text, so tags are added that words in the text decide: `money`, `question`,
`quote`, `US`. Sports texts get no topic, so that some texts have no label at all. The quickstart
recipe is trained on 3,000 rows of the training part, a fifth of them validation, for four epochs,
and scored on 2,000 rows of the test part. The thresholds of each rule are tuned on one half of the
validation texts and scored on the other, 20 times. Writes results/multi_label.json.
"""

import argparse
import csv
import json
import re
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from textlora.data.labelled_texts import LabelledTexts, load_labelled_texts
from textlora.evaluation.evaluation import SetEvaluation
from textlora.evaluation.run_evaluation import evaluate_run
from textlora.prediction.predictor import Predictor
from textlora.scoring import thresholds
from textlora.scoring.tasks import MultiLabel
from textlora.settings import DataSettings, load_recipe
from textlora.system.progress import Reporter
from textlora.system.runtime import describe_environment
from textlora.training.pipeline import train_run

OUT = Path(__file__).parent / "results" / "multi_label.json"
TAGS = {
    "money": r"\$\s?\d|#36;|\bbillion\b|\bmillion\b",
    "question": r"\?",
    "quote": r'quot;|"',
    "US": r"\b(U\.?S\.?|American|Washington|Bush)\b",
}
NO_TOPIC = "Sports"
GAINS = (0.0, 0.05, 0.2)  # how much a label must be known to have a threshold of its own
HALVES = 20


def write_tagged(source: str, folder: Path, rows: dict[str, int]) -> None:
    """AG News rows with sets of labels, as train.csv and test.csv."""
    texts = load_labelled_texts(DataSettings(source=source))
    assert texts.test is not None
    random = np.random.default_rng(11)
    for name, part in (("train", texts.train), ("test", texts.test)):
        chosen = random.permutation(len(part.texts))[: rows[name]]
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(("text", "labels"))
            for index in chosen:
                text, topic = part.texts[index], texts.labels[part.label_ids[index]]
                labels = [] if topic == NO_TOPIC else [topic]
                labels += [tag for tag, words in TAGS.items() if re.search(words, text)]
                writer.writerow((text, ";".join(labels)))


def compare_rules(run: Path, texts: LabelledTexts) -> dict[str, dict[str, float]]:
    """Mean figures on halves of validation that the thresholds were not tuned on, by rule."""
    truth = texts.validation.label_ids
    shares = Predictor.load(run).predict_proba(texts.validation.texts).values
    random = np.random.default_rng(0)
    usual = (thresholds.USUAL,) * truth.shape[1]
    found: dict[str, list[tuple[float, float, float]]] = {}
    for _ in range(HALVES):
        order = random.permutation(len(truth))
        tuned, scored = order[: len(order) // 2], order[len(order) // 2 :]
        rules = {"0.5 for every label": usual}
        for gain in GAINS:
            rules[f"its own where the gain is at least {gain}"] = thresholds.tune_thresholds(
                truth[tuned], shares[tuned], gain
            )
        for name, limits in rules.items():
            scores = MultiLabel(limits).score(truth[scored], shares[scored], texts.labels)
            figures = (scores.accuracy, scores.micro.f1, scores.macro.f1)
            found.setdefault(name, []).append(figures)
    names = ("all labels of a text right", "micro F1", "macro F1")
    return {
        rule: dict(zip(names, np.mean(figures, axis=0).round(4).tolist(), strict=True))
        for rule, figures in found.items()
    }


def main() -> None:
    """Tag, train, score, compare the rules."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ag_news")
    parser.add_argument("--keep", type=Path, help="folder for data and run")
    parser.add_argument("--train-rows", type=int, default=3_000)
    parser.add_argument("--test-rows", type=int, default=2_000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        data = folder / "news"
        data.mkdir(parents=True, exist_ok=True)
        write_tagged(
            options.ag_news, data, {"train": options.train_rows, "test": options.test_rows}
        )
        recipe = load_recipe(
            "quickstart",
            [
                "data.multi_label=true",
                "data.validation_share=0.2",
                f"training.epochs={options.epochs}",
            ],
            data__source=str(data),
        )
        texts = load_labelled_texts(recipe.data)
        run = folder / "run"
        trained = train_run(recipe, texts, run, resume="auto", report=Reporter())
        test = evaluate_run(run, texts)[-1].evaluation
        assert isinstance(test, SetEvaluation)
        found: dict[str, Any] = asdict(test) | {"source": "AG News, tagged", "leaks": None}
        values = {
            "command": "python benchmarks/multi_label.py <ag_news>",
            "date": datetime.now(UTC).date().isoformat(),
            "environment": asdict(describe_environment()),
            "train_texts": len(texts.train.texts),
            "validation_texts": len(texts.validation.texts),
            "trainable_parameters": trained.trainable_parameters,
            "test": found,
            "threshold_rules_on_validation": compare_rules(run, texts),
        }
    options.out.write_text(json.dumps(values, indent=1) + "\n", "utf-8")
    print(json.dumps(values["threshold_rules_on_validation"], indent=1))


if __name__ == "__main__":
    main()
