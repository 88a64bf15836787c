"""The forward pass of a classifier over real tokens only.

For BERT, RoBERTa, ELECTRA and MPNet (MiniLM is a BERT) the texts of a batch stand one after the
other in one long row: nothing but attention sees padding, and the last layer is computed only for
the row that the head reads. The modules and weights are those of transformers and PEFT, and so are
the results. Any other encoder, and any adapter that is not plain LoRA, runs through its own forward
method with a padded batch.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from textlora.model.attention import attend
from textlora.model.batching import MAX_TOKENS, Batch
from textlora.model.encoder_config import PACKED_FAMILIES as _FAMILIES
from textlora.model.heads import find_pooling, pool
from textlora.model.padding import gather, spread
from textlora.model.projection import (
    AnyProjection,
    PackedProjection,
    Projection,
    find_loaded_class,
    is_supported,
)

_PARTS = ("embeddings", "embeddings_project", "encoder")  # the second in ELECTRA alone


@dataclass(frozen=True)
class _Layer:
    """The parts of one encoder layer, by what they do; only their names differ by family."""

    query: AnyProjection
    key: AnyProjection
    value: AnyProjection
    shares_dropout: nn.Module
    output: AnyProjection
    output_dropout: nn.Module
    output_norm: nn.Module
    widened: AnyProjection
    activation: nn.Module
    narrowed: AnyProjection
    narrowed_dropout: nn.Module
    narrowed_norm: nn.Module

    def pack(self, rows: int) -> "_Layer":
        """The same with packed weights where that is possible."""
        names = ("query", "key", "value", "output", "widened", "narrowed")
        changed: dict[str, Any] = {name: getattr(self, name).pack(rows) for name in names}
        if isinstance(changed["widened"], PackedProjection) and _is_gelu(self.activation):
            changed["widened"] = self.widened.pack(rows, "gelu")
            changed["activation"] = nn.Identity()
        return replace(self, **changed)

    def finish(self, mixed: Tensor, hidden: Tensor) -> Tensor:
        """What follows attention. Shapes: mixed, hidden and the result (rows, width)."""
        hidden = self.output_norm(self.output_dropout(self.output(mixed)) + hidden)
        inner = self.narrowed(self.activation(self.widened(hidden)))
        return self.narrowed_norm(self.narrowed_dropout(inner) + hidden)


class Engine:
    """Computes logits of a model whose number format and device are settled.

    It holds no weights of its own: it sees every change of those of the model. `max_tokens` is how
    many tokens a batch should have at most.
    """

    def __init__(self, model: nn.Module, pad_id: int) -> None:
        self.model = model
        self.max_tokens = MAX_TOKENS.get(self.device.type, 4_096)
        self._pad_id = pad_id
        self._base: Any = _unwrap(model)
        self._encoder: Any = self._base.base_model
        self._pooling = find_pooling(self._base)
        self._layers = self._find_layers()
        self._distances: Tensor | None = None

    @property
    def head(self) -> nn.Module:
        """The module that turns encoded texts into logits; called once a batch."""
        return self._base.classifier

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return next(self.model.parameters()).device

    @property
    def is_packed(self) -> bool:
        """Whether this model runs without padding."""
        return bool(self._layers)

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the hidden rows."""
        dtype: torch.dtype = self._encoder.get_input_embeddings().weight.dtype
        return dtype

    @property
    def width(self) -> int:
        """Size of a hidden row."""
        return int(self._base.config.hidden_size)

    @property
    def num_frozen(self) -> int:
        """How many layers stand below the lowest one that is trained; 0 if any dropout is there."""
        if not self._layers:
            return 0
        below: list[nn.Module] = [self._encoder.embeddings]
        for count, layer in enumerate(self._encoder.encoder.layer):
            modules = [module for part in below for module in part.modules()]
            random = any(isinstance(m, nn.Dropout) and m.p > 0.0 for m in modules)
            trained = any(p.requires_grad for p in layer.parameters())
            if trained or random:
                return 0 if random else count
            below.append(layer)
        return 0

    def pack_weights(self) -> None:
        """Lay weights out for oneDNN's kernels and join activations to them, for inference.

        Nothing happens where that gains nothing. Later changes of the weights are not seen.
        """
        self._layers = [layer.pack(self.max_tokens) for layer in self._layers]

    def compute_prefix(self, batch: Batch) -> Tensor:
        """What the frozen layers make of a batch: (tokens, width)."""
        hidden = self._embed(batch)
        bias = self._find_bias(batch, hidden.dtype)
        for layer in self._layers[: self.num_frozen]:
            hidden = self._apply(layer, hidden, batch, bias)
        return hidden

    def __call__(self, batch: Batch, prefix: Tensor | None = None) -> Tensor:
        """Logits (texts, labels) of a batch that lies on the model's device.

        With `prefix`, what `compute_prefix` returned for the same tokens, the layers go on there.
        """
        if not self.is_packed:
            token_ids, mask = batch.pad(self._pad_id)
            return self.model(input_ids=token_ids, attention_mask=mask).logits
        hidden = self._embed(batch) if prefix is None else prefix
        bias = self._find_bias(batch, hidden.dtype)
        start = 0 if prefix is None else self.num_frozen
        if self._pooling == "mean":
            for layer in self._layers[start:]:
                hidden = self._apply(layer, hidden, batch, bias)
            padded = spread(hidden, batch).view(*batch.places.shape, -1)
            return self._base.classifier(pool(padded, batch.mask, "mean"))
        for layer in self._layers[start:-1]:
            hidden = self._apply(layer, hidden, batch, bias)
        return self._apply_head(self._apply_last(self._layers[-1], hidden, batch, bias))

    def _embed(self, batch: Batch) -> Tensor:
        positions = batch.positions
        if self._base.config.model_type not in ("bert", "electra"):
            positions = positions + self._encoder.embeddings.padding_idx + 1
        hidden = self._encoder.embeddings(
            input_ids=batch.token_ids[None], position_ids=positions[None]
        )[0]
        if hasattr(self._encoder, "embeddings_project"):
            hidden = self._encoder.embeddings_project(hidden)
        return hidden

    def _apply(self, layer: _Layer, hidden: Tensor, batch: Batch, bias: Tensor | None) -> Tensor:
        """One layer. Shapes: hidden and the result (tokens, width)."""
        query, key, value = (
            self._split_heads(spread(part(hidden), batch), batch)
            for part in (layer.query, layer.key, layer.value)
        )
        found = attend(
            query, key, value, scale=self._scale, bias=bias, dropout=layer.shares_dropout
        )
        rows = found.transpose(1, 2).reshape(-1, hidden.shape[1])
        return layer.finish(gather(rows, batch), hidden)

    def _apply_last(
        self, layer: _Layer, hidden: Tensor, batch: Batch, bias: Tensor | None
    ) -> Tensor:
        """The last layer for the first token of each text: (texts, width)."""
        first = hidden[batch.starts]
        query = layer.query(first).view(-1, self._num_heads, 1, self._head_size)
        key, value = (
            self._split_heads(spread(part(hidden), batch), batch)
            for part in (layer.key, layer.value)
        )
        own = None if bias is None else bias[:, :, :1]
        found = attend(query, key, value, scale=self._scale, bias=own, dropout=layer.shares_dropout)
        return layer.finish(found.reshape(first.shape), first)

    def _split_heads(self, padded: Tensor, batch: Batch) -> Tensor:
        """Shapes: (texts * length, width) to (texts, heads, length, head size)."""
        texts, length = batch.places.shape
        return padded.view(texts, length, self._num_heads, self._head_size).transpose(1, 2)

    def _apply_head(self, first: Tensor) -> Tensor:
        if self._pooling == "first":
            return self._base.classifier(first)
        rows = first[:, None]
        if getattr(self._encoder, "pooler", None) is not None:
            return self._base.classifier(self._base.dropout(self._encoder.pooler(rows)))
        return self._base.classifier(rows)

    @property
    def _num_heads(self) -> int:
        return int(self._base.config.num_attention_heads)

    @property
    def _head_size(self) -> int:
        return int(self._base.config.hidden_size // self._num_heads)

    @property
    def _scale(self) -> float:
        return self._head_size**-0.5

    def _find_bias(self, batch: Batch, dtype: torch.dtype) -> Tensor | None:
        """What is added to the scores of every layer: no attention to padding, MPNet's distances.

        Shapes:  broadcasts to (texts, heads, length, length); None where there is nothing to add.
        """
        length = batch.mask.shape[1]
        bias = None
        if not bool(batch.mask.all()):
            bias = torch.zeros(batch.mask.shape, dtype=dtype, device=batch.mask.device)
            bias = bias.masked_fill_(~batch.mask, float("-inf"))[:, None, None]
        if self._base.config.model_type != "mpnet":
            return bias
        # It depends on the distance alone: a corner of one table serves every length.
        if self._distances is None or self._distances.shape[-1] < length:
            size = max(128, 1 << (length - 1).bit_length())
            relative = self._encoder.encoder
            with torch.no_grad():
                empty = relative.relative_attention_bias.weight.new_empty(1, size, 0)
                self._distances = relative.compute_position_bias(empty)
        own = self._distances[:, :, :length, :length]
        return own if bias is None else own + bias

    def _find_layers(self) -> list[_Layer]:
        """The layers taken apart; empty where the model must run through its own forward method."""
        config = self._base.config
        if config.model_type not in _FAMILIES or getattr(config, "is_decoder", False):
            return []
        # Layers that the checkpoint lacks are trained whole, behind a wrapper of PEFT.
        parts = (getattr(self._encoder, name, None) for name in _PARTS)
        inside = [module for part in parts if part is not None for module in part.modules()]
        wrapper = find_loaded_class("peft.utils.other", "ModulesToSaveWrapper")
        if any(isinstance(module, wrapper) for module in inside):
            return []
        adapted = find_loaded_class("peft.tuners.tuners_utils", "BaseTunerLayer")
        linears = [m for m in inside if isinstance(m, (nn.Linear, adapted))]
        if not all(map(is_supported, linears)):
            return []
        return [_take_apart(layer) for layer in self._encoder.encoder.layer]


def _unwrap(model: Any) -> Any:
    """The model inside PEFT's wrapper, or itself."""
    wrapper = find_loaded_class("peft.peft_model", "PeftModel")
    return model.get_base_model() if isinstance(model, wrapper) else model


def _is_gelu(activation: nn.Module) -> bool:
    """Whether it is the exact one, not an approximation."""
    return getattr(activation, "act", None) is nn.functional.gelu


def _take_apart(layer: Any) -> _Layer:
    attention = layer.attention
    if hasattr(attention, "attn"):  # MPNet
        inner, after = attention.attn, attention
        query, key, value, output = inner.q, inner.k, inner.v, inner.o
    else:
        inner, after = attention.self, attention.output
        query, key, value, output = inner.query, inner.key, inner.value, after.dense
    return _Layer(
        query=Projection(query),
        key=Projection(key),
        value=Projection(value),
        shares_dropout=inner.dropout,
        output=Projection(output),
        output_dropout=after.dropout,
        output_norm=after.LayerNorm,
        widened=Projection(layer.intermediate.dense),
        activation=layer.intermediate.intermediate_act_fn,
        narrowed=Projection(layer.output.dense),
        narrowed_dropout=layer.output.dropout,
        narrowed_norm=layer.output.LayerNorm,
    )
