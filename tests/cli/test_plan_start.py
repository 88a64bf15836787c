"""A plan of a known encoder, on a machine that was measured before, starts without torch."""

import json
import os
import subprocess
import sys

import pytest

# Each takes tenths of a second or seconds to import, and such a plan needs none.
HEAVY = ("torch", "transformers", "peft", "sklearn", "scipy", "pyarrow", "datasets")
COMMANDS = [(), ("--recipe", "quickstart"), ("--budget", "1M", "--json")]
CODE = f"""
import json, sys
from textlora.cli.main import main
for words in json.loads(sys.argv[1]):
    try:
        main(["plan", *words])
    except SystemExit as stopped:
        assert not stopped.code, words
print("loaded", [name for name in {HEAVY} if name in sys.modules])
"""


def run(cache, *commands):
    """What plans in a process of their own print, and what heavy modules it has at its end."""
    process = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(commands)], capture_output=True, text=True,
        env={**os.environ, "TEXTLORA_CACHE": str(cache)}, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    shown, _, loaded = process.stdout.rpartition("loaded ")
    return shown, loaded.strip()


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A cache folder with what the commands measure, and what they printed."""
    cache = tmp_path_factory.mktemp("cache")
    shown, loaded = run(cache, *COMMANDS)
    assert "torch" in loaded
    return cache, shown


@pytest.mark.parametrize("words", COMMANDS)
def test_a_second_plan_imports_nothing_heavy_and_says_the_same(measured, words):
    cache, before = measured
    shown, loaded = run(cache, words)
    assert loaded == "[]"
    assert shown
    assert shown in before


def test_a_plan_tells_the_speed_that_was_kept(measured):
    cache, _ = measured
    before = json.loads(run(cache, COMMANDS[-1])[0])["cost"]
    for path in (cache / "speed").glob("speed-*"):
        entry = json.loads(path.read_text())
        for name in ("forward_per_s", "trained_per_s", "adapter_seconds"):
            entry["value"][name] /= 2
        path.write_text(json.dumps(entry))
    after = json.loads(run(cache, COMMANDS[-1])[0])["cost"]
    assert after["seconds"] > 1.3 * before["seconds"]
    assert after["memory_bytes"] == before["memory_bytes"]
