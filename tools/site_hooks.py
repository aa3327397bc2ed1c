"""Hooks of MkDocs: pages that lie outside of docs/, and links that lead out of it.

README.md, CONTRIBUTING.md, SECURITY.md and CHANGELOG.md are pages, too. A link to any other file of the repository,
such as a test, becomes plain text, because the site contains documentation only.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
# Where each Markdown file of the repository is on the site.
OUTSIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security-policy.md",
    "CHANGELOG.md": "changes.md",
}
SOURCES = {page: source for source, page in OUTSIDE.items()}
LINK = re.compile(r"(?<!!)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>[^()\s]+)\)")
IMAGE = re.compile(r"(!\[[^\]]*\]\()docs/")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages outside of docs/."""
    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001  # MkDocs passes it by name
    """Let links lead to pages of the site, or nowhere."""
    place = page.file.src_uri
    directory = "" if place in SOURCES else "docs"
    if place in SOURCES:
        markdown = IMAGE.sub(r"\1", markdown)

    def replaced(found: re.Match[str]) -> str:
        target, hash_mark, anchor = found["target"].partition("#")
        if not target or "://" in target or target.startswith("mailto:"):
            return found[0]
        path = posixpath.normpath(posixpath.join(directory, target))
        local = OUTSIDE.get(path, path[len("docs/") :] if path.startswith("docs/") else "")
        if files.get_file_from_path(local) is None:
            return found["text"]
        return f"[{found['text']}]({local}{hash_mark}{anchor})"

    return LINK.sub(replaced, markdown)
