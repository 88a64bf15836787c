"""Parts of an output that several machines write, and how they become one.

Shard i of n has the chunks i - 1, i - 1 + n, ... of the input. Beside each shard lies a description
of it; joining compares them, so that every row is there exactly once.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from textlora.data.tables import find_format
from textlora.errors import DataError, shorten_message
from textlora.prediction.chunk_file import Chunk
from textlora.prediction.row_encoder import merge_row_groups
from textlora.system.files import compute_sha256, flush_file, move_file, write_json
from textlora.system.text_stream import find_compression

HEADER = -1  # the number of the chunk that stands before the rows


@dataclass(frozen=True)
class Merged:
    """What was joined."""

    rows: int
    shards: int


@dataclass(frozen=True)
class _Shard:
    path: Path
    index: int
    count: int
    num_rows: int  # of the whole input
    key: dict[str, Any]
    chunks: list[Chunk]


def is_mine(number: int, shard: tuple[int, int]) -> bool:
    """Whether a chunk belongs to shard (i, n), i from 1."""
    index, count = shard
    return number % count == index - 1


def parse_shard(text: str) -> tuple[int, int]:
    """`2/5` as (2, 5).

    Raises:  DataError for anything else.
    """
    index, _, count = text.partition("/")
    if index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count):
        return int(index), int(count)
    raise DataError(f"--shard: {text!r} is no shard; write 1/4, 2/4, 3/4 or 4/4")


def describe_shard(
    path: Path, content: Path, chunks: list[Chunk], key: dict[str, Any], num_rows: int
) -> None:
    """Write what joining needs beside a shard that is to be called `path`, now in `content`.

    `num_rows` are those of the whole input.
    """
    about = {**key, "format": [find_format(path), find_compression(path)]}
    # A copy on another machine has another time of change.
    about["input"] = [[*item[:2], *item[3:]] for item in about["input"]]
    index, count = about.pop("shard")
    write_json(
        _name_description(path),
        {
            "shard": [index, count],
            "rows": num_rows,
            "sha256": compute_sha256(content),
            "chunks": list(map(asdict, chunks)),
            "key": about,
        },
    )


def merge_shards(paths: list[Path], target: Path) -> Merged:
    """Join shards to the output that one process would have written, to the same bytes.

    Raises:  DataError if one is missing, doubled, damaged or of another input, model or setting.
    """
    found = [_read(path) for path in paths]
    _check(found, target)
    ordered = sorted(found, key=lambda shard: shard.index)
    staged = target.with_name(f".{target.name}.merged")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if find_format(target) == "parquet":
            numbers = sorted(chunk.number for shard in found for chunk in shard.chunks[1:])
            places = [(number % len(found), number // len(found)) for number in numbers]
            merge_row_groups([shard.path for shard in ordered], places, staged)
        else:
            with staged.open("wb") as stream:
                for piece in _read_pieces(ordered):
                    stream.write(piece)
        flush_file(staged)
        move_file(staged, target)
    except OSError as error:
        raise DataError(
            f"{target}: cannot be written ({error.strerror or error}); free some space"
        ) from None
    except ValueError as error:  # a kept column with other types in another shard
        raise DataError(
            f"{target}: the shards do not fit together ({shorten_message(error)}); write them as "
            ".csv or .jsonl, or without --keep-columns"
        ) from None
    finally:
        staged.unlink(missing_ok=True)
    return Merged(found[0].num_rows, len(found))


def _name_description(path: Path) -> Path:
    return path.with_name(f"{path.name}.shard.json")


def _read(path: Path) -> _Shard:
    about = _name_description(path)
    try:
        values = json.loads(about.read_text("utf-8"))
        index, count = values["shard"]
        chunks = [Chunk(**chunk) for chunk in values["chunks"]]
        shard = _Shard(path, index, count, values["rows"], values["key"], chunks)
        changed = compute_sha256(path) != values["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: is no finished shard ({error!r:.100}); {about.name} must lie beside it"
        ) from None
    if changed:
        raise DataError(f"{path}: was changed after it was written; predict that shard again")
    return shard


def _check(shards: list[_Shard], target: Path) -> None:
    first = shards[0]
    for shard in shards[1:]:
        different = [name for name, value in first.key.items() if shard.key.get(name) != value]
        if different or (shard.count, shard.num_rows) != (first.count, first.num_rows):
            what = ", ".join(different) or "number of shards or rows"
            raise DataError(f"{shard.path}: does not belong to {first.path} ({what} differ)")
    indices = sorted(shard.index for shard in shards)
    if indices != list(range(1, first.count + 1)):
        raise DataError(
            f"{first.path}: shards {indices} of {first.count} are given; name each of them once"
        )
    if any(shard.path.resolve() == target.resolve() for shard in shards):
        raise DataError(f"{target}: is one of the shards; name another --output")
    rows = sum(chunk.counts.get("rows", 0) for shard in shards for chunk in shard.chunks)
    if rows != first.num_rows:
        raise DataError(f"{first.path}: the shards have {rows} rows of {first.num_rows}")
    if [find_format(target), find_compression(target)] != first.key["format"]:
        raise DataError(f"{target}: is of another format than the shards; name one of theirs")


def _read_pieces(shards: list[_Shard]) -> Iterator[bytes]:
    """Header and chunks in the order of the input."""
    streams = [shard.path.open("rb") for shard in shards]
    try:
        headers = [
            stream.read(shard.chunks[0].output)
            for shard, stream in zip(shards, streams, strict=True)
        ]
        yield headers[0]
        numbers = sorted(chunk.number for shard in shards for chunk in shard.chunks[1:])
        sizes = {chunk.number: chunk.output for shard in shards for chunk in shard.chunks[1:]}
        for number in numbers:
            yield streams[number % len(shards)].read(sizes[number])
    finally:
        for stream in streams:
            stream.close()
