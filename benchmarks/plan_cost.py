"""What `plan` says of time, memory and size, beside what training then takes.

    python benchmarks/plan_cost.py --data AG_NEWS_FOLDER [--rows 600] [--case NAME] [--quiet-clock]
        [--out FILE]

Each case is planned and trained in a process of its own. RoBERTa-base has random weights: right for
cost. --quiet-clock takes one thread, and its seconds on the processor instead of the clock's, in
prediction and measurement alike: for a machine that other work is running on. Results of cases that
are not run stay. Writes benchmarks/results/plan_cost.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any
from unittest.mock import patch

OUT = Path(__file__).parent / "results" / "plan_cost.json"
LAST = 'adapter.targets={"last 2" = ["query", "value"]}'
EVERY = 'adapter.targets={all = ["query", "key", "value", "output", "ffn"]}'
# Recipe, model, share of the rows, changes.
CASES = {
    "MiniLM, query and value of all layers": ("quickstart", "embedded:minilm", 1.0, ()),
    "MiniLM, all matrices": ("quickstart", "embedded:minilm", 1.0, (EVERY,)),
    "MiniLM, last 2 layers": ("quickstart", "embedded:minilm", 1.0, (LAST,)),
    "MiniLM, last 2 layers, 2 epochs, the others kept": (
        "quickstart", "embedded:minilm", 1.0, (LAST, "training.epochs=2"),
    ),
    "RoBERTa-base, query and value of all layers": ("quickstart", "roberta", 0.25, ()),
    "RoBERTa-base, reference adapter": ("reference", "roberta", 0.25, ()),
}  # fmt: skip


def main() -> None:
    """Run the cases asked for and keep the results of the others."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="embedded:headlines", help="a folder such as ag_news")
    parser.add_argument("--rows", type=int, default=600)
    parser.add_argument("--case", action="append", choices=list(CASES))
    parser.add_argument("--quiet-clock", action="store_true")
    parser.add_argument("--note", default="", help="what else the machine was doing")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(work(json.loads(options.worker))))
        return
    found = json.loads(options.out.read_text("utf-8")) if options.out.is_file() else {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.case or CASES:
            recipe, model, share, changes = CASES[name]
            if model == "roberta":
                model = save_random_roberta(Path(scratch) / "roberta")
            rows = f"data.max_train_rows={round(share * options.rows)}"
            one = "training.epochs=1"
            job = {
                "recipe": recipe,
                "model": model,
                "data": options.data,
                "changes": [rows, one, *changes],
                "quiet_clock": options.quiet_clock,
            }
            begin = os.getloadavg()[0]
            found[name] = start(job) | {
                "load average before and after": [round(begin, 1), round(os.getloadavg()[0], 1)],
                "note": options.note,
                "date": f"{date.today()}",
                "commit": describe_commit(),
                "command": f"python benchmarks/plan_cost.py --data <{Path(options.data).name}> "
                f"--rows {options.rows} --case '{name}'"
                f"{' --quiet-clock' if options.quiet_clock else ''}",
            }
            options.out.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
            print(summarize(name, found[name]), flush=True)


def summarize(name: str, result: dict[str, Any]) -> str:
    """Predicted, measured and their ratio, a line a figure."""
    lines = [name]
    for what in ("seconds", "memory_bytes", "adapter_bytes"):
        predicted, measured = result["predicted"][what], result["measured"][what]
        lines.append(f"  {what:<14} {predicted:15,.1f} {measured:15,.1f}  "
                     f"{predicted / measured:5.2f}")  # fmt: skip
    return "\n".join(lines)


def start(job: dict[str, Any]) -> dict[str, Any]:
    """One case in a process of its own: its memory is that of the case."""
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"} if job["quiet_clock"] else {}
    process = subprocess.run(
        [sys.executable, __file__, "--worker", json.dumps(job)],
        capture_output=True, text=True, check=False, env=os.environ | threads,
    )  # fmt: skip
    if process.returncode:
        sys.exit(process.stderr)
    return json.loads(process.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def work(job: dict[str, Any]) -> dict[str, Any]:
    """What a case's process does: plan, then train."""
    clock = time.process_time if job["quiet_clock"] else time.perf_counter
    from textlora.budgeting.budget import plan_recipe
    from textlora.budgeting.cost import plan_cost
    from textlora.data.labelled_texts import load_labelled_texts
    from textlora.settings import load_recipe
    from textlora.system.progress import Reporter
    from textlora.system.runtime import describe_environment, measure_peak_memory
    from textlora.training import pipeline

    recipe = load_recipe(
        job["recipe"], job["changes"], data__source=job["data"], model__name=job["model"]
    )
    texts = load_labelled_texts(recipe.data)
    plan = plan_recipe(recipe, texts.labels)
    before = time.perf_counter()
    with patch.object(time, "perf_counter", clock):
        cost = plan_cost(recipe, plan, texts.labels, texts)
    asked = time.perf_counter() - before
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        with patch.object(time, "perf_counter", clock):
            setup, state = pipeline.fit_run(
                recipe, texts, run, resume="never", report=Reporter(quiet=True)
            )
        adapter = (run / "adapter" / "adapter_model.safetensors").stat().st_size
    return {
        "predicted": asdict(cost),
        "measured": {
            "seconds": state.effort.seconds,
            "memory_bytes": state.effort.peak_bytes,
            "adapter_bytes": adapter,
            "memory_bytes_at_the_end": measure_peak_memory(setup.device),
        },
        "seconds to plan": asked,
        "trained parameters": plan.trainable,
        "environment": asdict(describe_environment()),
    }


def describe_commit() -> str:
    """Of the working tree; what is not committed is not in it."""
    return subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parent,
    ).stdout.strip()  # fmt: skip


def save_random_roberta(folder: Path) -> str:
    """RoBERTa-base with random weights, and MiniLM's tokenizer: words are cut about as finely."""
    import torch
    from transformers import AutoModel

    from textlora.model import encoder, encoder_files
    from textlora.settings import ModelSettings

    if not folder.is_dir():
        settings = ModelSettings(name="FacebookAI/roberta-base")
        config = encoder.read_model_config(settings, ("a", "b"))
        torch.manual_seed(0)
        AutoModel.from_config(config).save_pretrained(folder)
        own = encoder_files.locate_encoder(ModelSettings(name=encoder_files.EMBEDDED)).folder
        encoder.load_tokenizer(own, "minilm").save_pretrained(folder)
    return str(folder)


if __name__ == "__main__":
    main()
