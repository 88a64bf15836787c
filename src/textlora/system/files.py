"""Files that appear whole or not at all, SHA-256 manifests to prove it, and locks on folders.

Everything that must survive a crash is written here: what is on disk under its final name was
flushed before. tests/runs/test_faults.py lets each single call to the system fail.
"""

import errno
import fcntl
import hashlib
import io
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
_LOCK = ".lock"
_CHUNK_BYTES = 1 << 20
# Formats that can run code when they are read. None is ever written or read here.
_PICKLED = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib"}


def write_file(path: Path, content: bytes) -> None:
    """Write a new file and flush it to disk; what lies there already is replaced, never followed.

    A crash may leave a part of it: give it its final name by a rename.
    """
    path.unlink(missing_ok=True)  # a link would lead elsewhere
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append_bytes(stream: io.FileIO, content: bytes) -> None:
    """Write at the end of an unbuffered file and flush it to disk."""
    rest = memoryview(content)
    while rest:
        rest = rest[stream.write(rest) or 0 :]
    os.fsync(stream.fileno())


def expand_home(name: str) -> Path:
    """A path in which `~` may stand for a home; a user who does not exist has none."""
    # pathlib's own raises RuntimeError for one.
    return Path(os.path.expanduser(name))  # noqa: PTH111


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace `path` in one step: staged beside it, flushed to disk, renamed.

    A reader sees the old content or the new, also after a crash.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    partial = path.with_name(f".{path.name}.partial")
    try:
        write_file(partial, data)
        partial.replace(path)
    except OSError:
        with suppress(OSError):
            partial.unlink(missing_ok=True)  # a full disk needs the room
        raise
    _fsync_folder(path.parent)


def flush_file(path: Path) -> None:
    """Wait until what another library wrote is on the disk."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def move_file(source: Path, target: Path) -> None:
    """Give a file that was flushed another name, and flush that."""
    source.replace(target)
    _fsync_folder(target.parent)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as readable JSON, atomically."""
    write_atomically(path, format_json(value))


def format_json(value: Any) -> str:
    """Readable JSON, as all our files have it."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


@contextmanager
def stage_folder(target: Path) -> Iterator[Path]:
    """A new folder to fill with `write_file`; it becomes `target` when the block ends.

    After an error in the block it is gone, and `target` is as it was. After a crash, too; an older
    `target` may then be found under the name that `mend_folder` looks for.
    """
    staged = target.with_name(f".{target.name}.partial")
    _remove(staged)
    staged.mkdir(parents=True)
    try:
        yield staged
        _fsync_folder(staged)
        old = _name_old(target)
        _remove(old)
        if target.exists():
            target.rename(old)
        staged.rename(target)
        _fsync_folder(target.parent)
    except BaseException:
        with suppress(OSError):
            _remove(staged)
            mend_folder(target)
        raise
    with suppress(OSError):  # the new one is there
        _remove(old)


def mend_folder(target: Path) -> None:
    """Put the older `target` back if a crash came between its two renames."""
    old = _name_old(target)
    if old.is_dir() and not target.exists():
        old.rename(target)


def remove_folder(folder: Path) -> None:
    """Delete a folder so that no crash leaves a part of it under its name."""
    doomed = folder.with_name(f".{folder.name}.removed")
    _remove(doomed)
    if folder.exists():
        folder.rename(doomed)
        _remove(doomed)


def lock_folder(folder: Path) -> AbstractContextManager[None]:
    """Keep other processes out of a folder; see `lock_file`."""
    return lock_file(folder / _LOCK)


@contextmanager
def lock_file(path: Path, *, passing: bool = False) -> Iterator[None]:
    """Keep other processes out; the system lets go when this process ends, however it ends.

    The file stays unless it is `passing`.

    Raises:  BlockingIOError, its text the id of the process that is inside.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 20).decode("ascii", "replace").strip()
            raise BlockingIOError(holder or "unknown") from None
        except OSError as error:
            # Some network folders know no locks; training there must be possible.
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
        if passing and not _is_at(descriptor, path):
            raise BlockingIOError("that has just ended")
        with suppress(OSError):  # a full disk; the lock itself holds
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        try:
            yield
        finally:
            if passing:
                path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def find_cache_folder(name: str) -> Path:
    """Where things are kept that can be made again; not there yet, perhaps.

    In `TEXTLORA_CACHE`, else in the user's cache folder.
    """
    if own := os.environ.get("TEXTLORA_CACHE"):
        return Path(own) / name
    shared = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(shared) / "textlora" / name


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
    inside = folder.resolve()
    for name in (MANIFEST, *described):
        if not (folder / name).resolve().is_relative_to(inside):
            return f"{name} leads out of the folder"
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


def find_pickle(folder: Path) -> str | None:
    """The name of a file in `folder` whose format can run code when it is read, or None."""
    names = (path.name for path in sorted(folder.iterdir()) if path.suffix in _PICKLED)
    return next(names, None)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file still has this name."""
    return path.exists() and os.path.samestat(os.fstat(descriptor), path.stat())


def _name_old(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")


def _remove(path: Path) -> None:
    """Delete a folder, or the file or link that stands in its place."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _fsync_folder(path: Path) -> None:
    # A rename is on disk only once its folder is.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
