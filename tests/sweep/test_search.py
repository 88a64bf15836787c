"""A sweep as a user meets it: killed, shared, under a budget, blind to the test split."""

import importlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from dataclasses import replace

import pytest
from conftest import make_rows, tiny_recipe, write_csv

from textlora.budgeting.budget import fit_budget, plan_recipe
from textlora.cli.main import main
from textlora.data.labelled_texts import load_labelled_texts
from textlora.data.sources import read_splits
from textlora.errors import (
    DataError,
    Interrupted,
    ModelError,
    SettingsError,
    TextloraError,
    UnfinishedError,
)
from textlora.runs.history import read_history
from textlora.scoring.validation import ValidationRecord
from textlora.settings import load_recipe
from textlora.sweep.feasibility import Feasibility, Judge
from textlora.sweep.search import run_sweep
from textlora.sweep.space import change_recipe, load_space
from textlora.sweep.study import open_study
from textlora.sweep.study_store import WHOLE
from textlora.sweep.trials import TRAINED
from textlora.system.progress import Reporter
from textlora.training.pipeline import fit_run
from textlora.training.training_setup import prepare_training

BUDGET = 2_000
NUM_TRIALS = 4
SETTINGS = ("training.epochs=2", "training.batch_size=16", "data.validation_share=0.5")
SPACE = """
[training]
learning_rate = { low = 1e-6, high = 3e-2, log = true }
[adapter]
rank = { low = 1, high = 8 }
targets = { choices = [{ all = ["query"] }, { all = ["query", "value"] }] }
"""


class Messages(Reporter):
    """Keeps what is said; at the line that begins with `at`, the process gets a signal."""

    def __init__(self, at="never", number=signal.SIGINT):
        super().__init__(quiet=True)
        self.lines, self._at, self._number = [], at, number

    def say(self, message):
        self.lines.append(message)
        if message.startswith(self._at):
            os.kill(os.getpid(), self._number)


