"""Whether the audit finds wrong labels, and whether a classifier is better without them.

    python benchmarks/label_audit.py AG_NEWS_FOLDER [--train] [--out FILE]

5 % of the labels of the AG News training rows are changed at random, with three seeds. Asked is
what share of these stands in the top 5 % of doubtful labels, by vectors of MiniLM and by TF-IDF,
and by two rankings; and what Cleanlab flags. With --train this stays as measured before, and the
quickstart recipe is trained, on 6,000 rows for two epochs, with the right labels, the wrong ones,
and the wrong ones after a review that accepts each suggestion of at least 0.8: accuracy on
validation rows, whose labels nobody changed.
Writes results/label_audit.json.
"""

import argparse
import csv
import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from needed import require
from sklearn.feature_extraction.text import TfidfVectorizer

from textlora.checking.audit import compute_out_of_fold, embed_texts, find_doubtful_labels
from textlora.data.corrections import write_review
from textlora.data.examples import Examples
from textlora.data.labelled_texts import load_labelled_texts, load_training_rows
from textlora.data.sources import RawSplit
from textlora.prediction.predictor import Predictor
from textlora.settings import DataSettings, load_recipe
from textlora.system.progress import Reporter
from textlora.system.runtime import describe_environment
from textlora.training.pipeline import fit_run

OUT = Path(__file__).parent / "results" / "label_audit.json"
NOISE, ACCEPT_ABOVE = 0.05, 0.8


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ag_news")
    parser.add_argument("--train", action="store_true")
    parser.add_argument(
        "--rows", type=int, default=6_000, help="with --train; half as many validate"
    )
    parser.add_argument("--epochs", type=int, default=2, help="with --train")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    require("'textlora[audit]'", "cleanlab")
    folder = options.ag_news
    raw, examples, labels = load_training_rows(DataSettings(source=folder))
    recipe = load_recipe("quickstart", data__source=folder)
    start = time.perf_counter()
    vectors = embed_texts(examples.texts, recipe)
    seconds = time.perf_counter() - start
    values: dict[str, Any] = (
        json.loads(options.out.read_text("utf-8")) if options.out.is_file() else {}
    )
    if options.train:
        values["training"] = {
            "command": "python benchmarks/label_audit.py <ag_news> --train",
            "environment": asdict(describe_environment()),
            **train_three(examples, labels, vectors, options.rows, options.epochs),
        }
    else:
        values |= {
            "command": "python benchmarks/label_audit.py <ag_news>",
            "environment": asdict(describe_environment()),
            "rows": len(examples.texts),
            "embedding_seconds": round(seconds, 1),
            "searches": [
                search(raw, examples, labels, vectors, seed) for seed in range(options.seeds)
            ],
        }
    options.out.write_text(json.dumps(values, indent=1) + "\n", "utf-8")
    print(json.dumps(values, indent=1))


def spoil(examples: Examples, num_labels: int, seed: int) -> tuple[Examples, np.ndarray]:
    """The same with 5 % of other labels, and which they are."""
    random = np.random.default_rng(seed)
    count = len(examples.texts)
    wrong = random.choice(count, round(NOISE * count), replace=False)
    label_ids = examples.label_ids.copy()
    label_ids[wrong] = (label_ids[wrong] + random.integers(1, num_labels, len(wrong))) % num_labels
    planted = np.zeros(count, bool)
    planted[wrong] = True
    return Examples(examples.texts, label_ids), planted


def search(
    raw: RawSplit, examples: Examples, labels: tuple[str, ...], vectors: Any, seed: int
) -> dict[str, Any]:
    """Shares of the planted labels that are found."""
    spoiled, planted = spoil(examples, len(labels), seed)
    counter = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2, dtype=np.float32)
    found: dict[str, Any] = {"seed": seed}
    sources = {"MiniLM": vectors, "TF-IDF": counter.fit_transform(spoiled.texts)}
    for name, values in sources.items():
        shares = _out_of_fold(spoiled, labels, values)
        own = shares[np.arange(len(shares)), spoiled.label_ids]
        others = shares.copy()
        others[np.arange(len(shares)), spoiled.label_ids] = -1
        for ranking, score in (("self-confidence", own), ("margin", own - others.max(axis=1))):
            top = np.argsort(score)[: planted.sum()]
            found[f"{name}, {ranking}: share found in the top 5 %"] = float(planted[top].mean())
    doubtful = find_doubtful_labels(raw, spoiled, labels, vectors)
    texts = {(item.text, item.label) for item in doubtful}
    names = [labels[number] for number in spoiled.label_ids]
    flagged = np.array([pair in texts for pair in zip(spoiled.texts, names, strict=True)])
    found["flagged"] = int(flagged.sum())
    found["share of the planted that is flagged"] = float(flagged[planted].mean())
    found["share of the flagged that was planted"] = float(planted[flagged].mean())
    return found


def _out_of_fold(examples: Examples, labels: tuple[str, ...], values: Any) -> Any:
    if not isinstance(values, np.ndarray):  # a sparse matrix has a shape, and no length
        values = _Rows(values)
    return compute_out_of_fold(examples, labels, values)


class _Rows:
    """A sparse matrix that knows its length."""

    def __init__(self, matrix: Any) -> None:
        self.matrix = matrix

    def __len__(self) -> int:
        return int(self.matrix.shape[0])

    @property
    def shape(self) -> tuple[int, int]:
        return self.matrix.shape

    def __getitem__(self, rows: Any) -> Any:
        return self.matrix[rows]


def train_three(
    examples: Examples, labels: tuple[str, ...], vectors: Any, rows: int, epochs: int
) -> dict[str, Any]:
    """Accuracy on rows held out, by the labels that were trained on."""
    order = np.random.default_rng(0).permutation(len(examples.texts))
    kept, held_out = order[:rows], order[rows : rows + rows // 2]
    chosen = examples.take(kept)
    spoiled, planted = spoil(chosen, len(labels), seed=0)
    results: dict[str, Any] = {"rows": rows, "planted": int(planted.sum())}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _write(folder / "validation.csv", examples, held_out, labels)
        review = folder / "review.csv"
        raw = RawSplit("", [], [], ["train.csv"] * rows, list(range(rows)))
        write_review(
            review, find_doubtful_labels(raw, spoiled, labels, vectors[kept]), ACCEPT_ABOVE
        )
        for name, part in (("right", chosen), ("wrong", spoiled), ("corrected", spoiled)):
            _write(folder / "train.csv", part, np.arange(rows), labels)
            recipe = load_recipe(
                "quickstart", [f"training.epochs={epochs}", "data.repair_entities=false"],
                data__source=str(folder),
                data__corrections=str(review) if name == "corrected" else None,
            )  # fmt: skip
            texts = load_labelled_texts(recipe.data)
            found = [texts.labels[number] for number in texts.train.label_ids]
            right = [labels[number] for number in chosen.label_ids]
            wrong = sum(one != two for one, two in zip(found, right, strict=True))
            results[f"wrong labels, {name}"] = wrong
            fit_run(recipe, texts, folder / name, resume="never", report=Reporter(quiet=True))
            answers = Predictor.load(folder / name).predict_proba(texts.validation.texts)
            accuracy = (answers.values.argmax(axis=1) == texts.validation.label_ids).mean()
            results[f"validation accuracy, {name}"] = float(accuracy)
            print(results, flush=True)
    return results


def _write(path: Path, examples: Examples, rows: Any, labels: tuple[str, ...]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("text", "label"))
        writer.writerows((examples.texts[i], labels[examples.label_ids[i]]) for i in rows)


if __name__ == "__main__":
    main()
