import datasets
import numpy as np
import pytest

from textlora.data.examples import Examples, sample_examples, split_examples
from textlora.errors import DataError
from textlora.settings import DataSettings


def make_examples(*counts):
    """As many examples of each class as said, each text of its own."""
    label_ids = np.repeat(np.arange(len(counts)), counts)
    return Examples(tuple(f"text {i}" for i in range(len(label_ids))), label_ids)


@pytest.mark.parametrize("count", [10, 61, 997])
@pytest.mark.parametrize("share", [0.1, 0.25])
def test_the_plain_split_takes_the_rows_that_the_datasets_library_takes(count, share):
    examples = make_examples(count - 4, 4)
    settings = DataSettings(stratified=False, validation_share=share, split_seed=42)
    ours = split_examples(examples, settings, ("x", "y"))
    table = datasets.Dataset.from_dict(
        {"text": list(examples.texts), "label": examples.label_ids.tolist()}
    )
    theirs = table.train_test_split(test_size=share, seed=42)
    for part, name in zip(ours, ("train", "test"), strict=True):
        assert list(part.texts) == list(theirs[name]["text"])
        assert part.label_ids.tolist() == list(theirs[name]["label"])


def test_the_stratified_split_keeps_the_shares_of_the_classes():
    examples = make_examples(500, 300, 200)
    kept, held_out = split_examples(examples, DataSettings(), ("x", "y", "z"))
    assert np.bincount(kept.label_ids).tolist() == [450, 270, 180]
    assert np.bincount(held_out.label_ids).tolist() == [50, 30, 20]


@pytest.mark.parametrize("stratified", [False, True])
def test_a_split_is_disjoint_complete_and_keeps_texts_with_their_labels(stratified):
    examples = make_examples(70, 20, 13)
    settings = DataSettings(stratified=stratified)
    parts = split_examples(examples, settings, ("x", "y", "z"))
    assert [len(part.texts) for part in parts] == [92, 11]
    pairs = [p for part in parts for p in zip(part.texts, part.label_ids, strict=True)]
    assert sorted(pairs) == sorted(zip(examples.texts, examples.label_ids, strict=True))
    assert len(set(pairs)) == 103


@pytest.mark.parametrize("stratified", [False, True])
def test_the_same_seed_gives_the_same_split_and_another_seed_another(stratified):
    def split(seed):
        settings = DataSettings(stratified=stratified, split_seed=seed)
        return [part.texts for part in split_examples(make_examples(50, 50), settings, ("x", "y"))]

    assert split(1) == split(1)
    assert set(split(1)[1]) != set(split(2)[1])


@pytest.mark.parametrize(
    ("counts", "share", "stratified", "fitting"),
    [
        ((2, 2), 0.7, True, 0.5),
        ((2, 2), 0.1, True, 0.5),
        ((10, 10, 10), 0.05, True, 0.1),
        ((3, 4), 0.1, True, 0.286),
        ((5, 5), 0.99, False, 0.1),
        ((2, 1), 0.1, True, None),
        ((1, 0), 0.5, False, None),
    ],
)
def test_too_few_rows_to_split_are_refused_with_a_share_that_will_do(
    counts, share, stratified, fitting
):
    settings = DataSettings(source="here", validation_share=share, stratified=stratified)
    examples, labels = make_examples(*counts), ("x", "y", "z")[: len(counts)]
    with pytest.raises(DataError) as caught:
        split_examples(examples, settings, labels)
    way_out = f" or set {fitting}" if fitting else ""
    assert str(caught.value) == (
        f"here: {sum(counts)} rows cannot be split with data.validation_share = {share}; "
        f"add rows{way_out}"
    )
    if fitting:
        changed = settings.model_copy(update={"validation_share": fitting})
        fewest = len(counts) if stratified else 1
        for part in split_examples(examples, changed, labels):
            assert len(set(part.label_ids.tolist())) >= fewest


def test_a_sample_is_seeded_keeps_its_order_and_is_never_larger_than_the_whole():
    examples = make_examples(50, 50)
    some = sample_examples(examples, DataSettings(max_train_rows=20))
    numbers = [int(text.removeprefix("text ")) for text in some.texts]
    assert len(numbers) == 20
    assert numbers == sorted(numbers)
    assert some.label_ids.tolist() == [number // 50 for number in numbers]
    assert some.texts == sample_examples(examples, DataSettings(max_train_rows=20)).texts
    other = DataSettings(max_train_rows=20, split_seed=1)
    assert some.texts != sample_examples(examples, other).texts
    assert sample_examples(examples, DataSettings(max_train_rows=1_000)) is examples


def test_what_is_taken_keeps_labels_and_slices_with_their_texts():
    slices = {"source": ("a", "b", "c")}
    examples = Examples(("one", "two", "three"), np.array([0, 1, 2]), slices)
    taken = examples.take(np.array([2, 0]))
    assert taken.texts == ("three", "one")
    assert taken.label_ids.tolist() == [2, 0]
    assert taken.slices == {"source": ("c", "a")}
