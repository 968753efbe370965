"""A headless Chromium, and a report of `pics eval` in it: what its console says, whether pictures load, tables sort."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

# Runs in the page when it has loaded.
_LOOK = """
() => {
  const pictures = [...document.images], table = document.querySelector("table.sortable");
  const heads = [...table.querySelectorAll("thead th")];
  const at = heads.findIndex((head) => head.textContent.startsWith("PSNR in regions"));
  const column = () => [...table.tBodies[0].rows].map((row) => parseFloat(row.cells[at].dataset.value));
  const clicked = () => { heads[at].click(); return column(); };
  return {
    pictures: pictures.length,
    broken: pictures.filter((each) => !each.complete || each.naturalWidth === 0).length,
    before: column(), sorted: clicked(), again: clicked(),
  };
}
"""

_GALLERY = (
    "() => [...document.querySelectorAll('.entry')].filter(entry => !entry.hidden).map(entry => entry.dataset.key)"
)


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Start one."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next((path for name in names if (path := shutil.which(name))), None)
    assert found, f"none of {', '.join(names)} is installed; leave such tests out with -m 'not browser'"
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()


def look(report: Path) -> dict[str, Any]:
    """What the page was like: errors, pictures, broken, before, sorted, again; keys in the gallery of the first and the
    second method; rows of the table of cases; texts of the pages of the first case and of one that is not there, and
    how many pictures the first has."""
    errors = list[str]()
    with chromium() as browser:
        page = browser.new_page()
        page.on("console", lambda line: errors.append(line.text) if line.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(report.as_uri())
        seen = {"errors": errors, **page.evaluate(_LOOK)}
        for number in range(2):
            page.select_option("#chooser", index=number)
            seen[f"gallery_{number}"] = page.evaluate(_GALLERY)
        page.click("#all summary")
        seen["rows"] = page.locator("#cases tbody tr").count()
        page.click("#cases tbody tr:first-child a")
        seen["case"] = page.inner_text("body")
        seen["case_pictures"] = page.locator("#page img:visible").count()
        page.goto(f"{report.as_uri()}#case-nowhere")
        seen["no_case"] = page.inner_text("body")
        page.click("text=whole report")
        seen["report_again"] = page.locator("#report").is_visible()
        return seen
