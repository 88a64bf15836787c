import numpy as np
import pytest

from textlora.checking import leaks
from textlora.checking.leaks import find_leaks, find_neighbours
from textlora.data.examples import Examples

STORY = "The central bank raised its main rate by a quarter point on Tuesday to slow prices"
OTHER = "A young striker scored twice as the visitors came from behind to win the cup final"


def examples(*pairs):
    return Examples(tuple(text for text, _ in pairs), np.array([label for _, label in pairs]))


def test_the_similarity_is_the_share_of_word_triples_in_common():
    ours = STORY.replace("Tuesday to slow prices", "Monday to slow prices")
    triples = [{tuple(words[i : i + 3]) for i in range(len(words) - 2)}
               for words in (ours.lower().split(), STORY.lower().split())]  # fmt: skip
    expected = len(triples[0] & triples[1]) / len(triples[0] | triples[1])
    found = find_neighbours((ours, OTHER), (OTHER, STORY))
    assert found.similarity.tolist() == pytest.approx([expected, 1.0])
    assert found.place.tolist() == [1, 0]


def test_of_several_texts_in_common_the_nearest_is_kept():
    near = STORY.replace("Tuesday to slow prices", "Monday to slow prices")
    far = " ".join([*STORY.split()[:6], *OTHER.split()])
    for others in ((far, near), (near, far)):
        found = find_neighbours((STORY,), others)
        assert others[found.place[0]] == near


def test_words_that_all_texts_begin_with_take_no_more_memory(monkeypatch):
    monkeypatch.setattr(leaks, "_MAX_PAIRS", 500)
    random = np.random.default_rng(1)
    words = np.array([f"word{number}" for number in range(90)])
    texts = tuple("Dear support team, " + " ".join(random.choice(words, 9)) for _ in range(70))
    products = []
    keep = leaks._keep_nearest
    monkeypatch.setattr(
        leaks, "_keep_nearest", lambda *parts: (products.append(len(parts[1])), keep(*parts))
    )
    found = find_neighbours(texts, texts[::-1])
    assert found.place.tolist() == list(range(69, -1, -1))
    assert len(products) > 5
    assert max(products) <= 700


def test_every_planted_copy_is_found_among_many_texts():
    random = np.random.default_rng(0)
    words = np.array([f"word{number}" for number in range(500)])
    others = tuple(" ".join(random.choice(words, 20)) for _ in range(3_000))
    texts = tuple(" ".join(random.choice(words, 20)) for _ in range(1_500))
    planted = {7: 2_999, 1_000: 0, 1_499: 1_234}
    texts = tuple(others[planted[i]] if i in planted else text for i, text in enumerate(texts))
    found = find_neighbours(texts, others)
    assert {i: int(found.place[i]) for i in np.flatnonzero(found.similarity >= 0.5)} == planted


def test_short_texts_match_by_all_their_words():
    found = find_neighbours(("Yes", "no way", "nothing"), ("No way", "yes"))
    assert found.similarity.tolist() == [1.0, 1.0, 0.0]
    assert found.place.tolist() == [1, 0, -1]


def test_leaks_are_counted_by_kind_and_the_score_is_given_without_them():
    near = STORY.replace("Tuesday", "Monday").replace("slow", "fight")
    train = examples((STORY, 0), (OTHER, 1))
    scored = examples((STORY, 0), (OTHER, 0), (near + " further", 1), ("Something else", 1))
    found = find_leaks(scored, train, ("money", "sport"), np.array([0, 0, 0, 1]))
    kinds = (found.same_label, found.other_label, found.near_same_label, found.near_other_label)
    assert kinds == (1, 1, 0, 1)
    assert (found.count, found.num_left) == (3, 1)
    assert found.accuracy_with == 0.75
    assert found.accuracy_without == 1.0
    assert [item.train_label for item in found.examples] == ["money", "sport", "money"]


def test_a_part_without_leaks_says_so():
    found = find_leaks(examples((STORY, 0)), examples((OTHER, 1)), ("a", "b"), np.array([0]))
    assert (found.count, found.examples) == (0, ())
    assert found.accuracy_without == found.accuracy_with == 1.0


def test_when_all_texts_are_known_nothing_is_left_to_score():
    found = find_leaks(examples((STORY, 0)), examples((STORY, 0)), ("a", "b"), np.array([0]))
    assert found.accuracy_without == 0.0
    assert (found.interval_without.low, found.interval_without.high) == (0.0, 1.0)
    assert found.num_left == 0
