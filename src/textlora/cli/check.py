"""The command check: what is wrong with labelled texts, and a repaired copy."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from textlora.cli.options import (
    DataArgument,
    JsonOption,
    ModelOption,
    RecipeOption,
    SetOption,
    print_json,
)
from textlora.errors import DataError
from textlora.settings import load_recipe
from textlora.system.console import print_line

if TYPE_CHECKING:
    from textlora.checking.data_fix import SplitFix
    from textlora.checking.findings import DataCheck
    from textlora.model.encoder_files import EncoderFiles

_LONGEST = 1 << 20  # tokens: so that a text that would be cut is counted whole


def check(
    data: DataArgument,
    fix: Annotated[
        Path | None, typer.Option(metavar="OUT", help="Write a repaired copy to a new folder.")
    ] = None,
    model: ModelOption = None,
    recipe: RecipeOption = "quickstart",
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look for what is wrong with labelled texts; exit code 3 if they cannot be trained on."""
    from textlora.checking.data_check import ask_training, check_splits
    from textlora.data.sources import read_splits
    from textlora.model import encoder_files
    from textlora.model.tokenizer import count_tokens, read_tokenizer

    resolved = load_recipe(recipe, settings or (), data__source=data, model__name=model)
    parts = read_splits(resolved.data, tolerant=True)
    files = encoder_files.locate_encoder(resolved.model)
    tokenizer = read_tokenizer(files.folder, files.name)
    found = check_splits(
        data, parts, _find_max_length(files, resolved.model.max_length),
        lambda texts: count_tokens(tokenizer, texts, _LONGEST),
    )  # fmt: skip
    found = ask_training(found, resolved.data, parts)
    fixes = []
    if fix is not None:
        from textlora.checking.data_fix import fix_splits

        fixes = fix_splits(resolved.data, parts, fix)
    if as_json:
        print_json({**asdict(found), "fixes": [asdict(item) for item in fixes]})
    else:
        show_check(found)
        show_fixes(fixes, fix)
    raise typer.Exit(0 if found.is_usable else DataError.exit_code)


def _find_max_length(files: "EncoderFiles", wanted: int) -> int:
    from textlora.model.positions import read_max_length

    found = read_max_length(files.folder, wanted)
    if found is not None:
        return found
    from textlora.model import encoder

    return encoder.find_max_length(encoder.load_config(files, ("a", "b")), wanted)


def show_check(check: "DataCheck") -> None:
    """Print the size of each split, and each finding with examples and what to do."""
    for facts in check.splits:
        print_line(f"{facts.name}: {facts.rows:,} rows, {facts.describe()}")
        lengths = facts.lengths
        if lengths is not None:
            sample = f" (of {lengths.num_texts:,} texts)" if lengths.num_texts < facts.rows else ""
            print_line(
                f"  tokens: median {lengths.median}, 95 % up to {lengths.p95}, longest "
                f"{lengths.longest:,}; {lengths.cut_share:.1%} cut{sample}"
            )
    for item in check.findings:
        print_line(f"{item.severity}: {item.split}: {item.what}: {item.count:,}; {item.advice}")
        for example in item.examples:
            print_line(f"    {example}")
    if not check.findings:
        print_line("nothing to complain about")


def show_fixes(fixes: Sequence["SplitFix"], folder: Path | None) -> None:
    """Print what was changed in each split of a repaired copy."""
    from textlora.checking.data_fix import REMOVED

    for item in fixes:
        counts = [f"{what}: {count:,}" for what, count in item.changed.items()]
        counts += [f"rows removed ({why}): {count:,}" for why, count in item.removed.items()]
        print_line(f"{folder}/{item.name}.csv: {item.rows:,} rows; {'; '.join(counts) or 'as was'}")
    if any(item.removed for item in fixes):
        print_line(f"{folder}/{REMOVED}: the rows that were removed, and why")
