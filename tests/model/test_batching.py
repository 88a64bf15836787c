import numpy as np
import pytest
import torch
from conftest import FILLER

from textlora.model import encoder
from textlora.model.batching import (
    compute_epoch_batches,
    compute_padded_share,
    make_batch,
    split_by_tokens,
    tokenize,
)


@pytest.fixture(scope="module")
def tokenizer(tiny_bert):
    return encoder.load_tokenizer(tiny_bert, "tiny")


@pytest.fixture(scope="module")
def lengths():
    return np.random.default_rng(0).integers(3, 90, size=2_003)


def test_token_ids_equal_those_of_the_tokenizer_itself(tokenizer):
    texts = ["goal after the match", "a", "", "unknownword bank"]
    tokens = tokenize(tokenizer, texts, 64)
    assert len(tokens) == 4
    for index, text in enumerate(texts):
        assert tokens.select(index).tolist() == tokenizer(text)["input_ids"]
    assert not tokens.truncated.any()


def test_long_texts_are_cut_marked_and_keep_their_end_token(tokenizer):
    texts = [" ".join(FILLER * 9), " ".join(FILLER[:6])]
    tokens = tokenize(tokenizer, texts, 16)
    assert tokens.truncated.tolist() == [True, False]
    assert tokens.lengths.tolist() == [16, 8]
    assert tokens.select(0)[-1] == tokenizer.sep_token_id


def test_no_text_gives_no_tokens(tokenizer):
    tokens = tokenize(tokenizer, [], 16)
    assert len(tokens) == 0


def test_a_batch_is_one_row_with_runs_of_equal_length(tokenizer):
    texts = ["goal", "goal after the match with the old team", "bank", "the"]
    tokens = tokenize(tokenizer, texts, 64)
    batch = make_batch(tokens, np.array([1, 3, 0]))
    rows = [tokens.select(1), tokens.select(3), tokens.select(0)]
    assert batch.num_tokens == 16
    assert batch.token_ids.shape == (32,)
    assert batch.token_ids[:16].tolist() == np.concatenate(rows).tolist()
    assert batch.positions[:16].tolist() == [*range(10), *range(3), *range(3)]
    assert batch.starts.tolist() == [0, 10, 13]
    # To padded places and back again.
    assert batch.places.shape == (3, 32)
    assert batch.places.flatten()[batch.order[:16]].tolist() == list(range(16))
    assert set(batch.places[~batch.mask].tolist()) == {16}


def test_a_full_row_still_ends_with_a_token_of_no_text(tokenizer):
    tokens = tokenize(tokenizer, [" ".join(FILLER * 2)] * 2, 32)
    batch = make_batch(tokens, np.arange(2))
    assert (batch.num_tokens, len(batch.token_ids)) == (64, 96)
    assert batch.mask.all()


def test_padding_is_to_the_longest_and_is_masked(tokenizer):
    tokens = tokenize(tokenizer, ["goal", "goal after the match with the old team"], 64)
    batch = make_batch(tokens, np.array([1, 0]))
    token_ids, mask = batch.pad(tokenizer.pad_token_id)
    assert token_ids.shape == (2, 16)
    assert mask.sum(dim=1).tolist() == [10, 3]
    assert torch.equal(token_ids[1, :3], torch.from_numpy(tokens.select(0)).long())
    assert (token_ids[1, 3:] == tokenizer.pad_token_id).all()


@pytest.mark.parametrize("batch_size", [1, 7, 16, 4_000])
def test_every_text_is_seen_exactly_once_an_epoch(lengths, batch_size):
    for epoch in range(3):
        batches = compute_epoch_batches(lengths, batch_size, seed=1, epoch=epoch)
        seen = np.concatenate(batches)
        assert sorted(seen.tolist()) == list(range(len(lengths)))
        assert {len(batch) for batch in batches[:-1]} <= {batch_size}


def test_the_order_is_a_function_of_seed_and_epoch(lengths):
    def order(seed, epoch):
        return np.concatenate(compute_epoch_batches(lengths, 16, seed, epoch)).tolist()

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)


def test_batches_hold_texts_of_similar_length_in_random_order(lengths):
    def padded(batches):
        return sum(len(batch) * lengths[batch].max() for batch in batches)

    grouped = compute_epoch_batches(lengths, 16, seed=1, epoch=0)
    shuffled = np.random.default_rng(0).permutation(len(lengths))
    plain = [shuffled[start : start + 16] for start in range(0, len(lengths), 16)]
    assert padded(grouped) < 1.1 * lengths.sum()
    assert padded(plain) > 1.5 * lengths.sum()
    longest = [lengths[batch].max() for batch in grouped]
    assert abs(np.corrcoef(np.arange(len(longest)), longest)[0, 1]) < 0.3


def test_groups_keep_the_token_budget_and_lose_nothing(lengths):
    chosen = np.arange(100, 900)
    groups = split_by_tokens(lengths, chosen, max_tokens=512)
    assert sorted(np.concatenate(groups).tolist()) == chosen.tolist()
    for group in groups:
        width = -(-lengths[group].max() // 8) * 8
        assert len(group) * width <= 512
    assert lengths[groups[0]].max() == lengths[chosen].max()


def test_a_text_beyond_the_budget_is_a_group_of_its_own():
    groups = split_by_tokens(np.array([100, 3]), np.arange(2), max_tokens=10)
    assert [group.tolist() for group in groups] == [[0], [1]]


def test_the_padded_share_counts_what_no_text_owns(lengths):
    batches = compute_epoch_batches(lengths, 16, seed=1, epoch=0)
    chosen = batches[0]
    width = -(-lengths[chosen].max() // 8) * 8
    expected = 1 - lengths[chosen].sum() / (16 * width)
    assert compute_padded_share(lengths, [chosen], packed=False) == pytest.approx(expected)
    packed = compute_padded_share(lengths, batches, packed=True)
    assert 0.0 < packed < 0.04 < compute_padded_share(lengths, batches, packed=False)
    assert compute_padded_share(np.array([31]), [np.array([0])], packed=True) == 1 - 31 / 32
