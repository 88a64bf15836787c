"""A trained classifier read back: every file of it checked, and the encoder it was trained on."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from textlora.errors import ModelError, SettingsError, shorten_message
from textlora.model import encoder_files, encoder_weights
from textlora.model.encoder_config import read_encoder_config
from textlora.model.encoder_files import EncoderFiles
from textlora.model.tokenizer import check_tokenizer, read_tokenizer
from textlora.runs.run_folder import (
    ADAPTER,
    LABELS,
    RECIPE,
    WEIGHTS,
    BaseModel,
    Manifest,
    find_classifier,
    read_manifest,
)
from textlora.settings import ModelSettings, Recipe, load_recipe
from textlora.system.files import find_damage, find_pickle
from textlora.system.runtime import use_one_thread

if TYPE_CHECKING:
    from peft import PeftModel

    from textlora.model.plain_classifier import MergedModel, PlainAdapter


@dataclass(frozen=True)
class LoadedRun:
    """A trained classifier, every file of it checked; a model is built of it when asked for."""

    folder: Path
    recipe: Recipe
    labels: tuple[str, ...]
    manifest: Manifest
    tokenizer: Any
    encoder: EncoderFiles

    @cached_property
    def model(self) -> "PeftModel":
        """The classifier as transformers and PEFT build it, in float32 and not merged.

        Raises:  ModelError if adapter and encoder do not fit.
        """
        from textlora.model import encoder

        self._check_encoder()
        problem_type, head = self.recipe.data.problem_type, self.recipe.model.head
        loaded = encoder.load_encoder(
            self.encoder, self.labels, head=head, problem_type=problem_type
        )
        embeddings = loaded.model.get_input_embeddings()  # type: ignore[operator]
        check_tokenizer(self.tokenizer, embeddings.num_embeddings, f"{self.folder}")
        return _load_adapter(self._adapter, loaded.model, loaded.new_parameters).eval()

    def merge(self) -> "MergedModel":
        """The classifier with its adapter merged, in float32, without those libraries if it can be.

        Raises:  ModelError if adapter and encoder do not fit.
        """
        from textlora.model import plain_classifier

        self._check_encoder()
        with use_one_thread():
            merged = plain_classifier.merge_plain(
                read_encoder_config(self.encoder.folder),
                self.recipe.model.head,
                len(self.labels),
                lambda: _read_weights(*encoder_weights.list_loaded_weights(self.encoder.folder)),
                _read_adapter(self._adapter),
            )
        if merged is not None:
            return merged
        from textlora.model.adapters import find_wrapped_modules, merge_adapter

        whole = find_wrapped_modules(self.model)
        merged = plain_classifier.MergedModel(merge_adapter(self.model), whole)
        del self.__dict__["model"]  # PEFT merges in place: it is no longer what it says
        return merged

    def _check_encoder(self) -> None:
        """See that the encoder has the weights of training: only who computes with them asks."""
        base = self.manifest.base
        found = encoder_files.compute_weights_fingerprint(self.encoder.folder)
        if found != base.weights_sha256:
            raise ModelError(
                f"{self.folder}: was trained on other weights of {base.name!r} (SHA-256 "
                f"{base.weights_sha256[:12]}..., found {found[:12]}... in {self.encoder.folder}); "
                "put the original encoder there"
            )

    @property
    def _adapter(self) -> Path:
        return find_classifier(self.folder) / ADAPTER

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


def load_run(run: Path) -> LoadedRun:
    """Read a classifier as `open_run` does, and build its model at once.

    Raises:  ModelError as `open_run`, or where adapter and encoder do not fit.
    """
    opened = open_run(run)
    _ = opened.model
    return opened


def open_run(run: Path) -> LoadedRun:
    """Read a classifier after checking every file of it.

    The weights of its encoder are checked by who builds a model: a converted backend has none of
    them left to read.

    Raises:  ModelError naming the file that is missing or changed.
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
    tokenizer = read_tokenizer(inside / ADAPTER, str(run / ADAPTER))
    config = read_encoder_config(files.folder)
    if config is not None:
        check_tokenizer(tokenizer, config.vocabulary, f"{run}")
    return LoadedRun(run, recipe, labels, manifest, tokenizer, files)


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
    embedded = base.name == encoder_files.EMBEDDED
    if not embedded and not Path(name).is_dir() and Path(base.folder).is_dir():
        name = base.folder  # started from another working folder, or cached from the Hub
    files = encoder_files.locate_encoder(settings.model_copy(update={"name": name}))
    config = encoder_files.compute_config_fingerprint(files.folder)
    if base.config_sha256 and config != base.config_sha256:
        raise ModelError(
            f"{files.folder}/config.json: is another than {run} was trained with; put the "
            "original there"
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


def _read_weights(*paths: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return {name: tensor for path in paths for name, tensor in load_file(path).items()}


def _read_adapter(folder: Path) -> "PlainAdapter":
    from textlora.model.plain_classifier import PlainAdapter

    try:
        settings = json.loads((folder / "adapter_config.json").read_text("utf-8"))
        return PlainAdapter(settings, _read_weights(folder / WEIGHTS))
    except (SafetensorError, ValueError, OSError) as error:
        reason = shorten_message(error)
        raise ModelError(f"{folder}: does not fit the encoder ({reason}); retrain") from None


def _load_adapter(folder: Path, model: Any, new_parameters: tuple[str, ...]) -> "PeftModel":
    from peft import LoraConfig, set_peft_model_state_dict
    from safetensors.torch import load_file

    from textlora.model.adapters import find_wrapped_modules, wrap_model

    try:
        config = LoraConfig.from_pretrained(str(folder), local_files_only=True)
        state = load_file(folder / WEIGHTS)
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
