"""What many texts cost: rows read and written a second, bytes a row, and the same through Ray.

    python benchmarks/scale.py --data AG_NEWS_FOLDER [--rows 2048 12288 100000] [--out FILE]

Measures on the demo's classifier and AG News texts, writes benchmarks/results/scale.json.
docs/scale.md is computed from that and from results/predict_vs_peers.json: `--plan` prints it.
"""

import argparse
import csv
import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from needed import require

RESULTS = Path(__file__).parent / "results"
OUT = RESULTS / "scale.json"
BILLION = 1_000_000_000
MACHINES = 100


def main() -> None:
    """Measure, or print the plan."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="a folder such as ag_news")
    parser.add_argument("--plan", action="store_true", help="print the tables of docs/scale.md")
    parser.add_argument(
        "--rows", type=int, nargs=3, default=[2_048, 12_288, 100_000],
        help="predicted here, predicted beside them, and read",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    if options.plan:
        print("\n".join(format_plan()))
        return
    if not options.data:
        parser.error("--data: missing; name a folder such as ag_news")
    require("'textlora[ray]'", "ray")
    from textlora.system.runtime import describe_environment

    with tempfile.TemporaryDirectory() as scratch:
        found = measure(options.data, Path(scratch), *options.rows)
    found |= {
        "command": "python benchmarks/scale.py --data <ag_news>",
        "environment": asdict(describe_environment()),
    }
    options.out.write_text(json.dumps(found, indent=2) + "\n", "utf-8")


def measure(data: str, scratch: Path, num_few: int, num_some: int, num_many: int) -> dict[str, Any]:
    """All figures."""
    from predict_files import save_run

    from textlora.data.labelled_texts import load_labelled_texts
    from textlora.prediction.file_prediction import open_input, predict_files
    from textlora.prediction.output_columns import FileOptions
    from textlora.prediction.predictor import Predictor
    from textlora.prediction.ray_engine import RayEngine
    from textlora.settings import DataSettings

    texts = load_labelled_texts(DataSettings(source=data)).train.texts
    chosen = [f"{texts[n % len(texts)]} {n}" for n in range(num_many)]
    many, some, few = (scratch / name for name in ("many.csv", "some.csv", "few.csv"))
    for path, count in ((many, num_many), (some, num_some), (few, num_few)):
        with path.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([["text"], *([text] for text in chosen[:count])])
    begin = time.perf_counter()
    rows = open_input([many], FileOptions())
    while rows.read_chunk():
        pass
    found: dict[str, Any] = {
        "read_rows_per_s": num_many / (time.perf_counter() - begin),
        "input_bytes_per_row": many.stat().st_size / num_many,
        "output_bytes_per_row": {},
    }
    run = save_run(scratch / "run", "embedded:minilm")
    predictor = Predictor.load(run)
    for suffix in ("csv", "csv.gz", "parquet"):
        target = scratch / f"out.{suffix}"
        predict_files(predictor, [few], target)
        found["output_bytes_per_row"][suffix] = target.stat().st_size / num_few
    for name, engine in (("local", None), ("ray", RayEngine(run, "torch", None))):
        seconds = []
        for path, target in ((few, scratch / f"few-{name}.csv"), (some, scratch / f"{name}.csv")):
            begin = time.perf_counter()
            predict_files(predictor, [path], target, FileOptions(chunk_rows=num_few), engine=engine)
            seconds.append(time.perf_counter() - begin)
        # Two sizes tell the rate from the start of the cluster and its workers.
        rate = (num_some - num_few) / (seconds[1] - seconds[0])
        found[name] = {"rows_per_s": rate, "start_s": seconds[0] - num_few / rate}
    local, far = (scratch / "local.csv").read_bytes(), (scratch / "ray.csv").read_bytes()
    found["ray"]["same_bytes"] = local == far
    found["ray"]["rate_beside_local"] = found["ray"]["rows_per_s"] / found["local"]["rows_per_s"]
    return found


def format_plan() -> list[str]:
    """The tables of docs/scale.md, line by line."""
    scale = json.loads(OUT.read_text("utf-8"))
    cases = json.loads((RESULTS / "predict_vs_peers.json").read_text("utf-8"))
    lines = [
        "| encoder, backend | texts/s per core | core-hours | hours on 100 such machines |",
        "|---|---|---|---|",
    ]
    names = {"minilm": "MiniLM", "mpnet-base": "MPNet-base"}
    for case, name in names.items():
        found = cases[case]
        threads = found["environment"]["num_threads"]
        for backend in ("torch", "openvino", "openvino-int8"):
            rate = found["contenders"][backend].get("texts_per_s")
            if rate is None:
                continue
            hours = BILLION / rate / 3_600
            lines.append(
                f"| {name}, {backend} | {rate / threads:,.0f} | {hours * threads:,.0f} | "
                f"{hours / MACHINES:,.1f} |"
            )
    lines += ["", "| a billion rows | gigabytes |", "|---|---|"]
    lines.append(f"| input, CSV | {scale['input_bytes_per_row']:,.0f} |")
    for suffix, size in scale["output_bytes_per_row"].items():
        lines.append(f"| output, .{suffix} | {size:,.1f} |")
    return lines


if __name__ == "__main__":
    main()
