"""Prediction speed beside what people use, with the same classifier and the same texts.

    pip install onnx onnxruntime sentence-transformers 'textlora[openvino]'
    python benchmarks/predict_vs_peers.py --data AG_NEWS_FOLDER --mpnet FOLDER [--case NAME]
        [--texts N] [--contender NAME] [--out FILE]

Each case trains a classifier briefly (RoBERTa-base has random weights: right for speed, not for
labels) and writes it as a plain transformers model for the peers. Every contender then labels the
same test texts, tokenizing included, in a process of its own, in turns; medians of the rounds.
Labels are compared with those of the float32 pipeline. Of more than 1,900 texts the float32 peers
label the first 1,900, chosen by chance as all are, and only those at least half as fast as the
fastest peer are asked again in later rounds. With more texts than the test split has, they are
repeated, each time without one of their words. Writes results/predict_vs_peers.json.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from needed import require

OUT = Path(__file__).parent / "results" / "predict_vs_peers.json"
CASES = {"minilm": 768, "mpnet-base": 192, "roberta-base": 192}  # texts
TEST_TEXTS = 7_600  # of the split
SLOW_TEXTS = 1_900  # for those whose rate does not depend on how many, at minutes a thousand
DOCUMENTED_TEXTS = 48  # at one text a batch; its rate does not depend on how many
OURS = ("torch", "openvino", "openvino-int8")
FILE = "openvino-int8, file to file"
REFERENCE = "pipeline, sorted, batches of 32, fp32"
PEERS = (
    "pipeline as documented",
    REFERENCE,
    "pipeline, sorted, batches of 32, bf16",
    "PEFT not merged, sorted, batches of 32, fp32",
    "PEFT not merged, sorted, batches of 32, bf16",
    "ONNX Runtime fp32, sorted, batches of 32",
    "ONNX Runtime dynamic int8, sorted, batches of 32",
    "OpenVINO bf16, sorted, batches of 32",
    "OpenVINO bf16, sorted, batches of 4,096 tokens",
    "OpenVINO int8 (NNCF), sorted, batches of 32",
    "OpenVINO int8 (NNCF), sorted, batches of 4,096 tokens",
    "sentence-transformers, embeddings only",
)
SLOW = [name for name in PEERS if "fp32" in name or name.startswith("sentence")]
# What is run on more texts than the test split has.
ON_MANY = (
    "openvino",
    "openvino, file to file",
    "pipeline as documented",
    REFERENCE,
    "OpenVINO bf16, sorted, batches of 4,096 tokens",
)
# What the contenders whose names begin so need beside the package.
MODULES = (
    ("ONNX", "onnx"),
    ("ONNX", "onnxruntime"),
    ("OpenVINO", "openvino"),
    ("openvino", "openvino"),
    ("OpenVINO int8", "nncf"),
    ("openvino-int8", "nncf"),
    ("sentence", "sentence_transformers"),
)
INSTALL = "onnx onnxruntime sentence-transformers 'textlora[openvino]'"
Answer = Callable[[list[str]], Any]


def main() -> None:
    """Run the cases asked for and keep the results of the others."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="a folder such as ag_news")
    parser.add_argument("--mpnet", help="folder of MPNet-base; its case is left out without")
    parser.add_argument("--case", action="append", choices=list(CASES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--texts", type=int, help="others than the usual number, kept apart")
    parser.add_argument("--train-rows", type=int, help="others than the usual number")
    parser.add_argument(
        "--contender", action="append", choices=[*OURS, FILE, *PEERS],
        help="all, if none is named; what labels are compared with always runs",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(work(json.loads(options.worker))))
        return
    asked = {REFERENCE, *(options.contender or [*OURS, FILE, *PEERS])}
    require(INSTALL, *(m for start, m in MODULES if any(name.startswith(start) for name in asked)))
    from textlora.system.runtime import describe_environment

    found = json.loads(options.out.read_text("utf-8")) if options.out.is_file() else {}
    for case in options.case or CASES:
        if case == "mpnet-base" and not options.mpnet:
            print(f"{case}: left out, needs --mpnet")
            continue
        with tempfile.TemporaryDirectory() as scratch:
            count = options.texts or CASES[case]
            job = prepare(case, count, options, Path(scratch))
            name = f"{case}, {count:,} texts" if options.texts else case
            found[name] = race(case, job, options.rounds, asked)
        found[name] |= {
            "command": f"python benchmarks/predict_vs_peers.py --data <ag_news> --mpnet <folder> "
            f"--case {case} --rounds {options.rounds}"
            + (f" --texts {options.texts}" if options.texts else ""),
            "texts": f"{count} of the test split, chosen by chance"
            if count <= TEST_TEXTS
            else f"{count}: the test split, and copies of it that each lack a word",
            "environment": asdict(describe_environment()),
        }
        options.out.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
        print(json.dumps(found[name]["ratios"], indent=2), flush=True)


def prepare(case: str, count: int, options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """A classifier as a run folder and as a plain model, and the texts."""
    from textlora.data.labelled_texts import load_labelled_texts
    from textlora.model.adapters import merge_adapter
    from textlora.model.encoder import load_tokenizer
    from textlora.runs.loaded_run import load_run
    from textlora.runs.run_folder import ADAPTER
    from textlora.settings import load_recipe
    from textlora.system.progress import Reporter
    from textlora.training.pipeline import fit_run

    encoder = {"minilm": "embedded:minilm", "mpnet-base": options.mpnet}.get(case)
    rows = 2_000
    if encoder is None:
        encoder, rows = save_random_roberta(scratch / "encoder"), 700
    rows = options.train_rows or rows
    recipe = load_recipe(
        "quickstart",
        ["training.epochs=1", f"data.max_train_rows={rows}"],
        data__source=options.data,
        model__name=encoder,
    )
    texts = load_labelled_texts(recipe.data)
    run = scratch / "run"
    fit_run(recipe, texts, run, resume="never", report=Reporter(quiet=True))
    loaded = load_run(run)
    # The run's own may be a light one; the peers read that of transformers.
    load_tokenizer(run / ADAPTER, "the run").save_pretrained(scratch / "plain")
    merge_adapter(loaded.model).save_pretrained(scratch / "plain")
    assert texts.test is not None
    return {
        "run": str(run),
        "encoder": str(encoder),
        "plain": str(scratch / "plain"),
        "scratch": str(scratch),
        "texts": choose_texts(texts.test.texts, count),
        "calibration": list(texts.validation.texts[:300]),
    }


def choose_texts(texts: Sequence[str], count: int) -> list[str]:
    """Some of them by chance, or, of more than there are, all of them and copies less one word."""
    random = np.random.default_rng(0)
    if count <= len(texts):
        return [texts[i] for i in random.choice(len(texts), count, replace=False)]
    chosen = list(texts)
    while len(chosen) < count:
        words = texts[len(chosen) % len(texts)].split()
        del words[random.integers(len(words))]
        chosen.append(" ".join(words) or texts[len(chosen) % len(texts)])
    return chosen


def save_random_roberta(folder: Path) -> str:
    """RoBERTa-base with random weights; MiniLM's tokenizer serves: its ids are fewer."""
    import torch
    from transformers import RobertaConfig, RobertaModel

    from textlora.model import encoder, encoder_files
    from textlora.settings import ModelSettings

    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=50_265, max_position_embeddings=514, type_vocab_size=1, pad_token_id=0
    )
    RobertaModel(config).save_pretrained(folder)
    own = encoder_files.locate_encoder(ModelSettings(name=encoder_files.EMBEDDED)).folder
    encoder.load_tokenizer(own, "minilm").save_pretrained(folder)
    return str(folder)


def race(case: str, job: dict[str, Any], rounds: int, asked: set[str]) -> dict[str, Any]:
    """All contenders in turns: rates, flips, ratios."""
    names = [*OURS, FILE, *PEERS]
    if case != "minilm":
        names.remove("sentence-transformers, embeddings only")
    if len(job["texts"]) > TEST_TEXTS:
        names = list(ON_MANY)
    names = [name for name in names if name in asked]
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for number in range(rounds):
        firsts = {name: found[0].get("texts_per_s", 0.0) for name, found in runs.items() if found}
        fastest = max((firsts[name] for name in firsts if name in PEERS), default=0.0)
        for name in names:
            if name in PEERS and firsts.get(name, fastest) < fastest / 2:
                continue
            result = start({"contender": name, **job})
            runs[name].append(result)
            rate = result.get("texts_per_s")
            shown = f"{rate:8.2f} texts/s" if rate else result["failed"]
            print(f"{case}  round {number + 1}  {shown}  {name}", flush=True)
    expected = runs[REFERENCE][0]["labels"]
    table: dict[str, Any] = {}
    for name, results in runs.items():
        if "failed" in results[0]:
            table[name] = {"failed": results[0]["failed"]}
            continue
        labels = results[0]["labels"]
        same = [one == two for one, two in zip(labels, expected, strict=False)]
        table[name] = {
            "texts_per_s": statistics.median(r["texts_per_s"] for r in results),
            "rounds": [r["texts_per_s"] for r in results],
            "flips": 1 - sum(same) / len(same) if same else None,
        }
    return {"contenders": table, "ratios": compare(table)}


def compare(table: dict[str, Any]) -> dict[str, float]:
    """What the targets are about."""
    rate = {name: row["texts_per_s"] for name, row in table.items() if "texts_per_s" in row}

    def best(*starts: str) -> float | None:
        return max((value for name, value in rate.items() if name.startswith(starts)), default=None)

    fastest = max((rate[name] for name in OURS if name in rate), default=None)
    documented, tuned = rate.get("pipeline as documented"), rate.get(REFERENCE)
    bf16, torch = best("OpenVINO bf16, "), rate.get("torch")
    pairs = {
        "our fastest / pipeline as documented": (fastest, documented),
        "our fastest / tuned fp32 pipeline": (fastest, tuned),
        "our openvino / OpenVINO bf16 by hand": (rate.get("openvino"), bf16),
        "our torch / pipeline as documented": (torch, documented),
        "our torch / tuned fp32 pipeline": (torch, tuned),
        "our torch / best pipeline or PEFT": (torch, best("pipeline", "PEFT")),
        "our torch / OpenVINO bf16 by hand": (torch, bf16),
        "our openvino-int8 / OpenVINO int8 by hand": (
            rate.get("openvino-int8"), best("OpenVINO int8")
        ),
    }  # fmt: skip
    for backend in OURS:
        if (file := rate.get(f"{backend}, file to file")) is not None:
            pairs["file to file / texts in memory"] = (file, rate.get(backend))
    return {name: ours / theirs for name, (ours, theirs) in pairs.items() if ours and theirs}


def start(job: dict[str, Any]) -> dict[str, Any]:
    """One contender in a fresh process."""
    # The texts are longer than what the system takes as one argument.
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as stream:
        json.dump(job, stream)
        stream.flush()
        done = subprocess.run(
            [sys.executable, __file__, "--data", "-", "--worker", json.dumps(stream.name)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    if done.returncode:
        return {"failed": (done.stderr.strip() or "no message").splitlines()[-1][:300]}
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def work(path: str) -> dict[str, Any]:
    """Load, warm up, label the texts, count."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    job = json.loads(Path(path).read_text("utf-8"))
    name, texts = job["contender"], job["texts"]
    if name == "pipeline as documented":
        texts = texts[:DOCUMENTED_TEXTS]
    if name in SLOW:
        texts = texts[:SLOW_TEXTS]
    if name.endswith("file to file"):
        return label_file(job)
    if name in OURS:
        from textlora.prediction.predictor import Predictor

        predictor = Predictor.load(job["run"], name)
        answer: Answer = lambda some: predictor.predict_proba(some).values.argmax(axis=1)  # noqa: E731
    elif name.startswith("pipeline"):
        answer = open_pipeline(job, name)
    elif name.startswith("sentence"):
        answer = open_sentence_transformer(job)
    else:
        answer = open_sorted(job, name)
    answer(texts[:32])
    begin = time.perf_counter()
    labels = answer(texts)
    seconds = time.perf_counter() - begin
    return {"texts_per_s": len(texts) / seconds, "labels": [int(label) for label in labels]}


def label_file(job: dict[str, Any]) -> dict[str, Any]:
    """CSV to CSV."""
    import csv

    from textlora.data.tables import read_rows
    from textlora.prediction.file_prediction import predict_files
    from textlora.prediction.predictor import Predictor

    source, target = Path(job["scratch"]) / "in.csv", Path(job["scratch"]) / "out.csv"
    with source.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([["text"], *([text] for text in job["texts"])])
    predictor = Predictor.load(job["run"], job["contender"].partition(",")[0])
    predictor.predict_proba(job["texts"][:32])
    begin = time.perf_counter()
    predict_files(predictor, [source], target)
    seconds = time.perf_counter() - begin
    labels = [int(row.values["Label"]) for row in read_rows(target)]
    return {"texts_per_s": len(labels) / seconds, "labels": labels}


def open_pipeline(job: dict[str, Any], name: str) -> Answer:
    """Transformers' pipeline, as its documentation shows it, or tuned."""
    import torch
    from transformers import pipeline

    dtype = torch.bfloat16 if name.endswith("bf16") else torch.float32
    classify = pipeline("text-classification", model=job["plain"], device="cpu", dtype=dtype)
    numbers = classify.model.config.label2id

    def answer(texts: list[str]) -> list[int]:
        if name == "pipeline as documented":
            return [numbers[found["label"]] for found in classify(texts)]
        order = np.argsort([-len(text) for text in texts], kind="stable")
        found = classify([texts[i] for i in order], batch_size=32, truncation=True)
        labels = np.empty(len(texts), int)
        labels[order] = [numbers[item["label"]] for item in found]
        return list(labels)

    return answer


def open_sentence_transformer(job: dict[str, Any]) -> Answer:
    """Embeddings of the encoder; a head would come on top. Its labels count as none."""
    from sentence_transformers import SentenceTransformer

    from textlora.model import encoder_files
    from textlora.settings import ModelSettings

    folder = encoder_files.locate_encoder(ModelSettings(name=job["encoder"])).folder
    model = SentenceTransformer(str(folder), device="cpu")

    def answer(texts: list[str]) -> list[int]:
        model.encode(texts, batch_size=32, show_progress_bar=False)
        return []

    return answer


def open_sorted(job: dict[str, Any], name: str) -> Answer:
    """A model by hand: tokenized and sorted by length, batches of 32 or of 4,096 tokens."""
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(job["plain"])
    if name.startswith("PEFT"):
        compute = _open_peft(job, name)
    else:
        opener = _open_onnx if name.startswith("ONNX") else _open_openvino
        compute = opener(job, name, tokenizer)

    def answer(texts: list[str]) -> list[int]:
        encoded = tokenizer(texts, truncation=True, max_length=256)["input_ids"]
        order = np.argsort([-len(ids) for ids in encoded], kind="stable")
        labels = np.empty(len(texts), int)
        start = 0
        while start < len(order):
            count = 32
            if name.endswith("tokens"):
                count = max(1, 4_096 // len(encoded[order[start]]))
            group = order[start : start + count]
            batch = tokenizer.pad({"input_ids": [encoded[i] for i in group]}, return_tensors="np")
            with torch.inference_mode():
                labels[group] = compute(batch["input_ids"], batch["attention_mask"]).argmax(axis=1)
            start += count
        return list(labels)

    return answer


def _open_peft(job: dict[str, Any], name: str) -> Callable[..., Any]:
    import torch

    from textlora.runs.loaded_run import load_run

    model: Any = load_run(Path(job["run"])).model.eval()
    if name.endswith("bf16"):
        model = model.to(torch.bfloat16)

    def compute(ids: Any, mask: Any) -> Any:
        tensors = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        return model(**tensors).logits.float().numpy()

    return compute


def _open_onnx(job: dict[str, Any], name: str, tokenizer: Any) -> Callable[..., Any]:
    import onnxruntime
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic

    path = Path(job["scratch"]) / "model.onnx"
    if not path.is_file():
        axes = {0: "texts", 1: "tokens"}
        torch.onnx.export(
            _load_plain(job), _example(tokenizer, job), path, dynamo=False, opset_version=17,
            input_names=["ids", "mask"], output_names=["logits"],
            dynamic_axes={"ids": axes, "mask": axes, "logits": {0: "texts"}},
        )  # fmt: skip
    if "int8" in name:
        small = path.with_name("model-int8.onnx")
        if not small.is_file():
            quantize_dynamic(path, small, weight_type=QuantType.QInt8)
        path = small
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    return lambda ids, mask: session.run(None, {"ids": ids, "mask": mask})[0]


def _open_openvino(job: dict[str, Any], name: str, tokenizer: Any) -> Callable[..., Any]:
    import openvino

    path = Path(job["scratch"]) / ("int8.xml" if "int8" in name else "plain.xml")
    core = openvino.Core()
    if not path.is_file():
        model = openvino.convert_model(_load_plain(job), example_input=_example(tokenizer, job))
        if "int8" in name:
            import nncf

            def batch(text: str) -> list[Any]:
                found = tokenizer([text], truncation=True, max_length=256, return_tensors="np")
                return [found["input_ids"], found["attention_mask"]]

            model = nncf.quantize(
                model, nncf.Dataset(job["calibration"], batch),
                model_type=nncf.ModelType.TRANSFORMER,
            )  # fmt: skip
        openvino.save_model(model, path)
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "bf16"}
    compiled = core.compile_model(core.read_model(path), "CPU", options)
    return lambda ids, mask: compiled([ids, mask])[0]


def _load_plain(job: dict[str, Any]) -> Any:
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(job["plain"]).eval()

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: Any, mask: Any) -> Any:
            return self.model(input_ids=ids, attention_mask=mask).logits

    return Logits()


def _example(tokenizer: Any, job: dict[str, Any]) -> Any:
    found = tokenizer(job["texts"][:2], padding=True, return_tensors="pt")
    return found["input_ids"], found["attention_mask"]


if __name__ == "__main__":
    main()
