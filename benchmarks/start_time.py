"""What commands cost the processor from start to end, beside the same commands of another commit.

    python benchmarks/start_time.py [--before COMMIT | FOLDER] [--rounds 7] [--only NAME]
        [--run FOLDER] [--out FILE]

Each command is a process of its own, of this checkout and of the other in turns, after a first turn
that warms up: it fills caches, and converts the backend. Counted are its seconds on the processor,
user and system, and those of its children; medians. The work is small, so that what remains is what
the commands load. Each checkout has its own copy of a run that this one trained for an epoch, or of
--run. What imports of libraries alone cost is measured in the same turns. Writes
benchmarks/results/start_time.json.
"""

import argparse
import csv
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
OUT = ROOT / "benchmarks" / "results" / "start_time.json"
# The newest commit whose commands load every library that any of their modules names.
BEFORE = "fe080f1e4df006bd7228ab8a1f8ce8d6a1e69e67"
ROWS, RUN = "rows.csv", "run"  # in the folder that a command runs in
PREDICT = ("predict", RUN, "--input", "texts.csv", "--output", "out.csv", "--resume", "never")


@dataclass(frozen=True)
class Command:
    """What is typed after `textlora`, and what share of the other's seconds it should take."""

    words: tuple[str, ...]
    target: float | None


COMMANDS = {
    "help": Command(("--help",), 1.0),
    "doctor": Command(("doctor",), None),
    "check": Command(("check", ROWS, "--set", "data.validation_share=0.4"), 1 / 6),
    "report": Command(("report", RUN), 1 / 8),
    "predict": Command(PREDICT, 1 / 3),
    "predict, openvino": Command((*PREDICT, "--backend", "openvino"), 1 / 8),
    "evaluate": Command(("evaluate", RUN), 1 / 2),
    "plan": Command(("plan",), 1 / 6),
    "plan, quickstart": Command(("plan", "--recipe", "quickstart"), 1 / 6),
}
# What no command that needs these libraries can go below.
FLOORS = {
    "import torch": "import torch",
    "import torch and BERT": "import torch; from transformers.models.bert import modeling_bert",
    "import peft": "import peft",
    "import tokenizers, numpy": "import tokenizers, numpy",
}


@dataclass(frozen=True)
class Side:
    """A checkout, and the folder that its commands run in."""

    name: str
    source: Path
    folder: Path

    def run(self, *words: str) -> float:
        """Run Python with these words; its seconds on the processor."""
        environment = os.environ | {
            "PYTHONPATH": str(self.source),
            "TEXTLORA_CACHE": str(self.folder / "cache"),
            "HF_HUB_OFFLINE": "1",  # waits for nobody
        }
        begin = count_seconds()
        done = subprocess.run(
            [sys.executable, *words], cwd=self.folder, env=environment, check=False,
            capture_output=True, text=True,
        )  # fmt: skip
        seconds = count_seconds() - begin
        if done.returncode:
            sys.exit(f"{self.name}: python {' '.join(words)}\n{done.stdout}{done.stderr}")
        return seconds


