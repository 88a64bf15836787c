"""The longest text that an encoder can read, as its configuration says."""

from pathlib import Path

from textlora.model.encoder_config import count_positions, read_encoder_config


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
    return min(wanted, count_positions(family, positions or wanted, padding))
