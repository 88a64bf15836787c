"""What the README promises exists."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from textlora.cli.main import app
from textlora.settings import load_recipe

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_link_leads_to_a_file():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (ROOT / target).exists(), target


def test_every_command_exists():
    known = {command.name or command.callback.__name__ for command in app.registered_commands}
    for line in re.findall(r"\.venv/bin/textlora (\w+)", README):
        assert line in known, line
    for script in re.findall(r"python (src/\w+\.py)", README):
        assert (ROOT / script).exists()
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make (\w+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("flags", re.findall(r"--set (?:'[^']+'|\S+)", README))
def test_every_setting_shown_is_understood(flags):
    _, assignment = shlex.split(flags.strip("`|. "))
    # The separator is shown where sets of labels are.
    load_recipe("reference", ["data.multi_label=true", assignment.strip("`")])


def test_figures_are_those_of_the_committed_results():
    for case in ("demo", "reference"):
        path = ROOT / "benchmarks" / "results" / f"accuracy_{case}.json"
        scores = json.loads(path.read_text())["ag_news_test"]["scores"]
        interval = scores["accuracy_interval"]
        low, high = 100 * interval["low"], 100 * interval["high"]
        assert f"{100 * scores['accuracy']:.2f} % ({low:.2f} to {high:.2f})" in README


def test_speeds_are_those_of_the_committed_results():
    path = ROOT / "benchmarks" / "results" / "train_vs_peers.json"
    cases = json.loads(path.read_text())
    names = ("minilm, query and value of all layers", "mpnet-base, reference adapter",
             "roberta-base, reference adapter")  # fmt: skip
    rows = {
        "textlora": "textlora",
        "Hugging Face Trainer + PEFT": "Trainer fp32",
        "the same at its best": "Trainer bf16 base, eager attention",
        "and without": "Trainer bf16 base, eager attention, no encoder dropout",
        "padded to 512": "reference system (pad to 512, fp32)",
    }
    for start, contender in rows.items():
        speeds = [cases[name]["contenders"][contender]["texts_per_s"] for name in names]
        line = next(line for line in README.splitlines() if line.startswith(f"| {start}"))
        assert line.endswith("".join(f" {speed:.1f} |" for speed in speeds)), start


def test_kills_are_those_of_the_committed_results():
    path = ROOT / "benchmarks" / "results" / "kill_training.json"
    found = json.loads(path.read_text())["found"]
    ours, peer = found["textlora"], found["Trainer"]
    assert f"killed {ours['kills']} times (SIGKILL, {ours['kills while saving']} of" in README
    assert ours["torn checkpoints"] == ours["times steps were lost"] == ours["other bits"] == 0
    assert f"after {peer['failed starts']} of {peer['kills']} kills" in README


def test_prediction_speeds_are_those_of_the_committed_results():
    cases = json.loads((ROOT / "benchmarks" / "results" / "predict_vs_peers.json").read_text())
    rows = {
        "textlora `--backend openvino-int8`": "openvino-int8",
        "textlora `--backend openvino`": "openvino",
        "textlora (torch)": "torch",
        "OpenVINO int8 by hand": "OpenVINO int8 (NNCF), sorted",
        "OpenVINO bf16 by hand": "OpenVINO bf16, sorted",
        "ONNX Runtime dynamic int8": "ONNX Runtime dynamic int8, sorted, batches of 32",
        "ONNX Runtime float32": "ONNX Runtime fp32, sorted, batches of 32",
        "PEFT, not merged, bf16": "PEFT not merged, sorted, batches of 32, bf16",
        "`pipeline`, bf16": "pipeline, sorted, batches of 32, bf16",
        "`pipeline`, float32": "pipeline, sorted, batches of 32, fp32",
        "`pipeline` as documented": "pipeline as documented",
    }
    for start, contender in rows.items():
        names = [f"{name}, 7,600 texts" for name in ("minilm", "mpnet-base", "roberta-base")]
        speeds = [
            max(
                row["texts_per_s"]  # the better of two ways to cut batches
                for key, row in cases[name]["contenders"].items()
                if key == contender or key.startswith(f"{contender}, batches")
            )
            for name in names
        ]
        line = next(line for line in README.splitlines() if line.startswith(f"| {start}"))
        assert line.endswith("".join(f" {speed:.1f} |" for speed in speeds)), start


def test_the_plan_for_a_billion_texts_is_computed_from_the_committed_results():
    command = [sys.executable, ROOT / "benchmarks" / "scale.py", "--plan"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    document = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    assert len(lines) > 10
    for line in lines:
        assert line in document


@pytest.mark.parametrize(
    ("encoder", "name"), [("minilm", "MiniLM"), ("mpnet-base", "MPNet-base")]
)  # fmt: skip
def test_what_the_recipes_reach_is_in_the_committed_results(encoder, name):
    path = ROOT / "benchmarks" / "results" / f"budget_recipes_{encoder}.json"
    found = json.loads(path.read_text())
    for recipe, row in found["table"].items():
        shown = f"`{recipe}`" if recipe in found["runs"] else recipe
        line = next(line for line in README.splitlines() if line.startswith(f"| {name}, {shown} |"))
        interval = [100 * row["interval"][end] for end in ("low", "high")]
        accuracy = 100 * row["accuracy_first_seed"]
        assert f"| {accuracy:.2f} % ({interval[0]:.2f} to {interval[1]:.2f}) |" in line
        if recipe in found["runs"]:
            run = found["runs"][recipe][0]
            assert f"| {run['trainable_parameters']:,} |" in line
            assert run["trainable_parameters"] < 1_000_000
