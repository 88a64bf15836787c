"""Adapters attached to a model with PEFT, exactly as planned, and merged into it again."""

import re
import warnings
from collections.abc import Iterable

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from peft.utils import ModulesToSaveWrapper
from torch import nn

from textlora.model.adapter_plan import AdapterPlan
from textlora.settings import AdapterSettings, DropoutSettings

_INSIDE_ENCODER = re.compile(r"(^|\.)(embeddings(_project)?|encoder|transformer|layers?)(\.|$)")


def attach_adapter(
    model: nn.Module, plan: AdapterPlan, settings: AdapterSettings, dropout: DropoutSettings
) -> PeftModel:
    """Wrap `model` in PEFT to train exactly the plan. A fresh adapter changes no output."""
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=settings.rank,
        lora_alpha=settings.alpha,
        use_rslora=settings.variant == "rslora",
        use_dora=settings.variant == "dora",
        # At 0 PEFT leaves out the dropout module that a schedule from 0 upwards needs.
        lora_dropout=dropout.start or dropout.end,
        bias="none",
        target_modules=[matrix.name for matrix in plan.matrices],
        modules_to_save=[module.name for module in plan.modules],
    )
    wrapped = wrap_model(model, config)
    trainable = sum(p.numel() for p in wrapped.parameters() if p.requires_grad)
    assert trainable == plan.trainable, f"plan says {plan.trainable}, PEFT trains {trainable}"
    return wrapped


def wrap_model(model: nn.Module, config: LoraConfig) -> PeftModel:
    """PEFT's wrapper around `model`, with the adapter in the model's own number format."""
    with warnings.catch_warnings():
        # PEFT calls a name that transformers has renamed; nothing a user could do about it.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")
        return get_peft_model(model, config, autocast_adapter_dtype=False)


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


def set_dropout(model: nn.Module, probability: float, scope: str) -> int:
    """Set the dropout of the adapters (scope "adapter") or of every dropout module ("all").

    Returns how many modules were set.
    """
    modules = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Dropout) and (scope == "all" or ".lora_dropout." in name)
    ]
    for module in modules:
        module.p = probability
    return len(modules)


def merge_adapter(model: PeftModel) -> nn.Module:
    """The plain model with W + (alpha / rank) B A in place of W; do this in float32, cast later."""
    return model.merge_and_unload()


def _cast_inputs(_module: nn.Module, inputs: tuple[object, ...]) -> tuple[object, ...]:
    return tuple(
        value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
        for value in inputs
    )


def find_wrapped_modules(model: PeftModel) -> list[str]:
    """Names of the modules that PEFT trains whole, as the plan names them."""
    return [
        name.removeprefix("base_model.model.")
        for name, module in model.named_modules()
        if isinstance(module, ModulesToSaveWrapper)
    ]
