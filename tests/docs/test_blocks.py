"""Every shell and Python block of README and guides does what the page says, page by page in order.

A block runs in a folder that holds what the page takes for granted: the project, the files of the
reader's own (made from the embedded headlines), and the runs that earlier pages have trained.
"""

import csv
import gzip
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path

import pytest
from docpages import PAGES, ROOT, Block, list_blocks
from filelock import FileLock
from forkedcommands import write_programs

MAX_SHARE_NOT_RUN = 0.1
REASONS = ("needs the Hub", "needs an account", "needs a cluster", "installs")
# A line that holds one of these is left out: what it installs is there (requirements-dev.txt).
LEFT_OUT = (".venv/bin/pip install ",)
# The same with less work.
LIGHTER = {"--seeds 3": "--seeds 2", "--trials 20": "--trials 2 --set training.epochs=1"}
TIMEOUT_S = 500  # on a busy machine
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "120"}


def test_every_block_names_its_language():
    for page in PAGES:
        text = (ROOT / page).read_text("utf-8")
        blocks = list_blocks(page)
        assert all(block.language for block in blocks), page
        assert text.count("\n```") == 2 * len(blocks), f"{page}: a fence that is not a block"
        assert text.count("<!-- not run") == sum(block.reason is not None for block in blocks), page
        assert "\n\n    " not in text, f"{page}: an indented block, which nobody runs"


def test_at_most_a_tenth_of_the_blocks_is_not_run():
    blocks = [block for page in PAGES for block in list_blocks(page) if block.is_typed]
    left_out = [block for block in blocks if block.reason]
    assert all(block.reason in REASONS for block in left_out)
    assert len(left_out) <= MAX_SHARE_NOT_RUN * len(blocks), f"{len(left_out)} of {len(blocks)}"


def test_every_guide_starts_with_a_block_that_runs():
    for page in PAGES:
        if page.startswith("docs/guides/"):
            (_, sentence, *_), block = (
                (ROOT / page).read_text("utf-8").split("\n\n"),
                list_blocks(page)[0],
            )
            assert block.is_typed, page
            assert block.reason is None, page
            assert block.line <= 4 + sentence.count("\n") + 3, page


def test_the_first_page_of_the_site_shows_commands_of_the_readme():
    known = [block.code for block in list_blocks("README.md")]
    assert all(block.code in known for block in list_blocks("docs/index.md"))


def test_what_is_made_lighter_is_on_a_page():
    code = "".join(block.code for page in PAGES for block in list_blocks(page))
    assert all(words in code for words in (*LEFT_OUT, *LIGHTER))


