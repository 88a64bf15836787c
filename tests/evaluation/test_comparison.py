import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import make_rows, save_encoder, tiny_recipe, write_csv

from textlora.data.labelled_texts import load_labelled_texts
from textlora.data.tables import read_rows
from textlora.errors import ModelError
from textlora.evaluation.comparison import compare_runs
from textlora.prediction.predictor import Predictor
from textlora.runs.provenance import read_training
from textlora.settings import DataSettings
from textlora.system.progress import Reporter
from textlora.training.pipeline import fit_run


@pytest.fixture(scope="module")
def weak_run(tmp_path_factory, tiny_bert):
    """A classifier of the same labels, in another order, that has hardly learned."""
    folder = tmp_path_factory.mktemp("weak")
    write_csv(folder / "train.csv", make_rows(60, seed=1))
    names = '["space", "sport", "money"]'
    changes = ("training.epochs=1", "training.learning_rate=0.0001", f"data.label_names={names}")
    recipe = tiny_recipe(tiny_bert, folder, *changes)
    texts = load_labelled_texts(recipe.data)
    fit_run(recipe, texts, folder / "run", resume="never", report=Reporter(quiet=True))
    return folder / "run"


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    rows = make_rows(90, seed=8)
    return DataSettings(source=str(write_csv(tmp_path_factory.mktemp("d") / "test.csv", rows)))


def test_a_classifier_beside_a_copy_of_itself_shows_no_difference(tiny_run, settings, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "copy")
    found = compare_runs(tiny_run, tmp_path / "copy", settings, "test")
    assert found.agreement == 1.0
    assert found.verdict.startswith("no difference shown (+0.0 points")
    assert found.only_first == found.only_second == ()
    assert found.first.training_seconds == read_training(tiny_run).seconds > 0.0


def test_texts_that_one_of_the_two_was_trained_on_are_told(tiny_run, weak_run, settings, tmp_path):
    assert compare_runs(tiny_run, weak_run, settings, "test").notes == ()
    trained = load_labelled_texts(Predictor.load(weak_run).recipe.data).train
    new = [row.values["text"] for row in read_rows(Path(settings.source))]
    rows = [(text, "sport") for text in (*trained.texts[:7], *new)]
    other = DataSettings(source=str(write_csv(tmp_path / "test.csv", rows)))
    found = compare_runs(tiny_run, weak_run, other, "test")
    assert found.notes[-1] == f"B was trained on 7 of the {len(rows)} texts: it is flattered"


def test_labels_are_matched_by_name_and_figures_add_up(tiny_run, weak_run, settings):
    assert Predictor.load(weak_run).labels != Predictor.load(tiny_run).labels
    found = compare_runs(tiny_run, weak_run, settings, "test")
    assert found.first.accuracy > 0.9 > found.second.accuracy
    assert found.paired.verdict == "better"
    rights = np.array([[c.both, c.only_first, c.only_second, c.neither] for c in found.classes])
    assert rights.sum() == found.num_texts == 90
    assert rights[:, :2].sum() == round(90 * found.first.accuracy)
    assert rights[:, [0, 2]].sum() == round(90 * found.second.accuracy)
    assert found.paired.only_first == rights[:, 1].sum()
    weak = Predictor.load(weak_run)
    for flip in found.only_first:
        assert flip.first == flip.label != flip.second
        assert weak.predict([flip.text])[0].label == flip.second


def test_exchanging_the_runs_exchanges_the_figures(tiny_run, weak_run, settings):
    one = compare_runs(tiny_run, weak_run, settings, "test")
    two = compare_runs(weak_run, tiny_run, settings, "test")
    assert one.paired.difference == -two.paired.difference
    assert one.first.adapter_bytes == two.second.adapter_bytes
    assert [flip.text for flip in one.only_first] == [flip.text for flip in two.only_second]


def test_classifiers_of_different_labels_are_refused(tiny_run, tmp_path, settings):
    save_encoder(tmp_path / "encoder")
    rows = [(text, label.replace("money", "cash")) for text, label in make_rows(60)]
    write_csv(tmp_path / "train.csv", rows)
    recipe = tiny_recipe(tmp_path / "encoder", tmp_path, "training.epochs=1")
    texts = load_labelled_texts(recipe.data)
    fit_run(recipe, texts, tmp_path / "run", resume="never", report=Reporter(quiet=True))
    with pytest.raises(ModelError, match=r"know different labels \(cash, money\)"):
        compare_runs(tiny_run, tmp_path / "run", settings, "test")
