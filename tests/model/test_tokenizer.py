"""Read without transformers, a tokenizer gives the ids that transformers gives, or is not taken."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import FAMILIES, make_rows, save_encoder
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertTokenizer, RobertaTokenizer
from transformers.models.auto import tokenization_auto

from textlora.errors import ModelError
from textlora.model import encoder
from textlora.model.encoder_files import EMBEDDED, locate_encoder
from textlora.model.tokenizer import (
    AS_IT_IS,
    CLASSES,
    FastTokenizer,
    count_tokens,
    read_tokenizer,
)
from textlora.settings import ModelSettings

MPNET = Path.home() / ".cache" / "textlora-bench" / "mpnet-base"
TEXTS = [
    *(text for text, _ in make_rows(30, seed=5)),
    "", " ", "The Bank", "Ünïcödé façade, naïve café", "你好 world", "a\u0301 \u00a0 \u200d x",
    "[MASK] [PAD] <mask> <unk> <s> [UNK] </s>", "x" * 120, "don't stop-it!  twice  spaced",
    "\t tabs\nand lines", "😀 emoji", "[CLS] [mask] <MASK>", "\ufffd \x00 \x07", "word " * 700,
]  # fmt: skip


def list_ids(tokenizer):
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.enable_truncation(256)
    return [encoding.ids for encoding in backend.encode_batch_fast(TEXTS)]


def describe(tokenizer):
    """All that decides about ids: what is cut and padded each caller says anew."""
    values = json.loads(tokenizer.backend_tokenizer.to_str())
    return {key: value for key, value in values.items() if key not in ("truncation", "padding")}


def assert_alike(folder, plain=True):
    found, wanted = read_tokenizer(folder, "it"), encoder.load_tokenizer(folder, "it")
    assert isinstance(found, FastTokenizer) is plain
    assert list_ids(found) == list_ids(wanted)
    assert (found.pad_token_id, len(found)) == (wanted.pad_token_id, len(wanted))
    assert found.is_fast
    assert describe(found) == describe(wanted)


def save_bert(folder, **settings):
    """A lower-casing BERT tokenizer, as transformers builds and saves one."""
    pieces = ["the", "bank", "team", "goal", "##s", "##ing", "naive", "a", "x", "café", "[unused1]"]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces]
    vocabulary = {word: number for number, word in enumerate(words)}
    BertTokenizer(vocab=vocabulary, **settings).save_pretrained(folder)
    return folder


def save_roberta(folder, **settings):
    """A byte-level tokenizer with a few merges."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    backend.train_from_iterator([text for text, _ in make_rows(60)], trainer)
    model = json.loads(backend.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    RobertaTokenizer(vocab=model["vocab"], merges=merges, **settings).save_pretrained(folder)
    return folder


def change(folder, name, **values):
    path = folder / name
    old = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**old, **values}))
    return folder


def test_the_embedded_encoder():
    assert_alike(locate_encoder(ModelSettings(name=EMBEDDED)).folder)


def test_mpnet():
    if not MPNET.is_dir():
        pytest.skip("needs MPNet-base in ~/.cache/textlora-bench")
    assert_alike(MPNET)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_tiny_encoders(tmp_path, family):
    assert_alike(save_encoder(tmp_path, family), plain=family != "deberta-v2")


def test_the_tokenizer_of_a_run(tiny_run):
    assert_alike(tiny_run / "adapter")


def test_the_tokenizer_of_a_run_of_the_embedded_encoder(tmp_path):
    folder = locate_encoder(ModelSettings(name=EMBEDDED)).folder
    encoder.load_tokenizer(folder, "it").save_pretrained(tmp_path)
    assert_alike(tmp_path)


@pytest.mark.parametrize(
    "settings",
    [{}, {"do_lower_case": False}, {"strip_accents": True}, {"tokenize_chinese_chars": False}],
)
def test_a_bert_tokenizer_whose_settings_say_what_its_file_says(tmp_path, settings):
    assert_alike(save_bert(tmp_path, **settings))


@pytest.mark.parametrize("settings", [{}, {"add_prefix_space": True}, {"trim_offsets": False}])
def test_a_roberta_tokenizer_whose_settings_say_what_its_file_says(tmp_path, settings):
    assert_alike(save_roberta(tmp_path, **settings))


@pytest.mark.parametrize(
    "settings",
    [
        {"do_lower_case": False},
        {"strip_accents": False},
        {"tokenize_chinese_chars": False},
        {"unk_token": "[MASK]"},
        {"cls_token": "[SEP]"},
        {"additional_special_tokens": ["bank"]},
        {"extra_special_tokens": ["team"]},
        {"split_special_tokens": True},
        {"some_token": "goal"},
        {"never_heard_of": 1},
        {"added_tokens_decoder": {"5": {"content": "the", "special": True}}},
        {"tokenizer_class": "MPNetTokenizer"},
        {"tokenizer_class": "XLNetTokenizer"},
    ],
)
def test_settings_that_say_something_else_are_left_to_transformers(tmp_path, settings):
    folder = change(save_bert(tmp_path), "tokenizer_config.json", **settings)
    assert not isinstance(_try(read_tokenizer, folder), FastTokenizer)
    assert _try_ids(read_tokenizer, folder) == _try_ids(encoder.load_tokenizer, folder)


