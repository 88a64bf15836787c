"""The text of a file or of stdin: decompressed, decoded, and what is wrong with its bytes."""

import codecs
import gzip
import io
import os
import re
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

from textlora.errors import DataError

Compression = Literal["", "gz", "zst"]
STREAM = Path("-")  # stdin or stdout
_WAIT_S = 0.2  # for standard input, until signals are looked at
_UNDECODED = re.compile("[\udc80-\udcff]")  # what `surrogateescape` makes of a byte


def find_compression(path: Path) -> Compression:
    """How a file is compressed, as its name says."""
    suffix = path.suffix.lower()
    return "gz" if suffix == ".gz" else "zst" if suffix == ".zst" else ""


class _Stdin(io.RawIOBase):
    """The bytes of standard input, waited for in short pieces.

    A signal that comes just before a read begins does not end it: Python would answer it only when
    somebody writes again.
    """

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not select.select([sys.stdin], [], [], _WAIT_S)[0]:
            pass  # between two waits Python answers signals
        return os.readv(sys.stdin.fileno(), [buffer])


@contextmanager
def open_raw(path: Path) -> "Iterator[io.BufferedReader[Any]]":
    """The bytes of a file, decompressed."""
    compression = find_compression(path)
    if path == STREAM:
        if sys.stdin is None:
            raise OSError("standard input is closed")
        with io.BufferedReader(_Stdin(), 1 << 20) as stream:
            yield stream
    elif compression == "zst":
        import pyarrow as pa

        with pa.CompressedInputStream(pa.OSFile(str(path)), "zstd") as stream:
            yield io.BufferedReader(stream, 1 << 20)
    else:
        opener: Any = gzip.open if compression else open
        with opener(path, "rb") as stream:
            yield stream


@contextmanager
def open_text(path: Path, encoding: str, tolerant: bool) -> Iterator[IO[str]]:
    """Its text, without a byte-order mark.

    When `tolerant`, bytes that are no text pass through; see `find_undecoded`.

    Raises:  DataError for zero bytes in what should be UTF-8.
    """
    codec = codecs.lookup(encoding).name
    with open_raw(path) as raw:
        start = raw.peek(1024)[:1024]
        marked = start[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        if codec == "utf-8" and b"\0" in start and not marked:
            guess = "utf-16-le"
            raise DataError(
                f"{path}: has zero bytes, so it is not {encoding} but perhaps UTF-16; save it as "
                f"UTF-8 or name its encoding (train: --set data.encoding={guess}, "
                f"predict: --encoding {guess})"
            )
        # A file that is wholly in another encoding is told, not taken for bad rows.
        errors = "surrogateescape" if tolerant and not marked else "strict"
        if codec == "utf-8":
            codec = "utf-8-sig"
        elif marked and codec in ("utf-16-le", "utf-16-be"):
            codec = "utf-16"  # which reads the mark and drops it
        stream = io.TextIOWrapper(raw, encoding=codec, errors=errors, newline="")
        try:
            yield stream
        finally:
            stream.detach()


def find_undecoded(text: str) -> str:
    """The fault of a text with bytes that are no text in the file's encoding; empty if none."""
    found = None if text.isascii() else _UNDECODED.search(text)
    if found is None:
        return ""
    byte = ord(found.group()) - 0xDC00
    return (
        f"byte 0x{byte:02x} is not of the file's encoding; name another (predict: --encoding, "
        "elsewhere: --set data.encoding=...)"
    )


def explain_encoding(path: Path, line: int, encoding: str, error: UnicodeDecodeError) -> str:
    """What to say of bytes that are not of the encoding."""
    start = b""
    if path != STREAM:
        with open_raw(path) as stream:
            start = stream.peek(2)[:2]
    guess = "utf-16" if start in (b"\xff\xfe", b"\xfe\xff") else "latin-1"
    # Buffered decoding fails ahead of the line being read, so the line is "at or after".
    byte = error.object[error.start]
    return (
        f"{path}: at or after line {line}: not {encoding} (byte 0x{byte:02x}); save it as UTF-8 or "
        f"name its encoding, such as {guess} (train: --set data.encoding={guess}, "
        f"predict: --encoding {guess})"
    )
