"""Real SIGKILLs of a real training process; benchmarks/kill_training.py has two hundred of them."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kill_training.py"


def test_twenty_kills_lose_nothing_and_change_no_bit(tmp_path, tiny_bert):
    out = tmp_path / "found.json"
    words = [sys.executable, SCRIPT, "--kills", "20", "--seed", "7"]
    words += ["--model", tiny_bert, "--out", out]
    process = subprocess.run(words, capture_output=True, text=True, check=False, timeout=900)
    assert process.returncode == 0, process.stdout + process.stderr
    found = json.loads(out.read_text())["found"]["textlora"]
    assert found["kills"] == 20
    assert found["finished runs"] > 2
    for never in ("torn checkpoints", "broken classifiers", "times steps were lost",
                  "failed starts", "other bits"):  # fmt: skip
        assert found[never] == 0, (never, process.stdout)