@pytest.mark.parametrize("settings", [{"add_prefix_space": True}, {"do_lower_case": True}])
def test_settings_that_contradict_a_byte_level_file_are_left_to_transformers(tmp_path, settings):
    assert_alike(change(save_roberta(tmp_path), "tokenizer_config.json", **settings), plain=False)


def test_what_is_lower_cased_follows_from_the_settings_not_from_the_file(tmp_path):
    """Why the two are compared: transformers builds BERT's anew and ignores the file's own."""
    folder = change(save_bert(tmp_path), "tokenizer_config.json", do_lower_case=False)
    ids = encoder.load_tokenizer(folder, "it").encode("Bank", add_special_tokens=False)
    assert ids == [1]  # unknown: the vocabulary has it in lower case
    plain = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert plain.encode("Bank", add_special_tokens=False).ids != ids


@pytest.mark.parametrize(
    "part", ["normalizer", "pre_tokenizer", "post_processor", "model", "added"]
)
def test_a_file_that_says_something_else_is_left_to_transformers(tmp_path, part):
    folder = save_bert(tmp_path)
    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    if part == "normalizer":
        backend.normalizer = normalizers.NFC()
    elif part == "pre_tokenizer":
        backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    elif part == "post_processor":
        backend.post_processor = processors.TemplateProcessing(
            single="[CLS] $A", special_tokens=[("[CLS]", 2)]
        )
    elif part == "model":
        backend.model.max_input_chars_per_word = 3
    else:
        backend.add_tokens(["bankteam"])
    backend.save(str(folder / "tokenizer.json"))
    assert_alike(folder, plain=False)


def test_an_older_form_beside_the_file_is_left_to_transformers(tmp_path):
    folder = save_bert(tmp_path / "added")
    (folder / "added_tokens.json").write_text('{"[unused1]": 15}')
    assert_alike(folder, plain=False)
    folder = save_bert(tmp_path / "vocabulary")
    words = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    (folder / "tokenizer.json").unlink()
    assert_alike(folder, plain=False)


def test_names_of_tokens_may_stand_in_a_file_of_their_own(tmp_path):
    folder = save_bert(tmp_path)
    path = folder / "tokenizer_config.json"
    path.write_text('{"tokenizer_class": "BertTokenizer", "do_lower_case": true}')
    change(folder, "special_tokens_map.json", pad_token={"content": "[PAD]", "lstrip": False})
    assert_alike(folder)
    change(folder, "special_tokens_map.json", pad_token="bank")
    assert_alike(folder, plain=False)


def test_without_settings_the_family_decides(tmp_path, tiny_bert):
    folder = save_bert(tmp_path)
    shutil.copy(tiny_bert / "config.json", folder)
    (folder / "tokenizer_config.json").unlink()
    assert_alike(folder)


def cut(folder):
    path = folder / "tokenizer.json"
    path.write_text(path.read_text()[:200])


def remove_all(folder):
    for path in folder.glob("token*"):
        path.unlink()


def forget_padding(folder):
    path = folder / "tokenizer_config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in values.items() if k != "pad_token"}))


def write_no_object(folder):
    (folder / "tokenizer_config.json").write_text("[]")


def remove_file(folder):
    (folder / "tokenizer.json").unlink()


@pytest.mark.parametrize("damage", [cut, remove_all, forget_padding, write_no_object, remove_file])
def test_what_cannot_be_read_is_refused_in_the_same_words(tmp_path, tiny_bert, damage):
    folder = shutil.copytree(tiny_bert, tmp_path / "bert")
    damage(folder)
    found, wanted = _try_ids(read_tokenizer, folder), _try_ids(encoder.load_tokenizer, folder)
    assert found == wanted
    assert isinstance(found, str)


def test_the_classes_are_those_of_transformers():
    names = tokenization_auto.TOKENIZER_MAPPING_NAMES
    assert {family: names[family] for family in CLASSES} == CLASSES
    assert {names[family] for family in AS_IT_IS} == {"TokenizersBackend"}
    wrong = tokenization_auto.MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS
    assert not wrong & CLASSES.keys()


def test_tokens_are_counted_as_they_are_cut(tiny_bert):
    tokenizer = read_tokenizer(tiny_bert, "tiny")
    counts = [len(ids) for ids in list_ids(tokenizer)]
    assert count_tokens(tokenizer, TEXTS, 256) == counts
    assert max(count_tokens(tokenizer, TEXTS, 1 << 20)) == 702
    assert count_tokens(tokenizer, ["goal"] * 5_000, 8) == [3] * 5_000
    assert count_tokens(tokenizer, [], 8) == []


def _try(read, folder):
    try:
        return read(folder, "it")
    except ModelError as error:
        return str(error)


def _try_ids(read, folder):
    found = _try(read, folder)
    return found if isinstance(found, str) else list_ids(found)
