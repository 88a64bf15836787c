"""What is left of a training run that is killed again and again, and what it ends with.

    python benchmarks/kill_training.py [--kills 200] [--peer-kills 60] [--out FILE]

A run trains a small part of the embedded sample with checkpoints every two steps, in a process of
its own. It is killed with SIGKILL, half of the times at a random moment, half of the times while a
checkpoint is written, and started again until it ends; then the next run begins. After each kill
every checkpoint is read. A run that ends must have the bits of one that was never killed.
With --peer-kills the same is done to the Hugging Face Trainer. Writes
benchmarks/results/kill_training.json.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

OUT = Path(__file__).parent / "results" / "kill_training.json"
TEXTS, BATCH, EVERY, EPOCHS = 96, 8, 2, 3


def train_ours(run: Path, model: str) -> None:
    """Train in `run`, or go on there."""
    from textlora.data.labelled_texts import load_labelled_texts
    from textlora.settings import load_recipe
    from textlora.system.progress import Reporter
    from textlora.training.pipeline import fit_run

    recipe = load_recipe("quickstart", [
        f"data.max_train_rows={TEXTS}", "data.validation_share=0.2", f"training.epochs={EPOCHS}",
        f"training.batch_size={BATCH}", f"training.evaluate_every={EVERY}", "training.patience=20",
        'adapter.targets={"last 1" = ["query", "value"]}',
    ], model__name=model)  # fmt: skip
    fit_run(recipe, load_labelled_texts(recipe.data), run, resume="auto", report=Reporter())


def train_peer(run: Path, model: str) -> None:
    """The same by the Trainer, as its documentation resumes."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
        set_seed,
    )
    from transformers.trainer_utils import get_last_checkpoint

    from textlora.data.labelled_texts import load_labelled_texts
    from textlora.model import encoder_files
    from textlora.settings import DataSettings, ModelSettings

    folder = encoder_files.locate_encoder(ModelSettings(name=model)).folder
    part = load_labelled_texts(DataSettings(source="embedded:headlines")).train
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = [
        {**tokenizer(text, truncation=True), "labels": int(label)}
        for text, label in zip(part.texts[:TEXTS], part.label_ids[:TEXTS], strict=True)
    ]
    set_seed(42)
    base = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=4)
    config = LoraConfig(task_type="SEQ_CLS", r=8, target_modules=["query", "value"])
    trainer = Trainer(
        model=get_peft_model(base, config),
        args=TrainingArguments(
            output_dir=str(run), use_cpu=True, per_device_train_batch_size=BATCH,
            num_train_epochs=EPOCHS, learning_rate=1e-3, save_strategy="steps", save_steps=EVERY,
            save_total_limit=2, report_to="none", disable_tqdm=True, logging_strategy="no",
            dataloader_pin_memory=False,
        ),
        train_dataset=rows, data_collator=DataCollatorWithPadding(tokenizer),
    )  # fmt: skip
    last = get_last_checkpoint(str(run)) if run.is_dir() else None
    print(f"continuing after step {Path(last).name.split('-')[1] if last else 0}", flush=True)
    trainer.train(resume_from_checkpoint=last)
    torch.save({}, run / "done")


def find_whole_steps(run: Path) -> tuple[list[int], int]:
    """Steps of the checkpoints that are whole by their manifests, and how many are not."""
    from textlora.system.files import MANIFEST, find_damage

    whole, torn = [], 0
    for folder in sorted((run / "checkpoints").glob("step-*")):
        try:
            damage = find_damage(folder, json.loads((folder / MANIFEST).read_text("utf-8")))
        except (OSError, ValueError) as error:
            damage = repr(error)
        if damage is None:
            whole.append(int(folder.name[5:]))
        torn += damage is not None
    return whole, torn


def is_classifier_broken(run: Path) -> bool:
    """Whether something seems to be a classifier and does not load."""
    from textlora.errors import ModelError
    from textlora.runs.loaded_run import load_run

    try:
        load_run(run)
    except ModelError as error:
        return "not finished" not in str(error) and "not a run folder" not in str(error)
    return False


def hash_result(run: Path) -> str:
    """Of a finished run, but for the time it took: adapter, newest checkpoint, history."""
    digest = hashlib.sha256((run / "history.jsonl").read_bytes())
    newest = max((run / "checkpoints").glob("step-*"))
    about = json.loads((newest / "state.json").read_text("utf-8"))
    del about["effort"]
    digest.update(json.dumps(about, sort_keys=True).encode())
    for folder in (run / "adapter", newest):
        for path in sorted(folder.iterdir()):
            # The manifest has the SHA-256 of state.json, with the time in it.
            if folder != newest or path.name not in ("state.json", "manifest.json"):
                digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def start(train: Callable[[Path], None], run: Path, log: Path) -> int:
    """A process that trains; returns its id. Forked: libraries are imported once."""
    child = os.fork()
    if child:
        return child
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    code = 1
    try:
        train(run)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def is_saving(run: Path) -> bool:
    """Whether a checkpoint, ours or the Trainer's, or a classifier is being written."""
    now = time.time()
    return (
        any((run / "checkpoints").glob(".step-*"))
        or any(run.glob(".*.partial"))
        or any(now - path.stat().st_ctime < 0.2 for path in run.glob("checkpoint-*"))
    )


