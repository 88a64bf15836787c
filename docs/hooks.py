"""Links from a page to files outside docs/ lead to copies of them in the site.

So the same link works in the repository, where the Markdown is read, and on the site, which is
whole by itself. Links to what does not exist are left as they are: MkDocs calls them broken.
"""

import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

COPIES = "repository"
_LINK = re.compile(r"(?<=\]\()\.\./[^)#\s]+(?=\))")


def on_page_markdown(
    markdown: str, *, page: Any, config: MkDocsConfig, files: Files, **_: Any
) -> str:
    """Register a copy of each file outside docs/ that is linked, and link to the copy."""
    root, here = Path(config.config_file_path).parent, page.file.src_uri

    def copy(link: re.Match[str]) -> str:
        path = Path(os.path.normpath(Path(page.file.abs_src_path).parent / link[0]))
        if path.is_relative_to(config.docs_dir) or not path.is_file():
            return link[0]
        uri = f"{COPIES}/{path.relative_to(root).as_posix()}"
        if files.get_file_from_path(uri) is None:
            files.append(File.generated(config, uri, abs_src_path=str(path)))
        return posixpath.relpath(uri, posixpath.dirname(here))

    return _LINK.sub(copy, markdown)
