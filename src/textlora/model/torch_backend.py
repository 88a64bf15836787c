"""Logits of many texts with torch: batches of similar length through the engine."""

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from textlora.model.batching import TokenizedTexts, make_batch
from textlora.model.engine import Engine
from textlora.model.logits import Check, compute_by_groups, go_on
from textlora.model.number_format import cast_frozen
from textlora.model.prefix import Prefix
from textlora.system.runtime import pick_device, use_one_thread


class TorchBackend:
    """A merged classifier in the number format `dtype`, except for its head, on this device.

    It takes the model over: the weights are cast in place.
    """

    def __init__(self, model: nn.Module, heads: list[str], dtype: torch.dtype, pad_id: int) -> None:
        self.identity = f"torch {str(dtype).removeprefix('torch.')}"
        with use_one_thread():
            cast_frozen(model, heads, dtype)
        self.engine = Engine(model.to(pick_device()).eval(), pad_id)
        self.engine.pack_weights()

    def compute_logits(
        self, tokens: TokenizedTexts, check: Check = go_on
    ) -> npt.NDArray[np.float32]:
        """Logits (texts, labels), in the order of `tokens`."""
        return compute_logits(self.engine, tokens, check=check)


def compute_logits(
    engine: Engine,
    tokens: TokenizedTexts,
    prefix: Prefix | None = None,
    check: Check = go_on,
) -> npt.NDArray[np.float32]:
    """Run a model in evaluation mode over tokenized texts, in batches of similar length.

    `prefix` has the rows of frozen layers for these tokens; `check` is called before each batch.

    Shapes:  returns (texts, labels) float32, in the order of `tokens`.
    """
    engine.model.eval()

    def compute(group: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        batch = make_batch(tokens, group).to(engine.device)
        rows = None if prefix is None else prefix.read(group, batch)
        return engine(batch, rows).float().cpu().numpy()

    with torch.inference_mode():
        return compute_by_groups(compute, tokens, engine.max_tokens, check)
