"""The import rules of the package, read off its source and the table of its layers."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "textlora"
ARCHITECTURE = Path(__file__).parents[1] / "docs" / "architecture.md"

# Where each heavy library may be used.
FENCES = {
    "transformers": {"encoder", "attention", "callbacks", "heads"},
    "peft": {"adapters", "projection", "engine", "rundir", "loadedrun", "learner"},
    "datasets": {"sources"},
    "matplotlib": {"plots"},
    "sklearn": {
        "metrics",
        "setmetrics",
        "examples",
        "classifier",
        "baselines",
        "leaks",
        "evaluation",
        "audit",
    },
    "scipy": {"calibration", "significance", "leaks", "tasks"},
    "pyarrow": {"tables", "textstream", "rowencoder", "rayengine"},
    "typer": {
        "cli",
        "options",
        "traincommands",
        "datacommands",
        "scorecommands",
        "predictcommands",
    },
    "rich": {"progress", "console", "plantables", "datatables", "scoretables"},
    "pydantic": {"settings", "evaluation", "seeds", "provenance"},
    "subprocess": {"verify"},
    "ray": {"rayengine"},
    "openvino": {"openvinobackend"},
    "nncf": {"openvinobackend"},
    "captum": {"explanation"},
    "jinja2": {"report"},
    "cleanlab": {"audit"},
    "accelerate": {"tracking"},
    "mlflow": {"tracking"},
    "optuna": {"study", "studystore"},
    "sqlalchemy": {"study"},
    "ftfy": {"datacheck", "datafix"},
}
# Loading code or data that can run code has no place anywhere.
FORBIDDEN = {"pickle", "joblib", "dill", "marshal", "shelve"}
# The layer of each module, as the table of the documentation has it.
ROW = re.compile(r"^\| (\d+) \| ([\w, ]+) \|", re.MULTILINE)
LEVEL = {
    name: int(layer)
    for layer, names in ROW.findall(ARCHITECTURE.read_text(encoding="utf-8"))
    for name in names.split(", ")
} | {"__init__": 100, "__main__": 100}
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py"))


def imports_of(module: str, *, at_start_only: bool = False) -> set[str]:
    """Dotted names that a module imports; those under TYPE_CHECKING do not run."""
    tree = ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    found = set()
    for node in tree.body if at_start_only else ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            names = {f"textlora.{alias.name}" for alias in node.names}
            found.update(names if base == "textlora" else {base})
    return found


def test_every_module_has_a_layer():
    assert set(MODULES) == set(LEVEL)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module):
    ours = {name.split(".")[1] for name in imports_of(module) if name.startswith("textlora.")}
    wrong = {name for name in ours & set(LEVEL) if LEVEL[name] >= LEVEL[module]}
    assert not wrong, f"{module} may not import {sorted(wrong)}"


@pytest.mark.parametrize("library", FENCES)
def test_a_heavy_library_stays_in_its_modules(library):
    users = {m for m in MODULES if library in {name.split(".")[0] for name in imports_of(m)}}
    assert users <= FENCES[library]


def test_nothing_unpickles_and_nothing_evaluates():
    for module in MODULES:
        roots = {name.split(".")[0] for name in imports_of(module)}
        assert not roots & FORBIDDEN, module
        tree = ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))
        calls = {ast.unparse(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)}
        assert not calls & {"eval", "exec", "torch.load", "yaml.load"}, module


def test_the_command_line_imports_nothing_heavy_at_start():
    heavy = {"torch", "transformers", "peft", "numpy", "sklearn", "matplotlib", "datasets"}
    seen, waiting = set(), ["cli"]
    while waiting:
        module = waiting.pop()
        seen.add(module)
        names = imports_of(module, at_start_only=True)
        assert not heavy & {name.split(".")[0] for name in names}, module
        waiting += [
            name.split(".")[1]
            for name in names
            if name.startswith("textlora.") and name.split(".")[1] in set(MODULES) - seen
        ]
