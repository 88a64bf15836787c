"""The site is built without a warning, asks nobody for anything, and shows every public name."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from docpages import ROOT

import textlora

ENVIRONMENT = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}


def build(project: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--config-file", project / "mkdocs.yml"]
    return subprocess.run(
        [*command, "--site-dir", site], capture_output=True, text=True, env=ENVIRONMENT, check=False
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_no_page_fetches_anything_from_elsewhere(site):
    for page in site.rglob("*.html"):
        text = page.read_text("utf-8")
        assert not re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=\"?https?://", text), (
            page
        )


def test_every_public_name_is_in_the_reference(site):
    page = (site / "reference" / "python.html").read_text("utf-8")
    for name in (*textlora.__all__, "callbacks.DropoutScheduler", "callbacks.MetricsTracker"):
        assert f'id="textlora.{name}"' in page, name


def test_result_files_that_pages_link_to_are_part_of_the_site(site):
    linked = re.findall(r'href="([^"]+\.json)"', (site / "guides" / "data.html").read_text("utf-8"))
    assert linked
    assert all((site / "guides" / target).resolve().is_file() for target in linked)


@pytest.mark.parametrize(
    "link",
    [
        "missing.md",
        "guides/data.md#missing",
        "../benchmarks/results/missing.json",
        "images/missing.png",
    ],
)
def test_a_broken_link_is_an_error(link, tmp_path):
    project = tmp_path / "project"
    shutil.copytree(ROOT / "docs", project / "docs")
    for name in ("src", "benchmarks", "mkdocs.yml"):
        (project / name).symlink_to(ROOT / name)
    with (project / "docs" / "index.md").open("a", encoding="utf-8") as page:
        page.write(f"\n[a link that leads nowhere]({link})\n")
    done = build(project, tmp_path / "site")
    assert done.returncode != 0
    assert f"WARNING -  Doc file 'index.md' contains a link '{link}'" in done.stderr
    assert done.stderr.count("WARNING") == 1
