"""Training speed beside the Hugging Face Trainer with PEFT, tuned.

    python benchmarks/train_vs_peers.py [--data FOLDER] [--mpnet FOLDER] [--case NAME] [--rounds 3]
        [--texts 128] [--peer NAME] [--out FILE]

Every contender trains the same texts with the same adapter, batch size and adapter dropout, each in
a fresh process, one after the other, round by round. A first epoch warms up, the second counts. The
first round runs every variant of the Trainer; later rounds run those within a fifth of the best.
"The tuned peer" is the variant with the best median; --peer leaves the others out. RoBERTa-base has
random weights: right for speed. Writes benchmarks/results/train_vs_peers.json.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results"
BATCH, RANK, DROPOUT = 16, 8, 0.05
REFERENCE = {"0": ["query", "key"], "5": ["query"], "10": ["query"]}
ALL = {"all": ["query", "value"]}


@dataclass(frozen=True)
class Peer:
    """One way to set the Trainer up; `calm` switches the encoder's own dropout off, as we do."""

    precision: str  # fp32, medium, autocast, bf16
    attention: str = "sdpa"
    calm: bool = False
    pad_to_512: bool = False


PEERS = {
    "reference system (pad to 512, fp32)": Peer("fp32", pad_to_512=True),
    "Trainer fp32": Peer("fp32"),
    "Trainer fp32, matmul precision medium": Peer("medium"),
    "Trainer bf16 autocast": Peer("autocast"),
    "Trainer bf16 autocast, eager attention": Peer("autocast", "eager"),
    "Trainer bf16 base": Peer("bf16"),
    "Trainer bf16 base, eager attention": Peer("bf16", "eager"),
    "Trainer bf16 base, eager attention, no encoder dropout": Peer("bf16", "eager", calm=True),
}
OURS = "textlora"
CASES = {
    "roberta-base, reference adapter": ("roberta", REFERENCE),
    "roberta-base, query and value of all layers": ("roberta", ALL),
    "mpnet-base, reference adapter": ("mpnet", REFERENCE),
    "mpnet-base, query and value of all layers": ("mpnet", ALL),
    "minilm, query and value of all layers": ("embedded:minilm", ALL),
}


