"""Write the results of the benchmark into README.md and docs/pics-mini.md.

    pics eval --recipe synth_bench
    python scripts/readme_results.py results/synth_bench/results.json
    python scripts/readme_results.py --check

The figures are kept in docs/synth_bench.json, without what is told of single cases; --check says whether the texts are
what that file gives.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from pics_cli.core.evaluation.results import format_cell, format_heading, format_table
from pics_cli.core.evaluation.subsets import ALL
from pics_cli.errors import FAILED, PicsError
from told import told

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "docs/synth_bench.json"
SHORT = ("psnr_region", "ssim_region", "seam", "shadow", "order", "identity", "missing", "sharpness")
LONG = (*SHORT[:5], "identity", "leak", "ceiling", "missing", "lit", "sharpness")
LED = ("psnr_region", "ssim_region", "seam", "shadow", "order", "leak", "sharpness")


def short(results: dict[str, Any]) -> str:
    """The README's part: all cases by method, and the order by group."""
    text = format_table(results, SHORT, (ALL,))
    groups = {g: found for g, found in results["figures"].items() if found["parallel"]["order"]["cases"]}
    lines = [f"| right one in front | {' | '.join(groups)} |", f"| --- |{' ---: |' * len(groups)}"]
    for method in results["methods"]:
        cells = [format_cell(found[method]["order"]) for found in groups.values()]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return f"{text}\n{chr(10).join(lines)}\n"


def long(results: dict[str, Any]) -> str:
    """The card's part: by group, and the paired differences."""
    text = format_table(results, LONG)
    names = [name for name in LED if results["figures"][ALL]["parallel"][name]["cases"]]
    lines = [f"| paired difference | {' | '.join(map(format_heading, names))} |", f"| --- |{' ---: |' * len(names)}"]
    for title, groups in results["differences"].items():
        if title.startswith("parallel minus "):
            lines.append(f"| {title} | {' | '.join(format_cell(groups[ALL][name], '+') for name in names)} |")
    return f"{text}\n{chr(10).join(lines)}\n"


def filled(path: Path, text: str) -> str:
    """A document with the text between its marks."""
    begin, end = "<!-- results: begin -->", "<!-- results: end -->"
    found = path.read_text()
    if found.count(begin) != 1 or found.count(end) != 1:
        raise PicsError(f"{path}: expected one {begin} and one {end}")
    return re.sub(f"{begin}.*{end}", lambda _: f"{begin}\n{text}{end}", found, flags=re.DOTALL)


def main() -> int:
    words = sys.argv[1:]
    if len(words) != 1:
        raise PicsError("expected a results.json, or --check", "python scripts/readme_results.py RESULTS.json")
    check = words[0] == "--check"
    results = json.loads((KEPT if check else Path(words[0])).read_text())
    texts = {ROOT / "README.md": short(results), ROOT / "docs/pics-mini.md": long(results)}
    wanted = {path: filled(path, text) for path, text in texts.items()}
    if check:
        old = [path.name for path, text in wanted.items() if path.read_text() != text]
        if old:
            print(f"not what {KEPT.name} gives: {', '.join(old)}", file=sys.stderr)
        return FAILED if old else 0
    KEPT.write_text(json.dumps(results, indent=1) + "\n")
    for path, text in wanted.items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    told(main)
