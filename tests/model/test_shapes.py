"""Shapes by arithmetic are those of the model that transformers builds, in its order."""

import json
import shutil

import pytest
import transformers
from conftest import FAMILIES, save_encoder

from textlora.model import encoder, encoder_config, encoder_files
from textlora.model.adapter_plan import plan_adapter
from textlora.model.engine import Engine
from textlora.model.heads import list_head_parameters
from textlora.model.shapes import compute_shapes, find_new_parameters, find_shapes, read_shapes
from textlora.settings import ModelSettings, load_recipe

KNOWN = ("bert", "roberta", "xlm-roberta", "camembert", "electra", "mpnet", "distilbert")
SMALL = {"num_hidden_layers": 3, "hidden_size": 24, "num_attention_heads": 3,
         "intermediate_size": 40, "vocab_size": 50, "max_position_embeddings": 70}  # fmt: skip
# Each size differs from the others, so that no two can be taken for each other.
CHANGES = {
    "as published": {},
    "small": SMALL,
    "small, other types and buckets": {
        **SMALL, "type_vocab_size": 5, "relative_attention_num_buckets": 16, "pad_token_id": 3,
        "embedding_size": 18,
    },
    "small, as wide embeddings": {**SMALL, "embedding_size": 24},
}  # fmt: skip
DISTILBERT = {"num_hidden_layers": "n_layers", "hidden_size": "dim",
              "num_attention_heads": "n_heads", "intermediate_size": "hidden_dim"}  # fmt: skip


def make_config(family, changes):
    """The configuration of a family with what of the changes it knows."""
    config = transformers.AutoConfig.for_model(family)
    known = {key: value for key, value in changes.items() if hasattr(config, key)}
    if family == "distilbert":
        known = {DISTILBERT.get(key, key): value for key, value in known.items()}
    return type(config)(**known)


def build(config, head, num_labels):
    config.id2label = {index: str(index) for index in range(num_labels)}
    return encoder.build_skeleton(config, head)


@pytest.mark.parametrize("head", ["own", "first", "mean"])
@pytest.mark.parametrize("changes", CHANGES)
@pytest.mark.parametrize("family", KNOWN)
def test_arithmetic_gives_what_transformers_builds(family, changes, head):
    config = make_config(family, CHANGES[changes])
    known = encoder_config.parse_encoder_config(config.to_diff_dict() | {"model_type": family})
    for num_labels in (2, 7):
        model = build(config, head, num_labels)
        found, expected = compute_shapes(known, head, num_labels), read_shapes(model)
        assert found == expected
        assert list(found.parameters) == list(expected.parameters)
        assert found.total == sum(parameter.numel() for parameter in model.parameters())
        assert found.linear_head == tuple(list_head_parameters(model))
        assert found.is_packed == Engine(model, 0).is_packed


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_shapes_of_a_folder_need_no_model_where_the_family_is_known(family, tmp_path, monkeypatch):
    folder = save_encoder(tmp_path / "encoder", family)
    settings = ModelSettings(name=str(folder))
    expected = read_shapes(build(encoder.read_model_config(settings, ("a",) * 3), "own", 3))
    built = []
    original = encoder.build_skeleton
    monkeypatch.setattr(encoder, "build_skeleton", lambda *a: (built.append(a), original(*a))[1])
    assert find_shapes(settings, 3) == expected
    assert len(built) == (family not in KNOWN)


@pytest.mark.parametrize("recipe", ["reference", "best", "frugal", "quickstart"])
def test_a_plan_is_the_same_by_either_way(recipe):
    resolved = load_recipe(recipe)
    full = encoder.read_model_config(resolved.model, ("a", "b", "c", "d"))
    built = read_shapes(encoder.build_skeleton(full, resolved.model.head))
    folder = encoder_files.find_local_folder(resolved.model)
    plans = [
        plan_adapter(shapes, find_new_parameters(shapes, folder), resolved.adapter)
        for shapes in (built, find_shapes(resolved.model, 4))
    ]
    assert plans[0] == plans[1]
    if recipe == "reference":
        assert (plans[1].trainable, plans[1].total) == (814_852, 125_463_560)


def test_what_is_not_plain_is_left_to_transformers(tiny_bert, tmp_path):
    """A decoder does not run packed, whatever its family."""
    folder = shutil.copytree(tiny_bert, tmp_path / "bert")
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"is_decoder": True}))
    assert find_shapes(ModelSettings(name=str(tiny_bert)), 2).is_packed
    assert not find_shapes(ModelSettings(name=str(folder)), 2).is_packed
