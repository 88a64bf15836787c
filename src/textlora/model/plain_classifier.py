"""Classifiers of the engine's families as plain torch modules, without transformers and PEFT.

A saved classifier needs neither to answer: its adapter is added to the encoder's weights in
float32, and the modules here hold the result. Their names are those of transformers, so that
`Engine` computes both kinds alike, with the same results to the bit (held by tests). What differs
from the plain case in any way is left to the libraries: nothing here is an error.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from textlora.model.encoder_config import (
    OFFSET_FAMILIES,
    PACKED_FAMILIES,
    EncoderConfig,
    name_encoder,
)
from textlora.model.encoder_files import rename_stored
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
    model = _build(config, head, num_labels)
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


def _build(config: EncoderConfig, head: Head, num_labels: int) -> nn.Module:
    """The model without weights."""
    with torch.device("meta"):
        return _Classifier(config, head, num_labels)


def _make_table(rows: int, width: int) -> nn.Embedding:
    """A table whose rows are looked up, without values.

    Given its weight: torch would fill it with random numbers, and on the meta device it imports its
    compiler for that, which takes as long as torch itself.
    """
    return nn.Embedding(rows, width, _weight=torch.empty(rows, width))


class _Classifier(nn.Module):
    """Encoder and head, under the names that transformers gives them."""

    def __init__(self, config: EncoderConfig, head: Head, num_labels: int) -> None:
        super().__init__()
        family = config.model_type
        self.config = SimpleNamespace(
            model_type=family,
            hidden_size=config.width,
            num_attention_heads=config.heads,
            num_labels=num_labels,
            vocab_size=config.vocabulary,
        )
        self.prefix = name_encoder(family)
        own = head == "own"
        self.add_module(self.prefix, _Encoder(config, has_pooler=own and family == "bert"))
        if not own:
            self.pooling = head
            self.classifier: nn.Module = nn.Linear(config.width, num_labels)
        elif family == "bert":
            self.dropout = nn.Dropout(0.0)
            self.classifier = nn.Linear(config.width, num_labels)
        else:
            activation = nn.functional.gelu if family == "electra" else torch.tanh
            self.classifier = _Head(config.width, num_labels, activation)

    @property
    def base_model(self) -> nn.Module:
        """The encoder."""
        return self.get_submodule(self.prefix)


class _Encoder(nn.Module):
    def __init__(self, config: EncoderConfig, *, has_pooler: bool) -> None:
        super().__init__()
        self.embeddings = _Embeddings(config)
        if config.embedding_width != config.width:
            self.embeddings_project = nn.Linear(config.embedding_width, config.width)
        self.encoder = _Layers(config)
        if has_pooler:
            self.pooler = _Pooler(config.width)

    def get_input_embeddings(self) -> nn.Module:
        """The table of words."""
        return self.embeddings.word_embeddings


class _Embeddings(nn.Module):
    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width = config.embedding_width
        self.word_embeddings = _make_table(config.vocabulary, width)
        self.position_embeddings = _make_table(config.positions, width)
        if config.token_types:
            self.token_type_embeddings = _make_table(config.token_types, width)
        self.LayerNorm = nn.LayerNorm(width, eps=config.norm_epsilon)
        if config.model_type in OFFSET_FAMILIES:
            self.padding_idx = 1 if config.model_type == "mpnet" else config.pad_token_id

    def forward(self, input_ids: Tensor, position_ids: Tensor) -> Tensor:
        """Shapes: both (1, tokens); returns (1, tokens, width). Every token is of type 0."""
        found = self.word_embeddings(input_ids)
        if hasattr(self, "token_type_embeddings"):
            found = found + self.token_type_embeddings.weight[0]
        found = found + self.position_embeddings(position_ids)
        normed: Tensor = self.LayerNorm(found)
        return normed


class _Layers(nn.Module):
    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        kind = _MPNetLayer if config.model_type == "mpnet" else _BertLayer
        self.layer = nn.ModuleList(kind(config) for _ in range(config.num_layers))
        if config.buckets:
            self.relative_attention_bias = _make_table(config.buckets, config.heads)

    def compute_position_bias(self, hidden: Tensor) -> Tensor:
        """What MPNet adds to scores, by distance.

        Shapes:  hidden (1, length, any); returns (1, heads, length, length).
        Source:  Raffel et al. 2020 (T5), section 2.1, with MPNet's 32 buckets and 128 places.
        """
        place = torch.arange(hidden.shape[1], device=hidden.device)
        distance = place[:, None] - place[None, :]
        half, most = 16, 128
        bucket = (distance < 0).long() * half
        distance = distance.abs()
        exact = half // 2
        far = exact + (
            torch.log(distance.float() / exact) / math.log(most / exact) * (half - exact)
        ).to(torch.long)
        far = torch.min(far, torch.full_like(far, half - 1))
        bucket = bucket + torch.where(distance < exact, distance, far)
        bias: Tensor = self.relative_attention_bias(bucket)
        return bias.permute(2, 0, 1)[None].contiguous()


class _Dense(nn.Module):
    """A linear layer under the name that transformers gives it, and what follows it."""

    def __init__(self, inside: int, outside: int, config: EncoderConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(inside, outside)
        self.LayerNorm = nn.LayerNorm(outside, eps=config.norm_epsilon)
        self.dropout = nn.Identity()


class _Widened(nn.Module):
    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.width, config.inner)
        self.intermediate_act_fn = _Gelu()


class _Gelu(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.act = nn.functional.gelu

    def forward(self, inputs: Tensor) -> Tensor:
        return self.act(inputs)


class _BertLayer(nn.Module):
    """Also that of RoBERTa and ELECTRA."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        inner = nn.Module()
        for name in ("query", "key", "value"):
            inner.add_module(name, nn.Linear(config.width, config.width))
        inner.dropout = nn.Identity()
        self.attention = nn.Module()
        self.attention.self = inner
        self.attention.output = _Dense(config.width, config.width, config)
        self.intermediate = _Widened(config)
        self.output = _Dense(config.inner, config.width, config)


class _MPNetLayer(nn.Module):
    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        inner = nn.Module()
        for name in "qkvo":
            inner.add_module(name, nn.Linear(config.width, config.width))
        inner.dropout = nn.Identity()
        self.attention = nn.Module()
        self.attention.attn = inner
        self.attention.LayerNorm = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.attention.dropout = nn.Identity()
        self.intermediate = _Widened(config)
        self.output = _Dense(config.inner, config.width, config)


class _Pooler(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        """Shapes: (texts, rows, width) to (texts, width)."""
        return torch.tanh(self.dense(hidden[:, 0]))


class _Head(nn.Module):
    def __init__(self, width: int, num_labels: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, num_labels)
        self._activation = activation

    def forward(self, hidden: Tensor) -> Tensor:
        """Shapes: (texts, rows, width) to (texts, labels)."""
        found: Tensor = self.out_proj(self._activation(self.dense(hidden[:, 0])))
        return found
