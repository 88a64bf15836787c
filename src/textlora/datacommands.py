"""The commands check and audit: labelled texts before they are trained on."""

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from textlora.errors import DataError, SettingsError
from textlora.options import JsonOption, ModelOption, RecipeOption, SetOption, print_json
from textlora.settings import load_recipe

_DataArgument = Annotated[str, typer.Argument(metavar="DATA", help="As --data of train.")]
_LONGEST = 1 << 20  # tokens: so that a text that would be cut is counted whole


def check(
    data: _DataArgument,
    fix: Annotated[
        Path | None, typer.Option(metavar="OUT", help="Write a repaired copy to a new folder.")
    ] = None,
    model: ModelOption = None,
    recipe: RecipeOption = "quickstart",
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look for what is wrong with labelled texts; exit code 3 if they cannot be trained on."""
    from textlora import encoder, encoderfiles
    from textlora.batching import tokenize
    from textlora.datacheck import ask_training, check_splits
    from textlora.sources import read_splits

    resolved = load_recipe(recipe, settings or (), data__source=data, model__name=model)
    parts = read_splits(resolved.data, tolerant=True)
    files = encoderfiles.locate_encoder(resolved.model)
    tokenizer = encoder.load_tokenizer(files.folder, files.name)
    config = encoder.load_config(files, ("a", "b"))
    found = check_splits(
        data, parts, encoder.find_max_length(config, resolved.model.max_length),
        lambda texts: tokenize(tokenizer, texts, _LONGEST).lengths.tolist(),
    )  # fmt: skip
    found = ask_training(found, resolved.data, parts)
    fixes = []
    if fix is not None:
        from textlora.datafix import fix_splits

        fixes = fix_splits(resolved.data, parts, fix)
    if as_json:
        print_json({**asdict(found), "fixes": [asdict(item) for item in fixes]})
    else:
        from textlora import datatables

        datatables.show_check(found)
        datatables.show_fixes(fixes, fix)
    raise typer.Exit(0 if found.is_usable else DataError.exit_code)


def audit(
    data: _DataArgument,
    out: Annotated[Path, typer.Option(help="File to review.")] = Path("review.csv"),
    accept_above: Annotated[
        float,
        typer.Option(min=0.0, help="Accept suggestions of that confidence; 2 = none."),
    ] = 2.0,
    model: ModelOption = None,
    recipe: RecipeOption = "quickstart",
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find training labels that are probably wrong; train --corrections uses the review."""
    from textlora.audit import embed_texts, find_doubtful_labels
    from textlora.corrections import refuse_review, write_review
    from textlora.data import load_training_rows

    refuse_review(out)  # before the work
    resolved = load_recipe(recipe, settings or (), data__source=data, model__name=model)
    if resolved.data.multi_label:
        raise SettingsError(
            "audit: finds wrong labels where a text has exactly one, and data.multi_label is set; "
            "look through the mistakes of textlora evaluate --split validation --mistakes 50"
        )
    raw, examples, labels = load_training_rows(resolved.data)
    doubtful = find_doubtful_labels(raw, examples, labels, embed_texts(examples.texts, resolved))
    write_review(out, doubtful, accept_above)
    accepted = sum(item.suggested_confidence >= accept_above for item in doubtful)
    if as_json:
        counts = {"rows": len(examples.texts), "doubtful": len(doubtful), "accepted": accepted}
        print_json({"review": out, **counts})
        return
    from textlora import datatables

    datatables.show_doubtful(doubtful)
    print(
        f"{len(doubtful):,} of {len(examples.texts):,} labels are doubtful, {accepted:,} accepted"
    )
    print(f"review        {out}: write keep, change, drop or a label into the column action, then")
    words = ["textlora", "train", "--recipe", recipe, "--data", data, "--corrections", f"{out}"]
    words += [] if model is None else ["--model", model]
    words += [word for setting in settings or () for word in ("--set", setting)]
    print(f"              {shlex.join(words)} --out runs/corrected")
