"""How long the data check takes on a million rows, and how much memory.

    python benchmarks/check_data.py [ROWS] [--out FILE]

The rows are sentences of 20 to 60 words drawn from the embedded sample, with every kind of trouble
planted in them. Writes results/check_data.json.
"""

import argparse
import csv
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from textlora.data.labelled_texts import load_labelled_texts
from textlora.settings import DataSettings
from textlora.system.runtime import describe_environment

OUT = Path(__file__).parent / "results" / "check_data.json"
TROUBLE = (" it#39;s here", " itâ€™s here", " &lt;b&gt;bold&lt;/b&gt;", " caf\ufffd", "")
LABELS = ("World", "Sports", "Business", "Sci/Tech", "sports", "WORLD ")


def main() -> None:
    """Write the file, check it in a process of its own, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="?", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    rows = options.rows
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        write_rows(path, rows)
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "textlora", "check", str(path), "--json"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode not in (0, 3):  # 3: there are errors, which are counted below
            sys.exit(done.stderr)
        seconds = time.perf_counter() - start
        size = path.stat().st_size
    findings = json.loads(done.stdout)["findings"]
    values = {
        "command": f"python benchmarks/check_data.py {rows}",
        "environment": asdict(describe_environment()),
        "rows": rows,
        "file_mb": round(size / 1e6),
        "seconds": round(seconds, 1),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024),
        "found": {item["what"]: item["count"] for item in findings},
    }
    options.out.write_text(json.dumps(values, indent=1) + "\n", "utf-8")
    print(json.dumps(values, indent=1))


def write_rows(path: Path, count: int) -> None:
    """A CSV file; one row in fifty has some trouble."""
    texts = load_labelled_texts(DataSettings(source="embedded:headlines")).train.texts
    words = np.array(sorted({word for text in texts for word in text.split()}))
    random = np.random.default_rng(0)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("text", "label"))
        for number in range(count):
            text = " ".join(random.choice(words, int(random.integers(20, 60))))
            grave = number % 50 == 0
            text += TROUBLE[(number // 50) % len(TROUBLE)] if grave else ""
            writer.writerow((text, LABELS[int(random.integers(6 if grave else 4))]))


if __name__ == "__main__":
    main()
