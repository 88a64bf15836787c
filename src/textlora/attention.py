"""Attention over texts of one length, by whichever kernel is faster for them.

Two batched matrix products and a softmax beat torch's fused CPU kernel where texts are short, most
of all in the backward pass and in bfloat16 (docs/experiments.md). The fused kernel stays for CUDA
and, in float32, for long texts. For encoders that run through transformers' own layers the same
choice is registered with its `AttentionInterface`.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

NAME = "textlora"
# Tokens from which the fused CPU kernel is not slower, in float32. Measured: docs/experiments.md.
_FUSED_FROM = 128


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scale: float,
    bias: Tensor | None = None,
    dropout: nn.Module | None = None,
) -> Tensor:
    """softmax(query key' scale + bias) value, without a mask: all texts have the same length.

    Shapes:  query (texts, heads, rows, width); key, value (texts, heads, length, width); bias
    broadcasts to (texts, heads, rows, length); returns the shape of `query`, contiguous with rows
    before heads: (texts, rows, heads, width) in memory.
    """
    dropped = dropout is not None and dropout.training and getattr(dropout, "p", 0.0) > 0.0
    if not dropped and _is_fused(key):
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
    AttentionInterface.register(NAME, _attend_padded)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    return NAME


def _is_fused(key: Tensor) -> bool:
    if key.device.type != "cpu":
        return True
    return key.dtype == torch.float32 and key.shape[2] >= _FUSED_FROM


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
