"""Write docs/cli.md, the help of every command, docs/json.md, what each prints with --json, and docs/json_schema.json.

python scripts/make_cli_docs.py [FOLDER]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command
from typer.testing import CliRunner

from pics_cli.cli import app
from pics_cli.commands.results import RESULTS, schema

OUT = Path(__file__).parents[1] / "docs"
_CLI_HEAD = """# Commands and options

Written by `python scripts/make_cli_docs.py` from `pics COMMAND --help`.

`-q`, `-v` and `--json` go before a command's name or among its options. Results go to stdout, everything else to
stderr: log lines, errors, and progress, which is one moving line at a terminal and a line every 15 seconds in a log.
`NO_COLOR=1` leaves colours out, `FORCE_COLOR=1` writes them into files and pipes, too. `pics --install-completion` lets
the shell (bash, zsh, fish, PowerShell) complete commands, options, choices and names of recipes.

| exit code | means |
| ---: | --- |
| 0 | done |
| 1 | a failure inside, or a check that was not passed |
| 2 | something that you can mend: the message says what was found, and its hint what to do |
| 129, 130, 143 | stopped by a signal (SIGHUP, Ctrl-C, SIGTERM); what is finished is kept, the same command resumes |

`accelerate launch` turns every code but 0 into 1."""
_JSON_HEAD = """# What commands print with --json

Written by `python scripts/make_cli_docs.py` from `pics_cli/commands/results.py`; the same as JSON schemas, by command:
[json_schema.json](json_schema.json).

```
pics env --json
pics recipes lvis --json
pics cache ls --json
pics infer --input sample --json > result.json
```

With `--json` a command prints one object on stdout and everything else on stderr. Sizes are bytes, times seconds, paths
as they were given; a number that is not known, or none, is null. A command that fails prints
`{"error": {"message": …, "hint": …, "exit_code": …}}` and ends with the same code as without `--json`; where there is a
result in spite of it, such as the composites beside those that failed, `error` stands beside that result."""


def cli_docs() -> str:
    """The help of `pics` and of each of its commands, as markdown."""
    sections = [_CLI_HEAD]
    for command in ("", *sorted(get_command(app).commands)):  # type: ignore[attr-defined]
        words = ["pics", *command.split()]
        result = CliRunner().invoke(app, [*words[1:], "--help"], prog_name="pics")
        sections.append(f"## {' '.join(words)}\n\n```\n{result.stdout.strip()}\n```")
    return "\n\n".join(sections) + "\n"


def json_docs() -> str:
    """The fields of what each command prints with --json, as markdown."""
    sections = [_JSON_HEAD]
    for command in RESULTS:
        found = schema(command)
        results = [result.__name__ for result in RESULTS[command]]
        parts = {name: found["$defs"][name] for name in results if name in found["$defs"]}
        parts |= {name: part for name, part in found["$defs"].items() if name not in (*results, "Failure", "Problem")}
        sections.append(f"## pics {command}")
        if not parts:
            sections.append("The record of the picture, as it stands in `manifest.jsonl`.")
        sections += [_table(name, part) for name, part in parts.items()]
    return "\n\n".join(sections) + "\n"


def _table(name: str, part: dict[str, Any]) -> str:
    fields = [(key, each) for key, each in part["properties"].items() if key != "error"]
    rows = [f"| `{key}` | {' or '.join(_types(each))} | {each.get('description', '')} |" for key, each in fields]
    return "\n".join([f"**{name}**: {part['description']}", "", "| field | type | |", "| --- | --- | --- |", *rows])


def _types(part: dict[str, Any]) -> Iterator[str]:
    """Types of a schema in words: `list of ShardFault`."""
    if "anyOf" in part:
        for each in part["anyOf"]:
            yield from _types(each)
    elif "$ref" in part:
        yield part["$ref"].rpartition("/")[2]
    elif part.get("type") == "array":
        yield f"list of {' or '.join(_types(part['items']))}"
    elif isinstance(part.get("additionalProperties"), dict):
        yield f"object of {' or '.join(_types(part['additionalProperties']))}"
    else:
        yield part.get("format") or part.get("type", "anything")


def json_schemas() -> str:
    """The JSON schema of each command, by its name."""
    return json.dumps({command: schema(command) for command in RESULTS}, indent=1) + "\n"


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else OUT
    for name, text in (("cli.md", cli_docs()), ("json.md", json_docs()), ("json_schema.json", json_schemas())):
        (folder / name).write_text(text)
