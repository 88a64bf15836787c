"""The forward pass of a classifier over real tokens only.

For BERT, RoBERTa, ELECTRA and MPNet (MiniLM is a BERT) the texts of a batch stand one after the
other in one long row: no padding is computed, attention goes over runs of texts of equal length,
and the last layer is computed only for the row that the head reads. The modules and weights are
those of transformers and PEFT, and so are the results. Any other encoder, and any adapter that is
not plain LoRA, runs through its own forward method with a padded batch.
"""

from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn

from textlora.attention import attend
from textlora.batching import Batch
from textlora.projection import Projection, is_supported

_FAMILIES = {"bert", "roberta", "xlm-roberta", "camembert", "electra", "mpnet"}


@dataclass(frozen=True)
class _Layer:
    """The parts of one encoder layer, by what they do; only their names differ by family."""

    mixed: Projection  # query, key and value
    mixed_dropout: nn.Module  # of the attention shares
    output: Projection
    output_dropout: nn.Module
    output_norm: nn.Module
    widened: Projection
    activation: nn.Module
    narrowed: Projection
    narrowed_dropout: nn.Module
    narrowed_norm: nn.Module

    def finish(self, mixed: Tensor, hidden: Tensor) -> Tensor:
        """What follows attention. Shapes: mixed, hidden and the result (rows, width)."""
        hidden = self.output_norm(self.output_dropout(self.output(mixed)) + hidden)
        inner = self.narrowed(self.activation(self.widened(hidden)))
        return self.narrowed_norm(self.narrowed_dropout(inner) + hidden)


class Engine:
    """Computes logits of a model whose number format and device are settled.

    It holds no weights of its own: it sees every change of those of the model.
    """

    def __init__(self, model: nn.Module, pad_id: int) -> None:
        self.model = model
        self._pad_id = pad_id
        self._base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
        self._encoder: Any = self._base.base_model
        self._layers = self._find_layers()
        self._position_bias: Tensor | None = None

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

    def __call__(self, batch: Batch) -> Tensor:
        """Logits (texts, labels) of a batch that lies on the model's device."""
        if not self.is_packed:
            token_ids, mask = batch.pad(self._pad_id)
            return self.model(input_ids=token_ids, attention_mask=mask).logits
        hidden = self._embed(batch)
        for layer in self._layers[:-1]:
            mixed = layer.mixed(hidden)
            hidden = layer.finish(self._attend(layer, mixed, batch), hidden)
        return self._apply_head(self._apply_last(self._layers[-1], hidden, batch))

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

    def _attend(self, layer: _Layer, mixed: Tensor, batch: Batch) -> Tensor:
        """Shapes: mixed (tokens, 3 width); returns (tokens, width)."""
        width = mixed.shape[1] // 3
        parts = []
        for run in batch.runs:
            rows = mixed[run.start : run.stop].view(run.count, run.length, 3, -1, self._head_size)
            query, key, value = rows.permute(2, 0, 3, 1, 4).contiguous().unbind(0)
            found = attend(
                query, key, value, scale=self._head_size**-0.5,
                bias=self._find_bias(run.length, run.length), dropout=layer.mixed_dropout,
            )  # fmt: skip
            parts.append(found.transpose(1, 2).reshape(-1, width))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _apply_last(self, layer: _Layer, hidden: Tensor, batch: Batch) -> Tensor:
        """The last layer for the first token of each text: (texts, width)."""
        size = layer.mixed.sizes[0]
        first = hidden[batch.starts]
        query = layer.mixed(first, slice(0, size))
        rest = layer.mixed(hidden, slice(size, 3 * size))
        parts = []
        text = 0
        for run in batch.runs:
            rows = rest[run.start : run.stop].view(run.count, run.length, 2, -1, self._head_size)
            key, value = rows.permute(2, 0, 3, 1, 4).contiguous().unbind(0)
            own = query[text : text + run.count].view(run.count, -1, 1, self._head_size)
            found = attend(
                own, key, value, scale=self._head_size**-0.5,
                bias=self._find_bias(1, run.length), dropout=layer.mixed_dropout,
            )  # fmt: skip
            parts.append(found.reshape(-1, size))
            text += run.count
        return layer.finish(parts[0] if len(parts) == 1 else torch.cat(parts), first)

    def _apply_head(self, first: Tensor) -> Tensor:
        rows = first[:, None]
        if getattr(self._encoder, "pooler", None) is not None:
            return self._base.classifier(self._base.dropout(self._encoder.pooler(rows)))
        return self._base.classifier(rows)

    @property
    def _head_size(self) -> int:
        config = self._base.config
        return int(config.hidden_size // config.num_attention_heads)

    def _find_bias(self, rows: int, length: int) -> Tensor | None:
        """MPNet's relative bias (1, heads, rows, length): a corner of one table for all lengths."""
        if self._base.config.model_type != "mpnet":
            return None
        table = self._position_bias
        if table is None or table.shape[-1] < length:
            size = max(128, 1 << (length - 1).bit_length())
            weight = self._encoder.encoder.relative_attention_bias.weight
            with torch.no_grad():
                table = self._encoder.encoder.compute_position_bias(weight.new_empty(1, size, 0))
            self._position_bias = table
        return table[:, :, :rows, :length]

    def _find_layers(self) -> list[_Layer]:
        """The layers taken apart; empty where the model must run through its own forward method."""
        config = self._base.config
        if config.model_type not in _FAMILIES or getattr(config, "is_decoder", False):
            return []
        # Layers that the checkpoint lacks are trained whole, behind a wrapper of PEFT.
        inside = [*self._encoder.embeddings.modules(), *self._encoder.encoder.modules()]
        if any(isinstance(module, ModulesToSaveWrapper) for module in inside):
            return []
        linears = [m for m in inside if isinstance(m, nn.Linear | BaseTunerLayer)]
        if not all(map(is_supported, linears)):
            return []
        return [_take_apart(layer) for layer in self._encoder.encoder.layer]


def _take_apart(layer: Any) -> _Layer:
    attention = layer.attention
    if hasattr(attention, "attn"):  # MPNet
        inner, after = attention.attn, attention
        mixed, output = [inner.q, inner.k, inner.v], inner.o
    else:
        inner, after = attention.self, attention.output
        mixed, output = [inner.query, inner.key, inner.value], after.dense
    return _Layer(
        mixed=Projection(mixed),
        mixed_dropout=inner.dropout,
        output=Projection([output]),
        output_dropout=after.dropout,
        output_norm=after.LayerNorm,
        widened=Projection([layer.intermediate.dense]),
        activation=layer.intermediate.intermediate_act_fn,
        narrowed=Projection([layer.output.dense]),
        narrowed_dropout=layer.output.dropout,
        narrowed_norm=layer.output.LayerNorm,
    )
