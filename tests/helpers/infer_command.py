"""`pics infer` as a user types it, and what it wrote."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from pics_cli.cli import app


def infer(*words: object) -> Result:
    """`pics infer` in this process."""
    return typed("infer", *words)


def typed(*words: object) -> Result:
    """A command in this process: starting another costs up to six seconds of imports."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        return CliRunner().invoke(app, [*map(str, words)])
    finally:
        signal.signal(signal.SIGTERM, before)


def records(output: Path) -> list[dict[str, Any]]:
    """Lines of a run's manifest."""
    return [json.loads(line) for line in (output / "manifest.jsonl").read_text().splitlines()]