def main() -> None:
    """Run the cases asked for and keep the results of the others."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="embedded:headlines", help="a folder such as ag_news")
    parser.add_argument("--mpnet", help="folder of MPNet-base; its cases are left out without")
    parser.add_argument("--case", action="append", choices=list(CASES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--texts", type=int, default=128)
    parser.add_argument(
        "--peer", action="append", choices=list(PEERS), help="all, if none is named"
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "train_vs_peers.json")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(work(json.loads(options.worker))))
        return
    from textlora.system.runtime import describe_environment

    texts = choose_texts(options.data, options.texts)
    found = json.loads(options.out.read_text("utf-8")) if options.out.is_file() else {}
    with tempfile.TemporaryDirectory() as scratch:
        folders = {"embedded:minilm": "embedded:minilm", "mpnet": options.mpnet}
        for name in options.case or CASES:
            model, targets = CASES[name]
            if model == "roberta" and model not in folders:
                folders[model] = save_random_roberta(Path(scratch) / "roberta")
            if not folders[model]:
                print(f"{name}: left out, needs --mpnet")
                continue
            job = {"model": folders[model], "targets": targets, "texts": texts}
            found[name] = race(name, job, options.rounds, options.peer or list(PEERS))
            found[name] |= {
                "command": "python benchmarks/train_vs_peers.py --data <texts> --mpnet <folder> "
                f"--case '{name}' --rounds {options.rounds} --texts {options.texts}",
                "data": Path(options.data).name,
                "environment": asdict(describe_environment()),
            }  # fmt: skip
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
            print(summarize(name, found[name]))


def race(case: str, job: dict[str, Any], rounds: int, asked: list[str]) -> dict[str, Any]:
    """Run all contenders, alternating; medians, spreads and ratios."""
    # MPNet has plain attention only: its variants with torch's kernel would be run twice.
    doubled = {n for n in PEERS if "mpnet" in case and f"{n}, eager attention" in PEERS}
    peers = [name for name in PEERS if name in asked and name not in doubled]
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in (OURS, *peers)}
    rates = []
    for number in range(rounds):
        rates.append(start({"contender": "matmul"})["flops"])
        firsts = [run[0]["texts_per_s"] for name, run in runs.items() if run and name != OURS]
        for name in runs:
            slow = number and name != OURS and runs[name][0]["texts_per_s"] < 0.8 * max(firsts)
            if slow:
                continue
            result = start({"contender": name, **job})
            runs[name].append(result)
            print(f"{case}  round {number + 1}  {result['texts_per_s']:7.2f} texts/s  "
                  f"{result['peak_rss_gb']:.2f} GB  {name}", flush=True)  # fmt: skip
    table = {
        name: {
            "texts_per_s": statistics.median(run["texts_per_s"] for run in results),
            "rounds": [run["texts_per_s"] for run in results],
            "peak_rss_gb": statistics.median(run["peak_rss_gb"] for run in results),
        }
        for name, results in runs.items()
    }
    own, matmul = table[OURS], statistics.median(rates)

    def find_best(names: list[str]) -> str | None:
        return max(names, key=lambda name: table[name]["texts_per_s"], default=None)

    def compare(name: str | None, what: str = "texts_per_s") -> float | None:
        return None if name is None else own[what] / table[name][what]

    trainers = [name for name in peers if not PEERS[name].pad_to_512]
    tuned = find_best(trainers)
    as_documented = find_best([name for name in trainers if not PEERS[name].calm])
    padded = find_best([name for name in peers if PEERS[name].pad_to_512])
    work_per_text = runs[OURS][0]["flops_per_text"]
    return {
        "contenders": table,
        "tuned_peer": tuned,
        "ratio_to_tuned_peer": compare(tuned),
        "tuned_peer_with_encoder_dropout": as_documented,
        "ratio_to_it": compare(as_documented),
        "ratio_to_reference_system": compare(padded),
        "memory_to_tuned_peer": compare(tuned, "peak_rss_gb"),
        "bf16_matmul_gflops": matmul / 1e9,
        "share_of_matmul_rate": own["texts_per_s"] * work_per_text / matmul,
    }


def summarize(case: str, result: dict[str, Any]) -> str:
    """The ratios, in words."""
    contenders, own = result["contenders"], result["contenders"][OURS]["texts_per_s"]
    lines = [f"{case}: {own:.1f} texts/s, {result['share_of_matmul_rate']:.2f} of bf16 matmul rate"]
    for name, contender in contenders.items():
        if name != OURS:
            lines.append(f"  {own / contender['texts_per_s']:6.2f}x {name}")
    if result["tuned_peer"]:
        lines.append(f"  {result['memory_to_tuned_peer']:6.2f}x memory of {result['tuned_peer']}")
    return "\n".join(lines)


def start(job: dict[str, Any]) -> dict[str, Any]:
    """One contender in a process of its own."""
    process = subprocess.run(
        [sys.executable, __file__, "--worker", json.dumps(job)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if process.returncode:
        sys.exit(process.stderr)
    return json.loads(process.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def work(job: dict[str, Any]) -> dict[str, Any]:
    """What a contender's process does."""
    if job["contender"] == "matmul":
        return {"flops": measure_matmul()}
    result = train_ours(job) if job["contender"] == OURS else train_peer(job)
    result["texts_per_s"] = len(job["texts"]) / result.pop("seconds")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux
    return {**result, "peak_rss_gb": peak * 1024 / 1e9}


def measure_matmul(size: int = 2048, repeats: int = 30) -> float:
    """Floating-point operations per second of a large bfloat16 matrix product here."""
    import torch

    left, right = torch.randn(2, size, size, dtype=torch.bfloat16)
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        left @ right
        seconds.append(time.perf_counter() - begin)
    return 2 * size**3 / statistics.median(seconds)


def choose_texts(data: str, count: int) -> list[str]:
    """A seeded sample of the training texts."""
    from textlora.data.labelled_texts import load_labelled_texts
    from textlora.settings import DataSettings

    texts = load_labelled_texts(DataSettings(source=data)).train.texts
    chosen = np.random.default_rng(0).permutation(len(texts))[:count]
    return [texts[index] for index in chosen]


def save_random_roberta(folder: Path) -> str:
    """RoBERTa-base with random weights, and MiniLM's tokenizer: words are cut about as finely."""
    import torch
    from transformers import AutoModel

    from textlora.model import encoder, encoder_files
    from textlora.settings import ModelSettings

    settings = ModelSettings(name="FacebookAI/roberta-base")
    config = encoder.read_model_config(settings, ("a", "b"))
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)
    own = encoder_files.locate_encoder(ModelSettings(name=encoder_files.EMBEDDED)).folder
    encoder.load_tokenizer(own, "minilm").save_pretrained(folder)
    return str(folder)


