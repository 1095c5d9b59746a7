"""Hooks of the documentation site (mkdocs.yml): pages from outside docs/, and links between pages.

Files link to each other by their paths in the repository, so that they also work where the
repository is browsed. On the site the README is the start page, and a file that is no page of the
site is named without a link.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "data/README.md": "data.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
SOURCES = {page: source for source, page in PAGES.items()}
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are outside docs/."""
    from mkdocs.structure.files import File

    for source, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links of the page, as the site has them."""
    return linked(markdown, page.file.src_uri)


def linked(markdown: str, page: str) -> str:
    """`markdown` of the site's `page`, with links by repository path turned into the site's."""
    source = PurePosixPath(SOURCES.get(page, f"docs/{page}"))

    def link(match: re.Match[str]) -> str:
        image, text, target, anchor = match.groups()
        if re.match(r"[a-z]+:", target):
            return match[0]
        path = os.path.normpath(source.parent / target).replace(os.sep, "/")
        if path in PAGES:
            path = PAGES[path]
        elif path.startswith("docs/"):
            path = path.removeprefix("docs/")
        else:  # in the repository, but not on the site
            return text if text.startswith("`") else f"{text} (`{path}`)"
        return f"{image}[{text}]({path}{anchor or ''})"

    return LINK.sub(link, markdown)
