"""The sizes of an encoder of a well-known family, read off its config.json without transformers.

Importing transformers takes seconds, and sizes are all that a plan, a check and a saved classifier
need of it. What is not plain in every respect is left to transformers: nothing here is an error.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textlora.errors import ModelError

# Families whose layers the engine computes itself, without padding (see `engine`).
PACKED_FAMILIES = {"bert", "roberta", "xlm-roberta", "camembert", "electra", "mpnet"}
# These families start positions behind the padding id: the rows up to it are never used.
OFFSET_FAMILIES = {
    "roberta", "xlm-roberta", "camembert", "mpnet", "data2vec-text", "longformer",
    "roberta-prelayernorm", "xlm-roberta-xl",
}  # fmt: skip
_MIN_POSITIONS = 8  # as the least of model.max_length
_SIZES = ("hidden_size", "num_attention_heads", "num_hidden_layers", "intermediate_size")
_BERT: dict[str, Any] = {
    "vocab_size": 30_522, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
    "intermediate_size": 3_072, "hidden_act": "gelu", "max_position_embeddings": 512,
    "type_vocab_size": 2, "layer_norm_eps": 1e-12, "pad_token_id": 0,
}  # fmt: skip
# What a config.json leaves out, by family. Source: the configuration classes of transformers 5.23,
# with which a test compares them.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "bert": _BERT,
    "roberta": _BERT | {"vocab_size": 50_265, "pad_token_id": 1},
    "xlm-roberta": _BERT | {"pad_token_id": 1},
    "camembert": _BERT | {"pad_token_id": 1},
    "electra": _BERT
    | {
        "embedding_size": 128, "hidden_size": 256, "num_attention_heads": 4,
        "intermediate_size": 1_024,
    },
    "mpnet": _BERT
    | {
        "vocab_size": 30_527, "pad_token_id": 1, "type_vocab_size": 0,
        "relative_attention_num_buckets": 32,
    },
    "distilbert": {
        "vocab_size": 30_522, "dim": 768, "n_layers": 6, "n_heads": 12, "hidden_dim": 3_072,
        "activation": "gelu", "max_position_embeddings": 512, "pad_token_id": 0,
    },
}  # fmt: skip
# DistilBERT's names for what the others call by those of BERT.
_DISTILBERT = {
    "dim": "hidden_size", "n_layers": "num_hidden_layers", "n_heads": "num_attention_heads",
    "hidden_dim": "intermediate_size", "activation": "hidden_act",
}  # fmt: skip
# With any of these a model computes otherwise than its family, or has other weights.
_UNUSUAL = (
    "is_decoder", "add_cross_attention", "chunk_size_feed_forward", "quantization_config",
    "tie_encoder_decoder", "pruned_heads", "auto_map", "is_encoder_decoder", "attribute_map",
    "transformers_weights",
)  # fmt: skip


@dataclass(frozen=True)
class EncoderConfig:
    """The sizes of an encoder; `token_types` and `buckets` are 0 where the family has none."""

    model_type: str
    vocabulary: int
    positions: int
    token_types: int
    embedding_width: int
    width: int
    heads: int
    inner: int
    num_layers: int
    activation: str
    norm_epsilon: float
    pad_token_id: int | None
    buckets: int = 0  # of MPNet's relative positions


def read_encoder_config(folder: Path) -> EncoderConfig | None:
    """The sizes in FOLDER/config.json; None where transformers must say what it means."""
    try:
        values = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return parse_encoder_config(values)


def parse_encoder_config(values: Any) -> EncoderConfig | None:
    """The same from what a config.json holds."""
    family = values.get("model_type") if isinstance(values, dict) else None
    if not isinstance(family, str) or family not in _DEFAULTS:
        return None
    if any(values.get(name) for name in _UNUSUAL):
        return None
    if values.get("position_embedding_type", "absolute") != "absolute":
        return None
    if family == "distilbert" and any(name in values for name in _DISTILBERT.values()):
        return None  # under both names: which of them counts is not ours to say
    known = _DEFAULTS[family] | {k: v for k, v in values.items() if k in _DEFAULTS[family]}
    if family == "distilbert":
        known = {_DISTILBERT.get(name, name): value for name, value in known.items()}
    return _make(family, known) if _is_plain(known) else None


def name_encoder(family: str) -> str:
    """What the models of a family call their encoder."""
    return "roberta" if family in ("xlm-roberta", "camembert") else family


def count_positions(family: str, positions: int, pad_token_id: int | None) -> int:
    """Those of a model's `positions` that a text can stand at.

    Raises:  ModelError if they are too few for any text, or counted from an id that is not told.
    """
    if family in OFFSET_FAMILIES:
        padding = 1 if family == "mpnet" else pad_token_id
        if padding is None:
            raise ModelError(
                f"config.json of a {family}: has no pad_token_id, from which positions "
                "are counted; write that of its tokenizer there"
            )
        positions -= padding + 1
    if positions < _MIN_POSITIONS:
        raise ModelError(
            f"config.json of a {family}: leaves {positions} positions for a text, which "
            "needs more; mend max_position_embeddings or pad_token_id"
        )
    return positions


def _is_plain(known: dict[str, Any]) -> bool:
    """Whether every value is of the kind that its name stands for."""
    sizes = (*_SIZES, "vocab_size", "max_position_embeddings", "embedding_size")
    counts = ("type_vocab_size", "relative_attention_num_buckets")
    padding = known["pad_token_id"]
    return (
        all(_is_count(known[name]) and known[name] > 0 for name in sizes if name in known)
        and all(_is_count(known[name]) for name in counts if name in known)
        and known["hidden_size"] % known["num_attention_heads"] == 0
        and isinstance(known["hidden_act"], str)
        and isinstance(known.get("layer_norm_eps", 1e-12), float)
        and (padding is None or (_is_count(padding) and padding < known["vocab_size"]))
    )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _make(family: str, known: dict[str, Any]) -> EncoderConfig:
    return EncoderConfig(
        model_type=family,
        vocabulary=known["vocab_size"],
        positions=known["max_position_embeddings"],
        token_types=known.get("type_vocab_size", 0),
        embedding_width=known.get("embedding_size", known["hidden_size"]),
        width=known["hidden_size"],
        heads=known["num_attention_heads"],
        inner=known["intermediate_size"],
        num_layers=known["num_hidden_layers"],
        activation=known["hidden_act"],
        norm_epsilon=known.get("layer_norm_eps", 1e-12),
        pad_token_id=known["pad_token_id"],
        buckets=known.get("relative_attention_num_buckets", 0),
    )
