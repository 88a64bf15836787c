"""What each part of the engine gains: the same training step with one part taken out at a time.

    python benchmarks/engine_parts.py [--data FOLDER] [--model MODEL] [--rounds 5]

Query and value of all layers are adapted. All variants run in one process, alternating, on the same
batches; a first round warms up. Writes benchmarks/results/engine_parts.json, one entry a model.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

from torch import Tensor

from textlora.data.labelled_texts import load_labelled_texts
from textlora.model import attention, batching, engine, projection
from textlora.model.adapters import set_dropout
from textlora.settings import load_recipe
from textlora.system.runtime import describe_environment
from textlora.training import loop
from textlora.training.training_setup import TrainingSetup, prepare_training

OUT = Path(__file__).parent / "results" / "engine_parts.json"
STEPS = 8


def use_peft_layers(setup: TrainingSetup) -> AbstractContextManager[Any]:
    """The layers of PEFT themselves, with torch's dropout."""
    return patch.object(projection.Projection, "__call__", lambda self, inputs: self._layer(inputs))


def fuse_attention(setup: TrainingSetup) -> AbstractContextManager[Any]:
    """Torch's own attention kernel at every length."""
    return patch.object(attention, "_is_fused", lambda device: True)


@contextmanager
def compute_all_of_the_last_layer(setup: TrainingSetup) -> Any:
    """The last layer for every token, then the first of each text."""

    def call(self: Any, layer: Any, hidden: Tensor, batch: Any, bias: Any) -> Tensor:
        return self._apply(layer, hidden, batch, bias)[batch.starts]

    with patch.object(engine.Engine, "_apply_last", call):
        yield


@contextmanager
def pad(setup: TrainingSetup) -> Any:
    """Transformers' and PEFT's own forward methods over padded batches."""
    layers, setup.engine._layers = setup.engine._layers, []
    yield
    setup.engine._layers = layers


def change_nothing(setup: TrainingSetup) -> AbstractContextManager[Any]:
    """The engine as it is."""
    return patch.object(engine, "__doc__", engine.__doc__)


VARIANTS: dict[str, Callable[[TrainingSetup], AbstractContextManager[Any]]] = {
    "engine": change_nothing,
    "PEFT's own layers": use_peft_layers,
    "torch's attention kernel": fuse_attention,
    "all of the last layer": compute_all_of_the_last_layer,
    "padded, transformers' forward": pad,
}


def main() -> None:
    """Measure one model and keep the results of the others."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="embedded:headlines")
    parser.add_argument("--model", default="embedded:minilm")
    parser.add_argument("--name", default="minilm", help="name of the entry")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    recipe = load_recipe(
        "quickstart", ["training.batch_size=16", "data.max_train_rows=800"],
        data__source=options.data, model__name=options.model,
    )  # fmt: skip
    setup = prepare_training(recipe, load_labelled_texts(recipe.data))
    set_dropout(setup.model, 0.05, "adapter")
    batches = batching.compute_epoch_batches(setup.train.lengths, 16, 0, 0)[:STEPS]
    rates: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for _ in range(options.rounds + 1):
        for name, variant in VARIANTS.items():
            with variant(setup):
                begin = time.perf_counter()
                for batch in batches:
                    loop._take_step(setup, batch, 1e-5)
                rates[name].append(sum(map(len, batches)) / (time.perf_counter() - begin))
    medians = {name: statistics.median(values[1:]) for name, values in rates.items()}
    values = json.loads(OUT.read_text("utf-8")) if OUT.is_file() else {}
    values[options.name] = {
        "texts_per_s": medians,
        "rounds": {name: found[1:] for name, found in rates.items()},
        "gain_of_the_part": {n: medians["engine"] / m - 1 for n, m in medians.items()},
        "command": f"python benchmarks/engine_parts.py --data <texts> --model <{options.name}>",
        "data": Path(options.data).name,
        "environment": asdict(describe_environment()),
    }
    OUT.write_text(json.dumps(values, indent=2) + "\n", "utf-8")
    for name, rate in medians.items():
        gain = medians["engine"] / rate - 1
        print(f"{rate:7.1f} texts/s  the engine gains {gain:+.1%} over: {name}")


if __name__ == "__main__":
    main()