def train_ours(job: dict[str, Any]) -> dict[str, Any]:
    """Two epochs of the training loop's own step; the seconds of the second."""
    from textlora.data.examples import Examples
    from textlora.data.labelled_texts import make_labelled_texts
    from textlora.model.adapters import set_dropout
    from textlora.model.batching import compute_epoch_batches
    from textlora.settings import load_recipe, parse_recipe
    from textlora.training.loop import take_step
    from textlora.training.training_setup import prepare_training

    count = len(job["texts"])
    values = load_recipe("quickstart").model_dump(mode="json")
    values["data"] |= {"source": "memory", "label_names": list("abcd"), "stratified": False,
                       "validation_share": 4.5 / count}  # fmt: skip
    values["model"]["name"] = job["model"]
    values["adapter"] |= {"rank": RANK, "targets": job["targets"]}
    values["training"]["batch_size"] = BATCH
    recipe = parse_recipe(values, "benchmark")
    # Some texts go to validation; as many more come in, so that all of `texts` are trained on.
    texts = make_labelled_texts(job["texts"], ["abcd"[i % 4] for i in range(count)], recipe.data)
    whole = Examples(tuple(job["texts"]), np.arange(count) % 4)
    setup = prepare_training(recipe, replace(texts, train=whole))
    set_dropout(setup.model, DROPOUT, "adapter")
    warm_up, batches = (compute_epoch_batches(setup.train.lengths, BATCH, 0, e) for e in (0, 1))
    for step, batch in enumerate(warm_up):
        take_step(setup, batch, step, 1e-4)
    begin = time.perf_counter()
    for step, batch in enumerate(batches, len(warm_up)):
        take_step(setup, batch, step, 1e-4)
    seconds = time.perf_counter() - begin
    lengths = setup.train.lengths.astype(float)
    per_text = count_operations(setup, lengths) / count
    return {"seconds": seconds, "flops_per_text": per_text}


def count_operations(setup: Any, lengths: Any) -> float:
    """Of the real tokens: forward and backward of all linears and attention, and the adapters.

    The last layer counts in full, though most of it is left out: what is asked is the useful work.
    """
    config = setup.model.config
    layers, width, inner = config.num_hidden_layers, config.hidden_size, config.intermediate_size
    forward = layers * (8 * width**2 + 4 * width * inner) * lengths.sum()
    attention = layers * 4 * width * (lengths**2).sum()
    sides = sum(m.in_features + m.out_features for m in setup.plan.matrices)
    return float(2 * (forward + attention) + 6 * RANK * sides * lengths.sum())


def train_peer(job: dict[str, Any]) -> dict[str, Any]:
    """The same by the Trainer."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )

    from textlora.model import encoder_files
    from textlora.model.adapter_plan import plan_adapter
    from textlora.model.shapes import read_shapes
    from textlora.settings import AdapterSettings, ModelSettings

    peer = PEERS[job["contender"]]
    folder = encoder_files.locate_encoder(ModelSettings(name=job["model"])).folder
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if peer.precision == "medium":
        torch.set_float32_matmul_precision("medium")
    calm = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0} if peer.calm else {}
    model = AutoModelForSequenceClassification.from_pretrained(
        folder,
        num_labels=4,
        dtype=torch.bfloat16 if peer.precision == "bf16" else torch.float32,
        # MPNet has plain attention only.
        **({} if "mpnet" in str(folder) else {"attn_implementation": peer.attention}),
        **calm,
    )
    plan = plan_adapter(read_shapes(model), [], AdapterSettings(rank=RANK, targets=job["targets"]))
    config = LoraConfig(
        task_type="SEQ_CLS", r=RANK, lora_alpha=16, lora_dropout=DROPOUT,
        target_modules=[matrix.name for matrix in plan.matrices],
    )  # fmt: skip
    model = get_peft_model(model, config, autocast_adapter_dtype=peer.precision != "bf16")
    padding = {"padding": "max_length", "max_length": 512} if peer.pad_to_512 else {}
    texts = job["texts"][:BATCH] if peer.pad_to_512 else job["texts"]
    rows = [
        {**tokenizer(text, truncation=True, **padding), "labels": i % 4}
        for i, text in enumerate(texts)
    ]
    with tempfile.TemporaryDirectory() as out:
        common: dict[str, Any] = {
            "output_dir": out, "use_cpu": True, "per_device_train_batch_size": BATCH,
            "learning_rate": 1e-4, "optim": "adamw_torch_fused", "report_to": "none",
            "eval_strategy": "no", "save_strategy": "no", "logging_strategy": "no",
            "disable_tqdm": True, "dataloader_pin_memory": False,
            "bf16": peer.precision == "autocast",
        }  # fmt: skip
        if not peer.pad_to_512:
            common["train_sampling_strategy"] = "group_by_length"
        collator = DataCollatorWithPadding(tokenizer, pad_to_multiple_of=8)
        seconds = 0.0
        for _ in range(1 if peer.pad_to_512 else 2):  # padded, a step takes a minute
            trainer = Trainer(
                model=model, args=TrainingArguments(**common, num_train_epochs=1),
                train_dataset=rows, data_collator=collator,
            )  # fmt: skip
            begin = time.perf_counter()
            trainer.train()
            seconds = time.perf_counter() - begin
    # The padded variant trained fewer texts: as if it had gone on.
    return {"seconds": seconds * len(job["texts"]) / len(texts)}


if __name__ == "__main__":
    main()
