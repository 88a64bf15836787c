"""Frozen linear layers that share an input, with low-rank updates, in one matrix product.

y = x W' + b + scale * (dropout(x) A') B' for one layer, or for query, key and value side by side.
PEFT's layer computes the same out of place, one layer at a time, and draws its dropout masks with
torch's generator of single floats, which takes a tenth of a step (docs/experiments.md).
"""

from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.functional import linear

_MASK_VALUES = 1 << 16  # a mask compares 16 random bits: probabilities are exact to 1 / 65,536


@dataclass(frozen=True)
class _Update:
    """One adapter: columns `start` to `stop` of the output get scale * (dropout(x) A') B'."""

    layer: Any
    start: int
    stop: int

    @property
    def matrices(self) -> tuple[Tensor, Tensor]:
        return self.layer.lora_A["default"].weight, self.layer.lora_B["default"].weight

    @property
    def scale(self) -> float:
        return float(self.layer.scaling["default"])

    @property
    def dropout(self) -> float:
        module = self.layer.lora_dropout["default"]
        return float(module.p) if module.training and isinstance(module, nn.Dropout) else 0.0


class Projection:
    """Linear layers over one input, applied as one.

    The weights of several layers are moved into one block of memory; the layers keep views of it.
    """

    def __init__(self, layers: list[nn.Module]) -> None:
        bases: list[Any] = [
            layer.base_layer if isinstance(layer, LoraLinear) else layer for layer in layers
        ]
        self.sizes = [int(base.out_features) for base in bases]
        self._updates = []
        stop = 0
        for layer, size in zip(layers, self.sizes, strict=True):
            start, stop = stop, stop + size
            if isinstance(layer, LoraLinear):
                self._updates.append(_Update(layer, start, stop))
        self.weight = _join([base.weight for base in bases])
        self.bias = None if bases[0].bias is None else _join([base.bias for base in bases])

    def __call__(self, inputs: Tensor, part: slice = slice(None)) -> Tensor:
        """Shapes: inputs (tokens, in); returns (tokens, out), or of its columns those in `part`.

        `part` must begin and end where a layer does.
        """
        first, last, _ = part.indices(len(self.weight))
        updates = [u for u in self._updates if first <= u.start and u.stop <= last]
        bias = None if self.bias is None else self.bias[part]
        weight = self.weight[part]
        if not updates:
            return linear(inputs, weight, bias)
        places = [(u.start - first, u.stop - first, u.scale, u.dropout) for u in updates]
        matrices = [matrix for update in updates for matrix in update.matrices]
        apply: Any = _AdaptedLinear.apply
        return apply(inputs, weight, bias, places, *matrices)


def is_supported(layer: nn.Module) -> bool:
    """Whether `Projection` computes just what the module does: plain, or PEFT's plain LoRA."""
    if isinstance(layer, LoraLinear):
        return (
            type(layer.base_layer) is nn.Linear
            and list(layer.active_adapters) == ["default"]
            and "default" in layer.lora_A
            and not (layer.lora_variant or layer.merged or layer.disable_adapters)
            and not (layer.fan_in_fan_out or layer.lora_B["default"].bias is not None)
        )
    return type(layer) is nn.Linear


class _AdaptedLinear(Function):
    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        places: list[tuple[int, int, float, float]],
        *matrices: Tensor,
    ) -> Tensor:
        result = linear(inputs, weight, bias)
        saved = []
        for (start, stop, scale, dropout), a, b in zip(
            places, matrices[::2], matrices[1::2], strict=True
        ):
            mask = _draw_mask(inputs, dropout) if dropout else None
            kept = inputs if mask is None else inputs.masked_fill(mask, 0)
            reduced = linear(kept, a)
            # The 1 / (1 - p) of dropout is a factor like any other.
            result[:, start:stop].addmm_(reduced, b.t(), alpha=scale / (1.0 - dropout))
            saved += [mask, reduced]
        ctx.save_for_backward(inputs, weight, *matrices, *saved)
        ctx.places = places
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        inputs, weight, *rest = ctx.saved_tensors
        count = 2 * len(ctx.places)
        matrices, saved = rest[:count], rest[count:]
        wanted = ctx.needs_input_grad[0]
        backward = gradient @ weight if wanted else None
        found: list[Tensor] = []
        for number, (start, stop, scale, dropout) in enumerate(ctx.places):
            a, b = matrices[2 * number : 2 * number + 2]
            mask, reduced = saved[2 * number : 2 * number + 2]
            factor = scale / (1.0 - dropout)
            own = gradient[:, start:stop]
            narrow = (own @ b) * factor
            kept = inputs if mask is None else inputs.masked_fill(mask, 0)
            found += [narrow.t() @ kept, (own.t() @ reduced) * factor]
            if backward is None:
                continue
            if mask is None:
                backward.addmm_(narrow, a)
            else:
                backward += (narrow @ a).masked_fill_(mask, 0)
        return backward, None, None, None, *found


def _draw_mask(like: Tensor, probability: float) -> Tensor:
    """Which elements are dropped. Shapes: as `like`, bool."""
    words = torch.empty((like.numel() + 3) // 4, dtype=torch.int64, device=like.device)
    bits = words.random_(-(1 << 63), None).view(torch.int16)[: like.numel()].view(like.shape)
    return bits < round(probability * _MASK_VALUES) - _MASK_VALUES // 2


def _join(parameters: list[nn.Parameter]) -> Tensor:
    """One tensor of all rows; the parameters become views of it, so nothing is held twice."""
    if len(parameters) == 1:
        return parameters[0].data
    joined = torch.cat([parameter.data for parameter in parameters])
    parts = torch.split(joined, [len(parameter) for parameter in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.data = part
    return joined
