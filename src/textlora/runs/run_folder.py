"""The run folder: the one owner of its file names. Save a trained classifier.

    RUN/  recipe.toml      the resolved settings        labels.json      label names in order
          adapter/         PEFT format, tokenizer, model card
          history.jsonl    a StepRecord a line          evaluation.json  the figures
          visualizations/  pictures                     checkpoints/     see `checkpoints`
          backends/        see `backends`               baseline/        see `baselines`
          predictions/     see `stored_predictions`   report.html    see `report`
          tracking/        see `tracking`              seeds.json       see `seeds`
          datacheck.json, training.json                see `provenance`
          manifest.json    what the classifier needs and the SHA-256 of its files, written last

A folder without manifest.json holds no finished classifier. A new classifier is written whole
beside the older one and then moved to its place, so that a crash leaves the one or the other. Only
safetensors and JSON are written and read.
"""

import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textlora.errors import ModelError, SettingsError
from textlora.model.encoder_files import EncoderFiles, Fingerprint
from textlora.runs.model_card import format_card
from textlora.settings import Recipe, format_recipe
from textlora.system.files import (
    MANIFEST,
    describe_files,
    format_json,
    remove_folder,
    stage_folder,
    write_atomically,
    write_file,
)

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor

FORMAT_VERSION = 1
RECIPE, LABELS, ADAPTER, HISTORY = "recipe.toml", "labels.json", "adapter", "history.jsonl"
EVALUATION, VISUALIZATIONS, CHECKPOINTS = "evaluation.json", "visualizations", "checkpoints"
BACKENDS, BASELINE, PREDICTIONS = "backends", "baseline", "predictions"
TRACKING, SEEDS, REPORT = "tracking", "seeds.json", "report.html"
DATA_CHECK, TRAINING = "datacheck.json", "training.json"
RUN_FILES = {RECIPE, LABELS, HISTORY, EVALUATION, SEEDS, REPORT, DATA_CHECK, TRAINING, MANIFEST}
SWEEP = "sweep.toml"  # in the folder of a sweep, which is none of a run
WEIGHTS = "adapter_model.safetensors"
_NEXT = ".next"  # a whole classifier that is being moved to its place


@dataclass(frozen=True)
class BaseModel:
    """The encoder a run was trained on: how to find it again, and how to know it."""

    name: str
    folder: str
    revision: str
    weights_sha256: str
    config_sha256: str = ""  # runs of earlier versions have none


@dataclass(frozen=True)
class Manifest:
    """What manifest.json says; `files` has the size and SHA-256 of each file of the classifier.

    Logits are divided by `temperature` before they become probabilities. A multi-label classifier
    has one of `thresholds` for each label: a text gets those whose probability reaches theirs.
    """

    format_version: int
    textlora_version: str
    base: BaseModel
    data_fingerprint: str
    max_length: int
    trainable_parameters: int
    total_parameters: int
    files: dict[str, dict[str, Any]]
    temperature: float = 1.0  # runs of earlier versions have none
    thresholds: tuple[float, ...] = ()  # single-label runs and those of earlier versions have none


@dataclass(frozen=True)
class TrainedModel:
    """What a classifier is made of. `weights` are the trained parameters by name, in float32."""

    model: "PeftModel"
    weights: dict[str, "Tensor"]
    tokenizer: Any
    labels: tuple[str, ...]
    files: EncoderFiles


def save_classifier(
    run: Path,
    trained: TrainedModel,
    recipe: Recipe,
    manifest: Manifest,
    check: Callable[[Path], float] = lambda _: 0.0,
) -> float:
    """Write the classifier into `run`, in place of an older one, whole or not at all.

    `check` is given a folder that loads as the new classifier will, and returns how far its answers
    are from those of the trained model; after an error in it the older classifier stays.

    Raises:  OSError or SafetensorError if it cannot be written, and what `check` raises.
    """
    finish_saving(run)
    with stage_folder(run / _NEXT) as staged:
        _write_adapter(staged / ADAPTER, trained, recipe, manifest)
        write_file(staged / RECIPE, format_recipe(recipe).encode())
        write_file(staged / LABELS, format_json(list(trained.labels)).encode())
        adapter = [f"{ADAPTER}/{path.name}" for path in sorted((staged / ADAPTER).iterdir())]
        described = describe_files(staged, [RECIPE, LABELS, *adapter])
        complete = asdict(manifest) | {"files": described}
        write_file(staged / MANIFEST, format_json(complete).encode())
        difference = check(staged)
    # The new classifier is whole: it counts from here on, and is only moved to its place.
    finish_saving(run)
    return difference


def finish_saving(run: Path) -> None:
    """Move a classifier that was saved whole to its place; also after a crash in the middle of it.

    Raises:  OSError if that cannot be written.
    """
    saved = run / _NEXT
    if not saved.is_dir():
        return
    for name in (EVALUATION, SEEDS, REPORT):  # what is said about an older classifier
        (run / name).unlink(missing_ok=True)
    for name in (PREDICTIONS, VISUALIZATIONS):
        remove_folder(run / name)
    with stage_folder(run / ADAPTER) as staged:
        for path in (saved / ADAPTER).iterdir():
            write_file(staged / path.name, path.read_bytes())
    for name in (RECIPE, LABELS, MANIFEST):
        write_atomically(run / name, (saved / name).read_bytes())
    remove_folder(saved)


