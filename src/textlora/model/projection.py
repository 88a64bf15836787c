"""A frozen linear layer with its low-rank update, in place.

y = x W' + b + scale * (dropout(x) A') B'. PEFT's layer computes the same out of place, and draws
its dropout masks with torch's generator of single floats (docs/experiments.md has what that costs).
"""

import sys
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.functional import linear

_MASK_VALUES = 1 << 16  # a mask compares 16 random bits: probabilities are exact to 1 / 65,536


def find_loaded_class(module: str, name: str) -> Any:
    """A class of a library that is loaded; none, `()`, where it is not: nothing is one of it then.

    A classifier that answers without PEFT must not load it only to ask.
    """
    return getattr(sys.modules.get(module), name, ())


class Projection:
    """A linear layer, plain or with an adapter; it holds no weights of its own."""

    def __init__(self, layer: nn.Module) -> None:
        self._layer: Any = layer
        self._is_adapted = isinstance(layer, find_loaded_class("peft.tuners.lora.layer", "Linear"))

    def __call__(self, inputs: Tensor) -> Tensor:
        """Shapes: inputs (tokens, in); returns (tokens, out)."""
        if not self._is_adapted:
            return linear(inputs, self._layer.weight, self._layer.bias)
        base, a, b = self._layer.base_layer, self._layer.lora_A, self._layer.lora_B
        return apply_adapted(
            inputs,
            (base.weight, base.bias),
            (a["default"].weight, b["default"].weight),
            float(self._layer.scaling["default"]),
            self._find_dropout(),
        )

    def pack(self, rows: int, activation: str = "none") -> "AnyProjection":
        """The same for inference on some `rows` at a time, with the activation joined to it.

        Only in bfloat16 on a CPU that oneDNN computes it on. With an adapter, or elsewhere, it is
        the layer itself, and the activation is left to the caller.
        """
        weight = None if self._is_adapted else self._layer.weight
        if (
            weight is None
            or (weight.device.type, weight.dtype) != ("cpu", torch.bfloat16)
            or not _can_pack()
        ):
            return self
        return PackedProjection(self._layer, rows, activation)

    def _find_dropout(self) -> float:
        module = self._layer.lora_dropout["default"]
        return float(module.p) if module.training and isinstance(module, nn.Dropout) else 0.0


def apply_adapted(
    inputs: Tensor,
    base: tuple[Tensor, Tensor | None],
    factors: tuple[Tensor, Tensor],
    scale: float,
    dropout: float,
) -> Tensor:
    """A linear layer (weight, bias) with its low-rank update (A, B).

    Shapes:  inputs (tokens, in); weight (out, in); A (rank, in); B (out, rank); returns (tokens,
    out).
    """
    apply: Any = _AdaptedLinear.apply
    found: Tensor = apply(inputs, *base, *factors, scale, dropout)
    return found


def _can_pack() -> bool:
    """Whether torch was built with oneDNN, and that has bfloat16 kernels for this processor."""
    operations = torch.ops.mkldnn
    return (
        torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(operations, "_linear_pointwise")
        and bool(operations._is_mkldnn_bf16_supported())
    )


def is_supported(layer: nn.Module) -> bool:
    """Whether `Projection` computes just what the module does: plain, or PEFT's plain LoRA."""
    if isinstance(layer, find_loaded_class("peft.tuners.lora.layer", "Linear")):
        adapted: Any = layer
        return (
            type(adapted.base_layer) is nn.Linear
            and list(adapted.active_adapters) == ["default"]
            and "default" in adapted.lora_A
            and not (adapted.lora_variant or adapted.merged or adapted.disable_adapters)
            and not (adapted.fan_in_fan_out or adapted.lora_B["default"].bias is not None)
        )
    return type(layer) is nn.Linear


class PackedProjection:
    """A plain linear layer for inference on a CPU, in the layout that oneDNN's kernels read.

    torch's own call lays the weights out anew each time. `activation` is "none" or "gelu" (exact),
    computed while the results are still in the cache.
    """

    def __init__(self, layer: nn.Linear, rows: int, activation: str) -> None:
        self._bias = None if layer.bias is None else layer.bias.detach()
        self._activation = activation
        self._made_of = (layer, rows, activation)
        self._weight: Tensor | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy packs again: torch cannot copy weights in a kernel's layout."""
        return PackedProjection, self._made_of

    def __call__(self, inputs: Tensor) -> Tensor:
        """Shapes: inputs (tokens, in); returns (tokens, out)."""
        if self._weight is None:
            # At first use: a process that only loaded a model can still be forked; one whose
            # kernels have started threads cannot.
            layer, rows, _ = self._made_of
            self._weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), rows)
        found: Tensor = torch.ops.mkldnn._linear_pointwise(
            inputs, self._weight, self._bias, self._activation, [], "none"
        )
        return found

    def pack(self, _rows: int, _activation: str = "none") -> "PackedProjection":
        """Itself: it is packed."""
        return self


AnyProjection = Projection | PackedProjection


class _AdaptedLinear(Function):
    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        scale: float,
        dropout: float,
    ) -> Tensor:
        result = linear(inputs, weight, bias)
        mask = _draw_mask(inputs, dropout) if dropout else None
        kept = inputs if mask is None else inputs.masked_fill(mask, 0)
        reduced = linear(kept, a)
        # The 1 / (1 - p) of dropout is a factor like any other.
        ctx.factor = scale / (1.0 - dropout)
        ctx.save_for_backward(inputs, weight, a, b, mask, reduced)
        return result.addmm_(reduced, b.t(), alpha=ctx.factor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        inputs, weight, a, b, mask, reduced = ctx.saved_tensors
        narrow = (gradient @ b) * ctx.factor
        kept = inputs if mask is None else inputs.masked_fill(mask, 0)
        gradient_a, gradient_b = narrow.t() @ kept, (gradient.t() @ reduced) * ctx.factor
        backward = None
        if ctx.needs_input_grad[0]:
            backward = gradient @ weight
            if mask is None:
                backward.addmm_(narrow, a)
            else:
                backward += (narrow @ a).masked_fill_(mask, 0)
        return backward, None, None, gradient_a, gradient_b, None, None


def _draw_mask(like: Tensor, probability: float) -> Tensor:
    """Which elements are dropped. Shapes: as `like`, bool."""
    words = torch.empty((like.numel() + 3) // 4, dtype=torch.int64, device=like.device)
    bits = words.random_(-(1 << 63), None).view(torch.int16)[: like.numel()].view(like.shape)
    return bits < round(probability * _MASK_VALUES) - _MASK_VALUES // 2
