import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from conftest import make_rows, write_csv

from textlora.data.labelled_texts import load_labelled_texts
from textlora.errors import DataError, ModelError
from textlora.evaluation.evaluation import read_evaluations
from textlora.evaluation.run_evaluation import (
    evaluate_run,
    evaluate_split,
    find_confidence,
    load_examples,
)
from textlora.prediction.predictor import Predictor
from textlora.reporting.results import save_results
from textlora.runs import loaded_run, run_folder
from textlora.settings import DataSettings


@pytest.fixture(scope="module")
def predictor(tiny_run):
    return Predictor.load(tiny_run)


@pytest.fixture
def own(tiny_run, tiny_bert, tmp_path):
    """A copy of the run whose training data can be changed."""
    run, data = tmp_path / "run", tmp_path / "data"
    shutil.copytree(tiny_run, run)
    recipe = loaded_run.load_run(run).recipe
    shutil.copytree(recipe.data.source, data)
    return run, recipe.data.model_copy(update={"source": str(data)})


def test_thresholds_are_chosen_on_validation_and_only_measured_on_test(tiny_run):
    validation, test = read_evaluations(tiny_run)
    chosen = [item.confidence for item in validation.coverage.thresholds]
    assert chosen
    assert [item.confidence for item in test.coverage.thresholds] == chosen


def test_test_is_searched_in_train_and_validation_and_validation_in_train(tiny_run):
    validation, test = read_evaluations(tiny_run)
    assert set(validation.leaks) == {"train"}
    assert set(test.leaks) == {"train", "validation"}


def test_evaluating_again_gives_the_figures_of_training(tiny_run, predictor):
    settings = predictor.recipe.data
    for stored in read_evaluations(tiny_run):
        found = evaluate_split(tiny_run, predictor, settings, stored.split).evaluation
        assert replace(found, seconds=stored.seconds) == stored


def test_other_data_is_compared_with_the_training_data(tiny_run, predictor, tmp_path):
    train = load_labelled_texts(predictor.recipe.data).train
    names = [predictor.labels[number] for number in train.label_ids[:5]]
    rows = [*zip(train.texts[:5], names, strict=True), *make_rows(40, seed=9)]
    settings = DataSettings(source=str(write_csv(tmp_path / "other.csv", rows)))
    found = evaluate_split(tiny_run, predictor, settings, "test").evaluation
    assert found.leaks["train"].same_label == 5
    assert len(found.baselines) == 2
    assert not found.chose_checkpoint


def test_without_the_training_data_the_kept_baselines_answer_and_a_note_says_it(own, tmp_path):
    run, _ = own
    text = (run / "recipe.toml").read_text()
    source = loaded_run.load_run(run).recipe.data.source
    (run / "recipe.toml").write_text(text.replace(source, str(tmp_path / "gone")))
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["files"] |= run_folder.describe_files(run, ["recipe.toml"])
    (run / "manifest.json").write_text(json.dumps(manifest))
    settings = DataSettings(source=str(write_csv(tmp_path / "other.csv", make_rows(30, seed=4))))
    found = evaluate_split(run, Predictor.load(run), settings, "test").evaluation
    assert len(found.baselines) == 2
    assert not found.leaks
    assert "training data cannot be read" in found.notes[0]
    shutil.rmtree(run / "baseline")
    found = evaluate_split(run, Predictor.load(run), settings, "test").evaluation
    assert found.baselines == ()
    assert "no baselines" in found.notes[1]


def test_training_data_that_has_changed_is_noticed(own):
    run, settings = own
    with (run_folder.Path(settings.source) / "train.csv").open("a", newline="") as stream:
        csv.writer(stream).writerow(["a new match of the team", "sport"])
    predictor = Predictor.load(run)
    predictor.recipe = predictor.recipe.model_copy(update={"data": settings})
    found = evaluate_split(run, predictor, settings, "test").evaluation
    assert found.notes == ("the training data has changed since this run was trained",)
    held = evaluate_split(run, predictor, settings, "validation").evaluation
    assert held.notes[0].endswith("; some of these texts may have been trained on")
    assert not held.chose_checkpoint


def test_other_data_is_measured_with_the_thresholds_of_validation(own):
    run, settings = own
    values = json.loads((run / "evaluation.json").read_text())
    values["evaluations"][0]["coverage"]["thresholds"] = []  # none was as precise as wanted
    (run / "evaluation.json").write_text(json.dumps(values))
    predictor = Predictor.load(run)
    elsewhere = DataSettings(source=str(run_folder.Path(settings.source) / "test.csv"))
    for split in ("test", "validation"):
        found = evaluate_split(run, predictor, elsewhere, split).evaluation
        assert found.coverage.thresholds == ()


def rewrite(path, keep):
    """Keep those rows of a CSV file."""
    with path.open(newline="") as stream:
        header, *rows = csv.reader(stream)
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *filter(keep, rows)])


