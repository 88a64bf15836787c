"""The run folder: the one owner of its file names. Save, verify, load a trained classifier.

    RUN/  recipe.toml      the resolved settings        labels.json      label names in order
          adapter/         PEFT format, tokenizer, model card
          history.jsonl    a StepRecord a line          evaluation.json  the figures
          visualizations/  pictures                     checkpoints/     see `checkpoints`
          backends/        see `backends`               baseline/        see `baselines`
          predictions/     see `answers`               report.html      see `report`
          tracking/        see `tracking`              seeds.json       see `seeds`
          datacheck.json, training.json                see `provenance`
          manifest.json    what the classifier needs and the SHA-256 of its files, written last

A folder without manifest.json holds no finished classifier. A new classifier is written whole
beside the older one and then moved to its place, so that a crash leaves the one or the other. Only
safetensors and JSON are written and read.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from textlora import encoder, encoderfiles
from textlora.adapters import find_wrapped_modules, wrap_model
from textlora.encoderfiles import EncoderFiles
from textlora.errors import ModelError, SettingsError, shorten_message
from textlora.files import (
    MANIFEST,
    describe_files,
    find_damage,
    find_pickle,
    format_json,
    remove_folder,
    stage_folder,
    write_atomically,
    write_file,
)
from textlora.modelcard import format_card
from textlora.settings import ModelSettings, Recipe, format_recipe, load_recipe

FORMAT_VERSION = 1
VERSION = version("textlora")
RECIPE, LABELS, ADAPTER, HISTORY = "recipe.toml", "labels.json", "adapter", "history.jsonl"
EVALUATION, VISUALIZATIONS, CHECKPOINTS = "evaluation.json", "visualizations", "checkpoints"
BACKENDS, BASELINE, PREDICTIONS = "backends", "baseline", "predictions"
TRACKING, SEEDS = "tracking", "seeds.json"
DATA_CHECK, TRAINING = "datacheck.json", "training.json"
SWEEP = "sweep.toml"  # in the folder of a sweep, which is none of a run
_WEIGHTS = "adapter_model.safetensors"
_NEXT = ".next"  # a whole classifier that is being moved to its place


@dataclass(frozen=True)
class BaseModel:
    """The encoder a run was trained on: how to find it again, and how to know it."""

    name: str
    folder: str
    revision: str
    weights_sha256: str


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

    model: PeftModel
    weights: dict[str, Tensor]
    tokenizer: Any
    labels: tuple[str, ...]
    files: EncoderFiles


@dataclass(frozen=True)
class LoadedRun:
    """A trained classifier in memory, in float32 and not merged."""

    folder: Path
    recipe: Recipe
    labels: tuple[str, ...]
    manifest: Manifest
    model: PeftModel
    tokenizer: Any

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what the answers follow from: classifier, encoder, number format."""
        facts = [
            self.manifest.files,
            self.manifest.base.weights_sha256,
            self.recipe.training.precision,
            self.manifest.temperature,
        ]
        if self.manifest.thresholds:
            facts.append(self.manifest.thresholds)
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


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
    (run / EVALUATION).unlink(missing_ok=True)  # the figures of an older classifier
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


def refuse_run(folder: Path) -> None:
    """Keep figures on other data out of a run, whose own would be lost.

    Raises:  SettingsError if it holds a classifier.
    """
    if (find_classifier(folder) / MANIFEST).exists():
        raise SettingsError(f"{folder}: holds a classifier and its figures; choose another --out")


def _write_adapter(folder: Path, trained: TrainedModel, recipe: Recipe, manifest: Manifest) -> None:
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
    write_file(folder / _WEIGHTS, save({key: value.contiguous() for key, value in state.items()}))
    card = format_card(
        trained.files.hub_name, trained.labels, recipe, manifest.temperature, manifest.thresholds
    )
    write_file(folder / "README.md", card.encode())


