import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from textlora.model.projection import Projection, _AdaptedLinear, _draw_mask, is_supported


def make_layers(rank=2, **changes):
    """Three linear layers over one input, the first and the last with an adapter."""
    torch.manual_seed(0)
    sizes = {"a": 4, "b": 5, "c": 4}
    model = nn.ModuleDict({name: nn.Linear(6, size) for name, size in sizes.items()})
    config = LoraConfig(**{"r": rank, "target_modules": ["a", "c"], "lora_alpha": 6, **changes})
    wrapped = get_peft_model(nn.Sequential(model), config)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    layers = wrapped.base_model.model[0]
    return [layers["a"], layers["b"], layers["c"]]


def test_each_layer_gives_what_pefts_own_gives():
    inputs = torch.randn(7, 6)
    for layer in make_layers():
        assert torch.allclose(Projection(layer)(inputs), layer(inputs), atol=1e-6)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradients_are_those_of_the_function(dropout):
    def apply(inputs, a, b):
        torch.manual_seed(3)  # the same mask each time
        return _AdaptedLinear.apply(inputs, weight, bias, a, b, 1.5, dropout)

    torch.manual_seed(0)
    weight, bias = torch.randn(9, 6, dtype=torch.float64), torch.randn(9, dtype=torch.float64)
    shapes = [(5, 6), (2, 6), (9, 2)]
    tensors = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    assert torch.autograd.gradcheck(apply, tensors)


def test_dropout_keeps_the_mean_and_takes_the_named_share():
    torch.manual_seed(0)
    for probability in (0.05, 0.15, 0.5):
        share = _draw_mask(torch.empty(1001, 333), probability).double().mean().item()
        # Five standard deviations of a mean over 333,333 draws.
        assert share == pytest.approx(probability, abs=5 * (0.25 / 333_333) ** 0.5)
    layer = make_layers(lora_dropout=0.4)[0].train()
    inputs, projection = torch.randn(3, 6), Projection(layer)
    drawn = torch.stack([projection(inputs) for _ in range(4000)])
    layer.eval()
    expected = projection(inputs)
    assert drawn.std(dim=0).min() > 0.01
    assert torch.allclose(drawn.mean(dim=0), expected, atol=0.15)


def test_masks_follow_from_the_seed():
    torch.manual_seed(5)
    first = _draw_mask(torch.empty(9, 7), 0.5)
    second = _draw_mask(torch.empty(9, 7), 0.5)
    torch.manual_seed(5)
    assert torch.equal(_draw_mask(torch.empty(9, 7), 0.5), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("changes", "supported"),
    [({}, True), ({"use_rslora": True}, True), ({"use_dora": True}, False),
     ({"lora_bias": True}, False)],
)  # fmt: skip
def test_only_what_is_computed_alike_is_taken(changes, supported):
    layer = make_layers(**changes)[0]
    assert is_supported(layer) is supported
    if supported:
        inputs = torch.randn(3, 6)
        assert torch.allclose(Projection(layer)(inputs), layer(inputs), atol=1e-6)
        layer.merge()
        assert not is_supported(layer)
