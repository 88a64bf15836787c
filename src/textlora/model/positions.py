"""How long a text an encoder can read, from config.json alone where its family is a common one."""

import json
from pathlib import Path
from typing import Any

from textlora.errors import ModelError

# These families start positions behind the padding id: the rows up to it are never used.
_OFFSET_POSITIONS = {
    "roberta", "xlm-roberta", "camembert", "mpnet", "data2vec-text", "longformer",
    "roberta-prelayernorm", "xlm-roberta-xl",
}  # fmt: skip
_MIN_POSITIONS = 8  # as the least of model.max_length
# Families whose configuration has these defaults in transformers, and the padding id of each.
DEFAULT_POSITIONS = 512
DEFAULT_PADDING = {
    "bert": 0, "electra": 0, "distilbert": 0,
    "roberta": 1, "xlm-roberta": 1, "camembert": 1, "mpnet": 1,
}  # fmt: skip
# Numbers that transformers refuses to read as anything else.
_WHOLE = {
    "max_position_embeddings", "pad_token_id", "vocab_size", "hidden_size", "num_hidden_layers",
    "num_attention_heads", "intermediate_size", "type_vocab_size", "embedding_size", "dim",
    "n_layers", "n_heads", "hidden_dim", "num_labels", "bos_token_id", "eos_token_id",
    "relative_attention_num_buckets", "summary_num_labels",
}  # fmt: skip


def read_max_length(folder: Path, wanted: int) -> int | None:
    """Longest input in tokens, as `encoder.find_max_length` of the encoder in `folder`.

    None where only transformers can tell, or says what is wrong.

    Raises:  ModelError as `fit_length`.
    """
    facts = _read_facts(folder)
    return None if facts is None else fit_length(*facts, wanted)


def fit_length(family: str, positions: int | None, padding: int | None, wanted: int) -> int:
    """Longest input in tokens: what is wanted, but no more than the model has positions for.

    `padding` is the id of the padding token.

    Raises:  ModelError if that is too little for any text.
    """
    left = positions or wanted
    if family in _OFFSET_POSITIONS:
        offset = 1 if family == "mpnet" else padding
        if offset is None:
            raise ModelError(
                f"config.json of a {family}: has no pad_token_id, from which positions "
                "are counted; write that of its tokenizer there"
            )
        left -= offset + 1
    if left < _MIN_POSITIONS:
        raise ModelError(
            f"config.json of a {family}: leaves {left} positions for a text, which "
            "needs more; mend max_position_embeddings or pad_token_id"
        )
    return min(wanted, left)


def _read_facts(folder: Path) -> tuple[str, int, int | None] | None:
    """Family, positions and padding id; None where transformers may read something else."""
    try:
        values = json.loads((folder / "config.json").read_text("utf-8"))
        family = values["model_type"]
        padding = values.get("pad_token_id", DEFAULT_PADDING[family])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if "configuration_files" in values or not _has_usual_values(values):
        return None
    return family, values.get("max_position_embeddings", DEFAULT_POSITIONS), padding


def _has_usual_values(values: dict[str, Any]) -> bool:
    """Whether the numbers are such as transformers takes."""
    ids = {key for key in _WHOLE if key.endswith("_token_id") and values.get(key) is None}
    if any(type(values[key]) is not int for key in (_WHOLE - ids) & values.keys()):
        return False
    width, heads = values.get("hidden_size", 0), values.get("num_attention_heads", 1)
    names = values.get("id2label", {})
    return heads > 0 and width % heads == 0 and isinstance(names, dict)
