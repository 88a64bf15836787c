"""Where labelled texts come from: the Hub, a folder, a file or the package, read as raw splits.

A source is `ag_news` or `hub:owner/name[@revision]` (through the `datasets` library), a folder with
one file a split (`train.csv`, `data/train-00000.parquet`, ...), one file, or `embedded:headlines`.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from textlora.data.columns import (
    find_columns,
    find_label_fault,
    find_slice_columns,
    find_text_fault,
    join_texts,
    name_labels,
    name_value,
)
from textlora.data.multilabel_cells import split_labels
from textlora.data.split_files import SPLIT_NAMES, find_split_files, find_split_name
from textlora.data.tables import SUFFIXES, find_format, name_columns, read_rows
from textlora.errors import DataError, shorten_message
from textlora.settings import DataSettings
from textlora.system.files import expand_home
from textlora.system.hub import go_offline, is_hub_reachable

HUB_ALIASES = {"ag_news": "fancyzhx/ag_news"}


@dataclass(frozen=True)
class RawSplit:
    """One split as read: texts, label names, and where each stands.

    Each text has its file, and its line there from 1 (Parquet, Hub: its row in the split).
    `order` lists the label names in their order where the data itself says it. `slices` has the
    columns that scores are grouped by. Read tolerantly, rows without a label have an empty one, and
    `faults` has those that could not be read, as `file:line: reason`. Of multi-label data a label
    is a set as text, which `separator` takes apart (see `multilabel_cells`).
    """

    where: str
    texts: list[str]
    labels: list[str]
    files: list[str]
    lines: list[int]
    order: tuple[str, ...] = ()
    slices: dict[str, list[str]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    separator: str = ""  # empty for single-label data

    def list_label_sets(self) -> list[tuple[str, ...]]:
        """The labels of each text; of single-label data the one, or none."""
        if self.separator:
            return [split_labels(label, self.separator) for label in self.labels]
        return [(label,) if label else () for label in self.labels]


def read_splits(
    settings: DataSettings, *, tolerant: bool = False, only: Collection[str] = tuple(SPLIT_NAMES)
) -> dict[str, RawSplit]:
    """All splits of the source, under the names train, validation and test; or some of them.

    Files of a split that is not wanted are not opened. When `tolerant`, rows that cannot be used
    are told in the result instead of ending the reading.

    Raises:  DataError naming what is missing or cannot be read.
    """
    source = settings.source
    if source.startswith("embedded:"):
        folder = Path(
            str(resources.files("textlora") / "data" / "embedded" / source.partition(":")[2])
        )
        if not folder.is_dir():
            raise DataError(
                f"data.source: no embedded sample {source!r}; there is embedded:headlines"
            )
        return _read_folder(folder, settings, tolerant, only)
    if source in HUB_ALIASES or source.startswith("hub:"):
        name = HUB_ALIASES.get(source, source.removeprefix("hub:"))
        return _read_hub(name, settings, tolerant, only)
    path = expand_home(source)
    if path.is_dir():
        return _read_folder(path, settings, tolerant, only)
    if not path.exists() and path.suffix.lower() not in (*SUFFIXES, ".gz"):
        raise DataError(
            f"data.source: {source!r} is no file or folder; give a path, "
            "hub:owner/name, ag_news or embedded:headlines"
        )
    return {"train": _read_file(path, settings, tolerant)}


def is_same_source(one: str, other: str) -> bool:
    """Whether two sources are the same, or two ways to write the path of one."""
    if one == other:
        return True
    paths = [expand_home(source) for source in (one, other)]
    return all(path.exists() for path in paths) and paths[0].samefile(paths[1])


def _read_hub(
    name: str, settings: DataSettings, tolerant: bool, only: Collection[str]
) -> dict[str, RawSplit]:
    repository, _, revision = name.partition("@")
    if not is_hub_reachable():
        go_offline()  # before the import: `datasets` reads the switch once
    datasets = _import_datasets()
    try:
        loaded = datasets.load_dataset(repository, revision=revision or None)
    except Exception as error:  # the library raises many kinds; each means "not to be had"
        reason = shorten_message(error)
        raise DataError(
            f"hub:{repository}: cannot be loaded from the Hugging Face Hub ({reason}); check name "
            "and network, or give a folder or file with --data (embedded:headlines needs neither)"
        ) from None
    wanted = {key: part for key, part in loaded.items() if find_split_name(key) in only}
    return _convert_dataset(wanted, f"hub:{repository}", settings, tolerant)


def _import_datasets() -> Any:
    import datasets  # a second of import, and for Parquet folders and the Hub only

    datasets.disable_progress_bars()
    return datasets


def _convert_dataset(
    loaded: Any, where: str, settings: DataSettings, tolerant: bool
) -> dict[str, RawSplit]:
    named = {find_split_name(key): (f"{where} {key}", part) for key, part in loaded.items()}
    parts = {
        name: _convert_split(dataset, place, settings, tolerant)
        for name, (place, dataset) in named.items()
        if name is not None
    }
    return {name: part for name, part in parts.items() if part is not None}


def _convert_split(
    dataset: Any, where: str, settings: DataSettings, tolerant: bool
) -> RawSplit | None:
    """One split of a data set; None for one whose labels are kept secret."""
    text_columns, label_column = find_columns(dataset.column_names, where, settings)
    feature = dataset.features[label_column]
    feature = getattr(feature, "feature", feature)  # of the elements, where it is a list
    names = tuple(getattr(feature, "names", None) or settings.label_names)
    texts = list(zip(*(dataset[column] for column in text_columns), strict=True))
    rows = enumerate(zip(texts, dataset[label_column], strict=True), start=1)
    found = {line: _find_fault(values, label, names, settings) for line, (values, label) in rows}
    faults = [f"{where}:{line}: {fault}" for line, fault in found.items() if fault]
    lines = [line for line, fault in found.items() if not fault]
    if faults:
        if not tolerant:
            raise DataError(faults[0])
        dataset = dataset.select([line - 1 for line in lines])
        if not lines:
            raise DataError(_explain_emptiness(where, faults))
    labels = list(dataset[label_column])
    if all(label == -1 for label in labels):
        return None  # how the Hub marks a split whose labels are kept secret
    return RawSplit(
        where,
        [join_texts(texts[line - 1]) for line in lines],
        name_labels(where, lines, labels, names, settings, tolerant),
        [where] * len(lines),
        lines,
        names,
        {
            column: [*map(name_value, dataset[column])]
            for column in find_slice_columns(dataset.column_names, settings)
        },
        faults,
        settings.label_separator if settings.multi_label else "",
    )


def _read_folder(
    folder: Path, settings: DataSettings, tolerant: bool, only: Collection[str]
) -> dict[str, RawSplit]:
    files = {name: paths for name, paths in find_split_files(folder).items() if name in only}
    if all(find_format(path) == "parquet" for paths in files.values() for path in paths):
        return _read_parquet_files(folder, files, settings, tolerant)
    return {
        name: _join(f"{folder} {name}", [_read_file(path, settings, tolerant) for path in paths])
        for name, paths in files.items()
    }


def _read_parquet_files(
    folder: Path, files: dict[str, list[Path]], settings: DataSettings, tolerant: bool
) -> dict[str, RawSplit]:
    """The layout of a Hub data set: read by its library, which knows the label names in it."""
    datasets = _import_datasets()
    parts = {}
    for name, paths in files.items():
        try:
            tables = [
                datasets.Dataset.from_parquet(str(path), keep_in_memory=True) for path in paths
            ]
            dataset = datasets.concatenate_datasets(tables)
        except Exception as error:
            reason = shorten_message(error)
            raise DataError(
                f"{folder}: {name} files cannot be read as Parquet ({reason}); "
                "give whole files with at least one row"
            ) from None
        parts.update(_convert_dataset({name: dataset}, str(folder), settings, tolerant))
    return parts


def _read_file(path: Path, settings: DataSettings, tolerant: bool) -> RawSplit:
    if find_format(path) == "txt":
        raise DataError(f"{path}: a text file has no labels; give CSV, TSV, JSONL or Parquet")
    texts: list[str] = []
    labels: list[Any] = []
    lines: list[int] = []
    slices: dict[str, list[str]] = {}
    text_columns: tuple[str, ...] = ()
    label_column = ""
    faults: list[str] = []
    rows = read_rows(path, settings.encoding, tolerant=tolerant)
    for row, names in name_columns(rows):
        if names and not text_columns:
            text_columns, label_column = find_columns(names, str(path), settings)
            slices = {column: [] for column in find_slice_columns(names, settings)}
        values = [row.values.get(column) for column in text_columns]
        label = row.values.get(label_column)
        fault = row.fault or _find_fault(values, label, settings.label_names, settings)
        if fault:
            faults.append(f"{path}:{row.line}: {fault}")
            if not tolerant:
                raise DataError(faults[-1])
            continue
        for column, found in slices.items():
            found.append(name_value(row.values.get(column)))
        texts.append(join_texts(values))
        labels.append(label)
        lines.append(row.line)
    if not texts:
        raise DataError(_explain_emptiness(str(path), faults))
    converted = name_labels(str(path), lines, labels, settings.label_names, settings, tolerant)
    return RawSplit(
        str(path), texts, converted, [str(path)] * len(texts), lines, settings.label_names,
        slices, faults, settings.label_separator if settings.multi_label else "",
    )  # fmt: skip


def _find_fault(
    values: Sequence[Any], label: Any, names: tuple[str, ...], settings: DataSettings
) -> str:
    if fault := find_text_fault(values):
        return f"{fault}; check data.text_columns"
    return find_label_fault(label, names, settings)


def _explain_emptiness(where: str, faults: list[str]) -> str:
    if faults:
        return f"{faults[0]}; no row can be used"
    return f"{where}: has no rows; give a file with a header and labelled texts"


def _join(where: str, parts: list[RawSplit]) -> RawSplit:
    if len(parts) == 1:
        return parts[0]
    return RawSplit(
        where,
        [text for part in parts for text in part.texts],
        [label for part in parts for label in part.labels],
        [file for part in parts for file in part.files],
        [line for part in parts for line in part.lines],
        parts[0].order,
        {
            column: [value for part in parts for value in part.slices[column]]
            for column in parts[0].slices
            if all(column in part.slices for part in parts)
        },
        [fault for part in parts for fault in part.faults],
        parts[0].separator,
    )
