"""Make a source tree ready for a package index: absolute links and pictures in its README, and the project's addresses.

    python scripts/absolute_links.py FOLDER ADDRESS TAG

An index shows the README alone, so what it links to must have an address. Where the project will live is known at a
release, not in the tree: scripts/release.sh does this in a copy.
"""

from __future__ import annotations

import sys
from pathlib import Path

from relink import relink

PICTURES = (".jpg", ".jpeg", ".png", ".svg")
BEFORE = "[project.scripts]\n"


def absolute(path: str, address: str, tag: str) -> str:
    """Address of a file of the repository at a tag: of its bytes for pictures, else of the page that shows it."""
    return f"{address}/{'raw' if path.lower().endswith(PICTURES) else 'blob'}/{tag}/{path}"


def with_addresses(project: str, address: str, tag: str) -> str:
    """A pyproject.toml with the addresses of the project.

    Raises:
        ValueError: it has some already, or no [project.scripts].
    """
    if "[project.urls]" in project or project.count(BEFORE) != 1:
        raise ValueError(f"pyproject.toml: expected one {BEFORE.strip()} and no [project.urls]")
    urls = {
        "Source": address,
        "Issues": f"{address}/issues",
        "Documentation": f"{address}/tree/{tag}/docs",
        "Changelog": absolute("CHANGELOG.md", address, tag),
    }
    lines = "".join(f'{name} = "{url}"\n' for name, url in urls.items())
    return project.replace(BEFORE, f"[project.urls]\n{lines}\n{BEFORE}")


def main(folder: str, address: str, tag: str) -> None:
    """Rewrites both files in place."""
    readme, project = Path(folder) / "README.md", Path(folder) / "pyproject.toml"
    readme.write_text(relink(readme.read_text(), "README.md", lambda path: absolute(path, address, tag)))
    project.write_text(with_addresses(project.read_text(), address, tag))


if __name__ == "__main__":
    main(*sys.argv[1:])