def describe_base(files: EncoderFiles, weights_sha256: str) -> BaseModel:
    """Name, place and fingerprint of the encoder."""
    return BaseModel(
        name=files.name,
        folder=str(files.folder),
        revision=files.revision,
        weights_sha256=weights_sha256,
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
        thresholds = tuple(map(float, values.get("thresholds", ())))
        base = BaseModel(**values["base"])
        return Manifest(**{**values, "base": base, "thresholds": thresholds})
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: damaged ({error}); copy the run again or retrain") from None


def load_run(run: Path) -> LoadedRun:
    """Load a classifier, after checking every file of it and the encoder it was trained on.

    Raises:  ModelError naming the file that is missing or changed, or what does not fit.
    """
    manifest = read_manifest(run)
    inside = find_classifier(run)
    try:
        damage = find_damage(inside, manifest.files)
        pickled = find_pickle(inside) or find_pickle(inside / ADAPTER)
    except (OSError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{inside}: damaged ({error!r:.100}); retrain") from None
    if damage:
        raise ModelError(f"{run}: {damage}; copy the run again or retrain")
    if pickled:
        raise ModelError(
            f"{run}: holds {pickled}, a format that can run code when it is read and that "
            "textlora never writes; delete it"
        )
    try:
        recipe = load_recipe(str(inside / RECIPE))
        labels = tuple(json.loads((inside / LABELS).read_text("utf-8")))
    except (SettingsError, ValueError) as error:
        raise ModelError(f"{run}: {error}") from None
    files = _locate_base(run, manifest.base, recipe.model)
    _refuse_code(inside / ADAPTER)
    tokenizer = encoder.load_tokenizer(inside / ADAPTER, str(run / ADAPTER))
    problem_type = recipe.data.problem_type
    loaded = encoder.load_encoder(files, labels, head=recipe.model.head, problem_type=problem_type)
    embeddings: Any = loaded.model.get_input_embeddings()  # type: ignore[operator]
    vocabulary = embeddings.num_embeddings
    if len(tokenizer) > vocabulary:
        raise ModelError(
            f"{run}: its tokenizer has {len(tokenizer)} tokens, the encoder {vocabulary}; "
            "the run and the encoder do not belong together"
        )
    model = _load_adapter(inside / ADAPTER, loaded.model, loaded.new_parameters)
    return LoadedRun(run, recipe, labels, manifest, model.eval(), tokenizer)


def load_base_model(run: str | Path) -> Any:
    """The encoder of a run with an untrained head of the right shape, for PEFT's own loader.

        PeftModel.from_pretrained(textlora.load_base_model(RUN), f"{RUN}/adapter")

    A run with the model's own head needs no more than transformers' AutoModel for this; a linear
    head (`model.head`) is textlora's.

    Raises:  ModelError as `load_run`.
    """
    loaded = load_run(Path(run))
    return loaded.model.unload()


def _locate_base(run: Path, base: BaseModel, settings: ModelSettings) -> EncoderFiles:
    name = settings.name
    embedded = base.name == encoderfiles.EMBEDDED
    if not embedded and not Path(name).is_dir() and Path(base.folder).is_dir():
        name = base.folder  # started from another working folder, or cached from the Hub
    files = encoderfiles.locate_encoder(settings.model_copy(update={"name": name}))
    found = encoderfiles.compute_weights_fingerprint(files.folder)
    if found != base.weights_sha256:
        raise ModelError(
            f"{run}: was trained on other weights of {base.name!r} (SHA-256 "
            f"{base.weights_sha256[:12]}..., found {found[:12]}... in {files.folder}); "
            "put the original encoder there"
        )
    return files


def _refuse_code(folder: Path) -> None:
    for path in sorted(folder.glob("*.json")):
        try:
            values = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise ModelError(f"{path}: damaged ({error}); retrain") from None
        if isinstance(values, dict) and (values.get("auto_map") or values.get("auto_mapping")):
            raise ModelError(
                f"{path}: names code to run (auto_map), and textlora writes none; do not trust "
                "this run, get it again from where it was trained"
            )


def _load_adapter(folder: Path, model: Any, new_parameters: tuple[str, ...]) -> PeftModel:
    try:
        config = LoraConfig.from_pretrained(str(folder), local_files_only=True)
        state = load_file(folder / _WEIGHTS)
        config.base_model_name_or_path = None  # known by fingerprint; PEFT compares names
        wrapped = wrap_model(model, config)
        result = set_peft_model_state_dict(wrapped, state)
    except KeyError as error:  # PEFT looks up each module that is trained whole
        raise ModelError(f"{folder}: weights of {error} are missing; retrain") from None
    except (SafetensorError, RuntimeError, ValueError, TypeError, OSError) as error:
        reason = shorten_message(error)
        raise ModelError(f"{folder}: does not fit the encoder ({reason}); retrain") from None
    saved = {f"{name}." for name in find_wrapped_modules(wrapped)}
    lost = [name for name in new_parameters if not any(name.startswith(s) for s in saved)]
    missing = [key for key in result.missing_keys if "lora_" in key or "modules_to_save" in key]
    if lost or missing or result.unexpected_keys:
        name = (lost or missing or result.unexpected_keys)[0]
        raise ModelError(f"{folder}: weights of {name} are missing or left over; retrain")
    return wrapped
