"""Plain attention or torch's own kernel: milliseconds by length and number format.

    python benchmarks/attention_kernels.py

Heads and head sizes are those of RoBERTa-base. Both are run in turns; medians. Writes
benchmarks/results/attention_kernels.json.
"""

import json
import statistics
import time
from dataclasses import asdict
from pathlib import Path
from unittest.mock import patch

import torch
from torch import nn

from textlora.model import attention
from textlora.system.runtime import describe_environment

OUT = Path(__file__).parent / "results" / "attention_kernels.json"
HEADS, SIZE = 12, 64
SHAPES = ((16, 32), (16, 64), (8, 128), (4, 256), (1, 512))  # texts, tokens
KERNELS = {"plain": False, "torch's own": True}


def measure(texts: int, tokens: int, dtype: torch.dtype, repeats: int = 15) -> dict[str, float]:
    """Milliseconds of forward and backward of each kernel."""
    found: dict[str, list[float]] = {name: [] for name in KERNELS}
    parts = [torch.randn(texts, HEADS, tokens, SIZE, dtype=dtype) for _ in range(3)]
    dropout = nn.Dropout(0.0)
    for _ in range(repeats + 3):
        for name, fused in KERNELS.items():
            query, key, value = (part.clone().requires_grad_() for part in parts)
            with patch.object(attention, "_is_fused", lambda device, fused=fused: fused):
                begin = time.perf_counter()
                result = attention.attend(
                    query, key, value, scale=SIZE**-0.5, bias=None, dropout=dropout
                )
                result.backward(torch.ones_like(result))
                found[name].append(1000 * (time.perf_counter() - begin))
    return {name: round(statistics.median(values[3:]), 2) for name, values in found.items()}


def main() -> None:
    """Measure all shapes in both formats."""
    found = {}
    for dtype in (torch.bfloat16, torch.float32):
        for texts, tokens in SHAPES:
            name = f"{str(dtype).removeprefix('torch.')}, {texts} x {tokens}"
            found[name] = measure(texts, tokens, dtype)
            print(name, found[name], flush=True)
    values = {
        "milliseconds": found,
        "command": "python benchmarks/attention_kernels.py",
        "environment": asdict(describe_environment()),
    }
    OUT.write_text(json.dumps(values, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
