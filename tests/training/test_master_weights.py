"""Averages of weights, rates of groups, PEFT's variants: what is trained, kept and continued."""

import pytest
import torch
from conftest import tiny_recipe

from textlora.data.labelled_texts import load_labelled_texts
from textlora.errors import SettingsError
from textlora.runs.history import read_history
from textlora.settings import TrainingSettings
from textlora.system.progress import Reporter
from textlora.training import loop
from textlora.training.master_weights import TrainedWeights
from textlora.training.pipeline import train_run
from textlora.training.training_setup import prepare_training

QUIET = Reporter(quiet=True)


class Layered(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.ModuleList([torch.nn.Linear(2, 2) for _ in range(3)])
        self.classifier = torch.nn.Linear(2, 2)


def take_steps(weights, model, count):
    for step in range(count):
        model.zero_grad()
        inputs = torch.ones(1, 2)
        for layer in model.layer:
            inputs = layer(inputs)
        model.classifier(inputs).square().sum().backward()
        weights.step(step, 0.1, 1.0)


def test_the_average_is_the_recursion_written_out():
    torch.manual_seed(0)
    model = Layered()
    weights = TrainedWeights(model, torch.float32, [], TrainingSettings(average_decay=0.5))
    name = "classifier.weight"
    expected = weights.masters[name].detach().clone()
    for step in range(8):
        take = weights.masters[name].detach().clone()
        model.zero_grad()
        model.classifier(model.layer[0](torch.ones(1, 2))).sum().backward()
        weights.step(step, 0.1, 1.0)
        assert not torch.equal(take, weights.masters[name])
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weights.masters[name].detach()
    assert torch.allclose(weights.read()[name], expected, atol=1e-6)
    parameter = dict(model.named_parameters())[name]
    assert torch.equal(parameter, weights.masters[name])
    with weights.show_counted():
        assert torch.allclose(parameter, expected, atol=1e-6)
    assert torch.equal(parameter, weights.masters[name])


def test_without_a_decay_the_last_weights_count():
    model = Layered()
    weights = TrainedWeights(model, torch.float32, [], TrainingSettings())
    take_steps(weights, model, 3)
    for name, tensor in weights.read().items():
        assert torch.equal(tensor, weights.masters[name])
    assert set(weights.read_optimizer()) == set(weights.optimizer_shapes)


def test_the_rate_falls_from_layer_to_layer():
    """AdamW's first step is the rate, whatever the gradient."""
    torch.manual_seed(0)
    model = Layered()
    settings = TrainingSettings(layer_decay=0.5, weight_decay=0.0)
    weights = TrainedWeights(model, torch.float32, [], settings)
    before = {name: tensor.clone() for name, tensor in weights.read().items()}
    take_steps(weights, model, 1)
    moved = {n: float((weights.masters[n].detach() - t).abs().max()) for n, t in before.items()}
    found = [moved[f"layer.{index}.bias"] for index in range(3)]
    assert found == pytest.approx([0.025, 0.05, 0.1], rel=1e-3)
    assert moved["classifier.bias"] == pytest.approx(0.1, rel=1e-3)


def test_lora_plus_moves_b_faster(make_recipe):
    recipe, texts = make_recipe("training.loraplus_ratio=8", "training.weight_decay=0")
    setup = prepare_training(recipe, texts)
    before = setup.weights.read()
    # B starts at zero, so that A has no gradient at the first step.
    batches = loop.compute_epoch_batches(setup.train.lengths, 8, 42, 0)
    loop.take_step(setup, batches[0], 0, 1e-3)
    after = setup.weights.read()
    moved = {name: float((after[name] - before[name]).abs().max()) for name in before}
    b = max(value for name, value in moved.items() if ".lora_B." in name)
    head = max(value for name, value in moved.items() if ".classifier." in name)
    assert b / head == pytest.approx(8.0, rel=1e-2)


@pytest.fixture
def make_recipe(tiny_bert, data_folder):
    def make(*changes):
        recipe = tiny_recipe(tiny_bert, data_folder, *changes)
        return recipe, load_labelled_texts(recipe.data)

    return make


VARIANTS = {
    "rslora": ("adapter.variant=rslora", "adapter.alpha=8"),
    "dora": ("adapter.variant=dora",),
    "loraplus": ("training.loraplus_ratio=4", "training.learning_rate=3e-3"),
    "average": ("training.average_decay=0.9",),
    "balanced focal": (
        "training.class_weights=balanced", "training.focal_gamma=2",
        "training.label_smoothing=0.1",
    ),
    "mean": ("model.head=mean", "training.layer_decay=0.9"),
}  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_variant_trains_saves_and_reloads(variant, make_recipe, tmp_path):
    """A fresh process gives the logits of the trained model; the plan counted every parameter."""
    recipe, texts = make_recipe(*VARIANTS[variant])
    result = train_run(recipe, texts, tmp_path / "run", resume="auto", report=QUIET)
    assert result.reload_difference < 1e-5
    assert result.evaluations[-1].scores.accuracy > 0.9


def test_what_validation_saw_is_what_is_kept(make_recipe, tmp_path):
    """The averages, not the weights they are averages of."""
    recipe, texts = make_recipe("training.average_decay=0.9", "training.evaluate_every=6")
    setup = prepare_training(recipe, texts)
    state = loop.train_steps(setup, tmp_path, "auto", QUIET)
    seen = {r.step: r.validation for r in read_history(tmp_path) if r.validation}
    assert loop._validate(setup, None, lambda: None) == seen[state.best_step]


@pytest.mark.parametrize(
    ("variant", "reason"),
    [
        ("pissa", "changes the frozen weights"),
        ("PiSSA", "changes the frozen weights"),
        ("AdaLoRA", "moves rank"),
        ("LoRA+", "training.loraplus_ratio"),
        ("x", "should be 'lora'"),
        ('["dora"]', "should be 'lora'.*, got .'dora'."),
        ("{a=1}", "should be 'lora'"),
    ],
)
def test_other_variants_are_refused_with_the_reason(variant, reason, make_recipe):
    with pytest.raises(SettingsError, match=rf"adapter\.variant: .*{reason}"):
        make_recipe(f"adapter.variant={variant}")


def test_variants_are_read_as_papers_write_them(make_recipe):
    for name in ("rsLoRA", "DoRA", "LoRA"):
        recipe, _ = make_recipe(f"adapter.variant={name}")
        assert recipe.adapter.variant == name.lower()