def count_seconds() -> float:
    """User and system time of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", default=BEFORE, help="a commit, or the folder of a checkout")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", action="append", choices=[*COMMANDS, *FLOORS])
    parser.add_argument("--run", type=Path, help="a finished run, in place of a new one")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    asked = options.only or [*COMMANDS, *FLOORS]
    names = [name for name in COMMANDS if name in asked]
    floors = [name for name in FLOORS if name in asked]
    if find_spec("openvino") is None and "predict, openvino" in names:
        print("predict, openvino: left out, needs pip install 'textlora[openvino]'")
        names.remove("predict, openvino")
    from textlora.system.runtime import describe_environment

    with tempfile.TemporaryDirectory() as folder, open_checkout(options.before) as before:
        scratch = Path(folder)
        sides = [
            Side("now", ROOT / "src", scratch / "now"),
            Side("before", before / "src", scratch / "before"),
        ]
        write_inputs(sides, options.run, needs_run=any(RUN in COMMANDS[n].words for n in names))
        samples, imports = measure(sides, names, floors, options.rounds)
        commits = {side.name: describe_commit(side.source) for side in sides}
    values = {
        "unit": "seconds on the processor, user and system",
        "commands": {name: compare(COMMANDS[name], found) for name, found in samples.items()},
        "floors": {
            name: {"code": FLOORS[name], "median": statistics.median(found), "rounds": found}
            for name, found in imports.items()
        },
        "commits": commits,
        "command": describe_call(options),
        "environment": asdict(describe_environment()),
    }
    options.out.write_text(json.dumps(values, indent=2) + "\n", "utf-8")
    print("\n".join(format_table(values)))


@contextmanager
def open_checkout(before: str) -> Iterator[Path]:
    """The folder of a checkout: that one, or a worktree of a commit for as long as it is needed."""
    if Path(before).is_dir():
        yield Path(before).resolve()
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "before"
        git = ["git", "-C", str(ROOT), "worktree"]
        made = subprocess.run(
            [*git, "add", "--detach", str(folder), before],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if made.returncode:
            print(f"--before: no folder, and no commit here, got {before!r}; "
                  "fetch it, or name another", file=sys.stderr)  # fmt: skip
            sys.exit(2)
        try:
            yield folder
        finally:
            subprocess.run([*git, "remove", "--force", str(folder)], check=True)


def write_inputs(sides: list[Side], run: Path | None, *, needs_run: bool) -> None:
    """Rows, texts and a run for each side."""
    import numpy as np

    from textlora.data.labelled_texts import load_labelled_texts
    from textlora.settings import DataSettings

    part = load_labelled_texts(DataSettings(source="embedded:headlines"))
    # Some of each label: `check` calls a label with one row an error.
    chosen = [
        index
        for label_id in range(len(part.labels))
        for index in np.flatnonzero(part.train.label_ids == label_id)[: (3, 3, 2, 2)[label_id]]
    ]
    texts = [part.train.texts[index] for index in chosen]
    labels = [part.labels[part.train.label_ids[index]] for index in chosen]
    for side in sides:
        (side.folder / "cache").mkdir(parents=True)
        write_csv(side.folder / ROWS, [("text", "label"), *zip(texts, labels, strict=True)])
        write_csv(side.folder / "texts.csv", [("text",), *((text,) for text in texts)])
    if not needs_run:
        return
    if run is None:
        run = sides[0].folder / RUN
        print("training a run", flush=True)
        words = ("train", "--recipe", "quickstart", "--set", "training.epochs=1", "--out", RUN)
        sides[0].run("-m", "textlora", *words)
    for side in sides:
        if side.folder / RUN != run:
            shutil.copytree(run, side.folder / RUN)


def write_csv(path: Path, rows: list[tuple[str, ...]]) -> None:
    """A CSV file."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(rows)


def measure(
    sides: list[Side], names: list[str], floors: list[str], rounds: int
) -> tuple[dict[str, dict[str, list[float]]], dict[str, list[float]]]:
    """Seconds of each command on each side, and of each import, without the first turn."""
    samples: dict[str, dict[str, list[float]]] = {
        name: {side.name: [] for side in sides} for name in names
    }
    imports: dict[str, list[float]] = {name: [] for name in floors}
    for number in range(rounds + 1):
        for name in names:
            for side in sides:
                samples[name][side.name].append(side.run("-m", "textlora", *COMMANDS[name].words))
        for name in floors:
            imports[name].append(sides[0].run("-c", FLOORS[name]))
        print(f"round {number} of {rounds}" if number else "warmed up", flush=True)
    for found in (*imports.values(), *(part for row in samples.values() for part in row.values())):
        found[:] = [round(seconds, 3) for seconds in found[1:]]
    return samples, imports


def compare(command: Command, found: dict[str, list[float]]) -> dict[str, Any]:
    """Medians, their ratio, and whether it is as wanted."""
    now, before = (statistics.median(found[side]) for side in ("now", "before"))
    ratio = now / before
    return {
        "words": " ".join(("textlora", *command.words)),
        "now": now,
        "before": before,
        "ratio": round(ratio, 4),
        "target": None if command.target is None else round(command.target, 4),
        "reached": None if command.target is None else ratio <= command.target,
        "rounds": found,
    }


def describe_call(options: argparse.Namespace) -> str:
    """What was typed, without folders of this machine."""
    words = ["python benchmarks/start_time.py", f"--rounds {options.rounds}"]
    if options.before != BEFORE:
        folder = Path(options.before).is_dir()
        words.append(f"--before {'<folder>' if folder else options.before}")
    words += [f"--only '{name}'" for name in options.only or ()]
    return " ".join(words + ["--run <folder>"] * (options.run is not None))


def describe_commit(source: Path) -> str:
    """Of the checkout that a folder belongs to; marked where files differ from it."""
    return subprocess.run(
        ["git", "-C", str(source), "describe", "--always", "--dirty", "--abbrev=40"],
        capture_output=True, text=True, check=False,
    ).stdout.strip()  # fmt: skip


def format_table(values: dict[str, Any]) -> list[str]:
    """Line by line."""
    lines = [f"{'':<32}{'now':>8}{'before':>8}{'ratio':>8}{'target':>8}"]
    for name, row in values["commands"].items():
        target = "" if row["target"] is None else f"{row['target']:.3f}"
        missed = "  missed" if row["reached"] is False else ""
        lines.append(
            f"{name:<32}{row['now']:8.2f}{row['before']:8.2f}{row['ratio']:8.3f}{target:>8}{missed}"
        )
    for name, row in values["floors"].items():
        lines.append(f"{name:<32}{row['median']:8.2f}")
    return lines


if __name__ == "__main__":
    main()
