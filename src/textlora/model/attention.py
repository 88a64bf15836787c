"""Attention by whichever kernel is faster on the device.

On a CPU two batched matrix products and a softmax beat torch's fused kernel, most of all in the
backward pass and in bfloat16; on CUDA the fused kernel is the fast one (docs/experiments.md). For
encoders that run through transformers' own layers the choice is registered with its
`AttentionInterface`.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

NAME = "textlora"


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scale: float,
    bias: Tensor | None = None,
    dropout: nn.Module | None = None,
) -> Tensor:
    """softmax(query key' scale + bias) value; `bias` is -inf where there must be no attention.

    Shapes:  query (texts, heads, rows, width); key, value (texts, heads, length, width); bias
    broadcasts to (texts, heads, rows, length); returns the shape of `query`, contiguous with rows
    before heads: (texts, rows, heads, width) in memory.
    """
    dropped = dropout is not None and dropout.training and getattr(dropout, "p", 0.0) > 0.0
    if not dropped and _is_fused(key.device):
        result = scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=scale)
        return result.transpose(1, 2).contiguous().transpose(1, 2)
    num_texts, heads, rows, width = query.shape
    length = key.shape[2]
    flat_key = key.reshape(num_texts * heads, length, width)
    flat_value = value.reshape(num_texts * heads, length, width)
    flat_query = (query * scale).reshape(num_texts * heads, rows, width)
    scores = torch.bmm(flat_query, flat_key.transpose(1, 2))
    if bias is not None:
        scores = (scores.view(num_texts, heads, rows, length) + bias).view_as(scores)
    shares = torch.softmax(scores, dim=-1)
    if dropped:
        assert dropout is not None
        shares = dropout(shares)
    result = torch.bmm(shares, flat_value).view(num_texts, heads, rows, width)
    return result.transpose(1, 2).contiguous().transpose(1, 2)


def register() -> str:
    """Make the choice known to transformers; returns the name to load a model with."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, _attend_padded)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    return NAME


def _is_fused(device: torch.device) -> bool:
    return device.type != "cpu"


def _attend_padded(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """`attend` as transformers calls it. Shapes: attention_mask broadcasts to the scores, bool."""
    bias = None
    if attention_mask is not None:
        hidden = torch.finfo(query.dtype).min
        bias = torch.zeros_like(attention_mask, dtype=query.dtype).masked_fill_(
            ~attention_mask, hidden
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    drop = nn.Dropout(dropout).train(module.training)
    result = attend(query, key, value, scale=scale, bias=bias, dropout=drop)
    return result.transpose(1, 2), None
