"""config.json read by itself says of the longest input what transformers says."""

import json

import pytest
import transformers
from conftest import FAMILIES, save_encoder

from textlora.errors import ModelError
from textlora.model import encoder
from textlora.model.encoder_files import EncoderFiles
from textlora.model.positions import DEFAULT_PADDING, DEFAULT_POSITIONS, read_max_length


def ask_transformers(folder, wanted):
    config = encoder.load_config(EncoderFiles("it", folder, "", "it"), ("a", "b"))
    return encoder.find_max_length(config, wanted)


def write(folder, **values):
    (folder / "config.json").write_text(json.dumps(values))
    return folder


@pytest.mark.parametrize("family", DEFAULT_PADDING)
def test_what_a_file_leaves_out_is_what_transformers_takes(family, tmp_path):
    config = transformers.AutoConfig.for_model(family)
    assert config.max_position_embeddings == DEFAULT_POSITIONS
    assert config.pad_token_id == DEFAULT_PADDING[family]
    assert read_max_length(write(tmp_path, model_type=family), 1_000) == ask_transformers(
        tmp_path, 1_000
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_the_tiny_encoders(tmp_path, family):
    folder = save_encoder(tmp_path, family)
    for wanted in (16, 64, 512):
        found = read_max_length(folder, wanted)
        assert (found is not None) is (family in DEFAULT_PADDING)
        assert found in (None, ask_transformers(folder, wanted))


@pytest.mark.parametrize(
    "values",
    [
        {"model_type": "roberta", "max_position_embeddings": 514},
        {"model_type": "roberta", "max_position_embeddings": 66, "pad_token_id": 4},
        {"model_type": "mpnet", "pad_token_id": 9, "max_position_embeddings": 514},
        {"model_type": "bert", "pad_token_id": None},
        {"model_type": "bert", "max_position_embeddings": 0},
        {"model_type": "xlm-roberta", "max_position_embeddings": 20},
    ],
)
def test_usual_files_are_understood(tmp_path, values):
    folder = write(tmp_path, **values)
    assert read_max_length(folder, 256) == ask_transformers(folder, 256)


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


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '"bert"',
        '{"model_type": "deberta"}',
        '{"model_type": ["bert"]}',
        '{"hidden_size": 32}',
        '{"model_type": "bert", "max_position_embeddings": null}',
        '{"model_type": "bert", "max_position_embeddings": "512"}',
        '{"model_type": "bert", "max_position_embeddings": 64.0}',
        '{"model_type": "bert", "hidden_size": true}',
        '{"model_type": "bert", "hidden_size": 30, "num_attention_heads": 4}',
        '{"model_type": "bert", "configuration_files": ["config.4.0.0.json"]}',
    ],
)
def test_anything_odd_is_left_to_transformers(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    assert read_max_length(tmp_path, 64) is None


def test_a_missing_file_is_left_to_transformers(tmp_path):
    assert read_max_length(tmp_path, 64) is None