@pytest.fixture(scope="session")
def programs(tmp_path_factory):
    """A folder with `textlora` and `python`, which answer at once."""
    cache = tmp_path_factory.mktemp("cache")
    with tempfile.TemporaryDirectory() as short:  # the address of a socket has 100 characters
        address = f"{short}/socket"
        with subprocess.Popen(
            [sys.executable, Path(__file__).with_name("forkedcommands.py"), address],
            stdout=subprocess.PIPE,
            env={**os.environ, **ENVIRONMENT, "TEXTLORA_CACHE": str(cache)},
            start_new_session=True,
        ) as server:
            assert server.stdout.readline() == b"ready\n"
            write_programs(Path(short) / "bin", address)
            yield Path(short) / "bin"
            os.killpg(server.pid, signal.SIGKILL)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory, programs):
    """What the reader has, made once for all processes that test."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "what-the-reader-has"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            staged = folder.with_suffix(".partial")
            _prepare(staged, programs)
            staged.rename(folder)
    return folder


@pytest.fixture
def run_page(prepared, programs, tmp_path, monkeypatch):
    """Run the blocks of a page in order, in a folder of its own."""

    def run(page: str) -> None:
        folder = tmp_path / "project"
        shutil.copytree(prepared, folder, symlinks=True)
        (folder / ".venv").mkdir()
        (folder / ".venv" / "bin").symlink_to(programs)
        monkeypatch.chdir(folder)
        names: dict[str, object] = {}  # Python blocks go on where the one before has ended
        blocks = [block for block in list_blocks(page) if block.reason is None]
        if any("--out runs/tickets" in block.code for block in blocks):
            shutil.rmtree(folder / "runs" / "tickets")  # the page itself trains it
        for block in blocks:
            if block.language == "bash":
                _run_shell(block, folder)
            elif block.language == "python":
                exec(compile(block.code, f"{page} from line {block.line}", "exec"), names)

    return run


# Two classes, so that two processes share the work (--dist loadscope).
FIRST = ("README.md", "budget-and-recipes", "several-labels", "python")


def _choose(is_first: bool) -> list[str]:
    return [
        page
        for page in PAGES
        if (page.endswith(tuple(FIRST)) or Path(page).stem in FIRST) is is_first
    ]


@pytest.mark.slow
class TestPagesThatTrain:
    @pytest.mark.parametrize("page", _choose(True))
    def test_every_block_runs(self, run_page, page):
        run_page(page)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:'pin_memory' argument")  # the Trainer's own, without a GPU
class TestOtherPages:
    @pytest.mark.parametrize("page", _choose(False))
    def test_every_block_runs(self, run_page, page):
        run_page(page)


def _run_shell(block: Block, folder: Path) -> None:
    lines = [line for line in block.code.splitlines() if not any(part in line for part in LEFT_OUT)]
    code = "\n".join(lines)
    for words, fewer in LIGHTER.items():
        code = code.replace(words, fewer)
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", code],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
        env={**os.environ, **ENVIRONMENT},
        check=False,
    )
    place = f"{block.page}:{block.line}"
    assert done.returncode == 0, f"{place}: exit code {done.returncode}\n{code}\n\n{done.stdout}"


def _prepare(folder: Path, programs: Path) -> None:
    folder.mkdir()
    for name in ("src", "notebooks", "benchmarks"):
        (folder / name).symlink_to(ROOT / name)
    _write_files(folder)
    quick = "train --recipe quickstart --set training.epochs=2"
    for words in (
        f"{quick} --set data.max_train_rows=120 --out runs/demo",
        f"{quick} --data tickets.csv --out runs/tickets",
    ):
        subprocess.run(
            [programs / "textlora", *words.split()], cwd=folder, check=True, capture_output=True
        )
    shutil.copy(folder / "new.csv", folder / "runs" / "demo" / "example_input.csv")
    for name in ("a", "b"):
        shutil.copytree(folder / "runs" / "demo", folder / "runs" / name)


def _write_files(folder: Path) -> None:
    """The reader's own files: short texts, so that training takes seconds."""
    sample = next(Path(str(resources.files("textlora"))).rglob("headlines/train.csv"))
    with sample.open(encoding="utf-8", newline="") as stream:
        rows = [(row["text"][:60], row["label"]) for row in csv.DictReader(stream)]
    tickets, others = rows[:100], rows[100:130]
    tickets += [
        (tickets[0][0], "World"),
        ("The coachâ€™s team wins again", "Sports"),
    ]  # to be mended
    _write_csv(folder / "tickets.csv", ("text", "label"), tickets)
    _write_csv(folder / "other.csv", ("text", "label"), others)
    _write_csv(folder / "new.csv", ("text",), [(text,) for text, _ in others])
    sets = [(text, f"{label};long" if len(text) > 59 else label) for text, label in tickets[:100]]
    _write_csv(
        folder / "tagged.csv", ("text", "labels"), [*sets[:90], *((t, "") for t, _ in sets[90:])]
    )
    (folder / "archive").mkdir()
    for number in (1, 2):
        with gzip.open(folder / "archive" / f"{number}.csv.gz", "wb") as stream:
            stream.write((folder / "new.csv").read_bytes())


def _write_csv(path: Path, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
