"""Which int8 keeps the labels: smoothing and the products left as they are, on validation texts.

    python benchmarks/int8_variants.py --data AG_NEWS_FOLDER [--model ENCODER] [--rows 4000]
    python benchmarks/int8_variants.py --data AG_NEWS_FOLDER --used --out FILE

Half of the rows train a classifier, 300 of the others calibrate, 300 more tell how far int8 moves
the lead of the best label; the rest is labelled by each variant and by the float32 graph, with and
without the cascade that answers close calls again. Writes benchmarks/results/int8_variants.json.
"""

import argparse
import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from needed import require

from textlora.data.labelled_texts import load_labelled_texts
from textlora.model.adapters import merge_adapter
from textlora.model.batching import TokenizedTexts, arrange_batch, split_by_tokens, tokenize
from textlora.prediction import openvino_backend, openvino_conversion
from textlora.prediction.cascade import find_margin
from textlora.prediction.openvino_backend import OpenVinoBackend, list_arrays, list_products
from textlora.runs.loaded_run import load_run
from textlora.scoring.tasks import SingleLabel
from textlora.settings import load_recipe
from textlora.system.progress import Reporter
from textlora.system.runtime import DtypeName, describe_environment, name_device, name_dtype
from textlora.training.pipeline import fit_run

OUT = Path(__file__).parent / "results" / "int8_variants.json"
# What the backend tries, in this order.
USED: dict[str, tuple[float | None, str]] = {
    "linear layers, smoothing 0.9": (0.9, "attention"),
    "linear layers that do not narrow, smoothing 0.9": (0.9, "attention, narrowing"),
}
# Name: smoothing (None: NNCF's own choice), what stays out of int8.
VARIANTS: dict[str, tuple[float | None, str]] = {
    "all products, NNCF's smoothing": (None, ""),
    "all products, smoothing 0.5": (0.5, ""),
    "all products, smoothing 0.8": (0.8, ""),
    "linear layers, NNCF's smoothing": (None, "attention"),
    "linear layers, smoothing 0.7": (0.7, "attention"),
    "linear layers, smoothing 0.8": (0.8, "attention"),
    "linear layers, smoothing 0.9": (0.9, "attention"),
    "linear layers that do not narrow, NNCF's smoothing": (None, "attention, narrowing"),
    "linear layers that do not narrow, smoothing 0.8": (0.8, "attention, narrowing"),
}


def main() -> None:
    """Train, convert, try each variant."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", default="embedded:minilm")
    parser.add_argument("--rows", type=int, default=4_000)
    parser.add_argument(
        "--held", type=int, default=300, help="texts that calibrate; as many more tell the margin"
    )
    parser.add_argument("--used", action="store_true", help="only what the backend tries")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    require("'textlora[openvino]'", "openvino", "nncf")
    changes = ["training.epochs=1", f"data.max_train_rows={options.rows}",
               "data.validation_share=0.5"]  # fmt: skip
    recipe = load_recipe(
        "quickstart", changes, data__source=options.data, model__name=options.model
    )
    texts = load_labelled_texts(recipe.data)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        fit_run(recipe, texts, run, resume="never", report=Reporter(quiet=True))
        loaded = load_run(run)
    pad_id, length = loaded.tokenizer.pad_token_id, loaded.manifest.max_length
    model = merge_adapter(loaded.model)
    graph = openvino_conversion.convert(model, pad_id, length, len(loaded.tokenizer))
    validation = texts.validation.texts
    calibration = tokenize(loaded.tokenizer, validation[: options.held], length)
    probe = tokenize(loaded.tokenizer, validation[options.held :], length)
    dtype = name_dtype("auto", name_device())
    exact = OpenVinoBackend(graph, "float32", pad_id).compute_logits(probe)
    found = {f"torch.{dtype}": measure(graph, pad_id, probe, exact, dtype, options.held)}
    for name, (smoothing, left) in (USED if options.used else VARIANTS).items():
        quantized = quantize(graph.clone(), calibration, smoothing, left)
        found[name] = measure(quantized, pad_id, probe, exact, dtype, options.held)
        print(name, found[name], flush=True)
    result = {
        "command": f"python benchmarks/int8_variants.py --data <ag_news> --rows {options.rows}"
        + " --used" * options.used,
        "model": Path(options.model).name,
        "margin_texts": options.held,
        "measured_texts": len(probe) - options.held,
        "variants": found,
        "environment": asdict(describe_environment()),
    }
    options.out.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


def quantize(graph: Any, texts: TokenizedTexts, smoothing: float | None, left: str) -> Any:
    """As the backend does, with other choices."""
    nncf = openvino_backend.import_nncf()
    names = [
        name
        for name, shape in list_products(graph)
        if (shape is None and "attention" in left)
        or (shape is not None and shape[0] < shape[1] and "narrowing" in left)
    ]
    groups = split_by_tokens(texts.lengths, np.arange(len(texts)), 1_024)
    batches = [list_arrays(arrange_batch(texts, group), 0, packed=True) for group in groups]
    alphas = None
    if smoothing is not None:
        alphas = nncf.AdvancedSmoothQuantParameters(matmul=smoothing)
    return nncf.quantize(
        graph,
        nncf.Dataset(batches),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(batches),
        ignored_scope=nncf.IgnoredScope(names=names) if names else None,
        advanced_parameters=alphas
        and nncf.AdvancedQuantizationParameters(smooth_quant_alphas=alphas),
    )


def measure(
    graph: Any, pad_id: int, probe: TokenizedTexts, exact: Any, dtype: DtypeName, held: int
) -> dict[str, float]:
    """Flips without and with the cascade, distance of the logits, texts a second (of three)."""
    backend = OpenVinoBackend(graph, dtype, pad_id)
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        logits = backend.compute_logits(probe)
        seconds.append(time.perf_counter() - begin)
    task = SingleLabel()
    seen, known = logits[:held], exact[:held]
    margin = find_margin(task.margin(seen, 1.0), task.margin_shift(seen, known))
    logits, exact = logits[held:], exact[held:]
    again = np.flatnonzero(task.margin(logits, 1.0) < margin)
    flips = logits.argmax(axis=1) != exact.argmax(axis=1)
    left = flips.copy()
    left[again] = False
    return {
        "flips": float(flips.mean()),
        "margin": margin,
        "answered_again": len(again) / len(logits),
        "flips_left": float(left.mean()),
        "rms_of_logits": float(np.sqrt(((logits - exact) ** 2).mean())),
        "texts_per_s": len(probe) / sorted(seconds)[1],
    }


if __name__ == "__main__":
    main()
