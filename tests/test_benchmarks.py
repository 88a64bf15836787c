"""Every script under benchmarks/ runs at a small size, and writes what the committed result has."""

import ast
import csv
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from textlora.data.labelled_texts import load_labelled_texts
from textlora.settings import DataSettings

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
PATHS = sorted(BENCHMARKS.glob("*.py"))
SCRIPTS = [path.stem for path in PATHS if '__name__ == "__main__"' in path.read_text("utf-8")]
ELSEWHERE = {"kill_training": "training/test_kills.py"}
NOTED = ("note", "environment_of_seed_", "first_rule")  # by hand, beside what a script wrote
ONE_EPOCH = ("--set", "training.epochs=1")


def read_private_names(path: Path) -> list[str]:
    """Names with a leading underscore of anything but `self` and `os`, and of what is imported.

    Also as a text, which is how `patch.object` names what it replaces.
    """
    tree = ast.parse(path.read_text("utf-8"))
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    found = []
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else ""
            names = [] if owner in ("self", "os") else [node.attr]
        elif isinstance(node, ast.ImportFrom):
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = [node.value] if node.value.isidentifier() else []
        found += [f"{name}, line {node.lineno}" for name in names if is_private(name, own)]
    return found


def is_private(name: str, own: set[str]) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in own


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_script_uses_public_names_alone(path):
    assert read_private_names(path) == []


