"""Token ids without padding, and the order in which texts meet the model.

Padding is what short texts pay most for, so texts of similar length share a batch. The training
order is a pure function of (seed, epoch): it can start at any step, and every text is seen exactly
once an epoch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

# Tokens of a batch. On a CPU enough to fill its matrix units, little for its caches; a GPU wants
# several thousand more, so that its kernels take longer than their launch.
MAX_TOKENS = {"cpu": 4_096, "cuda": 32_768}
# Texts are sorted by length inside windows of this many batches, not overall: full sorting would
# show the model short texts first.
_WINDOW_BATCHES = 50
_CHUNK_TEXTS = 4096
# oneDNN builds a kernel for each new shape and keeps a limited number of them: few different shapes
# keep it from building at every step.
_LENGTH_MULTIPLE = 8  # of texts padded for transformers' own forward method
_ROW_MULTIPLE = 32  # of all tokens of a batch
# Of texts padded for attention. At whole multiples of 32 a softmax in bfloat16 gives the same bits
# whatever the width, so that an answer does not depend on the neighbours of a text.
_WIDTH_MULTIPLE = 32


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

    def take(self, indices: npt.NDArray[np.int64]) -> "TokenizedTexts":
        """The chosen texts, in that order. Shapes: indices (chosen,)."""
        ids = [self.select(int(index)) for index in indices]
        offsets = np.concatenate([[0], np.cumsum(self.lengths[indices])]).astype(np.int64)
        flat = np.concatenate([self.token_ids[:0], *ids])
        return TokenizedTexts(flat, offsets, self.truncated[indices])

    def select(self, index: int) -> npt.NDArray[np.int32]:
        """Token ids of one text."""
        return self.token_ids[self.offsets[index] : self.offsets[index + 1]]


@dataclass(frozen=True)
class Batch:
    """Some texts, one after the other in one row, and where each token stands if padded.

    Its arrays are numpy's (`arrange_batch`) or torch's (`make_batch`).

    The row ends with at least one token that belongs to no text and is read by none: it stands at
    every place of padding, and makes the length of the row a round number.

    Shapes:  token_ids, positions (tokens,) int64, a token's place in its text; starts (texts,)
    int64, where each text begins; places (texts, length) int64, the token at each padded place;
    mask (texts, length) bool, which of those are real; order (tokens,) int64, the padded place of
    each token, counted row by row, for the first `num_tokens`, which are the real ones.
    """

    num_tokens: int
    token_ids: Any
    positions: Any
    starts: Any
    places: Any
    mask: Any
    order: Any

    def to(self, device: "torch.device") -> "Batch":
        """The same on another device; of torch's arrays."""
        if device.type == "cpu":
            return self
        tensors = [getattr(self, field.name) for field in fields(self)[1:]]
        moved = [tensor.pin_memory().to(device, non_blocking=True) for tensor in tensors]
        return Batch(self.num_tokens, *moved)

    def pad(self, pad_id: int) -> tuple[Any, Any]:
        """Token ids and attention mask, both (texts, length) int64, for models that need them."""
        width = _round_up(int(self.mask.sum(1).max()), _LENGTH_MULTIPLE)
        mask = self.mask[:, :width]
        token_ids = self.token_ids[self.places[:, :width]]
        return token_ids * mask + pad_id * ~mask, mask * 1


def limit_length(tokenizer: Any, max_length: int) -> Any:
    """The tokenizer's own engine, set to cut at `max_length` tokens and not to pad."""
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.enable_truncation(max_length)
    return backend


def tokenize(tokenizer: Any, texts: Sequence[str], max_length: int) -> TokenizedTexts:
    """Tokenize cleaned texts, cutting those beyond `max_length` tokens and marking them.

    Shapes:  returns one row a text, in the same order.
    """
    backend = limit_length(tokenizer, max_length)
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
    """The chosen texts as one row, for torch. Shapes: indices (texts,)."""
    import torch

    found = arrange_batch(texts, indices)
    arrays = (getattr(found, field.name) for field in fields(found)[1:])
    return Batch(found.num_tokens, *map(torch.from_numpy, arrays))


def arrange_batch(texts: TokenizedTexts, indices: npt.NDArray[np.int64]) -> Batch:
    """The chosen texts as one row, in numpy's arrays. Shapes: indices (texts,)."""
    lengths = texts.lengths[indices]
    tokens = int(lengths.sum())
    total = _round_up(tokens + 1, _ROW_MULTIPLE)
    width = _round_up(int(lengths.max()), _WIDTH_MULTIPLE)
    starts = np.cumsum(lengths) - lengths
    columns = np.arange(width)
    mask = columns < lengths[:, None]
    order = np.zeros(total, np.int64)
    order[:tokens] = np.flatnonzero(mask)
    token_ids = np.zeros(total, np.int64)
    token_ids[:tokens] = np.concatenate([texts.select(int(index)) for index in indices])
    positions = order % width
    places = np.where(mask, starts[:, None] + columns, tokens)
    return Batch(tokens, token_ids, positions, starts, places, mask, order)


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


def compute_padded_share(
    lengths: npt.NDArray[np.int64], batches: list[npt.NDArray[np.int64]], *, packed: bool
) -> float:
    """Share of the computed tokens that belong to no text, 0..1, in packed or padded batches."""
    real = computed = 0
    for batch in batches:
        real += int(lengths[batch].sum())
        computed += count_rows(lengths[batch], packed=packed).rows
    return 1.0 - real / computed


@dataclass(frozen=True)
class BatchRows:
    """Rows that a batch is computed in; `places` of them in attention, texts of one `width`."""

    rows: int
    places: int
    width: int


def count_rows(lengths: npt.NDArray[np.int64], *, packed: bool) -> BatchRows:
    """Rows of a batch of texts, packed or padded. Shapes: lengths (texts,), at least one."""
    longest = int(lengths.max())
    width = _round_up(longest, _WIDTH_MULTIPLE if packed else _LENGTH_MULTIPLE)
    places = len(lengths) * width
    rows = _round_up(int(lengths.sum()) + 1, _ROW_MULTIPLE) if packed else places
    return BatchRows(rows, places, width)


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
        width = _round_up(int(lengths[order[start]]), _LENGTH_MULTIPLE)
        count = max(1, max_tokens // width)
        groups.append(order[start : start + count])
        start += count
    return groups


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
