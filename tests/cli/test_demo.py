"""The embedded sample and the demo: what a newcomer meets first."""

import csv
import shutil
from collections import Counter

import pytest

from textlora.cli.demo import EXAMPLES, run_demo
from textlora.data.cleaning import clean_text
from textlora.data.labelled_texts import load_labelled_texts, load_split
from textlora.errors import SettingsError
from textlora.evaluation.stored_predictions import answer_examples
from textlora.prediction.predictor import Predictor
from textlora.settings import DataSettings, load_recipe
from textlora.system.progress import Reporter

LABELS = ("World", "Sports", "Business", "Sci/Tech")
SAMPLE = DataSettings(source="embedded:headlines")


@pytest.fixture(scope="module")
def sample():
    parts = {split: load_split(SAMPLE, split, LABELS) for split in ("train", "test")}
    return [
        (text, LABELS[label_id], split)
        for split, part in parts.items()
        for text, label_id in zip(part.texts, part.label_ids, strict=True)
    ]


def test_the_sample_has_120_texts_a_class_in_two_parts(sample):
    assert min(Counter(label for _, label, _ in sample).values()) >= 120
    per_part = Counter((label, split) for _, label, split in sample)
    assert len(set(per_part.values())) == 2  # balanced in both parts
    assert len({text.lower() for text, _, _ in sample}) == len(sample)


def test_no_two_texts_of_the_sample_are_nearly_the_same(sample):
    def shingles(text):
        words = text.lower().split()
        return {tuple(words[i : i + 4]) for i in range(len(words) - 3)}

    owners: dict[tuple[str, ...], int] = {}
    shared: Counter[tuple[int, int]] = Counter()
    for number, (text, _, _) in enumerate(sample):
        for shingle in shingles(text):
            if shingle in owners:
                shared[owners[shingle], number] += 1
            owners[shingle] = number
    assert max(shared.values(), default=0) <= 4


def test_lengths_vary_and_are_those_of_short_news(sample):
    lengths = [len(text.split()) for text, _, _ in sample]
    assert min(lengths) >= 15
    assert max(lengths) <= 62
    assert len(set(lengths)) > 25


def test_no_text_of_the_sample_is_a_row_of_ag_news(sample, ag_news):
    ours = {"".join(filter(str.isalnum, text.lower())) for text, _, _ in sample}
    titles = {"".join(filter(str.isalnum, text.lower()))[:30] for text, _, _ in sample}
    settings = DataSettings(source=str(ag_news))
    for split in ("train", "test"):
        for text in load_split(settings, split, LABELS).texts:
            letters = "".join(filter(str.isalnum, clean_text(text).lower()))
            assert letters not in ours
            assert letters[:30] not in titles


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return run_demo(tmp_path_factory.mktemp("demo"), Reporter(quiet=True))


def test_a_run_of_something_else_is_not_taken_for_an_old_demo(tiny_run, tmp_path):
    folder = shutil.copytree(tiny_run, tmp_path / "run")
    before = (folder / "manifest.json").read_bytes()
    with pytest.raises(SettingsError, match="run: holds a run on .*; choose another --out"):
        run_demo(folder, Reporter(quiet=True))
    assert (folder / "manifest.json").read_bytes() == before


@pytest.mark.slow
def test_the_demo_trains_evaluates_and_predicts(demo, no_sockets):
    assert demo.run.evaluations[-1].scores.accuracy > 0.8
    assert [text for text, _, _ in demo.predictions] == list(EXAMPLES)
    expected = ["World", "Sports", "Business", "Sci/Tech", "Sci/Tech", "Business"]
    right = sum(
        label == want for (_, label, _), want in zip(demo.predictions, expected, strict=True)
    )
    assert right >= 5
    with demo.output.open(newline="") as stream:
        assert len(list(csv.reader(stream))) == 7
    assert all(picture.is_file() for picture in demo.run.pictures)


@pytest.mark.slow
def test_the_sample_alone_teaches_ag_news(demo, ag_news):
    """At least 80 % of the official test split, from texts written for this project only."""
    predictor = Predictor.load(demo.run.folder)
    examples = load_split(DataSettings(source=str(ag_news)), "test", predictor.labels)
    assert len(examples.texts) == 7_600
    assert answer_examples(predictor, examples).right.mean() >= 0.80


def test_the_quickstart_recipe_reads_the_sample():
    texts = load_labelled_texts(load_recipe("quickstart").data)
    assert set(texts.labels) == set(LABELS)
    assert texts.test is not None
