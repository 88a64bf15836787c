"""config.json read by itself says of the longest input what transformers says."""

import json

import pytest
from conftest import FAMILIES, save_encoder

from textlora.errors import ModelError
from textlora.model import encoder
from textlora.model.encoder_files import EncoderFiles
from textlora.model.positions import read_max_length


def ask_transformers(folder, wanted):
    config = encoder.load_config(EncoderFiles("it", folder, "", "it"), ("a", "b"))
    return encoder.find_max_length(config, wanted)


def write(folder, **values):
    (folder / "config.json").write_text(json.dumps(values))
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_the_tiny_encoders(tmp_path, family):
    folder = save_encoder(tmp_path, family)
    for wanted in (16, 64, 512):
        found = read_max_length(folder, wanted)
        assert (found is None) is (family in ("deberta-v2", "modernbert"))
        assert found in (None, ask_transformers(folder, wanted))


@pytest.mark.parametrize(
    "values",
    [
        {"model_type": "bert"},
        {"model_type": "roberta"},
        {"model_type": "camembert", "max_position_embeddings": 514},
        {"model_type": "roberta", "max_position_embeddings": 66, "pad_token_id": 4},
        {"model_type": "mpnet", "pad_token_id": 9, "max_position_embeddings": 514},
        {"model_type": "bert", "pad_token_id": None},
        {"model_type": "xlm-roberta", "max_position_embeddings": 20},
    ],
)
def test_usual_files_are_understood(tmp_path, values):
    folder = write(tmp_path, **values)
    for wanted in (16, 1_000):
        assert read_max_length(folder, wanted) == ask_transformers(folder, wanted)


@pytest.mark.parametrize(
    "values",
    [
        {"model_type": "roberta", "pad_token_id": None},
        {"model_type": "bert", "max_position_embeddings": 3},
        {"model_type": "roberta", "max_position_embeddings": 8},
    ],
)
def test_too_few_positions_are_refused_in_the_same_words(tmp_path, values):
    folder = write(tmp_path, **values)
    messages = []
    for ask in (read_max_length, ask_transformers):
        with pytest.raises(ModelError) as caught:
            ask(folder, 256)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


@pytest.mark.parametrize("content", ["{", "[]", '{"model_type": "deberta"}', None])
def test_anything_odd_is_left_to_transformers(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    assert read_max_length(tmp_path, 64) is None
