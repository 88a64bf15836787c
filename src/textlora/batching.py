"""Token ids without padding, and the order in which texts meet the model.

Padding is what short texts pay most for, so texts of similar length share a batch. The training
order is a pure function of (seed, epoch): it can start at any step, and every text is seen exactly
once an epoch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

# Texts are sorted by length inside windows of this many batches, not overall: full sorting would
# show the model short texts first.
_WINDOW_BATCHES = 50
_CHUNK_TEXTS = 4096
_LENGTH_MULTIPLE = 8  # padded lengths: few different shapes suit matrix units and their caches


@dataclass(frozen=True)
class TokenizedTexts:
    """Token ids of many texts in one flat array, special tokens included.

    Shapes:  token_ids (tokens,) int32; offsets (texts + 1,) int64; truncated (texts,) bool.
    """

    token_ids: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    truncated: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each text, (texts,) int64."""
        return np.diff(self.offsets)

    def select(self, index: int) -> npt.NDArray[np.int32]:
        """Token ids of one text."""
        return self.token_ids[self.offsets[index] : self.offsets[index + 1]]


@dataclass(frozen=True)
class Batch:
    """Padded token ids of some texts. Shapes: token_ids, attention_mask (texts, length) int64."""

    token_ids: torch.Tensor
    attention_mask: torch.Tensor

    def to(self, device: torch.device) -> "Batch":
        """The same on another device."""
        return Batch(
            self.token_ids.to(device, non_blocking=True),
            self.attention_mask.to(device, non_blocking=True),
        )


def tokenize(tokenizer: Any, texts: Sequence[str], max_length: int) -> TokenizedTexts:
    """Tokenize cleaned texts, cutting those beyond `max_length` tokens and marking them.

    Shapes:  returns one row a text, in the same order.
    """
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.enable_truncation(max_length)
    ids: list[npt.NDArray[np.int32]] = []
    truncated: list[bool] = []
    for start in range(0, len(texts), _CHUNK_TEXTS):
        for encoding in backend.encode_batch_fast(list(texts[start : start + _CHUNK_TEXTS])):
            ids.append(np.array(encoding.ids, dtype=np.int32))
            truncated.append(bool(encoding.overflowing))
    flat = np.concatenate(ids) if ids else np.zeros(0, np.int32)
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in ids])]).astype(np.int64)
    return TokenizedTexts(flat, offsets, np.array(truncated, dtype=np.bool_))


def make_batch(texts: TokenizedTexts, indices: npt.NDArray[np.int64], pad_id: int) -> Batch:
    """Pad the chosen texts to the longest of them, rounded up to a multiple of 8.

    Shapes:  indices (texts,).
    """
    rows = [texts.select(int(index)) for index in indices]
    longest = max(len(row) for row in rows)
    width = -(-longest // _LENGTH_MULTIPLE) * _LENGTH_MULTIPLE
    token_ids = np.full((len(rows), width), pad_id, dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=np.int64)
    for number, row in enumerate(rows):
        token_ids[number, : len(row)] = row
        mask[number, : len(row)] = 1
    return Batch(torch.from_numpy(token_ids), torch.from_numpy(mask))


def compute_epoch_batches(
    lengths: npt.NDArray[np.int64], batch_size: int, seed: int, epoch: int
) -> list[npt.NDArray[np.int64]]:
    """The batches of one epoch: a shuffle, sorted by length inside windows, in shuffled order.

    Every batch has `batch_size` texts except the last one. The windows are cut anew each epoch.

    Shapes:  lengths (texts,); each batch (batch_size,) positions in `lengths`.
    """
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(len(lengths))
    num_full = len(order) // batch_size
    full, rest = order[: num_full * batch_size], order[num_full * batch_size :]
    window = batch_size * _WINDOW_BATCHES
    batches: list[npt.NDArray[np.int64]] = []
    for start in range(0, len(full), window):
        part = full[start : start + window]
        part = part[np.argsort(lengths[part], kind="stable")]
        batches.extend(part.reshape(-1, batch_size))
    batches = [batches[index] for index in random.permutation(len(batches))]
    return [*batches, rest] if len(rest) else batches


def split_by_tokens(
    lengths: npt.NDArray[np.int64], indices: npt.NDArray[np.int64], max_tokens: int
) -> list[npt.NDArray[np.int64]]:
    """Cut `indices` into groups of at most `max_tokens` tokens after padding, longest texts first.

    A text longer than that is a group of its own. Longest first: memory runs out at once or never.

    Shapes:  lengths (texts,); indices (chosen,); returns groups that together hold `indices`.
    """
    order = indices[np.argsort(-lengths[indices], kind="stable")]
    groups = []
    start = 0
    while start < len(order):
        width = -(-int(lengths[order[start]]) // _LENGTH_MULTIPLE) * _LENGTH_MULTIPLE
        count = max(1, max_tokens // width)
        groups.append(order[start : start + count])
        start += count
    return groups
