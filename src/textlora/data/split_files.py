"""Which files of a folder hold which split, by their names: `train.csv`, `test-1.parquet`."""

import re
from pathlib import Path

from textlora.data.tables import SUFFIXES, find_format
from textlora.errors import DataError
from textlora.settings import DataSettings
from textlora.system.files import expand_home
from textlora.system.text_stream import find_compression

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}


def find_files(settings: DataSettings) -> dict[str, list[Path]]:
    """The files that hold each split.

    Raises:  DataError for data that lies in no file of the user's, and as `read_splits`.
    """
    path = expand_home(settings.source)
    if path.is_dir():
        return find_split_files(path)
    if path.is_file():
        return {"train": [path]}
    raise DataError(f"{settings.source}: is no file or folder; download it first")


def find_split_files(folder: Path) -> dict[str, list[Path]]:
    """The files of a folder that hold each split, sorted; numbered parts are one split.

    Raises:  DataError where there are none, or one is there twice.
    """
    files: dict[str, list[Path]] = {}
    are_parts: dict[str, bool] = {}  # by split: whether all its files are numbered
    for path in sorted([*folder.iterdir(), *(folder / "data").glob("*")]):
        found = _find_split_file(path)
        if found is not None and path.is_file():
            name, is_part = found
            files.setdefault(name, []).append(path)
            are_parts[name] = are_parts.get(name, True) and is_part
    if not files:
        raise DataError(
            f"{folder}: no split files; name them train.csv, validation.csv, test.csv "
            "(or .tsv, .jsonl, .parquet), also in a folder data/"
        )
    for name, paths in files.items():
        formats = {find_format(path) for path in paths}
        if len(paths) > 1 and (not are_parts[name] or len(formats) > 1):
            shown = ", ".join(str(path.relative_to(folder)) for path in paths)
            raise DataError(
                f"{folder}: the {name} split is there twice ({shown}); keep one of them, or call "
                f"parts {name}-1, {name}-2 and so on"
            )
    return files


def _find_split_file(path: Path) -> tuple[str, bool] | None:
    """The split of `train.csv`, `train-00000-of-00002.parquet` or `dev_1.tsv.gz`; else None.

    And whether it is a numbered part. Not of `test_predictions.csv`, nor `train.old.csv`: a file
    that happens to lie there is no data.
    """
    bare = path.with_suffix("") if find_compression(path) else path
    split = find_split_name(bare.stem) if bare.suffix.lower() in SUFFIXES else None
    return (split, not bare.stem.isalpha()) if split else None


def find_split_name(name: str) -> str | None:
    """train, validation or test for one of their usual names; else None."""
    match = re.fullmatch(r"([a-z]+)([-_.]?\d+(-of-\d+)?)?", name.lower())
    word = match[1] if match else ""
    return next((split for split, words in SPLIT_NAMES.items() if word in words), None)
