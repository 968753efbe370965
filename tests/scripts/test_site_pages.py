"""Links of documents on the site and on a package index lead to what they led to in the repository."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from absolute_links import main, with_addresses
from relink import relink
from site_pages import BESIDE, site_text

ROOT = Path(__file__).parents[2]
ADDRESS = "https://example.org/us/pics"


def test_links_but_not_code_or_addresses() -> None:
    text = 'a [b](c.md#d) ![e](f/g.png) [h](#i) [j](https://k.org/l) <img src="m.jpg">\n```\n[n](o)\n```\n'
    text += "[![p](q.png)](r.md)"
    wanted = 'a [b](/x/c.md#d) ![e](/x/f/g.png) [h](#i) [j](https://k.org/l) <img src="/x/m.jpg">\n```\n[n](o)\n```\n'
    assert relink(text, "x/y.md", lambda path: f"/{path}") == f"{wanted}[![p](/x/q.png)](/x/r.md)"
    assert relink("[a](../b.md)", "x/y.md", str.upper) == "[a](B.MD)"


@pytest.mark.parametrize("page", [*BESIDE, *sorted(path.name for path in (ROOT / "docs").glob("*.md"))])
def test_every_link_of_the_site_has_a_page(page: str) -> None:
    document = ROOT / BESIDE.get(page, f"docs/{page}")
    text = site_text(page, document.read_text())
    targets = [target for target in re.findall(r"\]\(([^)#]+)", text) if "://" not in target]
    assert [target for target in targets if target not in BESIDE and not (ROOT / "docs" / target).exists()] == []


def test_a_release_has_absolute_links_and_addresses(tmp_path: Path) -> None:
    for name in ("README.md", "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    main(str(tmp_path), ADDRESS, "v1.2.3")
    text = (tmp_path / "README.md").read_text()
    assert f"]({ADDRESS}/raw/v1.2.3/docs/images/" in text
    assert f"]({ADDRESS}/blob/v1.2.3/docs/cli.md)" in text
    assert [target for target in re.findall(r"\]\(([^)]+)", text) if not target.startswith("https://")] == []
    project = (tmp_path / "pyproject.toml").read_text()
    assert f'[project.urls]\nSource = "{ADDRESS}"\n' in project
    assert project.index("[project.urls]") < project.index("[project.scripts]\npics = ")
    with pytest.raises(ValueError, match=r"project\.urls"):
        with_addresses(project, ADDRESS, "v1.2.3")


def test_every_document_is_a_page() -> None:
    def pages(entry: Any) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        return [page for value in (entry.values() if isinstance(entry, dict) else entry) for page in pages(value)]

    named = sorted(pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    beside = [page for page in BESIDE if page.endswith(".md")]
    assert named == sorted([*beside, *(path.name for path in (ROOT / "docs").glob("*.md"))])
