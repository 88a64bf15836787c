"""How fast this machine computes a layer of an encoder's sizes: measured in about a second.

A whole layer and not a matrix product alone: what norms, activations, softmax and dropout take
beside the products differs by width, number format and machine (docs/decisions.md).
"""

import importlib
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, gelu, layer_norm, linear

from textlora.budgeting.machine import LayerSizes, Machine, Speed
from textlora.model import encoder
from textlora.model.attention import attend
from textlora.model.projection import apply_adapted
from textlora.settings import ModelSettings, Precision
from textlora.system.runtime import measure_peak_memory, pick_device, pick_dtype

_BUDGET_S = 0.25  # of each of the four measurements
_MOST, _LEAST = 20, 2  # repeats of each
_STEADY = 1.5  # times as long as the fastest repeat: more, and something else is computed here
# Imported before memory is measured, because training imports them.
_LIBRARIES = ("sklearn.model_selection", "pyarrow.parquet", "textlora.model.adapters")
# What training imports besides. Measured: 53 MB (torch 2.13, Linux).
_MORE_LIBRARIES = 53_000_000


def measure_speed(sizes: LayerSizes, precision: Precision) -> Speed:
    """Measure here, on the device, the threads and in the number format that training takes."""
    device = pick_device()
    dtype = pick_dtype(precision, device)
    layer = _RandomLayer(sizes, device, dtype)
    with torch.random.fork_rng(devices=[]):  # what is drawn here must not change a training
        calls = (
            layer.compute,
            layer.train,
            lambda: layer.project(adapted=True),
            lambda: layer.project(adapted=False),
        )
        taken = [_time(call, device) for call in calls]
    forward, trained, adapted, plain = (statistics.median(seconds) for seconds in taken)
    # To the inputs as many again, and two products for each one of attention.
    trained_per_s = (2 * layer.operations + layer.attention) / trained
    more = (adapted - plain) / (2 * sizes.width * sizes.texts * sizes.length)
    return Speed(
        forward_per_s=layer.operations / forward,
        trained_per_s=trained_per_s,
        adapter_seconds=max(0.0, more - 6 * sizes.rank / trained_per_s),
        is_steady=all(statistics.median(each) < _STEADY * min(each) for each in taken),
    )


def measure_machine(precision: Precision) -> Machine:
    """What this process finds; to be asked before a model is loaded.

    The libraries of training take none of the memory of a GPU.
    """
    for name in _LIBRARIES:
        importlib.import_module(name)
    # transformers imports a family's module when a model of it is first built.
    encoder.build_skeleton(encoder.read_model_config(ModelSettings(), ("a", "b")))
    device = pick_device()
    return Machine(
        device=device.type,
        number_format=str(pick_dtype(precision, device)).removeprefix("torch."),
        num_threads=torch.get_num_threads(),
        library_bytes=measure_peak_memory(device)
        + (_MORE_LIBRARIES if device.type == "cpu" else 0),
    )


class _RandomLayer:
    """One encoder layer as `engine` computes it, with random weights, and a batch for it."""

    def __init__(self, sizes: LayerSizes, device: torch.device, dtype: torch.dtype) -> None:
        random = torch.Generator(device).manual_seed(0)

        def draw(*shape: int) -> Tensor:
            return torch.randn(shape, generator=random, device=device).mul_(0.02).to(dtype)

        width, inner, rank = sizes.width, sizes.inner, sizes.rank
        self._sizes = sizes
        self._square = [draw(width, width) for _ in range(4)]
        self._widen, self._narrow = draw(inner, width), draw(width, inner)
        self._factors = draw(rank, width).requires_grad_(), draw(width, rank).requires_grad_()
        self._hidden = draw(sizes.texts * sizes.length, width)
        self._norm = torch.ones(width, device=device, dtype=dtype)
        rows = sizes.texts * sizes.length
        self.attention = 4.0 * width * rows * sizes.length
        self.operations = 2.0 * rows * (4 * width * width + 2 * width * inner) + self.attention

    def compute(self) -> None:
        """Forward, without gradients."""
        with torch.no_grad():
            self._apply(self._hidden, training=False)

    def train(self) -> None:
        """Forward and back to the input."""
        hidden = self._hidden.requires_grad_()
        found = self._apply(hidden, training=True)
        torch.autograd.grad(found, hidden, self._hidden.detach())

    def project(self, *, adapted: bool) -> None:
        """One square matrix there and back, with an adapter or without."""
        hidden = self._hidden.requires_grad_()
        weight = self._square[0]
        if adapted:
            found = apply_adapted(
                hidden, (weight, None), self._factors, 1.0, self._sizes.adapter_dropout
            )
            torch.autograd.grad(found, (hidden, *self._factors), self._hidden.detach())
        else:
            torch.autograd.grad(linear(hidden, weight), hidden, self._hidden.detach())

    def _apply(self, hidden: Tensor, *, training: bool) -> Tensor:
        sizes, rate = self._sizes, self._sizes.dropout
        query, key, value = (
            linear(hidden, weight).view(sizes.texts, sizes.length, sizes.heads, -1).transpose(1, 2)
            for weight in self._square[:3]
        )
        drop = nn.Dropout(rate).train(training)
        mixed = attend(query, key, value, scale=query.shape[-1] ** -0.5, dropout=drop)
        mixed = linear(mixed.transpose(1, 2).reshape(hidden.shape), self._square[3])
        hidden = self._normalize(dropout(mixed, rate, training) + hidden)
        inner = linear(gelu(linear(hidden, self._widen)), self._narrow)
        return self._normalize(dropout(inner, rate, training) + hidden)

    def _normalize(self, hidden: Tensor) -> Tensor:
        return layer_norm(hidden, hidden.shape[-1:], self._norm, self._norm)


def _time(call: Callable[[], None], device: torch.device) -> list[float]:
    """Seconds of some calls; the first one builds kernels and does not count."""
    call()
    seconds: list[float] = []
    while len(seconds) < _LEAST or (sum(seconds) < _BUDGET_S and len(seconds) < _MOST):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        begin = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - begin)
    return seconds
