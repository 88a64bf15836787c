"""What README and guides promise exists, and their figures are those of the committed results."""

import json
import re
import shlex
import subprocess
import sys
from statistics import fmean
from typing import Any

import pytest
import typer
from docpages import DOCUMENTS, PAGES, ROOT, read_page

from textlora.cli.main import app
from textlora.settings import load_recipe

README = read_page("README.md")
RECIPES, PREDICTION, TRAINER, CRASHES = (
    read_page(f"docs/guides/{name}.md")
    for name in ("budget-and-recipes", "predicting-files", "from-hugging-face", "crash-safety")
)
ALL_PAGES = "\n".join(map(read_page, PAGES))


def read_results(name: str) -> Any:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())


def find_line(page: str, start: str) -> str:
    return next(line for line in page.splitlines() if line.startswith(start))


def show_share(share: float, interval: dict[str, float]) -> str:
    low, high = 100 * interval["low"], 100 * interval["high"]
    return f"{100 * share:.2f} % ({low:.2f} to {high:.2f})"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_to_a_file_and_a_heading(document):
    text = re.sub(r"^```.*?^```$", "", read_page(document), flags=re.MULTILINE | re.DOTALL)
    for target, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", text):
        if "://" in target:
            continue
        found = (ROOT / document).parent / target if target else ROOT / document
        assert found.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", found.read_text("utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in headings}
            assert anchor in anchors, f"{target}#{anchor}"


def test_the_readme_is_short_and_names_every_page():
    assert len(README.splitlines()) <= 200
    for document in DOCUMENTS:
        if document not in ("README.md", "docs/index.md", "docs/reference/python.md"):
            assert f"({document})" in README, document


