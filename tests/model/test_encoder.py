import json
import shutil
import struct

import numpy as np
import pytest
import torch
import transformers
from conftest import SIZES, make_rows, save_encoder, save_tokenizer
from safetensors.torch import load_file
from transformers import RobertaConfig

from textlora.errors import ModelError
from textlora.model import encoder, encoder_files
from textlora.model.batching import tokenize
from textlora.model.engine import Engine
from textlora.model.tokenizer import check_tokenizer
from textlora.model.torch_backend import compute_logits
from textlora.settings import ModelSettings

LABELS = ("yes", "no")


def locate(name, **settings):
    return encoder_files.locate_encoder(ModelSettings(name=str(name), **settings))


def test_a_folder_loads_with_our_labels_and_without_any_socket(tiny_bert, no_sockets):
    files = locate(tiny_bert)
    loaded = encoder.load_encoder(files, LABELS)
    encoder.load_tokenizer(files.folder, "tiny")
    assert loaded.model.config.id2label == {0: "yes", 1: "no"}
    assert loaded.new_parameters == ("classifier.weight", "classifier.bias")
    assert no_sockets == []


def test_the_embedded_encoder_is_the_published_one(no_sockets):
    files = locate(encoder_files.EMBEDDED)
    loaded = encoder.load_encoder(files, LABELS)
    assert sum(p.numel() for p in loaded.model.parameters()) == 22_713_216 + 770
    assert files.hub_name == "sentence-transformers/all-MiniLM-L6-v2"
    assert no_sockets == []


def test_weights_are_those_of_the_checkpoint(tiny_bert):
    stored = load_file(tiny_bert / "model.safetensors")
    model = encoder.load_encoder(locate(tiny_bert), LABELS).model
    for name, tensor in stored.items():
        assert torch.equal(model.state_dict()[f"bert.{name}"], tensor), name


def test_new_weights_follow_from_the_seed(tiny_bert):
    def head(seed):
        torch.manual_seed(seed)
        return encoder.load_encoder(locate(tiny_bert), LABELS).model.classifier.weight

    assert torch.equal(head(1), head(1))
    assert not torch.equal(head(1), head(2))


def test_the_head_of_another_classifier_is_replaced(tmp_path, tiny_bert):
    config = transformers.BertConfig.from_pretrained(tiny_bert, num_labels=5)
    model = transformers.BertForSequenceClassification(config)
    model.save_pretrained(tmp_path / "five")
    encoder.load_tokenizer(tiny_bert, "tiny").save_pretrained(tmp_path / "five")
    loaded = encoder.load_encoder(locate(tmp_path / "five"), LABELS)
    assert loaded.model.classifier.out_features == 2
    assert loaded.new_parameters == ("classifier.weight", "classifier.bias")


@pytest.mark.parametrize("written", [0.1, 0, 1])  # some files have whole numbers
def test_dropout_of_the_backbone_is_what_the_recipe_says(tiny_bert, tmp_path, written):
    folder = shutil.copytree(tiny_bert, tmp_path / "bert")
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": written, "attention_probs_dropout_prob": written}
    (folder / "config.json").write_text(json.dumps(config))
    for probability in (0.0, 0.2):
        model = encoder.load_encoder(locate(folder), LABELS, probability).model
        found = {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)}
        assert found == {probability}


@pytest.mark.parametrize(("family", "positions"), [("bert", 64), ("roberta", 65), ("mpnet", 64)])
def test_no_text_is_longer_than_the_positions_of_the_model(tmp_path, family, positions):
    folder = save_encoder(tmp_path / family, family)
    files = locate(folder)
    model = encoder.load_encoder(files, LABELS).model.eval()
    length = encoder.find_max_length(model.config, 512)
    assert length == positions
    ids = torch.full((1, length), 9)
    assert model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.isfinite().all()
    assert encoder.find_max_length(model.config, 10) == 10


def remove_weights(folder):
    (folder / "model.safetensors").unlink()


def cut_weights(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def claim_a_huge_header(folder):
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 40) + b"{}")


def break_config(folder):
    (folder / "config.json").write_text("{")


def remove_config(folder):
    (folder / "config.json").unlink()


def name_an_unknown_type(folder):
    (folder / "config.json").write_text(json.dumps({"model_type": "unheard-of"}))


def name_another_kind(folder):
    (folder / "config.json").write_text(json.dumps({"model_type": "nystromformer"}))


def break_tokenizer(folder):
    (folder / "tokenizer.json").write_text("{")


def name_more_words(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 100}))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (name_more_words, "config.json and weights differ: bert.embeddings.word_embeddings.weight"),
        (remove_weights, "no .safetensors weights"),
        (cut_weights, "damaged"),
        (claim_a_huge_header, "damaged"),
        (break_config, "config"),
        (remove_config, "no config.json"),
        (name_an_unknown_type, "unheard-of"),
        (name_another_kind, "nystromformer is none of the encoders that textlora knows"),
        (break_tokenizer, "tokenizer"),
    ],
)
def test_a_broken_model_folder_is_refused_with_the_reason(tmp_path, tiny_bert, damage, reason):
    folder = tmp_path / "model"
    shutil.copytree(tiny_bert, folder)
    damage(folder)

    def load():
        files = locate(folder)
        encoder.load_tokenizer(files.folder, str(folder))
        encoder.load_encoder(files, LABELS)

    with pytest.raises(ModelError) as caught:
        load()
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_with_more_words_than_the_encoder_is_refused(tiny_bert):
    files = locate(tiny_bert)
    model = encoder.load_encoder(files, LABELS).model
    tokenizer = encoder.load_tokenizer(tiny_bert, "tiny")
    check_tokenizer(tokenizer, model.get_input_embeddings().num_embeddings, "model 'tiny'")
    tokenizer.add_tokens([f"word{n}" for n in range(100)])
    with pytest.raises(
        ModelError, match=r"model 'tiny': its tokenizer has \d+ tokens, the encoder"
    ):
        check_tokenizer(tokenizer, model.get_input_embeddings().num_embeddings, "model 'tiny'")


