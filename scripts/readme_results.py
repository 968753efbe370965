"""Write the results of the benchmark into README.md and docs/pics-mini.md.

    pics eval --recipe synth_bench
    python scripts/readme_results.py results/synth_bench/results.json
    python scripts/readme_results.py --check

docs/synth_bench.json keeps the results; --check compares both documents with what that file gives.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from pics_cli.core.evaluation.results import format_cell, format_heading, format_table
from pics_cli.core.evaluation.subsets import ALL, SUBSETS
from pics_cli.errors import FAILED, PicsError
from run_script import run_script

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "docs/synth_bench.json"
README_METRICS = ("psnr_region", "seam", "shadow", "order", "identity")
CARD_METRICS = (
    "psnr_region", "ssim_region", "seam", "shadow", "order", "identity", "leak", "ceiling", "missing", "lit",
    "sharpness",
)  # fmt: skip
PAIRED_METRICS = ("psnr_region", "ssim_region", "seam", "shadow", "order", "leak", "sharpness")


def readme_text(results: dict[str, Any]) -> str:
    """A few metrics over all examples."""
    return format_table(results, README_METRICS, (ALL,))


def card_text(results: dict[str, Any]) -> str:
    """More metrics over all examples, `order` by subset, and the paired differences."""
    return f"{format_table(results, CARD_METRICS, (ALL,))}\n{order_table(results)}\n{difference_table(results)}"


def order_table(results: dict[str, Any]) -> str:
    """How often the right object is in front: a row for each method, a column for each subset where that is known."""
    named = {name: results["figures"][name] for name in (ALL, *SUBSETS) if name in results["figures"]}
    subsets = {name: methods for name, methods in named.items() if methods["parallel"]["order"]["cases"]}
    lines = [f"| right one in front | {' | '.join(subsets)} |", f"| --- |{' ---: |' * len(subsets)}"]
    for method in results["methods"]:
        cells = [format_cell(methods[method]["order"]) for methods in subsets.values()]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def difference_table(results: dict[str, Any]) -> str:
    """Paired differences of `parallel` to each other method, over all examples."""
    names = [name for name in PAIRED_METRICS if results["figures"][ALL]["parallel"][name]["cases"]]
    lines = [f"| paired difference | {' | '.join(map(format_heading, names))} |", f"| --- |{' ---: |' * len(names)}"]
    for title, subsets in results["differences"].items():
        if title.startswith("parallel minus "):
            lines.append(f"| {title} | {' | '.join(format_cell(subsets[ALL][name], '+') for name in names)} |")
    return "\n".join(lines) + "\n"


def replace_results(path: Path, text: str) -> str:
    """The document with the text between its two marks.

    Raises:
        PicsError: it does not have both marks once.
    """
    begin, end = "<!-- results: begin -->", "<!-- results: end -->"
    document = path.read_text()
    if document.count(begin) != 1 or document.count(end) != 1:
        raise PicsError(f"{path}: expected one {begin} and one {end}")
    return re.sub(f"{begin}.*{end}", lambda _: f"{begin}\n{text}{end}", document, flags=re.DOTALL)


def main() -> int:
    arguments = sys.argv[1:]
    if len(arguments) != 1:
        raise PicsError("expected a results.json, or --check", "python scripts/readme_results.py RESULTS.json")
    check = arguments[0] == "--check"
    results = json.loads((KEPT if check else Path(arguments[0])).read_text())
    texts = {ROOT / "README.md": readme_text(results), ROOT / "docs/pics-mini.md": card_text(results)}
    documents = {path: replace_results(path, text) for path, text in texts.items()}
    if check:
        outdated = [path.name for path, text in documents.items() if path.read_text() != text]
        if outdated:
            print(f"not what {KEPT.name} gives: {', '.join(outdated)}", file=sys.stderr)
        return FAILED if outdated else 0
    KEPT.write_text(json.dumps(results, indent=1) + "\n")
    for path, text in documents.items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    run_script(main)
