"""What is trained, ready for the loop: encoder, adapter, float32 masters, optimizer, tokens.

The frozen weights are cast once to the fastest number format of the hardware. What is trained has a
float32 master copy in the optimizer, so that small updates are not lost to rounding.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from peft import PeftModel
from torch import Tensor, nn

from textlora import encoder
from textlora.adapters import AdapterPlan, attach_adapter, cast_frozen, plan_adapter
from textlora.batching import TokenizedTexts
from textlora.checkpoints import Origin
from textlora.data import LabelledTexts
from textlora.encoder import EncoderFiles
from textlora.engine import Engine
from textlora.runtime import pick_device, pick_dtype, set_seed
from textlora.settings import Recipe
from textlora.tokencache import tokenize_cached


@dataclass(frozen=True)
class Learner:
    """Everything the loop works on."""

    origin: Origin
    labels: tuple[str, ...]
    files: EncoderFiles
    tokenizer: Any
    max_length: int
    plan: AdapterPlan
    model: PeftModel
    weights: "TrainedWeights"
    optimizer: torch.optim.Optimizer
    engine: Engine
    device: torch.device
    train: TokenizedTexts
    train_label_ids: npt.NDArray[np.int64]
    validation: TokenizedTexts
    validation_label_ids: npt.NDArray[np.int64]

    @property
    def recipe(self) -> Recipe:
        """All settings of the run."""
        return self.origin.recipe


class TrainedWeights:
    """The trained parameters and their float32 masters, by name."""

    def __init__(self, model: nn.Module, dtype: torch.dtype, head_names: list[str]) -> None:
        self._parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        # Copied before the cast: the masters keep every bit of their start values.
        self.masters = {
            name: parameter.detach().clone().float().requires_grad_()
            for name, parameter in self._parameters.items()
        }
        cast_frozen(model, head_names, dtype)

    @property
    def shapes(self) -> dict[str, torch.Size]:
        """Shape of each master."""
        return {name: master.shape for name, master in self.masters.items()}

    def collect_gradients(self) -> None:
        """Move the gradients of the model to the masters."""
        for name, parameter in self._parameters.items():
            gradient = parameter.grad
            self.masters[name].grad = None if gradient is None else gradient.float()
            parameter.grad = None

    def publish(self) -> None:
        """Write the masters into the model, rounded to its number format."""
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(self.masters[name])

    def read(self) -> dict[str, Tensor]:
        """A copy of the masters on the CPU."""
        return {name: m.detach().to("cpu", copy=True) for name, m in self.masters.items()}

    def write(self, weights: dict[str, Tensor]) -> None:
        """Replace masters and model weights."""
        with torch.no_grad():
            for name, master in self.masters.items():
                master.copy_(weights[name])
        self.publish()


def prepare_learner(recipe: Recipe, texts: LabelledTexts) -> Learner:
    """Load the encoder, attach the adapter, tokenize; every start value follows from the seed.

    Raises:  ModelError or SettingsError if encoder and recipe do not fit.
    """
    device = pick_device()
    files = encoder.locate_encoder(recipe.model)
    weights_sha256 = encoder.compute_weights_fingerprint(files.folder)
    tokenizer = encoder.load_tokenizer(files.folder, recipe.model.name)
    set_seed(recipe.training.seed)
    loaded = encoder.load_encoder(files, texts.labels, recipe.dropout.backbone)
    max_length = encoder.find_max_length(loaded.model.config, recipe.model.max_length)
    plan = plan_adapter(loaded.model, loaded.new_parameters, recipe.adapter)
    model = attach_adapter(loaded.model, plan, recipe.adapter, recipe.dropout).to(device)
    heads = [module.name for module in plan.modules]
    weights = TrainedWeights(model, pick_dtype(recipe.training.precision, device), heads)
    return Learner(
        origin=Origin(recipe, texts.fingerprint, weights_sha256),
        labels=texts.labels,
        files=files,
        tokenizer=tokenizer,
        max_length=max_length,
        plan=plan,
        model=model,
        weights=weights,
        optimizer=_make_optimizer(weights, recipe.training.weight_decay),
        engine=Engine(model, tokenizer.pad_token_id),
        device=device,
        train=tokenize_cached(
            tokenizer, texts.train.texts, max_length, f"{texts.fingerprint} train"
        ),
        train_label_ids=texts.train.label_ids,
        validation=tokenize_cached(
            tokenizer, texts.validation.texts, max_length, f"{texts.fingerprint} validation"
        ),
        validation_label_ids=texts.validation.label_ids,
    )


def read_optimizer(learner: Learner) -> dict[str, Tensor]:
    """A copy of AdamW's two moments of each trained parameter, on the CPU."""
    tensors = {}
    for name, master in learner.weights.masters.items():
        for key in ("exp_avg", "exp_avg_sq"):
            tensors[f"{name}.{key}"] = learner.optimizer.state[master][key].to("cpu", copy=True)
    return tensors


def write_optimizer(learner: Learner, tensors: dict[str, Tensor], step: int) -> None:
    """Put moments back, as they were after `step` steps."""
    for name, master in learner.weights.masters.items():
        learner.optimizer.state[master] = {
            "step": torch.tensor(float(step), device=master.device),
            "exp_avg": tensors[f"{name}.exp_avg"].to(master.device),
            "exp_avg_sq": tensors[f"{name}.exp_avg_sq"].to(master.device),
        }


def _make_optimizer(weights: TrainedWeights, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW; biases and norms (vectors) are not decayed, as is usual."""
    matrices = [master for master in weights.masters.values() if master.ndim > 1]
    vectors = [master for master in weights.masters.values() if master.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, fused=True)
