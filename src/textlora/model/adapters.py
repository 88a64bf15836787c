"""Adapters attached to a model with PEFT, exactly as planned, and merged into it again."""

import warnings

from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from peft.utils import ModulesToSaveWrapper
from torch import nn

from textlora.model.adapter_plan import AdapterPlan
from textlora.settings import AdapterSettings, DropoutSettings


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


def find_wrapped_modules(model: PeftModel) -> list[str]:
    """Names of the modules that PEFT trains whole, as the plan names them."""
    return [
        name.removeprefix("base_model.model.")
        for name, module in model.named_modules()
        if isinstance(module, ModulesToSaveWrapper)
    ]
