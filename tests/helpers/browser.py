"""A report in headless Chromium: what its console says, whether pictures load and tables sort."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

# Runs in the page when it has loaded, and leaves what it saw in the document.
_PROBE = """
<script>
window.seen = {errors: []};
window.addEventListener("error", event => window.seen.errors.push(String(event.message)));
for (const name of ["error", "warn"]) console[name] = (...words) => window.seen.errors.push(words.join(" "));
window.addEventListener("load", () => {
  const seen = window.seen, pictures = [...document.images];
  seen.pictures = pictures.length;
  seen.broken = pictures.filter(each => !each.complete || each.naturalWidth === 0).length;
  const table = document.querySelector("table.sortable");
  const heads = [...table.querySelectorAll("thead th")];
  const at = heads.findIndex(head => head.textContent.startsWith("PSNR in regions"));
  const column = () => [...table.tBodies[0].rows].map(row => parseFloat(row.cells[at].dataset.value));
  seen.before = column();
  heads[at].click(); seen.sorted = column();
  heads[at].click(); seen.again = column();
  const note = document.createElement("script");
  note.type = "application/json"; note.id = "seen"; note.textContent = JSON.stringify(seen);
  document.body.append(note);
});
</script>
"""


def look(report: Path, work: Path) -> dict[str, Any]:
    """What the page was like: errors, pictures, broken, before, sorted, again."""
    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = next((found for name in names if (found := shutil.which(name))), None)
    assert chromium, f"none of {', '.join(names)} is installed; leave such tests out with -m 'not browser'"
    page = work / "probed.html"
    page.write_text(report.read_text().replace("<head>", f"<head>{_PROBE}", 1))
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={work / 'profile'}",
               "--virtual-time-budget=5000", "--dump-dom", page.as_uri()]  # fmt: skip
    dom = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    written = re.search(r'<script type="application/json" id="seen">(.*?)</script>', dom, re.DOTALL)
    assert written, dom[-2000:]
    seen: dict[str, Any] = json.loads(html.unescape(written.group(1)))
    return seen
