"""Prediction of files: memory by size of the file, and the rate beside texts held in memory.

    python benchmarks/predict_files.py [--data AG_NEWS_FOLDER] [--sizes 50000 1000000] [--out FILE]

Memory: a tiny encoder with random weights and texts of some ten words, so that a million rows take
minutes; each size in a process of its own. Rate: the demo's classifier on 4,000 texts, as a file
(CSV to CSV) and from a list, in turns. Writes benchmarks/results/predict_files.json.
"""

import argparse
import csv
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

OUT = Path(__file__).parent / "results" / "predict_files.json"
WORDS = ("the", "of", "to", "goal", "match", "bank", "market", "rocket", "orbit", "moon", "price")


def save_run(folder: Path, encoder: str, *changes: str) -> Path:
    """A classifier, hardly trained: what it answers does not matter here."""
    from textlora.data.labelled_texts import load_labelled_texts
    from textlora.settings import load_recipe
    from textlora.system.progress import Reporter
    from textlora.training.pipeline import fit_run

    recipe = load_recipe("quickstart", ["training.epochs=0.1", *changes], model__name=encoder)
    texts = load_labelled_texts(recipe.data)
    fit_run(recipe, texts, folder, resume="never", report=Reporter(quiet=True))
    return folder


def save_tiny_encoder(folder: Path) -> str:
    """Two layers of width 32 with MiniLM's tokenizer."""
    import torch
    from transformers import BertConfig, BertModel

    from textlora.model import encoder, encoder_files
    from textlora.settings import ModelSettings

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30_522, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=64,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    own = encoder_files.locate_encoder(ModelSettings(name=encoder_files.EMBEDDED)).folder
    encoder.load_tokenizer(own, "minilm").save_pretrained(folder)
    return str(folder)


def write_texts(path: Path, count: int) -> None:
    """Random short texts, all different."""
    source = random.Random(0)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text"])
        for number in range(count):
            writer.writerow([" ".join(source.choices(WORDS, k=8)) + f" {number}"])


def predict(run: str, source: str, target: str) -> dict[str, Any]:
    """Predict in this process; its peak memory and rate."""
    from textlora.prediction.file_prediction import predict_files
    from textlora.prediction.predictor import Predictor

    summary = predict_files(Predictor.load(run), [Path(source)], Path(target))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux
    return {"peak_rss_mb": round(peak / 1024, 1), "rows_per_second": summary.rows_per_second}


def measure_memory(scratch: Path, sizes: list[int]) -> dict[str, Any]:
    """Peak memory of each size."""
    run = save_run(scratch / "tiny", save_tiny_encoder(scratch / "encoder"))
    found: dict[str, Any] = {}
    for size in sizes:
        source = scratch / f"{size}.csv"
        write_texts(source, size)
        words = ["--worker", str(run), str(source), str(scratch / f"out{size}.csv")]
        process = subprocess.run(
            [sys.executable, __file__, *words], capture_output=True, text=True, check=True
        )
        found[f"{size:,} rows"] = json.loads(process.stdout)
        print(size, found[f"{size:,} rows"], flush=True)
    peaks = [values["peak_rss_mb"] for values in found.values()]
    return {**found, "growth": round(peaks[-1] / peaks[0] - 1, 4)}


def measure_rate(scratch: Path, data: str, count: int) -> dict[str, Any]:
    """Rows a second of a file and of a list."""
    from textlora.data.labelled_texts import load_labelled_texts
    from textlora.prediction.file_prediction import predict_files
    from textlora.prediction.predictor import Predictor
    from textlora.settings import DataSettings

    texts = list(load_labelled_texts(DataSettings(source=data)).train.texts[:count])
    predictor = Predictor.load(save_run(scratch / "demo", "embedded:minilm"))
    source = scratch / "texts.csv"
    with source.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([["text"], *([text] for text in texts)])
    rates: dict[str, list[float]] = {"list": [], "file": []}
    for _ in range(3):
        begin = time.perf_counter()
        predictor.predict(texts)
        rates["list"].append(len(texts) / (time.perf_counter() - begin))
        begin = time.perf_counter()
        predict_files(predictor, [source], scratch / "out.csv")
        rates["file"].append(len(texts) / (time.perf_counter() - begin))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "texts": len(texts),
        "rows_per_second": medians,
        "rounds": rates,
        "file_to_list": medians["file"] / medians["list"],
    }


def main() -> None:
    """Measure both."""
    if sys.argv[1:2] == ["--worker"]:
        print(json.dumps(predict(*sys.argv[2:])))
        return
    from textlora.system.runtime import describe_environment

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="embedded:headlines")
    parser.add_argument("--sizes", type=int, nargs="+", default=[50_000, 1_000_000])
    parser.add_argument("--texts", type=int, default=4_000, help="of the rate")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rate = measure_rate(Path(folder), options.data, options.texts)
        print(rate, flush=True)
        memory = measure_memory(Path(folder), options.sizes)
    values = {
        "memory": memory,
        "rate": rate,
        "data": Path(options.data).name,
        "command": "python benchmarks/predict_files.py --data <ag_news>",
        "environment": asdict(describe_environment()),
    }
    options.out.write_text(json.dumps(values, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