def test_every_command_and_flag_exists():
    group = typer.main.get_command(app)
    flags = {
        name: {flag for each in command.params for flag in (*each.opts, *each.secondary_opts)}
        for name, command in group.commands.items()
    }
    for name, words in re.findall(r"\.venv/bin/textlora +(\w+)((?:\\\n|[^\n])*)", ALL_PAGES):
        assert name in flags, name
        for flag in re.findall(r"(?<= )--[a-z-]+", words.partition("`")[0]):
            assert flag in flags[name], f"{name} {flag}"
    anywhere = {*set().union(*flags.values()), "--debug"}
    for flag in re.findall(r"`(--[a-z-]+)", ALL_PAGES):
        assert flag in anywhere, flag
    for script in re.findall(r"python (src/\w+\.py)", ALL_PAGES):
        assert (ROOT / script).exists()
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`?make ([a-z]+)(?=[` ]+[#`]|`)", ALL_PAGES):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("flags", sorted(set(re.findall(r"--set (?:'[^']+'|[^\s`]+)", ALL_PAGES))))
def test_every_setting_shown_is_understood(flags):
    _, assignment = shlex.split(flags)
    # The separator is shown where sets of labels are.
    load_recipe("reference", ["data.multi_label=true", assignment])


@pytest.mark.parametrize(
    "assignment", re.findall(r"`((?:data|model|adapter|dropout|training)\.\w+=[^`]+)`", ALL_PAGES)
)
def test_every_setting_in_a_table_is_understood(assignment):
    load_recipe("reference", [assignment])


@pytest.mark.parametrize("case", ["demo", "quickstart", "reference"])
def test_accuracies_are_those_of_the_committed_results(case):
    scores = read_results(f"accuracy_{case}")["ag_news_test"]["scores"]
    shown = show_share(scores["accuracy"], scores["accuracy_interval"])
    assert shown in (README if case == "demo" else RECIPES)
    assert case == "reference" or shown in find_line(
        README, {"demo": "| AG News test", "quickstart": "| the same, recipe `quickstart`"}[case]
    )


def test_speeds_are_those_of_the_committed_results():
    cases = read_results("train_vs_peers")
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
        assert find_line(TRAINER, f"| {start}").endswith("".join(f" {x:.1f} |" for x in speeds)), (
            start
        )
    ours, plain, best = (
        cases[names[0]]["contenders"][contender]["texts_per_s"]
        for contender in ("textlora", "Trainer fp32", "Trainer bf16 base, eager attention")
    )
    line = find_line(README, "| Training, MiniLM")
    assert (
        f"| {ours:.1f} | Hugging Face Trainer + PEFT: {plain:.1f}; at its best: {best:.1f} |"
        in line
    )


def test_kills_are_those_of_the_committed_results():
    found = read_results("kill_training")["found"]
    ours, peer = found["textlora"], found["Trainer"]
    assert f"killed {ours['kills']} times (SIGKILL, {ours['kills while saving']} of" in CRASHES
    assert ours["torn checkpoints"] == ours["times steps were lost"] == ours["other bits"] == 0
    assert f"after {peer['failed starts']} of {peer['kills']} kills" in CRASHES
    assert ours["failed starts"] == 0
    shown = f"| 0 of {ours['kills']} | Trainer: {peer['failed starts']} of {peer['kills']} |"
    assert shown in find_line(README, "| Starts that failed")


def test_prediction_speeds_are_those_of_the_committed_results():
    cases = read_results("predict_vs_peers")
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
        line = find_line(PREDICTION, f"| {start}")
        assert line.endswith("".join(f" {speed:.1f} |" for speed in speeds)), start
    ours, documented, best = (
        find_line(PREDICTION, f"| {start}").split(" | ")[1]
        for start in (
            "textlora `--backend openvino` ",
            "`pipeline` as documented",
            "`pipeline`, bf16",
        )
    )
    line = find_line(README, "| Prediction, MiniLM")
    assert f"| {ours} | `pipeline` as documented: {documented}; at its best: {best} |" in line


def test_other_figures_are_those_of_the_committed_results():
    memory = read_results("predict_files")["memory"]
    peaks = {f"{memory[rows]['peak_rss_mb']:,.0f}" for rows in ("50,000 rows", "1,000,000 rows")}
    (peak,) = peaks
    assert f"| {peak} MB, both |" in README
    assert f"[{peak} MB](" in PREDICTION
    data = read_page("docs/guides/data.md")
    assert f"[{read_results('check_data')['seconds']:.0f} seconds](" in data
    searches = read_results("label_audit")["searches"]
    listed, first = (
        100 * fmean(search[name] for search in searches)
        for name in (
            "share of the planted that is flagged",
            "MiniLM, self-confidence: share found in the top 5 %",
        )
    )
    assert f"{listed:.0f} % of them are on the list, and {first:.0f} % are" in data
    scores = read_results("multi_label")["test"]["scores"]
    sets = read_page("docs/guides/several-labels.md")
    assert f"all labels of a text right  {scores['accuracy']:.2%}" in sets
    for row in scores["labels"]:
        shown = (row["total"], row["predicted"], row["correct"], f"{row['precision']:.2%}")
        line = find_line(sets, f" {row['label']} ")
        assert set(map(str, shown)) <= set(line.split())


def test_the_plan_for_a_billion_texts_is_computed_from_the_committed_results():
    command = [sys.executable, ROOT / "benchmarks" / "scale.py", "--plan"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    document = read_page("docs/scale.md")
    assert len(lines) > 10
    for line in lines:
        assert line in document


@pytest.mark.parametrize(
    ("encoder", "name"), [("minilm", "MiniLM"), ("mpnet-base", "MPNet-base")]
)  # fmt: skip
def test_what_the_recipes_reach_is_in_the_committed_results(encoder, name):
    found = read_results(f"budget_recipes_{encoder}")
    for recipe, row in found["table"].items():
        shown = f"`{recipe}`" if recipe in found["runs"] else recipe
        line = find_line(RECIPES, f"| {name}, {shown} |")
        accuracy = show_share(row["accuracy_first_seed"], row["interval"])
        assert f"| {accuracy} |" in line
        if recipe == "best":
            start = {"minilm": "| the same, recipe `best`", "mpnet-base": "| `best` on MPNet-base"}
            assert f"| {accuracy} |" in find_line(README, start[encoder])
        if (encoder, recipe) in (("minilm", "TF-IDF + linear"), ("mpnet-base", "reference")):
            assert f": {accuracy} |" in README
        if recipe in found["runs"]:
            run = found["runs"][recipe][0]
            assert f"| {run['trainable_parameters']:,} |" in line
            assert run["trainable_parameters"] < 1_000_000