def wait_and_kill(child: int, run: Path, seconds: float, aimed: bool) -> int | None:
    """Kill after so many seconds, or when then a save begins. The exit code if it ended before."""
    begin = time.monotonic()
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        try:
            due = time.monotonic() - begin > seconds and (not aimed or is_saving(run))
        except OSError:
            due = True  # a folder was renamed under our eyes
        if due:
            time.sleep(random.uniform(0, 0.02) if aimed else 0)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.0005)


def read_continued(log: Path) -> int:
    """After which step the process went on; 0 if it began anew, -1 if it did not come so far."""
    text = log.read_text("utf-8", "replace")
    if "continuing after step " in text:
        return int(text.split("continuing after step ")[1].split()[0])
    # At the start of a line: what the plan says has the word, too.
    return 0 if "\nstep " in f"\n{text}" else -1


def kill_ours(kills: int, scratch: Path, model: str) -> dict[str, Any]:
    """Kill our training `kills` times."""
    train = partial(train_ours, model=model)
    log = scratch / "log"
    begin = time.monotonic()
    if wait_and_kill(start(train, scratch / "whole", log), scratch, 1e9, False) != 0:
        sys.exit(log.read_text("utf-8", "replace"))
    duration, expected = time.monotonic() - begin, hash_result(scratch / "whole")
    counts = dict.fromkeys(
        ("kills", "kills while saving", "torn checkpoints", "broken classifiers",
         "times steps were lost", "failed starts", "finished runs", "other bits"), 0
    )  # fmt: skip
    run, newest = scratch / "run", 0
    while counts["kills"] < kills or run.exists():
        enough = counts["kills"] >= kills
        aimed = random.random() < 0.5
        wait = 1e9 if enough else random.uniform(0, duration)
        code = wait_and_kill(start(train, run, log), run, wait, aimed)
        continued = read_continued(log)
        if continued >= 0:
            counts["times steps were lost"] += continued != newest
        if code is None:
            counts["kills"] += 1
            counts["kills while saving"] += is_saving(run)
            whole, torn = find_whole_steps(run)
            newest = max(whole, default=0)
            counts["torn checkpoints"] += torn
            counts["broken classifiers"] += run.exists() and is_classifier_broken(run)
            print(f"kill {counts['kills']}: step {newest}, {torn} torn", flush=True)
            continue
        if code:
            counts["failed starts"] += 1
            print(log.read_text("utf-8", "replace"))
        else:
            counts["finished runs"] += 1
            counts["other bits"] += hash_result(run) != expected
        shutil.rmtree(run)
        newest = 0
    return {**counts, "seconds of a run": round(duration, 2)}


def kill_peer(kills: int, scratch: Path, model: str) -> dict[str, Any]:
    """Kill the Trainer `kills` times; a checkpoint that it cannot read is deleted by hand."""
    train = partial(train_peer, model=model)
    log, run = scratch / "log", scratch / "run"
    begin = time.monotonic()
    if wait_and_kill(start(train, run, log), run, 1e9, False) != 0:
        sys.exit(log.read_text("utf-8", "replace"))
    duration = time.monotonic() - begin
    expected = hashlib.sha256(read_trainer(run)).hexdigest()
    shutil.rmtree(run)
    counts = dict.fromkeys(("kills", "failed starts", "finished runs", "other bits"), 0)
    while counts["kills"] < kills or run.exists():
        aimed = random.random() < 0.5
        wait = 1e9 if counts["kills"] >= kills else random.uniform(0, duration)
        code = wait_and_kill(start(train, run, log), run, wait, aimed)
        if code is None:
            counts["kills"] += 1
            print(f"kill {counts['kills']}", flush=True)
        elif code:
            counts["failed starts"] += 1
            print("newest checkpoint cannot be read:", log.read_text("utf-8").splitlines()[-1])
            newest = max(run.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
            shutil.rmtree(newest)
        else:
            counts["finished runs"] += 1
            counts["other bits"] += hashlib.sha256(read_trainer(run)).hexdigest() != expected
            shutil.rmtree(run)
    return {**counts, "seconds of a run": round(duration, 2)}


def read_trainer(run: Path) -> bytes:
    """The adapter of the Trainer's last checkpoint."""
    newest = max(run.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    return (newest / "adapter_model.safetensors").read_bytes()


def main() -> None:
    """Kill and count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--peer-kills", type=int, default=0, help="of the Trainer")
    parser.add_argument("--model", default="embedded:minilm")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    random.seed(options.seed)
    # Imported before the first fork; no thread is started and nothing computed here.
    import peft  # noqa: F401
    import sklearn.model_selection  # noqa: F401
    import transformers.models.bert.modeling_bert

    import textlora.budgeting.layer_timing
    import textlora.training.pipeline  # noqa: F401

    transformers.AutoModelForSequenceClassification  # noqa: B018 - loads what is loaded lazily
    from textlora.system.runtime import describe_environment

    found = {}
    contenders = {
        "textlora": (kill_ours, options.kills),
        "Trainer": (kill_peer, options.peer_kills),
    }
    for name, (kill, kills) in contenders.items():
        if not kills:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            os.environ["TEXTLORA_CACHE"] = scratch
            found[name] = kill(kills, Path(scratch), options.model)
        print(name, found[name], flush=True)
    values = {
        "found": found,
        "command": f"python benchmarks/kill_training.py --kills {options.kills} "
        f"--peer-kills {options.peer_kills}",
        "environment": asdict(describe_environment()),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(values, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
