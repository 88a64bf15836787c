"""What each part of the engine gains: the same training step with one part taken out at a time.

    python benchmarks/engine_parts.py [--data FOLDER] [--model MODEL] [--rounds 5] [--out FILE]

Query and value of all layers are adapted. All variants run in one process, alternating, on the same
batches; a first round warms up. Before that each variant must give the logits of the engine. Writes
benchmarks/results/engine_parts.json, one entry a model.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from attention_kernels import attend_by_torch
from torch import Tensor

from textlora.data.labelled_texts import load_labelled_texts
from textlora.model import batching, engine
from textlora.model.adapters import set_dropout
from textlora.model.engine import Engine
from textlora.settings import load_recipe
from textlora.system.runtime import describe_environment
from textlora.training.loop import take_step
from textlora.training.training_setup import TrainingSetup, prepare_training

OUT = Path(__file__).parent / "results" / "engine_parts.json"


TOLERANCE = 0.1  # of logits in bfloat16


class WholeLastLayer(Engine):
    """The last layer for every token, then the first of each text."""

    @property
    def num_frozen(self) -> int:
        """All layers, so that `compute_prefix` computes each of them for every token."""
        return int(self.model.config.num_hidden_layers)

    def __call__(self, batch: batching.Batch, prefix: Tensor | None = None) -> Tensor:
        """Logits (texts, labels)."""
        first = self.compute_prefix(batch)[batch.starts][:, None]
        base: Any = self.model.get_base_model()  # type: ignore[operator]
        pooler = getattr(base.base_model, "pooler", None)
        return self.head(first if pooler is None else base.dropout(pooler(first)))


class Padded(Engine):
    """Transformers' and PEFT's own forward methods over padded batches."""

    pad_id = 0

    def __call__(self, batch: batching.Batch, prefix: Tensor | None = None) -> Tensor:
        """Logits (texts, labels)."""
        token_ids, mask = batch.pad(self.pad_id)
        return self.model(input_ids=token_ids, attention_mask=mask).logits


def use_peft_layers(model: Any, pad_id: int) -> Engine:
    """The layers of PEFT themselves, with torch's dropout."""
    with patch.object(engine, "Projection", lambda layer: layer):
        return Engine(model, pad_id)


def pad(model: Any, pad_id: int) -> Engine:
    """Nothing of the engine."""
    found = Padded(model, pad_id)
    found.pad_id = pad_id
    return found


def fuse_attention() -> AbstractContextManager[Any]:
    """Torch's own attention kernel at every length."""
    return patch.object(engine, "attend", attend_by_torch)


# What makes the engine, and what is changed while it runs.
Variant = tuple[Callable[[Any, int], Engine], Callable[[], AbstractContextManager[Any]]]
VARIANTS: dict[str, Variant] = {
    "engine": (Engine, nullcontext),
    "PEFT's own layers": (use_peft_layers, nullcontext),
    "torch's attention kernel": (Engine, fuse_attention),
    "all of the last layer": (WholeLastLayer, nullcontext),
    "padded, transformers' forward": (pad, nullcontext),
}


def make_setups(setup: TrainingSetup) -> dict[str, TrainingSetup]:
    """The same setup with the engine of each variant, whose logits must be those of the engine."""
    pad_id, texts = setup.tokenizer.pad_token_id, np.arange(min(8, len(setup.train)))
    batch = batching.make_batch(setup.train, texts).to(setup.device)
    setups = {
        name: replace(setup, engine=make(setup.model, pad_id))
        for name, (make, _) in VARIANTS.items()
    }
    setup.model.eval()
    with torch.inference_mode():
        expected = setup.engine(batch).float()
        for name, (_, change) in VARIANTS.items():
            with change():
                found = setups[name].engine(batch).float()
            if not torch.allclose(found, expected, atol=TOLERANCE, rtol=0.0):
                sys.exit(f"{name}: other logits than the engine's")
    return setups


def main() -> None:
    """Measure one model and keep the results of the others."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="embedded:headlines")
    parser.add_argument("--model", default="embedded:minilm")
    parser.add_argument("--name", default="minilm", help="name of the entry")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8, help="of a round")
    parser.add_argument("--rows", type=int, default=800)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    recipe = load_recipe(
        "quickstart", ["training.batch_size=16", f"data.max_train_rows={options.rows}"],
        data__source=options.data, model__name=options.model,
    )  # fmt: skip
    setup = prepare_training(recipe, load_labelled_texts(recipe.data))
    set_dropout(setup.model, 0.05, "adapter")
    batches = batching.compute_epoch_batches(setup.train.lengths, 16, 0, 0)[: options.steps]
    rates: dict[str, list[float]] = {name: [] for name in VARIANTS}
    setups, step = make_setups(setup), 0
    for _ in range(options.rounds + 1):
        for name, (_, change) in VARIANTS.items():
            with change():
                begin = time.perf_counter()
                for batch in batches:
                    take_step(setups[name], batch, step, 1e-5)
                    step += 1
                rates[name].append(sum(map(len, batches)) / (time.perf_counter() - begin))
    medians = {name: statistics.median(values[1:]) for name, values in rates.items()}
    values = json.loads(options.out.read_text("utf-8")) if options.out.is_file() else {}
    values[options.name] = {
        "texts_per_s": medians,
        "rounds": {name: found[1:] for name, found in rates.items()},
        "gain_of_the_part": {n: medians["engine"] / m - 1 for n, m in medians.items()},
        "command": f"python benchmarks/engine_parts.py --data <texts> --model <{options.name}>",
        "data": Path(options.data).name,
        "environment": asdict(describe_environment()),
    }
    options.out.write_text(json.dumps(values, indent=2) + "\n", "utf-8")
    for name, rate in medians.items():
        gain = medians["engine"] / rate - 1
        print(f"{rate:7.1f} texts/s  the engine gains {gain:+.1%} over: {name}")


if __name__ == "__main__":
    main()