def test_labels_of_changed_data_are_still_matched_by_name(own):
    """A label that has gone moves the numbers of those behind it."""
    run, settings = own
    folder, gone = run_folder.Path(settings.source), "money"
    for name in ("train.csv", "test.csv"):
        rewrite(folder / name, lambda row: gone not in row)
    predictor = Predictor.load(run)
    predictor.recipe = predictor.recipe.model_copy(update={"data": settings})
    own_data = evaluate_split(run, predictor, settings, "test").evaluation
    elsewhere = DataSettings(source=str(folder / "test.csv"))
    other = evaluate_split(run, predictor, elsewhere, "test").evaluation
    assert own_data.scores.accuracy == other.scores.accuracy > 0.8
    assert own_data.baselines == other.baselines
    part = load_examples(predictor, settings, "test")
    assert {predictor.labels[index] for index in part.label_ids} == {"space", "sport"}


def test_a_label_that_came_later_is_a_note_in_train_and_an_error_in_test(own):
    run, settings = own
    folder = run_folder.Path(settings.source)
    for name, rows in (("train.csv", 2), ("test.csv", 1)):
        with (folder / name).open("a", newline="") as stream:
            csv.writer(stream).writerows([[f"a picture {i}", "arts"] for i in range(rows)])
        predictor = Predictor.load(run)
        predictor.recipe = predictor.recipe.model_copy(update={"data": settings})
        if name == "train.csv":
            found = evaluate_split(run, predictor, settings, "test").evaluation
            assert any("label 'arts' is unknown to the classifier" in note for note in found.notes)
    with pytest.raises(DataError, match="test: label 'arts' is unknown to the classifier; known"):
        evaluate_split(run, predictor, settings, "test")


def test_a_column_to_group_by_must_be_there(tiny_run, predictor, tmp_path):
    path = write_csv(tmp_path / "other.csv", make_rows(30, seed=4))
    settings = DataSettings(source=str(path), slice_columns=("day",))
    with pytest.raises(DataError, match=r"other\.csv: no column 'day' in its test split"):
        evaluate_split(tiny_run, predictor, settings, "test")
    settings = DataSettings(source=str(path), slice_columns=("label",))
    slices = evaluate_split(tiny_run, predictor, settings, "test").evaluation.slices
    assert {item.value for item in slices if item.column == "label"} == set(predictor.labels)


def test_a_split_that_the_run_has_not_is_an_error(predictor):
    settings = predictor.recipe.data.model_copy(update={"source": "embedded:headlines"})
    with pytest.raises(DataError):
        load_examples(predictor, settings, "nonsense")
    with pytest.raises(DataError, match="has no 'nonsense' split"):
        load_examples(predictor, predictor.recipe.data, "nonsense")


def test_a_confidence_is_found_on_validation_for_any_precision(tiny_run):
    low, high = find_confidence(tiny_run, 0.5), find_confidence(tiny_run, 0.9)
    assert 0.0 < low <= high <= 1.0
    validation = read_evaluations(tiny_run)[0].coverage
    assert validation.thresholds
    for item in validation.thresholds:  # as the table of `evaluate` has it
        assert find_confidence(tiny_run, item.wanted) == item.confidence
    right = [point for point in validation.curve if point.precision >= 0.37]
    assert find_confidence(tiny_run, 0.37) == right[-1].confidence


def test_a_precision_that_validation_does_not_reach_is_refused(own):
    run, _ = own
    values = json.loads((run / "evaluation.json").read_text())
    values["evaluations"][0]["coverage"]["thresholds"] = []
    for point in values["evaluations"][0]["coverage"]["curve"]:
        point["precision"] = 0.7
    (run / "evaluation.json").write_text(json.dumps(values))
    with pytest.raises(ModelError, match=r"no answers are 99.00% precise, the surest are 70.00%"):
        find_confidence(run, 0.99)
    values["evaluations"] = values["evaluations"][1:]
    (run / "evaluation.json").write_text(json.dumps(values))
    with pytest.raises(ModelError, match="holds no evaluation on validation"):
        find_confidence(run, 0.99)


def test_a_temperature_changes_confidence_and_no_label(tiny_run, predictor):
    texts = [text for text, _ in make_rows(60, seed=7)]
    found = predictor.predict_proba(texts).values
    other = Predictor.load(tiny_run)
    other.temperature = 3.0 * predictor.temperature
    flatter = other.predict_proba(texts).values
    assert (flatter.argmax(axis=1) == found.argmax(axis=1)).all()
    assert (flatter.max(axis=1) < found.max(axis=1)).all()
    assert np.allclose(flatter.sum(axis=1), 1.0, atol=1e-6)


def test_what_is_assessed_is_stored_and_drawn(tiny_run, tmp_path):
    found = evaluate_run(tiny_run, load_labelled_texts(loaded_run.load_run(tiny_run).recipe.data))
    pictures = save_results(tmp_path, found, [])
    assert [item.split for item in read_evaluations(tmp_path)] == ["validation", "test"]
    assert all(picture.is_file() for picture in pictures)
    assert (tmp_path / "predictions" / "test.jsonl").read_text().count("\n") == 60
