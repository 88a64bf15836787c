"""Token ids of large data sets, kept between runs.

An entry is keyed by tokenizer, length limit and texts. It is only there to save time: one that is
damaged is made anew, and one that cannot be written is done without.
"""

import hashlib
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from textlora.model.batching import TokenizedTexts, limit_length, tokenize
from textlora.system.files import drop_stale, find_cache_folder, write_atomically

_MIN_TEXTS = 5_000  # fewer are tokenized in the time that reading a file takes
_KEPT_DAYS = 30


def tokenize_cached(
    tokenizer: Any, texts: Sequence[str], max_length: int, fingerprint: str
) -> TokenizedTexts:
    """As `tokenize`; `fingerprint` says which texts they are.

    Shapes:  returns one row a text, in the same order.
    """
    if len(texts) < _MIN_TEXTS:
        return tokenize(tokenizer, texts, max_length)
    backend = limit_length(tokenizer, max_length)
    key = hashlib.sha256(
        "\0".join([backend.to_str(), version("tokenizers"), fingerprint]).encode("utf-8", "replace")
    ).hexdigest()
    path = find_cache_folder("tokens") / f"{key}.safetensors"
    found = _read(path, len(texts))
    if found is None:
        found = tokenize(tokenizer, texts, max_length)
        _write(path, found)
    return found


def _read(path: Path, count: int) -> TokenizedTexts | None:
    try:
        values = load_file(path)
        path.touch()  # in use
        found = TokenizedTexts(values["token_ids"], values["offsets"], values["truncated"])
    except (OSError, SafetensorError, KeyError):
        return None
    ends = found.offsets[[0, -1]].tolist() if len(found) == count else []
    return found if ends == [0, len(found.token_ids)] else None


def _write(path: Path, tokens: TokenizedTexts) -> None:
    arrays: dict[str, np.ndarray[Any, Any]] = {
        "token_ids": tokens.token_ids,
        "offsets": np.ascontiguousarray(tokens.offsets),
        "truncated": tokens.truncated,
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        drop_stale(path.parent, _KEPT_DAYS)
        write_atomically(path, save(arrays))
    except OSError:
        pass  # a full or read-only disk costs time the next time, nothing else