def copy_classifier(source: Path, run: Path) -> None:
    """Put the classifier of another run into `run`, in place of an older one, whole or not at all.

    Raises:  ModelError if `source` has none; OSError if it cannot be written.
    """
    described, inside = read_manifest(source).files, find_classifier(source)
    finish_saving(run)
    with stage_folder(run / _NEXT) as staged:
        (staged / ADAPTER).mkdir()
        for name in (*described, MANIFEST):
            write_file(staged / name, (inside / name).read_bytes())
    finish_saving(run)


def refuse_sweep(folder: Path) -> None:
    """Keep runs out of the folder of a sweep, which could not go on.

    Raises:  SettingsError if it is one.
    """
    if (folder / SWEEP).exists():
        raise SettingsError(f"{folder}: holds a sweep; choose another --out")


def refuse_foreign(folder: Path) -> None:
    """Keep runs out of a folder with files of somebody else, which they would replace.

    Raises:  SettingsError naming one of them.
    """
    if any((folder / name).exists() for name in (MANIFEST, _NEXT, CHECKPOINTS)):
        return
    # All that a run has of these it has from its manifest on.
    for name in (ADAPTER, PREDICTIONS, VISUALIZATIONS, REPORT, LABELS, EVALUATION):
        if (folder / name).exists():
            raise SettingsError(
                f"{folder}: holds {name!r}, which textlora did not write; choose another --out"
            )


def refuse_repeats(folder: Path) -> None:
    """Keep a single run from taking the place of the best of several, which has no checkpoints.

    Raises:  SettingsError if there are such.
    """
    if (folder / SEEDS).exists():
        raise SettingsError(
            f"{folder}: holds several seeds; choose another --out, or give --seeds as before"
        )


def refuse_run(folder: Path) -> None:
    """Keep figures on other data out of a run, whose own would be lost.

    Raises:  SettingsError if it holds a classifier.
    """
    if (find_classifier(folder) / MANIFEST).exists():
        raise SettingsError(f"{folder}: holds a classifier and its figures; choose another --out")


def _write_adapter(folder: Path, trained: TrainedModel, recipe: Recipe, manifest: Manifest) -> None:
    from peft import get_peft_model_state_dict
    from safetensors.torch import save

    model = trained.model
    # False: the automatic choice asks the Hub about the vocabulary, even for a local model.
    state = get_peft_model_state_dict(
        model, state_dict={**model.state_dict(), **trained.weights}, save_embedding_layers=False
    )
    config = model.peft_config["default"]
    config.base_model_name_or_path = trained.files.hub_name
    config.revision = trained.files.revision or None
    config.inference_mode = True
    trained.tokenizer.init_kwargs.pop("auto_map", None)  # names code, and we run none
    folder.mkdir()
    with tempfile.TemporaryDirectory() as scratch:
        # PEFT and transformers write without flushing; what they wrote is written again.
        config.save_pretrained(scratch)
        trained.tokenizer.save_pretrained(scratch)
        for path in Path(scratch).iterdir():
            write_file(folder / path.name, path.read_bytes())
    write_file(folder / WEIGHTS, save({key: value.contiguous() for key, value in state.items()}))
    card = format_card(
        trained.files.hub_name, trained.labels, recipe, manifest.temperature, manifest.thresholds
    )
    write_file(folder / "README.md", card.encode())


def describe_base(files: EncoderFiles, fingerprint: Fingerprint) -> BaseModel:
    """Name, place and fingerprint of the encoder."""
    return BaseModel(
        name=files.name,
        folder=str(files.folder),
        revision=files.revision,
        weights_sha256=fingerprint.weights,
        config_sha256=fingerprint.config,
    )


def find_classifier(run: Path) -> Path:
    """The folder that holds the classifier: `run`, but where a crash kept it from its place."""
    return run / _NEXT if (run / _NEXT).is_dir() else run


def read_manifest(run: Path) -> Manifest:
    """Read and check manifest.json.

    Raises:  ModelError if the folder is no finished run, or one of another format version.
    """
    path = find_classifier(run) / MANIFEST
    if not run.is_dir():
        raise ModelError(
            f"{run}: no such run folder; check the path, or train one with "
            f"textlora train --recipe quickstart --data YOUR.csv --out {run}"
        )
    if not path.is_file():
        if (run / CHECKPOINTS).is_dir():
            raise ModelError(
                f"{run}: training was not finished (no {MANIFEST}); run its command train again, "
                "it continues"
            )
        raise ModelError(f"{run}: not a run folder (no {MANIFEST}); name what train has written")
    try:
        values = json.loads(path.read_text("utf-8"))
        if values["format_version"] != FORMAT_VERSION:
            raise ModelError(
                f"{path}: format version {values['format_version']}, this textlora reads "
                f"{FORMAT_VERSION}; install textlora {values['textlora_version']}, which wrote it"
            )
        thresholds = tuple(map(float, values.get("thresholds", ())))
        base = BaseModel(**values["base"])
        return Manifest(**{**values, "base": base, "thresholds": thresholds})
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: damaged ({error}); copy the run again or retrain") from None
