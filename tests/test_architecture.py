"""The rooms of the package: what each says of itself, and that the contracts can be broken.

The contracts themselves stand in pyproject.toml and are checked by `make check`.
"""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "textlora"
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text("utf-8")
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
# An import that each contract forbids: where it is written, and what breaks.
PLANTS = {
    "A room imports only from rooms below its own": ("data/cleaning.py", "textlora.model.heads"),
    "No module needs itself, by whatever way": ("data/cleaning.py", "textlora.data.labelled_texts"),
    "Nothing that can run code from a file": ("system/files.py", "pickle"),
    "transformers stays in its place": ("runs/history.py", "transformers"),
    "peft stays in its place": ("runs/history.py", "peft"),
    "torch stays out of plan": ("budgeting/flops.py", "torch"),
    "torch stays out of check": ("data/columns.py", "torch"),
    "torch stays out of report": ("reporting/curves.py", "torch"),
}


def read_sentences(room: str) -> dict[str, str]:
    """The lines of a room's docstring: module -> what it is."""
    text = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text("utf-8"))) or ""
    found = re.findall(r"^    (\w+)  +(.+(?:\n {6,}.+)*)", text, re.MULTILINE)
    return {name: " ".join(sentence.split()) for name, sentence in found}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_lists_its_modules_with_their_own_sentences(room):
    own = {}
    for path in (PACKAGE / room).glob("*.py"):
        text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
        own[path.stem] = " ".join(text.partition("\n\n")[0].split())
    own.pop("__init__")
    assert read_sentences(room) == own


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_holds_its_sentence_and_nothing_else(room):
    assert len(ast.parse((PACKAGE / room / "__init__.py").read_text("utf-8")).body) == 1


@pytest.mark.parametrize("room", ROOMS)
def test_the_page_about_the_architecture_shows_every_room(room):
    sentence = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text("utf-8")))
    assert f"`{room}`" in ARCHITECTURE
    assert (sentence or "").partition("\n")[0] in " ".join(ARCHITECTURE.split())
    assert f">{room}</text>" in (ROOT / "docs" / "images" / "rooms.svg").read_text("utf-8")


@pytest.mark.parametrize("path", re.findall(r"`((?:\w+/)+\w+\.(?:py|md|toml))`", ARCHITECTURE))
def test_every_file_that_the_page_names_is_there(path):
    assert (PACKAGE / path).exists() or (ROOT / path).exists()


def test_tests_have_the_same_rooms():
    rooms = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    assert rooms == {*ROOMS, "docs"}


@pytest.mark.parametrize("module", MODULES)
def test_every_module_says_what_it_is(module):
    assert ast.get_docstring(ast.parse((PACKAGE / module).read_text("utf-8")))


@pytest.mark.parametrize("module", MODULES)
def test_nothing_unpickles_and_nothing_evaluates(module):
    tree = ast.parse((PACKAGE / module).read_text("utf-8"))
    calls = {ast.unparse(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)}
    assert not calls & {"eval", "exec", "torch.load", "yaml.load", "pickle.load", "pickle.loads"}


@pytest.fixture(scope="module")
def broken(tmp_path_factory) -> str:
    """What the linter says about a copy in which each contract is broken once."""
    folder = tmp_path_factory.mktemp("broken")
    shutil.copy(ROOT / "pyproject.toml", folder)
    shutil.copytree(PACKAGE, folder / "textlora")
    for place, imported in PLANTS.values():
        path = folder / "textlora" / place
        path.write_text(f"{path.read_text('utf-8')}\nimport {imported}\n", "utf-8")
    command = [
        sys.executable, "-c",
        "import sys; sys.path.insert(0, '.')\n"
        "from importlinter.cli import lint_imports_command; lint_imports_command(['--no-cache'])",
    ]  # fmt: skip
    process = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert process.returncode == 1, process.stderr
    return process.stdout


@pytest.mark.parametrize("contract", PLANTS)
def test_a_contract_can_be_broken(broken, contract):
    assert f"{contract} BROKEN" in broken
