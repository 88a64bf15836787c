"""Proof that a saved classifier is the trained one: loaded by a fresh process, its logits compared.

`python -m textlora.runs.verify RUN` reads a JSON list of texts and writes their logits;
`verify_run` starts it and compares.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from textlora.errors import ModelError, TextloraError
from textlora.model.adapters import find_wrapped_modules
from textlora.model.batching import tokenize
from textlora.model.engine import Engine
from textlora.model.number_format import cast_frozen
from textlora.model.torch_backend import compute_logits
from textlora.runs.loaded_run import load_run
from textlora.system.runtime import pick_device, pick_dtype

# The same weights, number format and batches give the same bits; one rounded weight gives 1e-3.
_TOLERANCE = 1e-5
_TIMEOUT_S = 600


def verify_run(
    run: Path, texts: Sequence[str], expected: npt.NDArray[np.float32], where: str = ""
) -> float:
    """Largest difference between `expected` logits and those of the saved run in a new process.

    `where` stands for the run in messages.

    Shapes:  expected (texts, labels).
    Raises:  ModelError if the run does not load or the logits differ.
    """
    where = where or str(run)
    try:
        process = _start_verifier(run, texts)
    except subprocess.TimeoutExpired:
        raise ModelError(
            f"{where}: loading it again took more than {_TIMEOUT_S} s; run the same command again"
        ) from None
    if process.returncode:
        reason = (process.stderr.strip() or "no message").splitlines()[-1]
        raise ModelError(
            f"{where}: the saved classifier does not load again ({reason}); report this"
        )
    found = np.array(json.loads(process.stdout), dtype=np.float32)
    difference = float(np.abs(found - expected).max()) if found.shape == expected.shape else np.inf
    if not difference <= _TOLERANCE:
        raise ModelError(
            f"{where}: the saved classifier answers differently from the trained one "
            f"(logits differ by {difference:.3g}, allowed {_TOLERANCE}); report this"
        )
    return difference


def _start_verifier(run: Path, texts: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        # -P: not the user's modules
        [sys.executable, "-P", "-m", "textlora.runs.verify", str(run)],
        input=json.dumps(list(texts)),
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )


def compute_saved_logits(run: Path, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Logits (texts, labels) of a saved run, not merged, in the number format of its training."""
    loaded = load_run(run)
    device = pick_device()
    dtype = pick_dtype(loaded.recipe.training.precision, device)
    cast_frozen(loaded.model, find_wrapped_modules(loaded.model), dtype)
    loaded.model.to(device)
    tokens = tokenize(loaded.tokenizer, texts, loaded.manifest.max_length)
    return compute_logits(Engine(loaded.model, loaded.tokenizer.pad_token_id), tokens)


def main() -> None:
    """Read texts from stdin, write logits to stdout."""
    try:
        logits = compute_saved_logits(Path(sys.argv[1]), json.load(sys.stdin))
    except TextloraError as error:
        sys.exit(str(error))
    json.dump(logits.tolist(), sys.stdout)


if __name__ == "__main__":
    main()
