"""What a command imports: who checks a table or reads a report does not wait for torch."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from conftest import make_rows, write_csv

HEAVY = {
    "torch", "transformers", "peft", "sklearn", "scipy", "datasets", "accelerate", "matplotlib",
    "pandas",
}  # fmt: skip
RUN = """
import json, sys
from textlora.cli.main import main
try:
    main(sys.argv[2:])
except SystemExit as end:
    code = end.code or 0
with open(sys.argv[1], "w") as stream:
    json.dump([code, sorted({name.partition(".")[0] for name in sys.modules})], stream)
"""


@pytest.fixture
def start(tmp_path):
    """A command in a fresh process: its exit code, and the packages that it has imported."""

    def run(*words, code=0):
        path = tmp_path / "modules.json"
        words = [str(word) for word in words]
        process = subprocess.run(
            [sys.executable, "-c", RUN, path, *words],
            capture_output=True, text=True, check=True, env=dict(os.environ),
        )  # fmt: skip
        found, modules = json.loads(path.read_text())
        assert found == code, process.stderr
        return set(modules)

    return run


def test_help_needs_nothing_heavy(start):
    assert not start("--help") & {*HEAVY, "numpy", "tokenizers", "pyarrow", "huggingface_hub"}


@pytest.mark.parametrize("model", ["embedded:minilm", "tiny"])
@pytest.mark.parametrize("options", [(), ("--json",), ("--fix",)])
def test_a_check_needs_nothing_heavy(start, tmp_path, tiny_bert, model, options):
    data = write_csv(tmp_path / "data.csv", make_rows(30))
    words = ["check", data, "--model", tiny_bert if model == "tiny" else model, *options]
    if "--fix" in options:
        words.append(tmp_path / "fixed")
    assert not start(*words) & {*HEAVY, "pyarrow", "huggingface_hub"}


def test_a_report_needs_nothing_heavy(start, tmp_path, tiny_run):
    found = start("report", tiny_run, "--out", tmp_path / "page.html")
    assert not found & {*HEAVY, "pyarrow", "huggingface_hub", "tokenizers"}


def test_a_doctor_looks_at_the_machine_and_computes_nothing(start):
    assert not start("doctor", "--json") & (HEAVY - {"torch"})


def test_prediction_with_torch_needs_no_library_above_it(start, tmp_path, tiny_run):
    source = write_csv(tmp_path / "texts.csv", make_rows(10))
    found = start("predict", tiny_run, "--input", source, "--output", tmp_path / "out.csv")
    assert "torch" in found
    assert not found & (HEAVY - {"torch"})


@pytest.fixture(scope="module")
def converted_run(tmp_path_factory, tiny_run):
    """A copy of the run with a backend that was converted by another process."""
    pytest.importorskip("openvino")
    run = shutil.copytree(tiny_run, tmp_path_factory.mktemp("converted") / "run")
    source = write_csv(tmp_path_factory.mktemp("input") / "texts.csv", make_rows(5))
    command = [
        sys.executable, "-m", "textlora", "predict", run, "--backend", "openvino",
        "--input", source, "--output", source.with_name("out.csv"),
    ]  # fmt: skip
    subprocess.run(command, capture_output=True, check=True)
    return run


def test_prediction_with_a_converted_backend_needs_no_torch(start, tmp_path, converted_run):
    source = write_csv(tmp_path / "texts.csv", make_rows(10))
    words = ["predict", converted_run, "--backend", "openvino", "--input", source]
    found = start(*words, "--output", tmp_path / "out.csv")
    assert "openvino" in found
    assert not found & {*HEAVY, "pyarrow", "nncf"}


def test_an_evaluation_needs_neither_transformers_nor_peft(start, tiny_run):
    assert not start("evaluate", tiny_run) & {"transformers", "peft", "datasets", "matplotlib"}


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--data", "nowhere.csv"), 3),
        (("--data", "unlabelled.csv"), 3),
        (("--data", "embedded:headlines", "--set", "training.learning_rat=1"), 2),
        (("--data", "labelled.csv", "--model", "nowhere/"), 4),
    ],
)
def test_a_mistake_on_the_command_line_of_train_is_told_before_torch_is_loaded(
    start, tmp_path, monkeypatch, words, code
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "unlabelled.csv").write_text("text\none\ntwo\n")
    write_csv(tmp_path / "labelled.csv", make_rows(30))
    found = start("train", "--recipe", "quickstart", *words, code=code)
    splits = code == 4  # the data are read first, and scikit-learn deals them out
    assert not found & {"torch", "transformers", "peft", *(() if splits else ("sklearn",))}
