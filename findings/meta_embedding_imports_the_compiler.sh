#!/usr/bin/env bash
# Building a model on the meta device is meant to cost nothing: no memory, no numbers. One layer costs as
# much as importing torch itself. nn.Embedding fills its weight with normal_, which on the meta device has no kernel of its own
# and goes through torch's Python reference; that imports torch._dynamo, the compiler, and with it sympy: some 800
# modules. nn.Linear (kaiming_uniform_) and nn.LayerNorm import nothing. Given its weight, nn.Embedding imports
# nothing either: nn.Embedding(n, d, _weight=torch.empty(n, d, device="meta")), and the result is the same.
# Seen with torch 2.13.0 on Python 3.11 (CPU): "linear 0, norm 0, embedding with its weight 0, embedding 1" below, and
# the last takes 1.1 CPU seconds beside 1.2 of `import torch`. Exits with 1 if torch behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "torch==2.13.0" "numpy==2.4.6"
"$folder/venv/bin/python" - <<'PYTHON'
import sys
import time

begin = time.process_time()
import torch
from torch import nn

imported = time.process_time() - begin
cases = {
    "linear": lambda: nn.Linear(4, 4, device="meta"),
    "norm": lambda: nn.LayerNorm(4, device="meta"),
    "embedding with its weight": lambda: nn.Embedding(
        4, 4, _weight=torch.empty(4, 4, device="meta")
    ),
    "embedding": lambda: nn.Embedding(4, 4, device="meta"),
}
found = {}
for name, make in cases.items():
    begin, modules = time.process_time(), len(sys.modules)
    make()
    found[name] = int("torch._dynamo" in sys.modules)
    took, more = time.process_time() - begin, len(sys.modules) - modules
    print(f"{name:<26} compiler imported: {found[name]}  {more:,} more modules  {took:.2f} CPU s")
print(f"torch {torch.__version__}; import torch took {imported:.2f} CPU s")
expected = {"linear": 0, "norm": 0, "embedding with its weight": 0, "embedding": 1}
sys.exit(found != expected)
PYTHON
