"""How long prediction takes when threads that wait rest, and when they turn in circles.

    python benchmarks/waiting_threads.py [--texts 2000] [--rounds 3] [--run FOLDER] [--out FILE]

`textlora` sets OMP_WAIT_POLICY=passive unless the user has said how threads wait; "active" stands
for what torch does by itself. Each is measured on a machine that does nothing else, and beside one
process that keeps one core busy, in turns; medians of seconds on the clock, start included. Writes
benchmarks/results/waiting_threads.json.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

OUT = Path(__file__).parent / "results" / "waiting_threads.json"
# KMP_BLOCKTIME at its default changes nothing, but textlora sees that the user has decided.
POLICIES = {"resting": {"OMP_WAIT_POLICY": "passive"}, "as torch waits": {"KMP_BLOCKTIME": "200"}}
BUSY = "print(flush=True)\nwhile True: pass"


def write_texts(path: Path, count: int) -> None:
    """A CSV file of so many different texts."""
    from textlora.data.labelled_texts import load_labelled_texts
    from textlora.settings import DataSettings

    texts = load_labelled_texts(DataSettings(source="embedded:headlines")).train.texts
    with path.open("w", encoding="utf-8", newline="") as stream:
        rows = ((f"{texts[number % len(texts)]} {number}",) for number in range(count))
        csv.writer(stream).writerows([("text",), *rows])


def time_prediction(run: Path, source: Path, policy: dict[str, str]) -> float:
    """Seconds of one prediction."""
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    environment = {key: value for key, value in os.environ.items() if key not in names} | policy
    output = source.with_name("out.csv")
    words = ["predict", run, "--input", source, "--output", output, "--resume", "never"]
    begin = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "textlora", *words],
        env=environment, capture_output=True, check=True,
    )  # fmt: skip
    return time.perf_counter() - begin


def measure(run: Path, source: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds of each case, round by round."""
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        for neighbours in (0, 1):
            others = [
                subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE)
                for _ in range(neighbours)
            ]
            try:
                for name, policy in POLICIES.items():
                    case = f"{name}, {'one core taken' if neighbours else 'alone'}"
                    found.setdefault(case, []).append(time_prediction(run, source, policy))
                    print(f"{case:<32} {found[case][-1]:.1f} s", flush=True)
            finally:
                for process in others:
                    process.kill()
                    process.communicate()
    return found


def main() -> None:
    """Train a run if none is given, measure, write."""
    from textlora.system.runtime import describe_environment

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--texts", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--run", type=Path, help="a run folder; else one is trained")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, run = Path(name), options.run
        if run is None:
            run = folder / "run"
            words = "train --recipe quickstart --data embedded:headlines --set training.epochs=1"
            command = [sys.executable, "-m", "textlora", *words.split(), "--out", run]
            subprocess.run(command, check=True, capture_output=True)
        write_texts(folder / "texts.csv", options.texts)
        samples = measure(run, folder / "texts.csv", options.rounds)
    medians = {case: round(statistics.median(values), 2) for case, values in samples.items()}
    resting, turning = POLICIES
    values = {
        "command": f"python benchmarks/waiting_threads.py --texts {options.texts} "
        f"--rounds {options.rounds}",
        "seconds": medians,
        "ratio": {
            where: round(medians[f"{turning}, {where}"] / medians[f"{resting}, {where}"], 2)
            for where in ("alone", "one core taken")
        },
        "samples": {case: [round(value, 2) for value in v] for case, v in samples.items()},
        "texts": options.texts,
        "environment": asdict(describe_environment()),
    }
    options.out.write_text(json.dumps(values, indent=2) + "\n", "utf-8")
    print(values["ratio"])


if __name__ == "__main__":
    main()
