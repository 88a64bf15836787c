"""A long output that is written chunk by chunk, and goes on where a crash left it.

    .OUT.partial   the chunks so far, each flushed before it is noted
    .OUT.journal   a line of JSON: what is computed from what; then a line a chunk, with its size
    .OUT.lock      held while a process writes

OUT and its rejects appear when they are whole; the rest is then gone. Where output goes to stdout
there is nothing to go on from.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from textlora.errors import DataError, SettingsError, UnfinishedError
from textlora.system.files import append_bytes, lock_file, move_file, write_atomically
from textlora.system.text_stream import STREAM

# Parts of a key whose values say nothing to a reader.
_CHANGES = {"model": "the classifier has changed", "input": "the input has changed"}


@dataclass(frozen=True)
class Chunk:
    """What the journal knows of a chunk: its number, sizes in bytes, and counts such as rows.

    `origin` is the SHA-256 of the rows it answers, where no file could be asked for them again.
    """

    number: int
    output: int
    rejects: int
    counts: dict[str, int] = field(default_factory=dict)
    origin: str = ""


class ChunkFile:
    """The output `target` and its rejects; use as a context manager.

    Rejects go to OUT.rejects.jsonl, if there are any, or else to the file that is named, at any
    rate. `key` names all that the content follows from. With `resume` "auto" chunks that an earlier
    process wrote under the same key are kept, and listed in `chunks`.

    Raises:  SettingsError if they were written under another key; DataError if the place cannot be
    written, or another process writes there.
    """

    def __init__(
        self,
        target: Path,
        rejects: Path | None,
        key: dict[str, Any],
        resume: Literal["auto", "never"],
    ) -> None:
        self._target, self._key, self._resume = target, key, resume
        self._rejects, self._are_named = rejects or name_rejects(target), rejects is not None
        self._partials = [
            path.with_name(f".{path.name}.partial") for path in (target, self._rejects)
        ]
        self._journal = target.with_name(f".{target.name}.journal")
        self._open = ExitStack()
        self.chunks: list[Chunk] = []
        self.counts: Counter[str] = Counter()  # over all chunks
        self._origins: dict[int, str] = {}  # by the numbers of the chunks that are there

    def __enter__(self) -> "ChunkFile":
        for path in (self._target, self._rejects):
            if path.is_dir():
                raise DataError(f"{path}: is a folder; name a file to write")
        try:
            for path in (self._target, self._rejects):
                path.parent.mkdir(parents=True, exist_ok=True)
            self._open.enter_context(
                lock_file(self._target.with_name(f".{self._target.name}.lock"), passing=True)
            )
            self._start()
        except BlockingIOError as error:
            raise DataError(
                f"{self._target}: process {error} is writing it; wait, or name another --output"
            ) from None
        except OSError as error:
            self._open.close()
            raise DataError(
                f"{self._target}: cannot be written ({error.strerror}); choose another place"
            ) from None
        except BaseException:
            self._open.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()
        if not self.chunks:  # nothing to go on from
            self._delete()

    @property
    def numbers(self) -> frozenset[int]:
        """Of the chunks that are there."""
        return frozenset(self._origins)

    def is_due(self, number: int, origin: str = "") -> bool:
        """Whether a chunk is still to be written.

        Raises:  SettingsError if it is there, but answers other rows.
        """
        if self._origins.get(number, origin) != origin:
            raise SettingsError(
                f"{self._target}: was begun with other settings ({_CHANGES['input']}); "
                "use --resume never to start over, or another --output"
            )
        return number not in self._origins

    def append(
        self, number: int, output: bytes, rejects: bytes, counts: dict[str, int], origin: str = ""
    ) -> None:
        """Add a chunk; it is on disk when this returns."""
        chunk = Chunk(number, len(output), len(rejects), counts, origin)
        line = json.dumps(asdict(chunk)).encode() + b"\n"
        contents = (output, rejects, line)
        try:
            for stream, content in zip(self._streams, contents, strict=True):
                append_bytes(stream, content)
        except OSError as error:
            raise UnfinishedError(
                f"{self._target}: cannot be written ({error.strerror or error}); free some space "
                "and run the same command again, it continues"
            ) from None
        self._note(chunk)

    @property
    def content(self) -> Path:
        """The file of the chunks, header and all."""
        return self._partials[0]

    def read_chunks(self) -> Iterator[bytes]:
        """The output of each chunk, oldest first."""
        with self._partials[0].open("rb") as stream:
            for chunk in self.chunks:
                yield stream.read(chunk.output)

    def finish(self, joined: Path | None = None) -> None:
        """Give output and rejects their names; `joined` takes the place of the chunks if given.

        Raises:  DataError if that fails.
        """
        output, rejects = self._partials
        try:
            if self._are_named or any(chunk.rejects for chunk in self.chunks):
                move_file(rejects, self._rejects)
            else:
                self._rejects.unlink(missing_ok=True)  # of an earlier output
            move_file(joined or output, self._target)
        except OSError as error:
            raise DataError(
                f"{self._target}: cannot be written ({error.strerror or error}); choose another"
            ) from None
        self._delete()

    def _start(self) -> None:
        if self._resume == "auto":
            for chunk in self._read_journal():
                self._note(chunk)
        sizes = [
            sum(chunk.output for chunk in self.chunks), sum(chunk.rejects for chunk in self.chunks)
        ]  # fmt: skip
        lines = [self._key, *map(asdict, self.chunks)]
        # Written anew: a line that was cut in two must not stand before the next one.
        write_atomically(self._journal, "".join(json.dumps(line) + "\n" for line in lines))
        self._streams = [
            self._open.enter_context(path.open("ab", buffering=0))
            for path in (*self._partials, self._journal)
        ]
        for stream, size in zip(self._streams, sizes, strict=False):
            stream.truncate(size)

    def _note(self, chunk: Chunk) -> None:
        self.chunks.append(chunk)
        self.counts.update(chunk.counts)
        self._origins[chunk.number] = chunk.origin

    def _read_journal(self) -> list[Chunk]:
        """The chunks whose bytes are there."""
        if not self._journal.exists():
            return []
        found: list[Chunk] = []
        key: dict[str, Any] | None = None
        for line in self._journal.read_bytes().splitlines():
            try:
                values = json.loads(line)
                if key is None:
                    key = values
                else:
                    found.append(Chunk(**values))
            except (ValueError, TypeError):
                break  # cut in two by a crash
        if key is None:
            return []
        before = key if isinstance(key, dict) else {}
        changed = [
            _CHANGES.get(name, f"{name} was {before.get(name)!r}, is {value!r}")
            for name, value in self._key.items()
            if before.get(name) != value
        ]
        if changed:
            raise SettingsError(
                f"{self._target}: was begun with other settings ({'; '.join(changed)}); "
                "use --resume never to start over, or another --output"
            )
        sizes = [path.stat().st_size if path.exists() else 0 for path in self._partials]
        return [
            chunk
            for chunk, output, rejects in zip(
                found,
                accumulate(chunk.output for chunk in found),
                accumulate(chunk.rejects for chunk in found),
                strict=True,
            )
            if output <= sizes[0] and rejects <= sizes[1]
        ]

    def _delete(self) -> None:
        with suppress(OSError):
            for path in (*self._partials, self._journal):
                path.unlink(missing_ok=True)


class StreamFile:
    """Output to stdout with the manners of `ChunkFile`; rejects are written at once, if wanted."""

    def __init__(self, rejects: Path | None) -> None:
        self._rejects = rejects
        self._open = ExitStack()
        self.counts: Counter[str] = Counter()

    def __enter__(self) -> "StreamFile":
        if self._rejects is not None:
            try:
                self._stream = self._open.enter_context(self._rejects.open("wb"))
            except OSError as error:
                raise DataError(
                    f"{self._rejects}: cannot be written ({error.strerror}); choose another place"
                ) from None
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def numbers(self) -> frozenset[int]:
        """Of the chunks that are there; here none."""
        return frozenset()

    def is_due(self, number: int, _origin: str = "") -> bool:
        """Whether a chunk is still to be written; here all are."""
        return number >= 0

    def append(
        self,
        _number: int,
        output: bytes,
        rejects: bytes,
        counts: dict[str, int],
        _origin: str = "",
    ) -> None:
        """Write a chunk.

        Raises:  BrokenPipeError if nobody reads any more; DataError if it cannot be written.
        """
        try:
            sys.stdout.buffer.write(output)
            sys.stdout.buffer.flush()
            if self._rejects is not None:
                self._stream.write(rejects)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise DataError(
                f"-: cannot be written ({error.strerror or error}); make room"
            ) from None
        self.counts.update(counts)


def open_output(
    target: Path, rejects: Path | None, key: dict[str, Any], resume: Literal["auto", "never"]
) -> ChunkFile | StreamFile:
    """The output for a path; `-` is stdout."""
    return StreamFile(rejects) if target == STREAM else ChunkFile(target, rejects, key, resume)


def name_rejects(target: Path) -> Path:
    """Where the rejects of an output go, a file for each: out.csv has out.csv.rejects.jsonl."""
    return target.with_name(f"{target.name}.rejects.jsonl")
