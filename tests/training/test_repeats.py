import errno
import json
import shutil
from dataclasses import asdict

import pytest
from conftest import make_rows, tiny_recipe, write_csv

from textlora.cli.main import main
from textlora.data.labelled_texts import load_labelled_texts
from textlora.errors import ModelError, SettingsError
from textlora.evaluation.comparison import compare_runs
from textlora.evaluation.evaluation import read_evaluations
from textlora.model import prefix
from textlora.prediction.predictor import Predictor
from textlora.runs import run_folder
from textlora.runs.seeds import compare_seeds, read_repeats, write_repeats
from textlora.scoring.significance import compute_spread
from textlora.system.progress import Reporter
from textlora.training.pipeline import train_run
from textlora.training.repeats import train_repeats


class Messages(Reporter):
    def __init__(self):
        super().__init__(quiet=True)
        self.lines = []

    def say(self, message):
        self.lines.append(message)


@pytest.fixture(scope="module")
def recipe(tiny_bert, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_csv(folder / "train.csv", make_rows(120, seed=1))
    write_csv(folder / "test.csv", make_rows(30, seed=2))
    # The first layer stays as it is: its output can be shared. Two epochs, or none is kept.
    return tiny_recipe(
        tiny_bert, folder, "training.epochs=2", 'adapter.targets={"1" = ["query", "value"]}'
    )


@pytest.fixture(scope="module")
def trained(recipe, tmp_path_factory):
    run, report = tmp_path_factory.mktemp("runs") / "run", Messages()
    texts = load_labelled_texts(recipe.data)
    found = train_repeats(recipe, texts, run, 2, resume="auto", report=report)
    return run, found, report.lines


def test_each_repeat_is_a_run_with_its_seed(trained):
    run, found, _ = trained
    assert found.seeds == (42, 43)
    for seed in found.seeds:
        predictor = Predictor.load(run / f"seed-{seed}")
        assert predictor.recipe.training.seed == seed
        assert predictor.recipe.data.split_seed == 42
    losses = found.splits["test"]["loss"].values
    assert losses[0] != losses[1]


def test_figures_are_those_of_the_repeats(trained):
    run, found, _ = trained
    stored = [read_evaluations(run / name)[1].scores for name in found.runs]
    assert found.splits["test"]["accuracy"].values == tuple(item.accuracy for item in stored)
    assert found.splits["test"]["f1_macro"].values == tuple(item.macro.f1 for item in stored)
    assert read_repeats(run) == found


def test_the_run_itself_is_the_repeat_that_is_best_on_validation(trained):
    run, found, _ = trained
    figures = found.splits["validation"]
    pairs = zip(figures["accuracy"].values, figures["loss"].values, found.runs, strict=True)
    best = max(pairs, key=lambda one: (one[0], -one[1]))[2]  # of equals the lower loss
    assert found.best == best
    texts = [text for text, _ in make_rows(20, seed=5)]
    copy, source = (Predictor.load(path).predict_proba(texts).values for path in (run, run / best))
    assert (copy == source).all()
    assert read_evaluations(run) == read_evaluations(run / best)
    assert not (run / "checkpoints").exists()


def test_the_page_of_the_run_is_about_all_repeats(trained):
    run, _, _ = trained
    page = (run / "report.html").read_text()
    assert "Over 2 seeds" in page
    assert f"<title>{run}: test</title>" in page


def test_the_output_of_frozen_layers_is_made_once_and_cleared_away(trained):
    _, _, lines = trained
    assert sum("computed once" in line for line in lines) == 2  # train and validation
    folder = prefix.find_cache_folder("prefix")
    assert not list(folder.glob("*.bin"))


def test_finished_repeats_are_not_trained_again(trained, recipe, tmp_path):
    run, found, _ = trained
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "seed-43")
    report = Messages()
    texts = load_labelled_texts(recipe.data)
    again = train_repeats(recipe, texts, tmp_path / "run", 2, resume="auto", report=report)
    steps = [line for line in report.lines if "continuing after step" in line]
    assert [line.split(": ")[0] for line in steps] == [str(tmp_path / "run" / "seed-42")]
    assert again == found


def test_a_test_split_that_has_changed_is_measured_in_every_repeat(trained, recipe, tmp_path):
    run, found, _ = trained
    data = shutil.copytree(recipe.data.source, tmp_path / "data")
    write_csv(data / "test.csv", make_rows(12, seed=3))
    texts = load_labelled_texts(recipe.data.model_copy(update={"source": str(data)}))
    assert texts.fingerprint == load_labelled_texts(recipe.data).fingerprint
    shutil.copytree(run, tmp_path / "run")
    report = Messages()
    again = train_repeats(recipe, texts, tmp_path / "run", 2, resume="auto", report=report)
    for name in again.runs:
        assert read_evaluations(tmp_path / "run" / name)[1].scores.num_texts == 12
    assert again.splits["validation"] == found.splits["validation"]
    (data / "test.csv").unlink()
    texts = load_labelled_texts(recipe.data.model_copy(update={"source": str(data)}))
    without = train_repeats(recipe, texts, tmp_path / "run", 2, resume="auto", report=report)
    assert list(without.splits) == ["validation"]


