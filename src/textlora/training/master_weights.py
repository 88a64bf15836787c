"""What is trained, in float32: masters of the model's parameters, their average, their optimizer.

The model itself computes in the fastest number format of the hardware; small updates would be lost
to its rounding.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Size, Tensor, nn

from textlora.model.number_format import cast_frozen
from textlora.settings import TrainingSettings

_MOMENTS = ("exp_avg", "exp_avg_sq")  # of AdamW
_RAW = "master"  # a weight as it is trained, where its average is what counts
_LAYER = re.compile(r"\blayers?\.(\d+)\.")


class TrainedWeights:
    """The trained parameters of a model and their float32 masters, by name.

    With `average_decay`, the weights that count are an exponential moving average of the masters:
    they are what validation sees and what is saved.

    Source:  Polyak and Juditsky 1992 (averaging); the decay's warm-up is that of timm and
    TensorFlow: min(decay, (1 + step) / (10 + step)).
    """

    def __init__(
        self,
        model: nn.Module,
        dtype: torch.dtype,
        head_names: list[str],
        settings: TrainingSettings,
    ) -> None:
        self._parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        # Copied before the cast: the masters keep every bit of their start values.
        self.masters = {
            name: parameter.detach().clone().float().requires_grad_()
            for name, parameter in self._parameters.items()
        }
        self._decay = settings.average_decay
        self._averages = {
            name: master.detach().clone() for name, master in self.masters.items() if self._decay
        }
        self._optimizer, self._factors = _make_optimizer(self.masters, settings)
        cast_frozen(model, head_names, dtype)

    @property
    def shapes(self) -> dict[str, Size]:
        """Shape of each weight."""
        return {name: master.shape for name, master in self.masters.items()}

    @property
    def optimizer_shapes(self) -> dict[str, Size]:
        """Shape of each tensor of `read_optimizer`."""
        kinds = (*_MOMENTS, _RAW) if self._decay else _MOMENTS
        return {f"{n}.{kind}": shape for n, shape in self.shapes.items() for kind in kinds}

    def step(self, step: int, rate: float, max_grad_norm: float) -> float:
        """Take optimizer step `step`, counted from 0, with the gradients of the model.

        Returns the norm of the gradient before clipping.
        """
        self.collect_gradients()
        norm = nn.utils.clip_grad_norm_(list(self.masters.values()), max_grad_norm)
        for group, factor in zip(self._optimizer.param_groups, self._factors, strict=True):
            group["lr"] = rate * factor
        self._optimizer.step()
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, average in self._averages.items():
            average.lerp_(self.masters[name].detach(), 1.0 - decay)
        self.publish()
        return float(norm)

    def collect_gradients(self) -> None:
        """Move the gradients of the model to the masters."""
        for name, parameter in self._parameters.items():
            gradient = parameter.grad
            self.masters[name].grad = None if gradient is None else gradient.float()
            parameter.grad = None

    def publish(self) -> None:
        """Write the masters into the model, rounded to its number format."""
        self._write_model(self.masters)

    @contextmanager
    def show_counted(self) -> Iterator[None]:
        """Inside, the model has the weights that count, which may be averages."""
        if self._averages:
            self._write_model(self._averages)
        yield
        if self._averages:
            self.publish()

    def read(self) -> dict[str, Tensor]:
        """A copy of the weights that count, on the CPU."""
        counted = self._averages or self.masters
        return {name: m.detach().to("cpu", copy=True) for name, m in counted.items()}

    def write(self, weights: dict[str, Tensor]) -> None:
        """Replace masters, averages and model weights."""
        with torch.no_grad():
            for name, master in self.masters.items():
                master.copy_(weights[name])
                if self._averages:
                    self._averages[name].copy_(weights[name])
        self.publish()

    def read_optimizer(self) -> dict[str, Tensor]:
        """A copy of AdamW's two moments of each weight, and of masters that are averaged."""
        tensors = {}
        for name, master in self.masters.items():
            for key in _MOMENTS:
                tensors[f"{name}.{key}"] = self._optimizer.state[master][key]
            if self._averages:
                tensors[f"{name}.{_RAW}"] = master.detach()
        return {name: tensor.to("cpu", copy=True) for name, tensor in tensors.items()}

    def write_optimizer(self, tensors: dict[str, Tensor], step: int) -> None:
        """Put back what `read_optimizer` returned after `step` steps; after `write`."""
        with torch.no_grad():
            for name, master in self.masters.items():
                self._optimizer.state[master] = {
                    "step": torch.tensor(float(step), device=master.device),
                    **{key: tensors[f"{name}.{key}"].to(master.device) for key in _MOMENTS},
                }
                if self._averages:
                    master.copy_(tensors[f"{name}.{_RAW}"])
        self.publish()

    def _write_model(self, weights: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(weights[name])


def _make_optimizer(
    masters: dict[str, Tensor], settings: TrainingSettings
) -> tuple[torch.optim.Optimizer, list[float]]:
    """AdamW, and the factor of each of its groups: what the learning rate is multiplied by.

    Biases and norms (vectors) are not decayed, as is usual.
    """
    depth = max((_find_layer(name) for name in masters), default=-1)
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, master in masters.items():
        layer = _find_layer(name)
        factor = 1.0 if layer < 0 else settings.layer_decay ** (depth - layer)
        if ".lora_B." in name:
            factor *= settings.loraplus_ratio
        decay = settings.weight_decay if master.ndim > 1 else 0.0
        groups.setdefault((decay, factor), []).append(master)
    settings_of_groups = [
        {"params": tensors, "weight_decay": decay} for (decay, _), tensors in groups.items()
    ]
    return torch.optim.AdamW(settings_of_groups, lr=0.0, fused=True), [f for _, f in groups]


def _find_layer(name: str) -> int:
    """The encoder layer that a weight belongs to; -1 for the head."""
    match = _LAYER.search(name)
    return int(match[1]) if match else -1
