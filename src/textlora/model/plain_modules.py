"""Encoders of the engine's families, and their heads, as plain torch modules without transformers.

Their names are those of transformers, so that `Engine` computes both kinds alike. They have no
forward method of their own: the engine takes them apart.
"""

import math
from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from textlora.model.encoder_config import OFFSET_FAMILIES, EncoderConfig, name_encoder
from textlora.settings import Head


def build_classifier(config: EncoderConfig, head: Head, num_labels: int) -> nn.Module:
    """A classifier on the meta device: all shapes, no weights."""
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
