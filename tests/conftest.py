"""Tiny stand-ins built in place: a word tokenizer, two-layer encoders, a labelled data set."""

import csv
import os
import signal
import socket
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

WORDS = {
    "sport": [
        "goal",
        "match",
        "team",
        "coach",
        "league",
        "cup",
        "player",
        "race",
        "medal",
        "tennis",
    ],
    "money": [
        "bank",
        "shares",
        "profit",
        "market",
        "price",
        "trade",
        "loan",
        "merger",
        "oil",
        "budget",
    ],
    "space": [
        "rocket",
        "orbit",
        "probe",
        "planet",
        "moon",
        "comet",
        "crew",
        "launch",
        "telescope",
        "star",
    ],
}
FILLER = [
    "the",
    "a",
    "of",
    "in",
    "on",
    "after",
    "before",
    "with",
    "from",
    "new",
    "old",
    "big",
    "small",
    "first",
    "last",
    "day",
    "week",
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SIZES = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2}
FAMILIES = {
    "bert": (transformers.BertConfig, {**SIZES, "intermediate_size": 64}),
    "roberta": (
        transformers.RobertaConfig,
        {**SIZES, "intermediate_size": 64, "max_position_embeddings": 66, "pad_token_id": 0},
    ),
    "mpnet": (
        transformers.MPNetConfig,
        {**SIZES, "intermediate_size": 64, "max_position_embeddings": 66, "pad_token_id": 1},
    ),
    "distilbert": (
        transformers.DistilBertConfig,
        {"n_layers": 2, "dim": 32, "n_heads": 2, "hidden_dim": 64, "max_position_embeddings": 64},
    ),
    "electra": (
        transformers.ElectraConfig,
        {**SIZES, "intermediate_size": 64, "embedding_size": 16},
    ),
    "deberta-v2": (
        transformers.DebertaV2Config,
        {**SIZES, "intermediate_size": 64, "relative_attention": True, "pos_att_type": ["p2c"]},
    ),
    "modernbert": (
        transformers.ModernBertConfig,
        {**SIZES, "intermediate_size": 64, "pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3,
         "bos_token_id": 2, "eos_token_id": 3},
    ),
}  # fmt: skip


def make_sentence(random: torch.Generator, label: str) -> str:
    """Eight to twenty words, seven of them telling."""
    length = int(torch.randint(8, 20, (1,), generator=random))
    words = [FILLER[int(i)] for i in torch.randint(len(FILLER), (length,), generator=random)]
    for position in torch.randperm(length, generator=random)[:7]:
        telling = WORDS[label]
        words[int(position)] = telling[int(torch.randint(len(telling), (1,), generator=random))]
    return " ".join(words)


def make_rows(count: int, seed: int = 0) -> list[tuple[str, str]]:
    random = torch.Generator().manual_seed(seed)
    labels = list(WORDS)
    return [(make_sentence(random, labels[i % 3]), labels[i % 3]) for i in range(count)]


def write_csv(path: Path, rows: list[tuple[str, str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("text", "label"), *rows])
    return path


def save_tokenizer(folder: Path, pad_id: int = 0) -> None:
    special = list(SPECIAL)
    if pad_id == 1:  # MPNet's and RoBERTa's place
        special[0], special[1] = special[1], special[0]
    words = [*special, *FILLER, *(word for words in WORDS.values() for word in words)]
    vocabulary = {word: number for number, word in enumerate(words)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", mask_token="[MASK]", model_max_length=64,
    ).save_pretrained(folder)  # fmt: skip


def save_encoder(folder: Path, family: str = "bert", seed: int = 0) -> Path:
    """A tiny encoder without a head, as a pretrained checkpoint would be."""
    config_class, sizes = FAMILIES[family]
    # Random weights of the usual size pass on next to nothing; these let words reach the head.
    spread = {"initializer_range": 0.1}
    config = config_class(**{"vocab_size": 64, "max_position_embeddings": 64, **spread, **sizes})
    torch.manual_seed(seed)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    save_tokenizer(folder, config.pad_token_id or 0)
    return folder


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory) -> Path:
    return save_encoder(tmp_path_factory.mktemp("models") / "tiny-bert")


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_csv(folder / "train.csv", make_rows(240, seed=1))
    write_csv(folder / "test.csv", make_rows(60, seed=2))
    return folder


def uncovered() -> dict[str, str]:
    """The environment of a process that is to be interrupted anywhere.

    Coverage takes a lock while it measures; an exception from a signal there would leave it held.
    """
    return {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE_")}


@pytest.fixture(scope="session", autouse=True)
def usual_signals() -> None:
    """Signals as in a terminal; started in the background, some are ignored, and so by children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory) -> None:
    """What trainings beside the tests keep is not seen, and nothing of the tests stays."""
    os.environ["TEXTLORA_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def no_sockets(monkeypatch) -> list[str]:
    """Makes every attempt to connect fail, and collects them."""
    attempts: list[str] = []

    def refuse(*arguments, **_):
        attempts.append(repr(arguments[1:]))
        raise OSError("sockets are blocked in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return attempts


@pytest.fixture(scope="session")
def ag_news() -> Path:
    folder = Path(__file__).parents[2] / "shared" / "ag_news"
    if not folder.is_dir():
        pytest.skip("needs the offline copy of AG News in ../shared/ag_news")
    return folder


def tiny_recipe(model: Path, data: Path | str, *changes: str):
    """A recipe for the tiny encoder: seconds to train, and good enough to learn the tiny data."""
    from textlora.settings import load_recipe

    settings = [
        "data.validation_share=0.2",
        "training.epochs=3",
        "training.batch_size=8",
        "training.learning_rate=0.01",
        "adapter.rank=4",
        "training.best_metric=accuracy",
        'adapter.targets={all = ["query", "value", "ffn"]}',
        *changes,
    ]
    return load_recipe("quickstart", settings, data__source=str(data), model__name=str(model))


def make_setup(recipe):
    """The recipe's texts and model, ready for the loop."""
    from textlora.data.labelled_texts import load_labelled_texts
    from textlora.training.training_setup import prepare_training

    return prepare_training(recipe, load_labelled_texts(recipe.data))


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory, tiny_bert, data_folder) -> Path:
    """A finished run of the tiny encoder; tests that change it work on a copy."""
    from textlora.data.labelled_texts import load_labelled_texts
    from textlora.system.progress import Reporter
    from textlora.training.pipeline import train_run

    recipe = tiny_recipe(tiny_bert, data_folder)
    run = tmp_path_factory.mktemp("runs") / "tiny"
    texts = load_labelled_texts(recipe.data)
    train_run(recipe, texts, run, resume="never", report=Reporter(quiet=True))
    return run
