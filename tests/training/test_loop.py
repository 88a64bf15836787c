import json
import threading
import warnings

import pytest
import torch
from conftest import tiny_recipe
from safetensors.torch import load_file

from textlora.data.labelled_texts import load_labelled_texts
from textlora.errors import DivergedError, TextloraError
from textlora.runs.checkpoints import TrainingState
from textlora.runs.history import read_history
from textlora.scoring.validation import ValidationRecord
from textlora.system.progress import Reporter
from textlora.training import loop
from textlora.training.loop import train_steps
from textlora.training.timetable import Timetable
from textlora.training.training_setup import prepare_training

QUIET = Reporter(quiet=True)


@pytest.fixture(scope="module")
def make_setup(tiny_bert, data_folder):
    def make(*changes):
        recipe = tiny_recipe(tiny_bert, data_folder, *changes)
        texts = load_labelled_texts(recipe.data)
        return prepare_training(recipe, texts)

    return make


def train(make_setup, run, *changes, resume="auto"):
    setup = make_setup(*changes)
    state = train_steps(setup, run, resume, QUIET)
    return setup, state


def everything_written(run):
    folder = max((run / "checkpoints").glob("step-*"))
    return (
        (run / "history.jsonl").read_bytes(),
        (folder / "weights.safetensors").read_bytes(),
        (folder / "optimizer.safetensors").read_bytes(),
        json.loads((folder / "state.json").read_text())["state"],
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_learns_what_can_be_learned(make_setup, tmp_path, precision):
    _, state = train(make_setup, tmp_path, f"training.precision={precision}")
    records = read_history(tmp_path)
    assert state.best_value > 0.9
    assert records[-1].train_loss < 0.5 * records[0].train_loss


def test_a_last_step_that_diverges_is_told_with_the_way_out(make_setup, tmp_path):
    """The loss before it was fine; nothing after it but validation sees it."""
    with pytest.raises(DivergedError, match=r"lower training\.learning_rate"):
        train(make_setup, tmp_path, "training.learning_rate=1e30", "training.epochs=0.01")


def test_a_run_shorter_than_its_evaluations_has_a_history(make_setup):
    table = Timetable(make_setup("training.evaluate_every=1000000").recipe, 24)
    assert sum(map(table.is_recorded, range(1, table.total_steps + 1))) >= 20
    assert [s for s in range(1, 73) if table.is_evaluated(s)] == [72]


def test_a_share_of_an_epoch_is_no_step_longer_than_it_says(make_setup):
    """0.07 times 100 is 7.000000000000001."""
    assert Timetable(make_setup("training.epochs=0.07").recipe, 100).total_steps == 7
    assert Timetable(make_setup("training.epochs=0.071").recipe, 100).total_steps == 8


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_same_seed_gives_the_same_bits(make_setup, tmp_path, precision):
    changes = (f"training.precision={precision}", "training.epochs=1", "dropout.backbone=0.1")
    for name in ("first", "second"):
        train(make_setup, tmp_path / name, *changes)
    assert everything_written(tmp_path / "first") == everything_written(tmp_path / "second")
    train(make_setup, tmp_path / "third", *changes, "training.seed=1")
    assert everything_written(tmp_path / "first") != everything_written(tmp_path / "third")


def test_training_works_outside_the_main_thread(make_setup, tmp_path):
    results = []

    def work():
        with warnings.catch_warnings():
            results.append(train(make_setup, tmp_path, "training.epochs=1"))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert results[0][1].step == 24


def test_the_best_weights_are_left_in_the_learner(make_setup, tmp_path):
    # A rate that is far too high later on: the last state is not the best one.
    setup, state = train(make_setup, tmp_path, "training.evaluate_every=3")
    validations = {r.step: r.validation for r in read_history(tmp_path) if r.validation}
    assert state.best_value == max(v.accuracy for v in validations.values())
    best = tmp_path / "checkpoints" / f"step-{state.best_step:08d}" / "weights.safetensors"
    for name, tensor in load_file(best).items():
        assert torch.equal(setup.weights.masters[name], tensor)
    assert loop._validate(setup, None, lambda: None) == validations[state.best_step]


def test_early_stopping_waits_for_its_patience(make_setup, tmp_path):
    # With a rate of nearly nothing no evaluation is better than the first.
    changes = ("training.learning_rate=1e-12", "training.evaluate_every=2", "training.patience=3")
    _, state = train(make_setup, tmp_path, *changes)
    assert (state.step, state.best_step) == (8, 2)


@pytest.mark.parametrize("metric", ["accuracy", "f1_weighted", "f1_macro", "loss"])
def test_each_metric_can_choose_the_best_checkpoint(make_setup, tmp_path, metric):
    changes = (f"training.best_metric={metric}", "training.evaluate_every=6")
    _, state = train(make_setup, tmp_path, *changes)
    values = {r.step: getattr(r.validation, metric) for r in read_history(tmp_path) if r.validation}
    best = min(values.values()) if metric == "loss" else max(values.values())
    assert values[state.best_step] == best


def make_validation(accuracy, loss):
    return ValidationRecord(loss, accuracy, accuracy, accuracy, 1.0)


@pytest.mark.parametrize(
    ("metric", "seen", "best", "stale"),
    [
        # Few texts are all right after one epoch; what is learned later shows in the loss.
        ("accuracy", [(1.0, 0.8), (1.0, 0.3), (1.0, 0.05), (1.0, 0.06)], 3, 1),
        ("accuracy", [(0.5, 0.9), (0.9, 0.8), (0.8, 0.1)], 2, 1),
        ("accuracy", [(0.5, 0.9), (0.5, 0.9)], 1, 1),
        ("accuracy", [(0.5, float("inf")), (0.5, 0.9)], 2, 0),
        ("f1_macro", [(0.7, 0.9), (0.7, 0.7), (0.8, 2.0)], 3, 0),
        ("loss", [(0.9, 0.4), (0.8, 0.3), (1.0, 0.3)], 2, 1),
    ],
)
def test_of_equal_values_the_lower_loss_is_the_best(metric, seen, best, stale):
    state = TrainingState()
    for step, (accuracy, loss) in enumerate(seen, 1):
        state.step = step
        loop._keep_best(state, make_validation(accuracy, loss), metric)
    assert (state.best_step, state.stale_evaluations) == (best, stale)


def test_schedules_are_recorded_as_applied(make_setup, tmp_path):
    changes = ("dropout.start=0.15", "dropout.end=0.05", "training.evaluate_every=1")
    setup, state = train(make_setup, tmp_path, *changes, "training.epochs=1")
    records = read_history(tmp_path)
    assert [r.step for r in records] == list(range(1, state.step + 1))
    assert (records[0].dropout, records[-1].dropout) == (0.15, 0.05)
    assert len({r.dropout for r in records}) == len(records)
    table = Timetable(setup.recipe, 24)
    assert [r.learning_rate for r in records] == [table.learning_rate(s) for s in range(24)]
    applied = [m.p for n, m in setup.model.named_modules() if n.endswith("lora_dropout.default")]
    assert set(applied) == {0.05}


def test_a_micro_batch_changes_memory_not_the_gradient(make_setup, tmp_path):
    changes = ("training.epochs=1", "training.precision=fp32", "dropout.start=0", "dropout.end=0")
    setup, _ = train(make_setup, tmp_path / "a", *changes)
    cut = make_setup(*changes)
    cut.engine.max_tokens = 48
    train_steps(cut, tmp_path / "b", "auto", QUIET)
    for name, master in setup.weights.masters.items():
        # Sums in another order, over all steps.
        assert torch.allclose(master, cut.weights.masters[name], atol=1e-4), name


def test_optimizer_equals_the_plain_loop(make_setup, tmp_path):
    """Three steps of ours are three steps of torch's AdamW with clipping, written out."""
    changes = ("training.epochs=1", "training.precision=fp32", "dropout.start=0", "dropout.end=0")
    setup = make_setup(*changes)
    reference = make_setup(*changes)
    table = Timetable(setup.recipe, 24)
    batches = loop.compute_epoch_batches(setup.train.lengths, 8, 42, 0)
    parameters = [p for p in reference.model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.01},
        {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1.0)
    for step in range(3):
        loop.take_step(setup, batches[step], step, table.learning_rate(step))
        tokens = [reference.train.select(int(i)).tolist() for i in batches[step]]
        padded = reference.tokenizer.pad({"input_ids": tokens}, return_tensors="pt")
        label_ids = torch.from_numpy(reference.train_label_ids[batches[step]])
        loss = reference.model(**padded, labels=label_ids).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = table.learning_rate(step)
        optimizer.step()
    for name, parameter in reference.model.named_parameters():
        if parameter.requires_grad:
            assert torch.allclose(parameter, setup.weights.masters[name], atol=1e-5), name


def test_a_loss_that_is_not_finite_stops_with_the_reason(make_setup, tmp_path):
    setup = make_setup()
    for master in setup.weights.masters.values():
        with torch.no_grad():
            master.fill_(float("nan"))
    setup.weights.publish()
    with pytest.raises(TextloraError, match=r"loss became nan.*lower training\.learning_rate"):
        train_steps(setup, tmp_path, "auto", QUIET)


def test_a_place_that_cannot_be_written_is_named(make_setup, tmp_path):
    (tmp_path / "file").write_text("in the way")
    setup = make_setup()
    with pytest.raises(TextloraError, match=r"file.*cannot be written.*--out"):
        train_steps(setup, tmp_path / "file" / "run", "auto", QUIET)


def test_masters_keep_what_bfloat16_would_lose(make_setup, tmp_path):
    setup = make_setup("training.precision=bf16")
    name, master = next((n, m) for n, m in setup.weights.masters.items() if "lora_A" in n)
    parameter = dict(setup.model.named_parameters())[name]
    assert (parameter.dtype, master.dtype) == (torch.bfloat16, torch.float32)
    before = master.detach().clone()
    for _ in range(100):  # each of them far below bfloat16's spacing
        with torch.no_grad():
            master.add_(before.abs() * 1e-4)
        setup.weights.publish()
    assert not torch.equal(parameter.float(), before.bfloat16().float())