def test_a_private_name_is_found_wherever_it_stands(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(
        "from textlora.training import loop\n"
        "from textlora.model.batching import _round_up\n"
        "import os\n"
        "class Own:\n"
        "    def _part(self): return self._part()\n"
        "loop._take(patch.object(loop, '_Keeper'), Own()._part(), os._exit, __name__)\n"
    )
    assert [name.split(",")[0] for name in read_private_names(path)] == [
        "_round_up", "_take", "_Keeper",
    ]  # fmt: skip


def test_every_script_is_run_by_a_test():
    tested = {
        word.value
        for word in ast.walk(ast.parse(Path(__file__).read_text("utf-8")))
        if isinstance(word, ast.Call) and isinstance(word.func, ast.Name) and word.func.id == "run"
        for word in word.args[:1]
        if isinstance(word, ast.Constant)
    }
    for script, test in ELSEWHERE.items():
        assert f"{script}.py" in (Path(__file__).parent / test).read_text("utf-8")
    assert tested | ELSEWHERE.keys() == set(SCRIPTS)


@pytest.fixture(scope="module")
def news(tmp_path_factory) -> str:
    """The embedded sample as files, as AG News comes: a part to train on and one to test."""
    folder = tmp_path_factory.mktemp("news")
    texts = load_labelled_texts(DataSettings(source="embedded:headlines"))
    for name, part, count in (("train", texts.train, 160), ("test", texts.test, 40)):
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(("text", "label"))
            for text, label_id in zip(part.texts[:count], part.label_ids[:count], strict=True):
                writer.writerow((text, texts.labels[label_id]))
    return str(folder)


def start(script: str, *words: object) -> subprocess.CompletedProcess[str]:
    """The script as it is typed, on one thread."""
    return subprocess.run(
        [sys.executable, BENCHMARKS / f"{script}.py", *map(str, words)],
        capture_output=True, text=True, check=False, cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def run(script: str, out: Path, *words: object) -> dict:
    """What the script writes."""
    done = start(script, *words, "--out", out)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(out.read_text("utf-8"))


def read_result(name: str) -> dict:
    return json.loads((BENCHMARKS / "results" / f"{name}.json").read_text("utf-8"))


def assert_has_fields(found: dict, committed: dict, *within: str) -> None:
    """All fields of the committed result, and of the parts of it that are named."""
    for part in ((), *((name,) for name in within)):
        ours, theirs = found, committed
        for name in part:
            ours, theirs = ours[name], theirs[name]
        missing = {name for name in theirs.keys() - ours.keys() if not name.startswith(NOTED)}
        assert not missing, part


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "result.json"


def test_accuracy(out, news):
    found = run("accuracy", out, "demo", news, *ONE_EPOCH, "--set", "data.max_train_rows=40")
    assert_has_fields(found, read_result("accuracy_demo"), "ag_news_test", "environment")
    assert found["ag_news_test"]["scores"]["num_texts"] == 40


def test_accuracy_choices(out, news):
    words = (news, "--rows", 40, "--epochs", 1, "--seeds", 1, "--question", "tricks")
    found = run("accuracy_choices", out, *words)
    committed = read_result("accuracy_questions_minilm")
    assert_has_fields(found, committed)
    for question, cases in found["cases"].items():
        for case, values in cases.items():
            expected = committed["cases"][question][case]
            assert_has_fields(values, expected)
            assert_has_fields(values["runs"][0], expected["runs"][0])


def test_attention_kernels(out):
    found = run("attention_kernels", out, "--repeats", 1)
    assert_has_fields(found, read_result("attention_kernels"), "milliseconds")


def test_baselines_and_leaks(out, news):
    found = run("baselines_and_leaks", out, news, "--all-rows", 500)
    found["seconds_of_120000"] = found["seconds_of_500"]
    committed = read_result("baselines_and_leaks")
    assert_has_fields(found, committed, "leaks")
    assert_has_fields(found["baselines"][0], committed["baselines"][0])


def test_budget_recipes(out, news):
    words = (news, "--recipe", "frugal", "--seeds", 1, *ONE_EPOCH)
    found = run("budget_recipes", out, *words, "--set", "data.max_train_rows=40")
    committed = read_result("budget_recipes_minilm")
    assert_has_fields(found, committed)
    assert_has_fields(found["runs"]["frugal"][0], committed["runs"]["frugal"][0])
    for name, values in found["table"].items():
        for field in committed["table"][name].keys() - values.keys():
            assert field.startswith("beside ")  # a recipe that was not asked for


def test_check_data(out):
    found = run("check_data", out, 600)
    assert_has_fields(found, read_result("check_data"))
    assert found["found"]


def test_checkpoint_cost(out):
    found = run("checkpoint_cost", out, *ONE_EPOCH, "--set", "data.max_train_rows=40")
    committed, case = read_result("checkpoint_cost"), "quickstart, embedded sample"
    assert_has_fields(found, committed)
    assert_has_fields(found["found"][case], committed["found"][case])
    assert found["found"][case]["saves"] > 0


def test_engine_accuracy(out, news):
    found = run("engine_accuracy", out, news, "--rows", 40, "--epochs", 1, "--seeds", 1, 2)
    committed = read_result("engine_accuracy")
    assert_has_fields(found, committed, "variants")
    for name, values in found["variants"].items():
        assert_has_fields(values, committed["variants"][name])


def test_engine_parts(out):
    found = run("engine_parts", out, "--rounds", 1, "--steps", 1, "--rows", 40)["minilm"]
    parts = ("texts_per_s", "rounds", "gain_of_the_part")
    assert_has_fields(found, read_result("engine_parts")["minilm"], *parts)


def test_first_step(out, news):
    found = run("first_step", out, news, "--rows", 60)
    assert_has_fields(found, read_result("first_step"), "seconds")


def test_int8_variants(out, news):
    if find_spec("nncf") is None or find_spec("openvino") is None:
        assert_asks_for_packages("int8_variants", "--data", news)
        return
    words = ("--data", news, "--rows", 80, "--held", 10, "--used")
    found, committed = run("int8_variants", out, *words), read_result("int8_close_calls")
    assert_has_fields(found, committed)
    for name in committed["variants"].keys() - {"torch.float32"}:
        assert_has_fields(found["variants"][name], committed["variants"][name])


def assert_asks_for_packages(script: str, *words: object) -> None:
    done = start(script, *words)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "run pip install" in done.stderr


def test_label_audit(out, news):
    if find_spec("cleanlab") is None:
        assert_asks_for_packages("label_audit", news)
        return
    committed = read_result("label_audit")
    found = run("label_audit", out, news, "--seeds", 1)
    assert_has_fields(found["searches"][0], committed["searches"][0])
    found = run("label_audit", out, news, "--train", "--rows", 60, "--epochs", 1)
    assert_has_fields(found, committed, "training")


def test_multi_label(out, news):
    words = (news, "--train-rows", 120, "--test-rows", 30, "--epochs", 1)
    committed = read_result("multi_label")
    found = run("multi_label", out, *words)
    assert_has_fields(found, committed, "test", "threshold_rules_on_validation")


def test_plan_cost(out):
    case = "MiniLM, last 2 layers"
    found = run("plan_cost", out, "--rows", 40, "--case", case, "--quiet-clock")[case]
    committed = read_result("plan_cost")[case]
    assert_has_fields(found, committed, "predicted", "measured", "environment")


def test_predict_files(out):
    found = run("predict_files", out, "--sizes", 50, 100, "--texts", 20)
    found["memory"] |= {"50,000 rows": found["memory"]["50 rows"], "1,000,000 rows": {}}
    assert_has_fields(found, read_result("predict_files"), "memory", "rate")
    assert found["memory"]["50 rows"].keys() == found["memory"]["100 rows"].keys()


def test_predict_vs_peers(out, news):
    words = ("--data", news, "--case", "minilm", "--texts", 16, "--rounds", 1, "--train-rows", 40)
    found = run("predict_vs_peers", out, *words, "--contender", "torch")["minilm, 16 texts"]
    committed = read_result("predict_vs_peers")["minilm"]
    assert_has_fields(found, committed)
    for name, values in found["contenders"].items():
        assert_has_fields(values, committed["contenders"][name])
    assert found["ratios"].keys() == {
        "our fastest / tuned fp32 pipeline",
        "our torch / tuned fp32 pipeline",
        "our torch / best pipeline or PEFT",
    }


@pytest.mark.skipif(find_spec("onnxruntime") is not None, reason="needs a machine without ONNX")
def test_peers_that_are_not_installed_are_asked_for():
    assert_asks_for_packages("predict_vs_peers", "--data", "embedded:headlines")


def test_scale(out, news):
    if find_spec("ray") is None:
        assert_asks_for_packages("scale", "--data", news)
        return
    found = run("scale", out, "--data", news, "--rows", 8, 32, 64)
    assert_has_fields(found, read_result("scale"), "local", "ray", "output_bytes_per_row")
    assert found["ray"]["same_bytes"]


def test_start_time(out, tiny_run):
    asked = ("help", "report", "import tokenizers, numpy")
    words = ("--rounds", 1, *(word for name in asked for word in ("--only", name)))
    found = run("start_time", out, *words, "--before", ROOT, "--run", tiny_run)
    assert (*found["commands"], *found["floors"]) == asked
    for row in found["commands"].values():
        assert 0.5 < row["ratio"] < 2  # the same checkout on both sides
        assert row["rounds"].keys() == found["commits"].keys() == {"now", "before"}
    assert all(row["median"] > 0 for row in found["floors"].values())


def test_train_vs_peers(out):
    case, peer = "minilm, query and value of all layers", "Trainer bf16 base, eager attention"
    words = ("--case", case, "--rounds", 1, "--texts", 16, "--peer", peer)
    found = run("train_vs_peers", out, *words)[case]
    committed = read_result("train_vs_peers")[case]
    assert_has_fields(found, committed)
    for name, values in found["contenders"].items():
        assert_has_fields(values, committed["contenders"][name])
    assert found["tuned_peer"] == peer


def test_waiting_threads(out, tiny_run):
    found = run("waiting_threads", out, "--texts", 4, "--rounds", 1, "--run", tiny_run)
    assert found["ratio"].keys() == {"alone", "one core taken"}
    assert len(found["samples"]) == 4
