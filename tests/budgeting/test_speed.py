import math

import torch

from textlora.budgeting.layer_timing import measure_speed
from textlora.budgeting.machine import LayerSizes

TINY = LayerSizes(32, 2, 64, texts=4, length=16, rank=2, dropout=0.1, adapter_dropout=0.1)


def test_a_speed_is_a_positive_number_in_each_format():
    for precision in ("fp32", "bf16"):
        found = measure_speed(TINY, precision)
        assert 1e3 < found.forward_per_s < 1e15
        assert 1e3 < found.trained_per_s < 1e15
        assert math.isfinite(found.adapter_seconds)
        assert found.adapter_seconds >= 0.0


def test_measuring_changes_no_random_number():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    measure_speed(TINY, "fp32")
    assert torch.equal(torch.rand(4), expected)
