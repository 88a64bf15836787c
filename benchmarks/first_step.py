"""How long 120,000 texts take from a CSV file to the first step, the first time and the second.

    python benchmarks/first_step.py AG_NEWS_FOLDER [--rows 120000] [--out FILE]

The rows are those of AG News' training part, over and over, numbered so that all differ. Each start
is a process of its own; the second finds the token ids of the first. Writes
benchmarks/results/first_step.json.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

OUT = Path(__file__).parent / "results" / "first_step.json"


def write_rows(source: str, path: Path, count: int) -> None:
    """A CSV file of `count` labelled texts."""
    from textlora.data.labelled_texts import load_labelled_texts
    from textlora.settings import DataSettings

    part = load_labelled_texts(DataSettings(source=source)).train
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("text", "label"))
        for number in range(count):
            index = number % len(part.texts)
            writer.writerow((f"{part.texts[index]} {number}", f"label {part.label_ids[index]}"))


def measure(data: str) -> dict[str, float]:
    """Seconds until the first step could be taken, in this process."""
    marks = [time.perf_counter()]
    from textlora.data.labelled_texts import load_labelled_texts
    from textlora.settings import load_recipe
    from textlora.training.training_setup import prepare_training

    marks.append(time.perf_counter())
    recipe = load_recipe("quickstart", data__source=data)
    texts = load_labelled_texts(recipe.data)
    marks.append(time.perf_counter())
    prepare_training(recipe, texts)
    marks.append(time.perf_counter())
    names = ("importing libraries", "reading, cleaning, splitting", "model and token ids")
    return {name: round(b - a, 2) for name, a, b in zip(names, marks, marks[1:], strict=False)}


def main() -> None:
    """Start twice and write what each part took."""
    if sys.argv[1:2] == ["--worker"]:
        print(json.dumps(measure(sys.argv[2])))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ag_news")
    parser.add_argument("--rows", type=int, default=120_000)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    from textlora.system.runtime import describe_environment

    found = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.csv"
        write_rows(options.ag_news, path, options.rows)
        for name in ("first", "second"):
            process = subprocess.run(
                [sys.executable, __file__, "--worker", str(path)],
                env=os.environ | {"TEXTLORA_CACHE": folder},
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            found[name] = json.loads(process.stdout)
            print(name, found[name], flush=True)
    values = {
        "seconds": found,
        "texts": options.rows,
        "command": "python benchmarks/first_step.py <ag_news>",
        "environment": asdict(describe_environment()),
    }
    options.out.write_text(json.dumps(values, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
