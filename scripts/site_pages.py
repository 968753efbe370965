"""A hook of mkdocs (see mkdocs.yml): documents that lie beside docs/ become pages, and links lead to pages."""

from __future__ import annotations

import posixpath
from pathlib import Path
from typing import Any

from relink import relink

ROOT = Path(__file__).resolve().parents[1]
# Documents that lie beside docs/, by the page that shows them.
BESIDE = {
    "index.md": "README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "licence.txt": "LICENSE",
    "citation.txt": "CITATION.cff",
}
_PAGE_OF = {document: page for page, document in BESIDE.items()}


def site_path(path: str) -> str:
    """Path on the site of a file of the repository; of one that is not on it, a path that fails a strict build."""
    return _PAGE_OF.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else f"missing/{path}")


def site_text(page: str, text: str) -> str:
    """Text of a page with links as the site needs them.

    Args:
        page: its path on the site.
        text: as the document has it.
    """
    document = BESIDE.get(page, f"docs/{page}")
    return relink(text, document, lambda path: posixpath.relpath(site_path(path), posixpath.dirname(page) or "."))


def on_files(files: Any, config: Any) -> Any:
    """Adds the documents that lie beside docs/; called by mkdocs."""
    from mkdocs.structure.files import File

    for page, document in BESIDE.items():
        files.append(File.generated(config, page, content=(ROOT / document).read_text()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Replaces links; called by mkdocs."""
    return site_text(page.file.src_uri, markdown)
