"""The run folder: the one owner of its file names. Save, verify, load a trained classifier.

    RUN/  recipe.toml      the resolved settings        labels.json      label names in order
          adapter/         PEFT format, tokenizer, model card
          history.jsonl    a StepRecord a line          evaluation.json  the figures
          visualizations/  pictures                     checkpoints/     see `checkpoints`
          manifest.json    what the classifier needs and the SHA-256 of its files, written last

A folder without manifest.json holds no finished classifier. Only safetensors and JSON are written
and read.
"""

import json
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from textlora import encoder
from textlora.adapters import find_wrapped_modules, wrap_model
from textlora.encoder import EncoderFiles
from textlora.errors import ModelError, SettingsError
from textlora.files import (
    MANIFEST,
    describe_files,
    find_damage,
    replace_folder,
    write_atomically,
    write_json,
)
from textlora.settings import ModelSettings, Recipe, format_recipe, load_recipe

FORMAT_VERSION = 1
VERSION = version("textlora")
RECIPE, LABELS, ADAPTER, HISTORY = "recipe.toml", "labels.json", "adapter", "history.jsonl"
EVALUATION, VISUALIZATIONS, CHECKPOINTS = "evaluation.json", "visualizations", "checkpoints"
_WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True)
class BaseModel:
    """The encoder a run was trained on: how to find it again, and how to know it."""

    name: str
    folder: str
    revision: str
    weights_sha256: str


@dataclass(frozen=True)
class Manifest:
    """What manifest.json says; `files` has the size and SHA-256 of each file of the classifier."""

    format_version: int
    textlora_version: str
    base: BaseModel
    data_fingerprint: str
    max_length: int
    trainable_parameters: int
    total_parameters: int
    files: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class LoadedRun:
    """A trained classifier in memory, in float32 and not merged."""

    folder: Path
    recipe: Recipe
    labels: tuple[str, ...]
    manifest: Manifest
    model: PeftModel
    tokenizer: Any


def save_adapter(
    run: Path,
    model: PeftModel,
    weights: dict[str, Tensor],
    tokenizer: Any,
    labels: tuple[str, ...],
    files: EncoderFiles,
) -> None:
    """Write RUN/adapter in PEFT's format, whole or not at all.

    `weights` are the trained parameters of `model` by name, in float32.
    """
    staged = run / f".{ADAPTER}.partial"
    staged.mkdir(parents=True, exist_ok=True)
    # False: the automatic choice asks the Hub about the vocabulary, even for a local model.
    state = get_peft_model_state_dict(
        model, state_dict={**model.state_dict(), **weights}, save_embedding_layers=False
    )
    save_file({key: value.contiguous() for key, value in state.items()}, staged / _WEIGHTS)
    config = model.peft_config["default"]
    config.base_model_name_or_path = files.hub_name
    config.revision = files.revision or None
    config.inference_mode = True
    config.save_pretrained(staged)
    tokenizer.save_pretrained(staged)
    write_atomically(staged / "README.md", _write_card(files, labels))
    replace_folder(staged, run / ADAPTER)


def save_manifest(
    run: Path, recipe: Recipe, labels: tuple[str, ...], manifest: Manifest
) -> Manifest:
    """Write recipe, labels and, last, the manifest: from then on the run is a classifier."""
    write_atomically(run / RECIPE, format_recipe(recipe))
    write_json(run / LABELS, list(labels))
    adapter = [f"{ADAPTER}/{path.name}" for path in sorted((run / ADAPTER).iterdir())]
    described = describe_files(run, [RECIPE, LABELS, *adapter])
    complete = Manifest(**{**asdict(manifest), "base": manifest.base, "files": described})
    write_json(run / MANIFEST, asdict(complete))
    return complete


def describe_base(files: EncoderFiles, weights_sha256: str) -> BaseModel:
    """Name, place and fingerprint of the encoder."""
    return BaseModel(
        name=files.name,
        folder=str(files.folder),
        revision=files.revision,
        weights_sha256=weights_sha256,
    )


