"""Which simple baseline to stand beside a score, and what the search for leaks finds and takes.

    python benchmarks/baselines_and_leaks.py AG_NEWS_FOLDER [--all-rows 120000] [--out FILE]

Baselines are fitted to the training rows and compared on validation. Leaks are searched between the
test split and the training rows, by one to three words, and among 120,000 rows as many as AG News
has: the training rows, repeated with every eighth word exchanged.
Writes results/baselines_and_leaks.json.
"""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from textlora.checking import leaks
from textlora.data.labelled_texts import LabelledTexts, load_labelled_texts
from textlora.settings import load_recipe
from textlora.system.runtime import describe_environment

OUT = Path(__file__).parent / "results" / "baselines_and_leaks.json"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ag_news")
    parser.add_argument("--all-rows", type=int, default=120_000)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    texts = load_labelled_texts(load_recipe("quickstart", data__source=options.ag_news).data)
    values = {
        "command": "python benchmarks/baselines_and_leaks.py <ag_news>",
        "environment": asdict(describe_environment()),
        "train_texts": len(texts.train.texts),
        "baselines": compare_baselines(texts),
        "leaks": count_leaks(texts),
        f"seconds_of_{options.all_rows}": time_all_rows(texts, options.all_rows),
    }
    options.out.write_text(json.dumps(values, indent=1) + "\n", "utf-8")
    print(json.dumps(values, indent=1))


def compare_baselines(texts: LabelledTexts) -> list[dict[str, Any]]:
    """Accuracy on validation and seconds, by smallest document frequency and model."""
    found = []
    for rare in (1, 2):
        start = time.perf_counter()
        counter = TfidfVectorizer(
            ngram_range=(1, 2), sublinear_tf=True, min_df=rare, dtype=np.float32
        )
        train, validation = (
            counter.fit_transform(texts.train.texts),
            counter.transform(texts.validation.texts),
        )
        seconds = time.perf_counter() - start
        for model in (
            *(LinearSVC(C=c, random_state=0) for c in (0.1, 0.3, 1.0)),
            *(LogisticRegression(C=c, max_iter=300) for c in (10.0, 30.0)),
        ):
            start = time.perf_counter()
            model.fit(train, texts.train.label_ids)
            right = model.predict(validation) == texts.validation.label_ids
            found.append(
                {
                    "model": type(model).__name__,
                    "C": model.C,
                    "min_df": rare,
                    "terms": train.shape[1],
                    "accuracy": float(right.mean()),
                    "seconds": round(seconds + time.perf_counter() - start, 2),
                }
            )
    return found


def count_leaks(texts: LabelledTexts) -> dict[str, Any]:
    """How many test texts have a training text that similar."""
    assert texts.test is not None
    start = time.perf_counter()
    near = leaks.find_neighbours(texts.test.texts, texts.train.texts)
    seconds = time.perf_counter() - start
    same = texts.train.label_ids[near.place] == texts.test.label_ids
    return {
        "seconds": round(seconds, 2),
        "texts": len(texts.test.texts),
        "by_similarity": {
            str(least): {
                "texts": int((near.similarity >= least).sum()),
                "other_label": int(((near.similarity >= least) & ~same).sum()),
            }
            for least in (0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
        },
    }


def time_all_rows(texts: LabelledTexts, count: int) -> float:
    """Seconds of a search among `count` rows, as many as AG News has."""
    assert texts.test is not None
    random = np.random.default_rng(0)
    rows = [text.split() for text in texts.train.texts]
    many = []
    while len(many) < count:
        words = list(rows[len(many) % len(rows)])
        for place in range(int(random.integers(8)), len(words), 8):
            other = rows[int(random.integers(len(rows)))]
            words[place] = other[int(random.integers(len(other)))]
        many.append(" ".join(words))
    start = time.perf_counter()
    leaks.find_neighbours(texts.test.texts, tuple(many))
    return round(time.perf_counter() - start, 2)


if __name__ == "__main__":
    main()
