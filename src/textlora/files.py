"""Files that appear whole or not at all, and SHA-256 manifests to prove it."""

import hashlib
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
_CHUNK_BYTES = 1 << 20


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace `path` in one step: staged beside it, flushed to disk, renamed.

    A reader sees the old content or the new, also after a crash.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)
    _fsync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as readable JSON, atomically."""
    write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def replace_folder(staged: Path, target: Path) -> None:
    """Move the finished folder `staged` to `target`, replacing an older one.

    Every file is flushed before the rename, so the folder under its final name is whole.
    """
    for file in sorted(staged.rglob("*")):
        if file.is_file():
            _fsync_file(file)
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    staged.rename(target)
    _fsync_folder(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def find_cache_folder(name: str) -> Path:
    """Where things are kept that can be made again; not there yet, perhaps.

    In `TEXTLORA_CACHE`, else in the user's cache folder.
    """
    own = os.environ.get("TEXTLORA_CACHE")
    shared = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return (Path(own) if own else Path(shared) / "textlora") / name


def drop_stale(folder: Path, days: float) -> None:
    """Delete the files of a cache that nobody has touched for so many days."""
    for path in folder.iterdir():
        if time.time() - path.stat().st_mtime > days * 86_400:
            path.unlink(missing_ok=True)


def compute_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def describe_files(folder: Path, names: list[str]) -> dict[str, dict[str, Any]]:
    """Size in bytes and SHA-256 of each named file: what a manifest lists."""
    return {
        name: {"bytes": (folder / name).stat().st_size, "sha256": compute_sha256(folder / name)}
        for name in names
    }


def find_damage(folder: Path, described: dict[str, dict[str, Any]]) -> str | None:
    """Compare files with what `describe_files` said; the first difference in words, or None."""
    for name, expected in described.items():
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        size = file.stat().st_size
        if size != expected["bytes"]:
            return f"{name} has {size} bytes, expected {expected['bytes']}"
        if compute_sha256(file) != expected["sha256"]:
            return f"{name} was changed (its SHA-256 differs)"
    return None


def _fsync_file(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _fsync_folder(path: Path) -> None:
    # A rename is on disk only once its folder is.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
