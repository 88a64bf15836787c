"""The weight files of an encoder: which there are, which are loaded, and the names in them."""

import json
import struct
from pathlib import Path

from textlora.errors import ModelError


def list_weights(folder: Path) -> list[Path]:
    """The weight files in `folder`, in the order of their names."""
    return sorted(folder.glob("model*.safetensors"))


def list_loaded_weights(folder: Path) -> list[Path]:
    """Those of the weight files that transformers loads: one, or the parts that an index names.

    Beside them there may be copies in other formats. Empty where it is not plain which it takes.
    """
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if (folder / "adapter_config.json").exists():
        return []  # it would load the encoder that is named there
    if whole.is_file():
        return [whole]
    try:
        names = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
        paths = [folder / name for name in sorted(names)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    return paths if all(path.is_file() for path in paths) else []


def read_tensor_names(path: Path) -> list[str]:
    """Names in a safetensors file: 8 bytes of header length, then a JSON header.

    Raises:  ModelError if it is not one.
    """
    try:
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > 100_000_000:  # the format's own limit
                raise ValueError("header too large")
            header = json.loads(stream.read(length))
    except (OSError, ValueError, struct.error) as error:
        raise ModelError(f"{path}: not a safetensors file ({error}); fetch it again") from None
    return [name for name in header if name != "__metadata__"]


def rename_stored(name: str) -> str:
    """A tensor's name as models have it: old checkpoints call a norm's values gamma and beta."""
    name = name.replace("LayerNorm.gamma", "LayerNorm.weight")
    return name.replace("LayerNorm.beta", "LayerNorm.bias")
