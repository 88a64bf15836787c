"""Classifiers of the engine's families as plain torch modules, without transformers and PEFT.

A saved classifier needs neither to answer: its adapter is added to the encoder's weights in
float32, and the modules here hold the result. Their names are those of transformers, so that
`Engine` computes both kinds alike, with the same results to the bit (held by tests). What differs
from the plain case in any way is left to the libraries: nothing here is an error.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from textlora.model.encoder_config import PACKED_FAMILIES, EncoderConfig, name_encoder
from textlora.model.encoder_weights import rename_stored
from textlora.model.plain_modules import build_classifier
from textlora.settings import Head

# Settings of PEFT's LoRA that change no weight of a saved adapter, or that are read below. Any
# other one that is set means a variant.
_HARMLESS = {
    "auto_mapping", "base_model_name_or_path", "bias", "inference_mode", "init_lora_weights",
    "lora_alpha", "lora_dropout", "megatron_core", "modules_to_save", "peft_type", "peft_version",
    "qalora_group_size", "r", "revision", "target_modules", "task_type", "use_rslora",
}  # fmt: skip
_WRAPPER = "base_model.model."  # in front of every name in PEFT's files


@dataclass(frozen=True)
class PlainAdapter:
    """An adapter file of plain LoRA: its settings as PEFT wrote them, its weights by name.

    Shapes:  weights of `X.lora_A.weight` (rank, in), of `X.lora_B.weight` (out, rank); others are
    of modules that were trained whole.
    """

    settings: dict[str, Any]
    weights: dict[str, Tensor]


@dataclass(frozen=True)
class MergedModel:
    """A classifier with its adapter merged, in float32; `whole` names the modules trained whole."""

    model: nn.Module
    whole: list[str]


def merge_plain(
    config: EncoderConfig | None,
    head: Head,
    num_labels: int,
    encoder: Callable[[], dict[str, Tensor]],
    adapter: PlainAdapter,
) -> MergedModel | None:
    """The merged classifier; None where transformers and PEFT must build it, or refuse it.

    `encoder` reads the weights of the checkpoint, by name; it is called once, or not at all.
    """
    if config is None or config.model_type not in PACKED_FAMILIES or config.activation != "gelu":
        return None
    if not _is_plain(adapter.settings):
        return None
    model = build_classifier(config, head, num_labels)
    linears = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    modules = [name for name, _ in model.named_modules()]
    whole = [n for n in modules if n.endswith(tuple(adapter.settings["modules_to_save"] or ()))]
    matrices = [n for n in linears if _is_target(n, adapter.settings["target_modules"])]
    # Copied, as PEFT does: in a file they start at any byte, and where a kernel finds its numbers
    # decides in which order it adds them up.
    weights = {
        name.removeprefix(_WRAPPER): tensor.clone()
        for name, tensor in adapter.weights.items()
        if name.startswith(_WRAPPER)
    }
    expected = {f"{name}.lora_{part}.weight" for name in matrices for part in "AB"}
    expected |= {
        name
        for name in model.state_dict()
        if any(name.startswith(f"{module}.") for module in whole)
    }
    if set(weights) != expected or len(weights) != len(adapter.weights):
        return None
    state = _collect(model, config, encoder(), weights)
    if state is None:
        return None
    scale = _find_scale(adapter.settings)
    for name in matrices:
        a, b = (weights[f"{name}.lora_{part}.weight"] for part in "AB")
        weight = state[f"{name}.weight"]
        if (*b.shape, *a.shape) != (len(weight), len(a), len(a), weight.shape[1]):
            return None
        weight += (b @ a) * scale  # in PEFT's order, for the same bits
    model.load_state_dict(state, assign=True)
    return MergedModel(model.eval().requires_grad_(False), whole)


def _is_plain(settings: dict[str, Any]) -> bool:
    unusual = {name for name, value in settings.items() if value and name not in _HARMLESS}
    targets, modules = settings.get("target_modules"), settings.get("modules_to_save")
    alpha = settings.get("lora_alpha")
    return (
        not unusual
        and settings.get("peft_type") == "LORA"
        and settings.get("bias") == "none"
        and settings.get("init_lora_weights") is True
        and isinstance(targets, list)
        and (modules is None or isinstance(modules, list))
        and isinstance(settings.get("r"), int)
        and isinstance(alpha, int | float)
    )


def _is_target(name: str, targets: list[str]) -> bool:
    """As PEFT matches: the whole name, or its end after a dot."""
    return any(name == target or name.endswith(f".{target}") for target in targets)


def _find_scale(settings: dict[str, Any]) -> float:
    rank = settings["r"]
    return float(settings["lora_alpha"] / (math.sqrt(rank) if settings["use_rslora"] else rank))


def _collect(
    model: nn.Module,
    config: EncoderConfig,
    stored: dict[str, Tensor],
    weights: dict[str, Tensor],
) -> dict[str, Tensor] | None:
    """Every weight of the model in float32: trained whole, or from the checkpoint; None if not.

    Some checkpoints leave out the prefix.
    """
    prefix = f"{name_encoder(config.model_type)}."
    renamed = {rename_stored(name): tensor for name, tensor in stored.items()}
    found: dict[str, Tensor] = {}
    for name, empty in model.state_dict().items():
        tensor = weights.get(name)
        if tensor is None:
            tensor = renamed.get(name)
        if tensor is None and name.startswith(prefix):
            tensor = renamed.get(name.removeprefix(prefix))
        if tensor is None or tensor.shape != empty.shape:
            return None
        found[name] = tensor.float()
    return found
