import json
import shutil
import sys

import pytest
from conftest import tiny_recipe

from textlora.data.labelled_texts import load_labelled_texts
from textlora.errors import Interrupted, SettingsError
from textlora.runs.history import read_history
from textlora.system.progress import Reporter
from textlora.training import loop
from textlora.training.pipeline import train_run
from textlora.training.tracking import open_tracking

pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
mlflow = pytest.importorskip("mlflow", reason="needs the extra mlflow")
BOTH = ("tensorboard", "mlflow")


class Messages(Reporter):
    def __init__(self):
        super().__init__(quiet=True)
        self.lines = []

    def say(self, message):
        self.lines.append(message)


@pytest.fixture(autouse=True)
def own_store(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def read_tensorboard(run, tag):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tracking" / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def read_mlflow(run, tag):
    client = mlflow.MlflowClient(f"sqlite:///{run / 'tracking' / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'textlora'")
    (found,) = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(found.info.run_id, tag)
    return [(metric.step, metric.value) for metric in history], found.data.params


def train(recipe, run, report=None, resume="auto", track=BOTH):
    texts = load_labelled_texts(recipe.data)
    return train_run(
        recipe, texts, run, resume=resume, report=report or Reporter(quiet=True), track=track
    )


@pytest.fixture(scope="module")
def recipe(tiny_bert, data_folder):
    return tiny_recipe(tiny_bert, data_folder, "training.epochs=1")


def test_trackers_hold_the_history_and_the_final_figures(recipe, tmp_path):
    result = train(recipe, tmp_path / "run")
    history = read_history(tmp_path / "run")
    expected = [(record.step, record.train_loss) for record in history]
    found, settings = read_mlflow(tmp_path / "run", "train/train_loss")
    assert found == expected
    shown = read_tensorboard(tmp_path / "run", "train/train_loss")
    assert [step for step, _ in shown] == [step for step, _ in expected]
    assert [value for _, value in shown] == pytest.approx([value for _, value in expected])
    test = result.evaluations[1].scores
    assert read_mlflow(tmp_path / "run", "final/test_accuracy")[0][0][1] == test.accuracy
    assert settings["training.learning_rate"] == "0.01"


def test_a_run_that_was_stopped_goes_on_without_telling_a_step_twice(recipe, tmp_path, monkeypatch):
    take, steps = loop.take_step, []

    def stop_after_ten(*arguments):
        steps.append(1)
        if len(steps) == 11:
            raise Interrupted("stopped")
        return take(*arguments)

    monkeypatch.setattr(loop, "take_step", stop_after_ten)
    with pytest.raises(Interrupted):
        train(recipe, tmp_path / "run")
    # As after a kill: what was told is kept, the checkpoint is an older one, or none.
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    told = json.loads((tmp_path / "run" / "tracking" / "state.json").read_text())
    assert told["mlflow"]["step"] > 0
    train(recipe, tmp_path / "run")
    steps = [record.step for record in read_history(tmp_path / "run")]
    assert [step for step, _ in read_mlflow(tmp_path / "run", "train/train_loss")[0]] == steps
    assert [step for step, _ in read_tensorboard(tmp_path / "run", "train/train_loss")] == steps


def test_what_is_learned_does_not_follow_from_a_tracker(recipe, tmp_path):
    for name, track in (("with", BOTH), ("without", ())):
        train(recipe, tmp_path / name, track=track)
    with_it, without = (
        (tmp_path / name / "adapter" / "adapter_model.safetensors").read_bytes()
        for name in ("with", "without")
    )
    assert with_it == without
    assert not (tmp_path / "without" / "tracking").exists()


def test_a_tracker_that_fails_is_left_behind(recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    report = Messages()
    train(recipe, tmp_path / "run", report)
    (line,) = [line for line in report.lines if "left behind" in line]
    assert line.startswith("mlflow: left behind (")
    assert len(read_tensorboard(tmp_path / "run", "train/train_loss")) > 1


def test_what_is_not_there_is_refused_before_training(recipe, tmp_path, monkeypatch):
    def start(names):
        with open_tracking(names, tmp_path, recipe, Reporter(quiet=True), afresh=False):
            pass

    with pytest.raises(SettingsError, match="--track: 'neptune' is unknown; known: tensorboard"):
        start(["neptune"])
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(SettingsError, match=r"pip install 'textlora\[wandb\]'"):
        start(["wandb"])
