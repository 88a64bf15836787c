"""README and guides as their reader sees them: pages, and blocks to be typed."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (  # whose blocks are run
    "README.md",
    *sorted(f"{path.relative_to(ROOT)}" for path in (ROOT / "docs" / "guides").glob("*.md")),
)
DOCUMENTS = (  # all pages that somebody reads
    "README.md",
    *sorted(f"{path.relative_to(ROOT)}" for path in (ROOT / "docs").rglob("*.md")),
)
_FENCE = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^\n]+) -->\n)?```(?P<language>\w*)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block; `reason` says why it is not run, if it is not."""

    page: str
    line: int
    language: str
    code: str
    reason: str | None

    @property
    def is_typed(self) -> bool:
        """Whether the reader is to run it, rather than to look at it."""
        return self.language in ("bash", "python")


def read_page(page: str) -> str:
    """The text of a page, named by its path in the repository."""
    return (ROOT / page).read_text(encoding="utf-8")


def list_blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = read_page(page)
    return [
        Block(
            page,
            text.count("\n", 0, found.start("code")) + 1,
            found["language"],
            found["code"],
            found["reason"],
        )
        for found in _FENCE.finditer(text)
    ]