@pytest.mark.parametrize(
    ("changes", "positions", "reason"),
    [
        ({"pad_token_id": 4, "max_position_embeddings": 66}, 61, ""),
        ({"pad_token_id": None}, 0, "has no pad_token_id"),
        ({"max_position_embeddings": 3}, 0, "leaves 1 positions"),
    ],
)
def test_positions_are_counted_from_the_padding(changes, positions, reason):
    config = RobertaConfig(**changes)
    if reason:
        with pytest.raises(ModelError, match=reason):
            encoder.find_max_length(config, 512)
    else:
        assert encoder.find_max_length(config, 512) == positions


def test_pickled_weights_and_remote_code_are_never_run(tmp_path, tiny_bert):
    folder = tmp_path / "model"
    shutil.copytree(tiny_bert, folder)
    canary = tmp_path / "canary"
    code = f"open({str(canary)!r}, 'w').close()\nclass Model: pass\nclass Config: pass\n"
    (folder / "modeling.py").write_text(code)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {
        "AutoConfig": "modeling.Config",
        "AutoModelForSequenceClassification": "modeling.Model",
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch canary'\ntR.")
    encoder.load_encoder(locate(folder), LABELS)
    assert not canary.exists()
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="pickled .bin weights are not read"):
        locate(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer_norm_eps": 1}, "config.json: Field 'layer_norm_eps' expected float, got int"),
        ({"hidden_size": "32"}, "config.json: Field 'hidden_size' expected int, got str"),
        ({"id2label": ["a"]}, "give an encoder folder"),
    ],
)
def test_a_config_with_a_value_of_another_kind_is_refused(tmp_path, tiny_bert, change, message):
    folder = shutil.copytree(tiny_bert, tmp_path / "bert")
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | change))
    with pytest.raises(ModelError, match=message):
        encoder.load_config(locate(folder), LABELS)


def test_a_config_that_names_its_own_code_is_refused_without_asking(tmp_path, tiny_bert):
    folder = tmp_path / "model"
    shutil.copytree(tiny_bert, folder)
    canary = tmp_path / "canary"
    (folder / "evil.py").write_text(f"open({str(canary)!r}, 'w').close()\nclass C: pass\n")
    config = {"model_type": "evil", "auto_map": {"AutoConfig": "evil.C"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError):
        encoder.load_encoder(locate(folder), LABELS)
    assert not canary.exists()


def test_a_folder_without_a_tokenizer_is_refused(tmp_path, tiny_bert):
    folder = tmp_path / "model"
    shutil.copytree(tiny_bert, folder, ignore=shutil.ignore_patterns("token*"))
    with pytest.raises(ModelError, match="has no tokenizer files"):
        encoder.load_tokenizer(folder, str(folder))


def test_a_tokenizer_that_cannot_pad_is_refused(tmp_path, tiny_bert):
    folder = shutil.copytree(tiny_bert, tmp_path / "bert")
    path = folder / "tokenizer_config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in values.items() if k != "pad_token"}))
    with pytest.raises(ModelError, match="no padding token"):
        encoder.load_tokenizer(folder, "bert")


def save_known(folder, kind):
    """A tiny encoder of one of the kinds that are taken, with a tokenizer."""
    more = {
        "distilbert": {"n_layers": 2, "dim": 32, "n_heads": 2, "hidden_dim": 64},
        "longformer": {"attention_window": [8, 8]},
        "electra": {"embedding_size": 16},
        "roformer": {"embedding_size": 32},
        "mobilebert": {"true_hidden_size": 32, "intra_bottleneck_size": 32, "embedding_size": 32},
        "rembert": {"input_embedding_size": 32, "output_embedding_size": 32},
        "modernbert": {"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3},
    }.get(kind, {})
    sizes = {} if kind == "distilbert" else {**SIZES, "intermediate_size": 64}
    config = transformers.AutoConfig.for_model(
        kind, **sizes, **more, vocab_size=64, max_position_embeddings=66, pad_token_id=1,
        initializer_range=0.1,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    save_tokenizer(folder, 1)
    return folder


@pytest.mark.parametrize("kind", sorted(encoder.KNOWN))
def test_a_known_encoder_answers_a_text_alike_whatever_stands_beside_it(kind, tmp_path):
    folder = save_known(tmp_path / "encoder", kind)
    model = encoder.load_encoder(locate(folder), LABELS).model.eval()
    tokenizer = encoder.load_tokenizer(folder, kind)
    engine = Engine(model, tokenizer.pad_token_id)
    texts = ["goal team", "bank", *(" ".join(text for text, _ in make_rows(n)) for n in (1, 3))]
    alone = [compute_logits(engine, tokenize(tokenizer, [text], 64))[0] for text in texts]
    beside = compute_logits(engine, tokenize(tokenizer, texts, 64))
    assert np.abs(np.array(alone) - beside).max() < 1e-5
