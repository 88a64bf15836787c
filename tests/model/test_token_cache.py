import numpy as np
import pytest
from conftest import make_rows

from textlora.model import encoder, token_cache
from textlora.model.batching import tokenize
from textlora.model.token_cache import tokenize_cached


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TEXTLORA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tokens"


@pytest.fixture(scope="module")
def tokenizer(tiny_bert):
    return encoder.load_tokenizer(tiny_bert, "tiny")


@pytest.fixture(scope="module")
def texts():
    return [text for text, _ in make_rows(token_cache._MIN_TEXTS, seed=3)]


def same(one, other):
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        and getattr(one, name).dtype == getattr(other, name).dtype
        for name in ("token_ids", "offsets", "truncated")
    )


def test_what_is_kept_is_what_was_computed(tokenizer, texts, cache):
    expected = tokenize(tokenizer, texts, 16)
    assert same(tokenize_cached(tokenizer, texts, 16, "data"), expected)
    (file,) = cache.iterdir()
    # Read, not computed: other texts under the same fingerprint give what was kept.
    assert same(tokenize_cached(tokenizer, texts[::-1], 16, "data"), expected)
    assert list(cache.iterdir()) == [file]


@pytest.mark.parametrize("change", ["fingerprint", "length", "tokenizer"])
def test_anything_else_has_another_entry(tiny_bert, texts, cache, change):
    tokenizer = encoder.load_tokenizer(tiny_bert, "tiny")
    tokenize_cached(tokenizer, texts, 16, "data")
    length, fingerprint = 16, "data"
    if change == "fingerprint":
        fingerprint = "other data"
    elif change == "length":
        length = 12
    else:
        tokenizer.add_tokens(["goal of"])
    found = tokenize_cached(tokenizer, texts, length, fingerprint)
    assert same(found, tokenize(tokenizer, texts, length))
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_a_damaged_entry_is_made_anew(tokenizer, texts, cache, damage):
    expected = tokenize_cached(tokenizer, texts, 16, "data")
    (file,) = cache.iterdir()
    content = file.read_bytes()
    file.write_bytes({"cut": content[:-7], "empty": b"", "text": b"{" * 64}[damage])
    assert same(tokenize_cached(tokenizer, texts, 16, "data"), expected)
    assert file.read_bytes() == content


def test_small_data_and_a_place_that_cannot_be_written_are_done_without(tokenizer, texts, cache):
    tokenize_cached(tokenizer, texts[:-1], 16, "data")
    assert not cache.exists()
    cache.parent.mkdir()
    cache.write_text("in the way")
    expected = tokenize(tokenizer, texts, 16)
    assert same(tokenize_cached(tokenizer, texts, 16, "data"), expected)