class Place:
    """Model, data and space of all sweeps here, and the command that searches them."""

    def __init__(self, folder, model):
        self.model, self.data, self.space = model, folder / "data", folder / "space.toml"
        self.data.mkdir()
        write_csv(self.data / "train.csv", make_rows(64, seed=1))
        # Whoever opens it fails.
        (self.data / "test.csv").write_bytes(b"text,label\n\xff\xfe\x00,\xff\n")
        self.space.write_text(SPACE)
        self.recipe = tiny_recipe(model, self.data, *SETTINGS)
        parts = read_splits(self.recipe.data, only=("train", "validation"))
        self.texts = load_labelled_texts(self.recipe.data, parts)

    def sweep(self, folder, *, space=SPACE, report=None, num_trials=NUM_TRIALS, **changes):
        self.space.write_text(space)
        what = {"recipe": self.recipe, "texts": self.texts, "budget": str(BUDGET), **changes}
        searched = load_space(str(self.space), what["recipe"])
        return run_sweep(what.pop("recipe"), what.pop("texts"), searched, folder, **what,
                         num_trials=num_trials, report=report or Reporter(quiet=True))  # fmt: skip

    def words(self, folder):
        sets = [word for item in SETTINGS for word in ("--set", item)]
        for item in ("learning_rate=0.01", "best_metric=accuracy"):
            sets += ["--set", f"training.{item}"]
        sets += [
            "--set",
            "adapter.rank=4",
            "--set",
            'adapter.targets={all=["query","value","ffn"]}',
        ]
        return ["sweep", "--recipe", "quickstart", "--space", str(self.space), "--data",
                str(self.data), "--model", str(self.model), "--budget", str(BUDGET), "--trials",
                str(NUM_TRIALS), "--out", str(folder), *sets]  # fmt: skip

    def start(self, folder):
        """The same in a process of its own."""
        self.space.write_text(SPACE)
        command = [sys.executable, "-m", "textlora", *self.words(folder)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def place(tiny_bert, tmp_path_factory):
    return Place(tmp_path_factory.mktemp("sweep"), tiny_bert)


@pytest.fixture(scope="module")
def undisturbed(place, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweeps") / "undisturbed"
    return place.sweep(folder)


def list_facts(found):
    """All of a sweep but the time it took."""
    return [replace(trial, seconds=0.0) for trial in found.trials]


def count_evaluations(folder):
    """Read as another program reads a database that is in use."""
    try:
        with closing(sqlite3.connect(f"file:{folder / 'study.db'}?mode=ro", uri=True)) as study:
            return study.execute("SELECT COUNT(*) FROM trial_intermediate_values").fetchone()[0]
    except sqlite3.Error:
        return 0


def wait_for_evaluations(process, folder, count):
    while count_evaluations(folder) < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def test_a_sweep_trains_as_many_trials_as_it_was_asked_for(undisturbed):
    outcomes = [trial.outcome for trial in undisturbed.trials]
    assert sum(outcome in TRAINED for outcome in outcomes) == NUM_TRIALS
    assert [trial.number for trial in undisturbed.trials] == list(range(len(outcomes)))
    assert set(outcomes) == {"finished", "refused"}
    assert undisturbed.ranked[0].value == max(trial.value for trial in undisturbed.ranked)
    assert not list((undisturbed.folder / "running").iterdir())


def test_no_trial_over_the_budget_is_trained(undisturbed, place):
    for trial in undisturbed.trials:
        recipe = change_recipe(place.recipe, trial.settings, "test")
        model = prepare_training(recipe, place.texts).model
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        assert trial.parameters == trained
        assert (trained > BUDGET) == (trial.outcome == "refused")
        assert bool(trial.curve) == (trial.outcome != "refused")


def test_a_judge_counts_all_that_parameters_depend_on(place):
    judge = Judge(place.recipe, place.texts.labels, None)
    for settings in (
        {}, {"model.head": "mean"}, {"model.head": "first"}, {"adapter.variant": "dora"},
        {"adapter.variant": "dora", "adapter.rank": 2}, {"adapter.rank": 2},
        {"adapter.targets": {"0": ["query"]}}, {"training.epochs": 9},
    ):  # fmt: skip
        plan = plan_recipe(change_recipe(place.recipe, settings, "test"), place.texts.labels)
        assert judge.judge(settings).parameters == plan.trainable


def test_a_share_is_of_the_same_parameters_as_in_training(place):
    recipe = change_recipe(place.recipe, {"model.head": "mean"}, "test")
    allowed = fit_budget(recipe, place.texts.labels, "5%").budget
    judge = Judge(recipe, place.texts.labels, "5%")
    judged = judge.judge({"adapter.targets": {"all": ["query", "key", "value", "output", "ffn"]}})
    assert judged.refusal.endswith(f"over the budget of {allowed:,}")


def test_the_winning_recipe_trains_to_the_figures_of_its_trial(undisturbed, place, tmp_path):
    best = undisturbed.ranked[0]
    recipe = load_recipe(str(undisturbed.recipe))
    assert recipe == change_recipe(place.recipe, best.settings, "test")
    _, state = fit_run(recipe, place.texts, tmp_path / "run", resume="never", report=Messages())
    assert state.best_value == best.value
    curve = [r.validation.accuracy for r in read_history(tmp_path / "run") if r.validation]
    assert curve == list(best.curve.values())


def test_the_test_split_is_not_opened(undisturbed, place):
    with pytest.raises(DataError):
        read_splits(place.recipe.data)
    assert place.texts.test is None
    assert undisturbed.margin.num_texts == len(place.texts.validation.texts)


def test_a_killed_sweep_ends_as_an_undisturbed_one(undisturbed, place, tmp_path):
    folder = tmp_path / "sweep"
    process = place.start(folder)
    wait_for_evaluations(process, folder, 3)  # one trial is at its end, the second in its middle
    process.kill()
    process.communicate()
    (folder / ".worker-0").touch()  # of one that was killed before it had a trial
    report = Messages()
    found = place.sweep(folder, report=report)
    assert list_facts(found) == list_facts(undisturbed)
    assert not [line for line in report.lines if line.startswith("trial 0")]
    assert not list((folder / "running").iterdir())
    assert not list(folder.glob(".worker-*"))


def test_two_processes_share_a_study(place, tmp_path):
    folder = tmp_path / "sweep"
    process = place.start(folder)
    wait_for_evaluations(process, folder, 1)
    report = Messages()
    found = place.sweep(folder, report=report)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    ours, theirs = (
        {line.split(":")[0] for line in lines if line.startswith("trial ")}
        for lines in (report.lines, err.splitlines())
    )
    assert ours
    assert theirs
    assert not ours & theirs
    trained = {f"trial {t.number}" for t in found.trials if t.outcome in TRAINED}
    assert ours | theirs == trained
    assert len(trained) == NUM_TRIALS
    assert found.verdict in out


def test_ctrl_c_is_granted_and_the_same_command_goes_on(undisturbed, place, tmp_path):
    folder = tmp_path / "sweep"
    second = [trial.number for trial in undisturbed.trials if trial.outcome in TRAINED][1]
    with pytest.raises(
        Interrupted, match="stopped, 1 of 4 trials are done.*same command"
    ) as caught:
        place.sweep(folder, report=Messages(at=f"trial {second}: "))
    assert caught.value.exit_code == 130
    assert list_facts(place.sweep(folder)) == list_facts(undisturbed)


def test_a_sweep_that_is_done_is_told_again_as_json(undisturbed, place, capfd):
    place.space.write_text(SPACE)
    with pytest.raises(SystemExit) as caught:
        main([*place.words(undisturbed.folder), "--json"])
    out, err = capfd.readouterr()
    assert (caught.value.code or 0, err) == (0, "")
    assert [item["number"] for item in json.loads(out)["ranked"]] == [
        trial.number for trial in undisturbed.ranked
    ]


def test_another_sweep_in_the_same_folder_is_refused(undisturbed, place, tmp_path):
    folder = undisturbed.folder
    wider = SPACE.replace("high = 8", "high = 9")
    with pytest.raises(SettingsError, match=r"space adapter\.rank was .*'high': 8.*, is .*9"):
        place.sweep(folder, space=wider)
    other = change_recipe(place.recipe, {"training.batch_size": 4}, "test")
    with pytest.raises(SettingsError, match=r"training\.batch_size was 16, is 4"):
        place.sweep(folder, recipe=other)
    with pytest.raises(SettingsError, match="budget was '2000', is 'none'"):
        place.sweep(folder, budget=None)
    with pytest.raises(SettingsError, match="the texts or labels of the data have changed"):
        place.sweep(folder, texts=replace(place.texts, fingerprint="other"))
    other = shutil.copytree(folder, tmp_path / "sweep")
    text = (other / "sweep.toml").read_text()
    (other / "sweep.toml").write_text(text.replace('encoder = "', 'encoder = "0'))
    with pytest.raises(SettingsError, match="the files of the model have changed"):
        place.sweep(other)


def test_what_a_budget_cannot_pay_is_refused_before_anything_is_written(place, tmp_path):
    with pytest.raises(SettingsError, match="the smallest of it trains 227 parameters"):
        place.sweep(tmp_path / "sweep", budget="100")
    with pytest.raises(SettingsError, match="'much' not understood"):
        place.sweep(tmp_path / "sweep", budget="much")
    beyond = 'adapter.targets = { choices = [{ all = ["query"] }, { "7" = ["query"] }] }'
    with pytest.raises(SettingsError, match=r"adapter\.targets = .*7"):
        place.sweep(tmp_path / "sweep", space=beyond)
    assert not (tmp_path / "sweep").exists()


def test_folders_of_others_are_left_alone(undisturbed, place, tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(SettingsError, match="holds a run of train"):
        place.sweep(tmp_path / "run")
    shutil.copytree(undisturbed.folder, tmp_path / "sweep")
    (tmp_path / "sweep" / "study.db").write_bytes(b"no database" * 1_000)
    with pytest.raises(UnfinishedError, match=r"cannot be read or written \(\(?.*file is not a"):
        place.sweep(tmp_path / "sweep")
    (tmp_path / "sweep" / "sweep.toml").unlink()
    with pytest.raises(SettingsError, match=r"has study\.db, but no sweep\.toml"):
        place.sweep(tmp_path / "sweep")


def test_no_settings_are_trained_twice_and_a_space_has_an_end(place, tmp_path):
    """Six combinations, some of them over the budget, nine trials asked for."""
    space = """
    adapter.rank = { low = 1, high = 3 }
    adapter.targets = { choices = [{ all = ["query"] }, { all = ["query", "value", "ffn"] }] }
    """
    report = Messages()
    found = place.sweep(tmp_path / "sweep", space=space, num_trials=9, budget="1000", report=report)
    done = [trial for trial in found.trials if trial.outcome != "repeated"]
    assert len({json.dumps(trial.settings) for trial in done}) == len(done)
    trained = [trial.settings for trial in done if trial.outcome in TRAINED]
    judge = Judge(place.recipe, place.texts.labels, "1000")
    everything = load_space(str(place.space), place.recipe).list_all()
    fitting = [settings for settings in everything if judge.judge(settings).fits]
    assert 0 < len(fitting) < len(everything) == 6
    assert sorted(map(json.dumps, trained)) == sorted(map(json.dumps, fitting))
    assert report.lines[-1] == f"no settings are left to try after {len(trained)} trials"
    assert found.margin.others == len(found.ranked) - 1
    assert list_facts(place.sweep(
        tmp_path / "sweep", space=space, num_trials=9, budget="1000"
    )) == list_facts(found)  # fmt: skip


def test_what_fits_is_found_however_little_of_the_space_it_is(place, tmp_path):
    """One rank in eight thousand, with one of two heads; rates cannot be counted."""
    space = """
    training.learning_rate = { low = 1e-3, high = 1e-2 }
    adapter.rank = { low = 1, high = 8000 }
    """
    cheapest = change_recipe(place.recipe, {"adapter.rank": 1}, "test")
    budget = plan_recipe(cheapest, place.texts.labels).trainable
    found = place.sweep(tmp_path / "sweep", space=space, num_trials=2, budget=str(budget))
    trained = [trial for trial in found.trials if trial.outcome in TRAINED]
    assert [trial.settings["adapter.rank"] for trial in trained] == [1, 1]
    rates = {trial.settings["training.learning_rate"] for trial in trained}
    assert len(rates) == 2


def test_a_range_of_a_few_numbers_has_an_end(place, tmp_path, monkeypatch):
    """Four of them in the digits that a recipe has; nothing counts them."""
    monkeypatch.setattr("textlora.sweep.study._MAX_REFUSED", 30)
    space = "training.learning_rate = { low = 1e-3, high = 1.003e-3 }"
    found = place.sweep(tmp_path / "sweep", space=space, num_trials=9, budget=None)
    rates = [t.settings["training.learning_rate"] for t in found.trials if t.outcome in TRAINED]
    assert sorted(rates) == [0.001, 0.001001, 0.001002, 0.001003]


def test_a_space_of_which_nothing_fits_is_refused_with_its_table(place, tmp_path, monkeypatch):
    """Too many combinations to be counted at the start."""
    monkeypatch.setattr("textlora.sweep.study._MAX_REFUSED", 12)
    targets = [f'{{ all = ["query", "value"], 0 = {["ffn"] * n} }}' for n in range(1, 203)]
    space = f"""
    training.learning_rate = {{ low = 1e-3, high = 1e-2 }}
    adapter.targets = {{ choices = [{", ".join(targets)}] }}
    """
    with pytest.raises(SettingsError, match="12 trials in a row were refused.*smallest of them"):
        place.sweep(tmp_path / "sweep", space=space, budget="100")
    assert (tmp_path / "sweep" / "trials.csv").read_text().count("over the budget of 100") == 12


def test_a_process_that_dies_after_a_claim_found_nothing_leaves_its_trial(place, tmp_path):
    """Whether to wait is known from the claim itself: whoever died since is noticed by the next."""
    place.space.write_text(SPACE)
    space = load_space(str(place.space), place.recipe)
    with open_study(tmp_path, space, "accuracy", seed=0) as ours:
        with open_study(tmp_path, space, "accuracy", seed=0) as theirs:
            assert theirs.claim(1, lambda _: Feasibility(1)) is not None
            assert ours.claim(1, lambda _: Feasibility(1)) is None
        assert ours.is_shared
        taken = ours.claim(1, lambda _: Feasibility(1))
        assert taken is not None
        assert taken.number == 0


def test_a_stop_ends_a_search_for_settings_that_fit(claim):
    def stop():
        raise Interrupted("stopped")

    with claim() as (study, _), pytest.raises(Interrupted):
        study.claim(9, lambda _: Feasibility(1, "over"), check=stop)


def test_a_trial_that_cannot_be_trained_does_not_end_the_sweep(place, tmp_path):
    broken = shutil.copytree(place.model, tmp_path / "broken")
    for path in broken.glob("token*"):
        path.unlink()
    space = f'model.name = {{ choices = ["{broken}", "{place.model}"] }}'
    found = place.sweep(tmp_path / "sweep", space=space, num_trials=2, budget=None)
    assert {trial.outcome for trial in found.trials} >= {"failed", "finished"}
    (failed,) = [trial for trial in found.trials if trial.outcome == "failed"]
    assert "has no tokenizer files" in failed.reason
    assert [trial.settings["model.name"] for trial in found.ranked] == [str(place.model)]


@pytest.fixture
def claim(place, tmp_path):
    """Open the study of a folder as a process does, and claim a trial: study and claim."""
    place.space.write_text(SPACE)
    space = load_space(str(place.space), place.recipe)

    @contextmanager
    def open_and_claim():
        with open_study(tmp_path, space, "accuracy", seed=0) as study:
            claimed = study.claim(9, lambda _: Feasibility(1))
            assert claimed is not None
            yield study, claimed

    return open_and_claim


def test_a_trial_that_always_ends_its_process_is_given_up(claim):
    """As one that the system ends for its memory: nothing is told, the next start finds it."""
    for _ in range(3):
        with claim() as (study, claimed):
            assert claimed.number == 0
            study.report(100, ValidationRecord(1.0, 0.5, 0.5, 0.5), 7.0)
    with claim() as (_, claimed):
        assert claimed.number == 0  # it had got further once
    with claim() as (study, claimed):
        assert claimed.number == 1
        first, second = study.list_trials()
    assert (first.outcome, first.reason) == ("failed", "ended its process 3 times")
    assert (first.seconds, second.outcome) == (7.0, "unfinished")


def test_a_trial_that_gets_further_or_was_stopped_is_not_given_up(claim):
    for start in range(9):
        with claim() as (study, claimed):
            assert claimed.number == 0
            if start % 2:
                study.report(10 * start, ValidationRecord(1.0, 0.5, 0.5, 0.5), 1.0)
            elif start > 5:
                study.release()


def test_a_trial_whose_checkpoints_get_further_is_not_given_up(claim, tmp_path):
    for start in range(6):
        with claim() as (_, claimed):
            assert claimed.number == 0
            (tmp_path / f"running/trial-0/checkpoints/step-{start:08d}").mkdir(parents=True)


def test_of_evaluations_with_equal_accuracy_that_of_the_lower_loss_counts(claim):
    """As in training: its figures are those of the checkpoint that is kept."""
    with claim() as (study, _):
        for share, loss in ((200, 1.0), (400, 0.8), (600, 0.9)):
            study.report(share, ValidationRecord(loss, 0.5, 0.5, 0.5, thresholds=(0.5,)), 1.0)
        study.drop("diverged", "the loss became nan", 7.0)
        (trial,) = study.list_trials()
    assert trial.figures == {"loss": 0.8, "accuracy": 0.5, "f1_weighted": 0.5, "f1_macro": 0.5}
    assert trial.seconds == 7.0


def test_rates_that_diverge_are_trials_that_failed(place, tmp_path):
    space = '"training.learning_rate" = { choices = [1e30, 1e32] }'
    with pytest.raises(TextloraError, match="none of 2 trials was finished.*the loss became"):
        place.sweep(tmp_path / "sweep", space=space, num_trials=2, budget=None)


def test_a_trial_below_the_median_is_stopped_but_not_at_its_end(place, tmp_path):
    def evaluate(study, accuracy, share):
        return study.report(share, ValidationRecord(1.0, accuracy, 0.0, 0.0), 1.0)

    place.space.write_text(SPACE)
    space = load_space(str(place.space), place.recipe)
    with open_study(tmp_path, space, "accuracy", seed=0) as study:
        for accuracy in (0.5, 0.6, 0.7, 0.8):
            assert study.claim(9, lambda _: Feasibility(1)) is not None
            for share in (WHOLE // 2, WHOLE):
                assert not evaluate(study, accuracy, share)
            study.finish(accuracy, 1.0)
        for accuracy, hopeless in ((0.64, True), (0.66, False)):
            assert study.claim(9, lambda _: Feasibility(1)) is not None
            assert not evaluate(study, accuracy - 0.5, WHOLE // 10)  # too early
            assert evaluate(study, accuracy, WHOLE // 2) is hopeless
            assert not evaluate(study, 0.0, WHOLE)
            study.finish(accuracy, 1.0)
        claim = study.claim(7, lambda _: Feasibility(1))
        assert claim is not None
        assert study.claim(7, lambda _: Feasibility(1)) is None  # as many as were asked for


def test_a_pruned_trial_leaves_no_checkpoint_and_does_not_win(place, tmp_path):
    folder = tmp_path / "sweep"
    place.sweep(folder, num_trials=1)
    space = load_space(str(place.space), place.recipe)
    with open_study(folder, space, "accuracy", seed=0) as study:
        for _ in range(3):
            assert study.claim(9, lambda _: Feasibility(1)) is not None
            for share in (WHOLE // 2, WHOLE):
                study.report(share, ValidationRecord(1.0, 1.0, 1.0, 1.0), 1.0)
            study.finish(1.0, 1.0)
    found = place.sweep(folder, num_trials=5)
    (pruned,) = [trial for trial in found.trials if trial.outcome == "pruned"]
    assert list(pruned.curve) == [WHOLE // 2]
    assert pruned.reason == "below the median after 50%"
    assert pruned not in found.ranked
    assert not list((folder / "running").iterdir())


def test_without_optuna_the_command_to_install_it_is_said(monkeypatch):
    names = ("search", "study", "study_store", "sweep_folder")
    for name in (f"textlora.sweep.{name}" for name in names):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(SettingsError, match=r"pip install 'textlora\[sweep\]'"):
        importlib.import_module("textlora.sweep.search")


def test_what_is_set_is_not_searched_in_the_space_that_ships(place, tmp_path):
    words = ["sweep", "--recipe", "quickstart", "--data", str(place.data), "--model",
             str(place.model), "--trials", "1", "--out", str(tmp_path / "sweep"),
             "--set", "training.epochs=0.5", "--set", "adapter.rank=3"]  # fmt: skip
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert not caught.value.code
    best = load_recipe(str(tmp_path / "sweep" / "best.toml"))
    assert (best.training.epochs, best.adapter.rank) == (0.5, 3)
    table = (tmp_path / "sweep" / "trials.csv").read_text().splitlines()[0]
    assert "training.learning_rate" in table
    assert "training.epochs" not in table


def test_an_encoder_without_weights_cannot_be_a_trial(tmp_path, tiny_bert):
    """It can be planned; a trial of it would fail after hours of others."""
    folder = shutil.copytree(tiny_bert, tmp_path / "bare")
    (folder / "model.safetensors").unlink()
    judge = Judge(tiny_recipe(tiny_bert, "unused.csv"), ("a", "b"), None)
    assert judge.judge({"model.name": str(tiny_bert)}).fits
    with pytest.raises(ModelError, match=r"no \.safetensors weights in it"):
        judge.judge({"model.name": str(folder)})
