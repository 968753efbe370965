"""Keep results of the benchmark in docs/leaderboard.json; write the tables of README.md and docs/pics-mini.md from it.

    pics eval --recipe synth_bench --model DIR --output measured
    python scripts/leaderboard.py add measured/results.json --name NAME \\
        --command 'pics eval --recipe synth_bench --model DIR'
    python scripts/leaderboard.py write
    python scripts/leaderboard.py check

`add` takes results of all cases whose model and settings are known, and replaces rows only with --replace. `write`
writes the documents and docs/leaderboard_schema.json; `check` compares them with the file.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from leaderboard_file import (
    SCHEMA,
    Figure,
    Leaderboard,
    Row,
    check_benchmark,
    leaderboard_text,
    read_leaderboard,
    read_rows,
    schema_text,
    with_rows,
    write_text,
)
from pics_cli.core.evaluation.results import as_markdown, format_cell, format_heading
from pics_cli.core.evaluation.subsets import ALL, SUBSETS
from pics_cli.errors import FAILED, PicsError
from run_script import run_script

ROOT = Path(__file__).resolve().parent.parent
KEPT, SCHEMA_FILE = ROOT / "docs/leaderboard.json", ROOT / "docs/leaderboard_schema.json"
README_METRICS = ("psnr_region", "seam", "shadow", "order", "identity")
CARD_METRICS = (
    "psnr_region", "ssim_region", "seam", "shadow", "order", "identity", "leak", "ceiling", "missing", "lit",
    "sharpness",
)  # fmt: skip
PAIRED_METRICS = ("psnr_region", "ssim_region", "seam", "shadow", "order", "leak", "sharpness")
NO_MODEL = "none"


def readme_text(board: Leaderboard) -> str:
    """A few metrics over all cases."""
    return metric_table(board, README_METRICS)


def card_text(board: Leaderboard) -> str:
    """More metrics over all cases, `order` by group of cases, and the paired differences."""
    return f"{metric_table(board, CARD_METRICS)}\n{order_table(board)}\n{difference_table(board)}"


def metric_table(board: Leaderboard, metrics: Sequence[str]) -> str:
    """A row for each method, a column for each metric, over all cases."""
    lines = [[*row_head(row), *(cell(row.figures[ALL][name]) for name in metrics)] for row in board.rows]
    return table(["model", "method", *map(format_heading, metrics)], lines)


def order_table(board: Leaderboard) -> str:
    """How often the right object is in front: a column for each group where that is known, with its number of cases."""
    groups = {
        name: board.rows[0].figures[name]["order"].cases
        for name in (ALL, *SUBSETS)
        if name in board.benchmark.strata and board.rows[0].figures[name]["order"].cases
    }
    lines = [[*row_head(row), *(cell(row.figures[name]["order"]) for name in groups)] for row in board.rows]
    return table(["model", "right one in front", *(f"{name} ({count:,})" for name, count in groups.items())], lines)


def difference_table(board: Leaderboard) -> str:
    """Paired differences of all objects at once to the other methods of the same evaluation, over all cases."""
    lines = [
        [as_markdown(row.name), f"{row.method} minus {other}", *(cell(figures[name], "+") for name in PAIRED_METRICS)]
        for row in board.rows
        if row.method == "parallel"
        for other, figures in row.differences.items()
    ]
    return table(["model", "paired difference", *map(format_heading, PAIRED_METRICS)], lines)


def row_head(row: Row) -> list[str]:
    """Model and method."""
    return [as_markdown(NO_MODEL if row.model is None else row.name), as_markdown(row.method)]


def cell(figure: Figure, sign: str = "") -> str:
    """A mean and half of its interval."""
    return format_cell(msgspec.to_builtins(figure), sign)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown, numbers from the third column on."""
    rule = ["---", "---", *["---:"] * (len(head) - 2)]
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, rule, *rows))


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


def documents(board: Leaderboard) -> dict[Path, str]:
    """Whatever is written from the file, as it should be."""
    texts = {ROOT / "README.md": readme_text(board), ROOT / "docs/pics-mini.md": card_text(board)}
    return {path: replace_results(path, text) for path, text in texts.items()} | {SCHEMA_FILE: schema_text()}


def add(results: Path, name: str, command: str, replace: bool) -> None:
    """Add results of `pics eval`; the first ones say what the benchmark is."""
    if not name.strip() or not name.isprintable():
        raise PicsError(f"--name {name!r}: no name", "give a line such as 'pics-mini'")
    if "pics eval " not in command:
        raise PicsError(f"--command {command!r}: no command of pics eval", "give the line that was typed")
    benchmark, rows = read_rows(results, name, command, CARD_METRICS)
    board = read_leaderboard(KEPT) if KEPT.exists() else Leaderboard(SCHEMA, benchmark, [])
    check_benchmark(results, benchmark, board.benchmark)
    board, said = with_rows(board, rows, replace)
    write_text(KEPT, leaderboard_text(board))
    print("\n".join(said))


def check() -> int:
    """Whether file and documents agree."""
    board = read_leaderboard(KEPT)
    texts = {**documents(board), KEPT: leaderboard_text(board)}
    outdated = [path.name for path, text in texts.items() if not path.exists() or path.read_text() != text]
    if outdated:
        names = ", ".join(outdated)
        print(f"not what {KEPT.name} gives: {names}: python scripts/leaderboard.py write", file=sys.stderr)
    return FAILED if outdated else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    acts = parser.add_subparsers(dest="act", required=True)
    adding = acts.add_parser("add", help="add results")
    adding.add_argument("results", type=Path, metavar="RESULTS.json", help="what `pics eval` wrote")
    adding.add_argument("--name", required=True, help="of the model in the tables")
    adding.add_argument("--command", required=True, help="by which it was measured")
    adding.add_argument("--replace", action="store_true", help="rows of the same name and method")
    acts.add_parser("write", help="write the documents")
    acts.add_parser("check", help="compare the documents with the file")
    return parser.parse_args()


def main() -> int:
    given = arguments()
    if given.act == "check":
        return check()
    if given.act == "add":
        add(given.results, given.name, given.command, given.replace)
    else:
        for path, text in documents(read_leaderboard(KEPT)).items():
            write_text(path, text)
    return 0


if __name__ == "__main__":
    run_script(main)
