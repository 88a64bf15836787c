"""Plain attention or torch's own kernel: milliseconds by length and number format.

    python benchmarks/attention_kernels.py [--repeats 15] [--out FILE]

Heads and head sizes are those of RoBERTa-base. Both are run in turns; medians. Writes
benchmarks/results/attention_kernels.json.
"""

import argparse
import json
import statistics
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from textlora.model.attention import attend
from textlora.system.runtime import describe_environment

OUT = Path(__file__).parent / "results" / "attention_kernels.json"
HEADS, SIZE = 12, 64
SHAPES = ((16, 32), (16, 64), (8, 128), (4, 256), (1, 512))  # texts, tokens


def attend_by_torch(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scale: float,
    bias: Tensor | None = None,
    dropout: Any = None,
) -> Tensor:
    """What `attend` computes, by torch's kernel on every device. Shapes: those of `attend`."""
    dropped = dropout.p if dropout is not None and dropout.training else 0.0
    result = scaled_dot_product_attention(query, key, value, bias, dropped, scale=scale)
    return result.transpose(1, 2).contiguous().transpose(1, 2)


KERNELS = {"plain": attend, "torch's own": attend_by_torch}  # on a CPU `attend` is plain


def measure(texts: int, tokens: int, dtype: torch.dtype, repeats: int) -> dict[str, float]:
    """Milliseconds of forward and backward of each kernel."""
    found: dict[str, list[float]] = {name: [] for name in KERNELS}
    parts = [torch.randn(texts, HEADS, tokens, SIZE, dtype=dtype) for _ in range(3)]
    dropout = nn.Dropout(0.0)
    for _ in range(repeats + 3):
        for name, kernel in KERNELS.items():
            query, key, value = (part.clone().requires_grad_() for part in parts)
            begin = time.perf_counter()
            result = kernel(query, key, value, scale=SIZE**-0.5, bias=None, dropout=dropout)
            result.backward(torch.ones_like(result))
            found[name].append(1000 * (time.perf_counter() - begin))
    return {name: round(statistics.median(values[3:]), 2) for name, values in found.items()}


def main() -> None:
    """Measure all shapes in both formats."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    found = {}
    for dtype in (torch.bfloat16, torch.float32):
        for texts, tokens in SHAPES:
            name = f"{str(dtype).removeprefix('torch.')}, {texts} x {tokens}"
            found[name] = measure(texts, tokens, dtype, options.repeats)
            print(name, found[name], flush=True)
    values = {
        "milliseconds": found,
        "command": "python benchmarks/attention_kernels.py",
        "environment": asdict(describe_environment()),
    }
    options.out.write_text(json.dumps(values, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
