"""Token ids without padding, and the order in which texts meet the model.

Padding is what short texts pay most for, so texts of similar length share a batch. The training
order is a pure function of (seed, epoch): it can start at any step, and every text is seen exactly
once an epoch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

# Texts are sorted by length inside windows of this many batches, not overall: full sorting would
# show the model short texts first.
_WINDOW_BATCHES = 50
_CHUNK_TEXTS = 4096
_LENGTH_MULTIPLE = 8  # of padded batches: few different shapes suit matrix units and their caches


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
class Run:
    """Texts of equal length that stand side by side: the tokens from `start` to `stop`."""

    start: int
    stop: int
    count: int
    length: int


@dataclass(frozen=True)
class Batch:
    """Some texts, one after the other, without padding.

    Shapes:  token_ids, positions (tokens,) int64, a token's place in its text; starts (texts,)
    int64, where each text begins.
    """

    token_ids: torch.Tensor
    positions: torch.Tensor
    starts: torch.Tensor
    runs: tuple[Run, ...]

    def to(self, device: torch.device) -> "Batch":
        """The same on another device."""
        if device.type == "cpu":
            return self

        def move(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.pin_memory().to(device, non_blocking=True)

        return Batch(move(self.token_ids), move(self.positions), move(self.starts), self.runs)

    def pad(self, pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and attention mask, both (texts, length) int64, for models that need them."""
        longest = max(run.length for run in self.runs)
        width = -(-longest // _LENGTH_MULTIPLE) * _LENGTH_MULTIPLE
        token_ids = self.token_ids.new_full((len(self.starts), width), pad_id)
        mask = torch.zeros_like(token_ids)
        text = 0
        for run in self.runs:
            rows = slice(text, text + run.count)
            token_ids[rows, : run.length] = self.token_ids[run.start : run.stop].view(run.count, -1)
            mask[rows, : run.length] = 1
            text += run.count
        return token_ids, mask


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


def make_batch(texts: TokenizedTexts, indices: npt.NDArray[np.int64]) -> Batch:
    """The chosen texts as one row; runs are shortest where texts are sorted by length.

    Shapes:  indices (texts,).
    """
    rows = [texts.select(int(index)) for index in indices]
    lengths = [len(row) for row in rows]
    runs: list[Run] = []
    start = 0
    for length, group in groupby(lengths):
        count = len(list(group))
        stop = start + count * length
        runs.append(Run(start, stop, count, length))
        start = stop
    starts = np.cumsum([0, *lengths[:-1]])
    return Batch(
        torch.from_numpy(np.concatenate(rows).astype(np.int64)),
        torch.from_numpy(np.concatenate([np.arange(length) for length in lengths])),
        torch.from_numpy(starts),
        tuple(runs),
    )


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
    """Cut `indices` into groups of at most `max_tokens` tokens if padded, longest texts first.

    A text longer than that is a group of its own. Longest first: memory runs out at once or never.

    Shapes:  lengths (texts,); indices (chosen,); returns groups that together hold `indices`.
    """
    order = indices[np.argsort(-lengths[indices], kind="stable")]
    groups = []
    start = 0
    while start < len(order):
        count = max(1, max_tokens // int(lengths[order[start]]))
        groups.append(order[start : start + count])
        start += count
    return groups
