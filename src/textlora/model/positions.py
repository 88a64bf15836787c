"""The longest text that an encoder can read, as its configuration says."""

from pathlib import Path

from textlora.errors import ModelError
from textlora.model.encoder_config import read_encoder_config

# These families start positions behind the padding id: the rows up to it are never used.
_OFFSET_POSITIONS = {
    "roberta", "xlm-roberta", "camembert", "mpnet", "data2vec-text", "longformer",
    "roberta-prelayernorm", "xlm-roberta-xl",
}  # fmt: skip
_MIN_POSITIONS = 8  # as the least of model.max_length


def read_max_length(folder: Path, wanted: int) -> int | None:
    """Longest input in tokens, as `encoder.find_max_length` of the encoder in `folder`.

    None where transformers must say what config.json means.

    Raises:  ModelError as `fit_length`.
    """
    config = read_encoder_config(folder)
    if config is None:
        return None
    return fit_length(config.model_type, config.positions, config.pad_token_id, wanted)


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