def read_manifest(run: Path) -> Manifest:
    """Read and check manifest.json.

    Raises:  ModelError if the folder is no finished run, or one of another format version.
    """
    path = run / MANIFEST
    if not run.is_dir():
        raise ModelError(f"{run}: no such run folder; train one with textlora train --out {run}")
    if not path.is_file():
        what = "training was not finished" if (run / CHECKPOINTS).is_dir() else "not a run folder"
        raise ModelError(f"{run}: {what} (no {MANIFEST}); run textlora train --out {run}")
    try:
        values = json.loads(path.read_text("utf-8"))
        if values["format_version"] != FORMAT_VERSION:
            raise ModelError(
                f"{path}: format version {values['format_version']}, this textlora reads "
                f"{FORMAT_VERSION}; install textlora {values['textlora_version']}, which wrote it"
            )
        return Manifest(**{**values, "base": BaseModel(**values["base"])})
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: damaged ({error}); copy the run again or retrain") from None


def load_run(run: Path) -> LoadedRun:
    """Load a classifier, after checking every file of it and the encoder it was trained on.

    Raises:  ModelError naming the file that is missing or changed, or what does not fit.
    """
    manifest = read_manifest(run)
    if damage := find_damage(run, manifest.files):
        raise ModelError(f"{run}: {damage}; copy the run again or retrain")
    try:
        recipe = load_recipe(str(run / RECIPE))
        labels = tuple(json.loads((run / LABELS).read_text("utf-8")))
    except (SettingsError, ValueError) as error:
        raise ModelError(f"{run}: {error}") from None
    files = _locate_base(run, manifest.base, recipe.model)
    tokenizer = encoder.load_tokenizer(run / ADAPTER, str(run / ADAPTER))
    loaded = encoder.load_encoder(files, labels)
    embeddings: Any = loaded.model.get_input_embeddings()  # type: ignore[operator]
    vocabulary = embeddings.num_embeddings
    if len(tokenizer) > vocabulary:
        raise ModelError(
            f"{run}: its tokenizer has {len(tokenizer)} tokens, the encoder {vocabulary}; "
            "the run and the encoder do not belong together"
        )
    model = _load_adapter(run, loaded.model, loaded.new_parameters)
    return LoadedRun(run, recipe, labels, manifest, model.eval(), tokenizer)


def _locate_base(run: Path, base: BaseModel, settings: ModelSettings) -> EncoderFiles:
    name = settings.name
    if not Path(name).is_dir() and Path(base.folder).is_dir() and base.name != encoder.EMBEDDED:
        name = base.folder  # started from another working folder, or cached from the Hub
    files = encoder.locate_encoder(settings.model_copy(update={"name": name}))
    found = encoder.compute_weights_fingerprint(files.folder)
    if found != base.weights_sha256:
        raise ModelError(
            f"{run}: was trained on other weights of {base.name!r} (SHA-256 "
            f"{base.weights_sha256[:12]}..., found {found[:12]}... in {files.folder}); "
            "put the original encoder there"
        )
    return files


def _load_adapter(run: Path, model: Any, new_parameters: tuple[str, ...]) -> PeftModel:
    folder = run / ADAPTER
    try:
        config = LoraConfig.from_pretrained(str(folder), local_files_only=True)
        state = load_file(folder / _WEIGHTS)
        config.base_model_name_or_path = None  # known by fingerprint; PEFT compares names
        wrapped = wrap_model(model, config)
        result = set_peft_model_state_dict(wrapped, state)
    except KeyError as error:  # PEFT looks up each module that is trained whole
        raise ModelError(f"{folder}: weights of {error} are missing; retrain") from None
    except (SafetensorError, RuntimeError, ValueError, TypeError, OSError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise ModelError(f"{folder}: does not fit the encoder ({reason}); retrain") from None
    saved = {f"{name}." for name in find_wrapped_modules(wrapped)}
    lost = [name for name in new_parameters if not any(name.startswith(s) for s in saved)]
    missing = [key for key in result.missing_keys if "lora_" in key or "modules_to_save" in key]
    if lost or missing or result.unexpected_keys:
        name = (lost or missing or result.unexpected_keys)[0]
        raise ModelError(f"{folder}: weights of {name} are missing or left over; retrain")
    return wrapped


def _write_card(files: EncoderFiles, labels: tuple[str, ...]) -> str:
    names = "\n".join(f"- {label}" for label in labels)
    return (
        f"---\nbase_model: {files.hub_name}\nlibrary_name: peft\n"
        "pipeline_tag: text-classification\ntags:\n- lora\n- textlora\n---\n\n"
        f"# Text classifier: a LoRA adapter for {files.hub_name}\n\n"
        f"Trained with textlora {VERSION}. Labels, in the order of the logits:\n\n{names}\n"
    )
