"""From rows of real tokens to padded places, which attention reads, and back.

Every real token has one padded place, so gradients go back by index as well; torch would add them
up row by row. What stands for padding is read by no text, and gets no gradient.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from textlora.model.batching import Batch


class _Spread(Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, batch: Batch) -> Tensor:
        ctx.batch = batch
        return rows.index_select(0, batch.places.flatten())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        found = gradient.index_select(0, ctx.batch.order)
        found[ctx.batch.num_tokens :] = 0
        return found, None


class _Gather(Function):
    @staticmethod
    def forward(ctx: Any, padded: Tensor, batch: Batch) -> Tensor:
        ctx.batch = batch
        return padded.index_select(0, batch.order)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        # The first token of no text has no gradient, and it is that of all padding.
        return gradient.index_select(0, ctx.batch.places.flatten()), None


def spread(rows: Tensor, batch: Batch) -> Tensor:
    """Rows of tokens to padded places. Shapes: (tokens, width) to (texts * length, width)."""
    if torch.is_grad_enabled():
        padded: Tensor = _Spread.apply(rows, batch)  # type: ignore[no-untyped-call]
        return padded
    return rows.index_select(0, batch.places.flatten())  # can be traced


def gather(padded: Tensor, batch: Batch) -> Tensor:
    """Padded places to rows of tokens. Shapes: (texts * length, width) to (tokens, width)."""
    if torch.is_grad_enabled():
        rows: Tensor = _Gather.apply(padded, batch)  # type: ignore[no-untyped-call]
        return rows
    return padded.index_select(0, batch.order)
