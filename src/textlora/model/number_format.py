"""The number format of a model's weights: all cast but the head, which decides labels."""

import re
from collections.abc import Iterable

import torch
from torch import nn

_INSIDE_ENCODER = re.compile(r"(^|\.)(embeddings(_project)?|encoder|transformer|layers?)(\.|$)")


def cast_frozen(model: nn.Module, trained_modules: Iterable[str], dtype: torch.dtype) -> None:
    """Cast the weights to `dtype`, but keep the modules trained whole (the head) in float32.

    Their inputs are cast on entry. The head's logits decide labels, and bfloat16 has 8 bits: ties
    between classes would be common.
    """
    if dtype == torch.float32:
        return
    kept: set[int] = set()
    # Inside the encoder a float32 island would feed float32 into bfloat16 layers; the head and what
    # stands right before it (a pooler) do not.
    names = {name for name in trained_modules if not _INSIDE_ENCODER.search(name)}
    for name, module in model.named_modules():
        # Under PEFT the name is that of the wrapper, which holds the trained copy.
        if name.removeprefix("base_model.model.") in names:
            kept.update(id(tensor) for tensor in module.parameters())
            module.register_forward_pre_hook(_cast_inputs)
    for tensor in (*model.parameters(), *model.buffers()):
        if id(tensor) not in kept and tensor.is_floating_point():
            tensor.data = tensor.data.to(dtype)


def _cast_inputs(_module: nn.Module, inputs: tuple[object, ...]) -> tuple[object, ...]:
    return tuple(
        value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
        for value in inputs
    )
