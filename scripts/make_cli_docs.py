"""Write docs/cli.md, the help of every command, from the commands themselves.

python scripts/make_cli_docs.py [FILE]
"""

from __future__ import annotations

import sys
from pathlib import Path

from typer.main import get_command
from typer.testing import CliRunner

from pics_cli.cli import app

OUT = Path(__file__).parents[1] / "docs/cli.md"


def cli_docs() -> str:
    """The help of `pics` and of each of its commands, as markdown."""
    sections = ["# Commands and options\n\nWritten by `python scripts/make_cli_docs.py` from `pics COMMAND --help`."]
    for command in ("", *sorted(get_command(app).commands)):  # type: ignore[attr-defined]
        words = ["pics", *command.split()]
        result = CliRunner().invoke(app, [*words[1:], "--help"], prog_name="pics")
        sections.append(f"## {' '.join(words)}\n\n```\n{result.stdout.strip()}\n```")
    return "\n\n".join(sections) + "\n"


if __name__ == "__main__":
    (Path(sys.argv[1]) if len(sys.argv) > 1 else OUT).write_text(cli_docs())
