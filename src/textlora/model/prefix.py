"""The output of the layers below the lowest adapted one, computed once and read in each epoch.

Those layers never change, so their output for a text is the same in every epoch. It lies in a file
of the cache folder, in the number format of the model, and goes when training ends.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from textlora.model.batching import Batch, TokenizedTexts, make_batch, split_by_tokens
from textlora.model.engine import Engine
from textlora.system.files import drop_stale, find_cache_folder, flush_file, move_file
from textlora.system.progress import Reporter

_KEPT_DAYS = 1  # of what a killed run left behind
_shared: ContextVar[set[Path] | None] = ContextVar("shared", default=None)
_STORED = {torch.bfloat16: torch.int16, torch.float32: torch.float32}  # numpy knows no bfloat16


@dataclass(frozen=True)
class Prefix:
    """Hidden rows of tokenized texts. Shapes: rows (tokens, width), offsets (texts + 1,)."""

    path: Path
    rows: Tensor
    offsets: npt.NDArray[np.int64]

    def read(self, indices: npt.NDArray[np.int64], batch: Batch) -> Tensor:
        """The rows of the chosen texts, in the order of `batch`: (tokens, width)."""
        parts = [self.rows[self.offsets[i] : self.offsets[i + 1]] for i in indices]
        rest = self.rows.new_zeros(len(batch.token_ids) - batch.num_tokens, self.rows.shape[1])
        return torch.cat([*parts, rest]).to(batch.token_ids.device)


@contextmanager
def open_prefix(
    engine: Engine,
    tokens: TokenizedTexts,
    encoder: str,
    max_gb: float,
    report: Reporter,
    check: Callable[[], None] = lambda: None,
) -> Iterator[Prefix | None]:
    """The prefix of `tokens`, made if it is not there; deleted on leaving.

    `check` is called before each batch; what it raises stops the making.

    None where nothing would be saved, or where it would be larger than `max_gb` or the free space.
    """
    prefix = _find(engine, tokens, encoder, max_gb, report, check)
    shared = _shared.get()
    try:
        yield prefix
    finally:
        if prefix is not None and shared is not None:
            shared.add(prefix.path)
        elif prefix is not None:
            prefix.path.unlink(missing_ok=True)


@contextmanager
def share_prefixes() -> Iterator[None]:
    """Inside, prefixes stay for the next run that can use them; they are deleted on leaving."""
    paths: set[Path] = set()
    token = _shared.set(paths)
    try:
        yield
    finally:
        _shared.reset(token)
        for path in paths:
            path.unlink(missing_ok=True)


def _find(
    engine: Engine,
    tokens: TokenizedTexts,
    encoder: str,
    max_gb: float,
    report: Reporter,
    check: Callable[[], None],
) -> Prefix | None:
    if not engine.num_frozen or not len(tokens):
        return None
    shape = (len(tokens.token_ids), engine.width)
    size = shape[0] * shape[1] * engine.dtype.itemsize
    folder = find_cache_folder("prefix")
    path = folder / f"{_compute_key(engine, tokens, encoder)}.bin"
    layers = f"layers 0 to {engine.num_frozen - 1} never change"
    if size > max_gb * 1e9:
        report.say(
            f"{layers}; keeping their output would save time and take {size / 1e9:.1f} GB, more "
            f"than training.prefix_cache_gb = {max_gb}"
        )
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        drop_stale(folder, _KEPT_DAYS)
        if not path.is_file() or path.stat().st_size != size:
            if size > 0.9 * shutil.disk_usage(folder).free:
                report.say(f"{layers}; {folder} has no room to keep their output")
                return None
            report.say(f"{layers}; their output is computed once: {size / 1e9:.2f} GB in {path}")
            _write(engine, tokens, path, shape, report, check)
        rows = _map(path, engine.dtype, shape, "r")
    except OSError as error:
        report.say(f"{folder}: cannot keep the output of frozen layers ({error.strerror or error})")
        return None
    return Prefix(path, rows, tokens.offsets)


def _compute_key(engine: Engine, tokens: TokenizedTexts, encoder: str) -> str:
    facts = [encoder, engine.num_frozen, str(engine.dtype), engine.device.type]
    digest = hashlib.sha256(json.dumps([*facts, version("torch"), version("textlora")]).encode())
    digest.update(tokens.token_ids.tobytes())
    digest.update(tokens.offsets.tobytes())
    return digest.hexdigest()


def _write(
    engine: Engine,
    tokens: TokenizedTexts,
    path: Path,
    shape: tuple[int, int],
    report: Reporter,
    check: Callable[[], None],
) -> None:
    staged = path.with_name(f".{path.name}.{os.getpid()}.partial")
    rows = _map(staged, engine.dtype, shape, "w+")
    every = np.arange(len(tokens))
    try:
        with report.track("frozen layers", len(every)) as bar, torch.inference_mode():
            for group in split_by_tokens(tokens.lengths, every, engine.max_tokens):
                check()
                batch = make_batch(tokens, group).to(engine.device)
                found = engine.compute_prefix(batch)[: batch.num_tokens].cpu()
                parts = torch.split(found, tokens.lengths[group].tolist())
                for index, part in zip(group, parts, strict=True):
                    rows[tokens.offsets[index] : tokens.offsets[index + 1]] = part
                bar.advance(len(group))
        flush_file(staged)
        move_file(staged, path)
    finally:
        staged.unlink(missing_ok=True)


def _map(path: Path, dtype: torch.dtype, shape: tuple[int, int], mode: str) -> Tensor:
    """A tensor whose memory is the file.

    Only for writing shared with it: torch would make a file that has gone anew, full of zeros.
    """
    if mode == "w+":
        with path.open("wb") as stream:
            size_bytes = shape[0] * shape[1] * dtype.itemsize
            if hasattr(os, "posix_fallocate"):  # not on macOS
                os.posix_fallocate(stream.fileno(), 0, size_bytes)
            stream.truncate(size_bytes)
    size = shape[0] * shape[1]
    try:
        stored = torch.from_file(str(path), shared=mode == "w+", size=size, dtype=_STORED[dtype])
    except RuntimeError as error:
        raise OSError(str(error)) from None
    return stored.view(dtype).view(shape)