def test_figures_on_another_test_split_are_not_compared(trained, recipe, tmp_path):
    run, _, _ = trained
    data = shutil.copytree(recipe.data.source, tmp_path / "data")
    write_csv(data / "test.csv", make_rows(30, seed=4))
    other = shutil.copytree(run, tmp_path / "run")
    texts = load_labelled_texts(recipe.data.model_copy(update={"source": str(data)}))
    assert compare_seeds(run, other, "test") is not None
    train_repeats(recipe, texts, other, 2, resume="auto", report=Messages())
    assert compare_seeds(run, other, "test") is None
    assert compare_seeds(run, other, "validation") is not None


def test_a_single_run_does_not_take_the_place_of_repeats(trained, recipe, tiny_run, tmp_path):
    folder = shutil.copytree(trained[0], tmp_path / "run")
    texts = load_labelled_texts(recipe.data)
    before = (folder / "manifest.json").read_bytes()
    for resume in ("auto", "never"):
        with pytest.raises(SettingsError, match="holds several seeds; choose another --out"):
            train_run(recipe, texts, folder, resume=resume, report=Messages())
    assert (folder / "manifest.json").read_bytes() == before
    # Another classifier put there by other means has no figures of these.
    run_folder.copy_classifier(tiny_run, folder)
    assert read_repeats(folder) is None


def test_a_copy_that_fails_leaves_the_older_classifier(trained, recipe, tmp_path, monkeypatch):
    run, _, _ = trained
    shutil.copytree(run, tmp_path / "run")
    texts = [text for text, _ in make_rows(9, seed=4)]
    before = Predictor.load(tmp_path / "run").predict_proba(texts).values

    def refuse(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(run_folder, "write_file", refuse)
    with pytest.raises(OSError, match="No space"):
        run_folder.copy_classifier(run / "seed-42", tmp_path / "run")
    monkeypatch.undo()
    assert (Predictor.load(tmp_path / "run").predict_proba(texts).values == before).all()
    run_folder.copy_classifier(run / "seed-43", tmp_path / "run")
    found = Predictor.load(tmp_path / "run").predict_proba(texts).values
    assert (found == Predictor.load(run / "seed-43").predict_proba(texts).values).all()


def test_repeats_are_compared_by_their_spread(trained, recipe, tmp_path):
    run, found, _ = trained
    other = shutil.copytree(run, tmp_path / "run")
    stored = json.loads((run / "seeds.json").read_text())

    def compare(ours, theirs):
        for folder, values in ((run, ours), (other, theirs)):
            stored["splits"]["test"]["accuracy"] = asdict(compute_spread(values, 1.0))
            (folder / "seeds.json").write_text(json.dumps(stored))
        return compare_runs(run, other, recipe.data, "test").repeats

    try:
        assert compare([0.80, 0.82], [0.60, 0.61]).startswith("better by 20.5 points (")
        assert compare([0.60, 0.61], [0.80, 0.82]).startswith("worse by 20.5 points (")
        assert compare([0.70, 0.90], [0.60, 0.80]).startswith("no difference shown (+10.0 points")
    finally:
        write_repeats(run, found)
    assert compare_runs(run, run / "seed-42", recipe.data, "test").repeats is None


def test_pictures_may_be_asked_for_of_repeats_too(recipe, tmp_path, capfd):
    run, pictures = tmp_path / "run", tmp_path / "pictures"
    with pytest.raises(SystemExit) as stopped:
        main([
            "train", "--recipe", "quickstart", "--data", recipe.data.source, "--model",
            recipe.model.name, "--seeds", "2", "--out", str(run), "--pictures", str(pictures),
            "--set", "training.epochs=1",
        ])  # fmt: skip
    assert (stopped.value.code or 0) == 0, capfd.readouterr().err
    drawn = {path.name: path.read_bytes() for path in (run / "visualizations").iterdir()}
    assert {path.name: path.read_bytes() for path in pictures.iterdir()} == drawn != {}


def test_what_makes_no_sense_is_refused(recipe, tiny_run, tmp_path):
    texts = load_labelled_texts(recipe.data)
    report = Reporter(quiet=True)
    with pytest.raises(SettingsError, match="--seeds: at least 2, got 1"):
        train_repeats(recipe, texts, tmp_path / "run", 1, resume="auto", report=report)
    with pytest.raises(SettingsError, match="holds a single run"):
        train_repeats(recipe, texts, tiny_run, 2, resume="auto", report=report)
    (tmp_path / "sweep.toml").touch()
    with pytest.raises(SettingsError, match="holds a sweep; choose another --out"):
        train_repeats(recipe, texts, tmp_path, 2, resume="auto", report=report)
    with pytest.raises(SettingsError, match="holds a sweep; choose another --out"):
        train_run(recipe, texts, tmp_path, resume="auto", report=report)
    (tmp_path / "seeds.json").write_text(json.dumps({"runs": 3}))
    with pytest.raises(ModelError, match=r"seeds\.json: damaged"):
        read_repeats(tmp_path)
    assert read_repeats(tiny_run) is None
