"""`pics infer` as a user types it, and what it wrote."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any
from unittest import mock

from typer.testing import CliRunner, Result

from helpers.kept_models import kept_models
from pics_cli.cli import app
from pics_cli.core.runtime import engines


def infer(*words: object) -> Result:
    """`pics infer` in this process; a model is kept from one run to the next."""
    with kept_models():
        return typed("infer", *words)


def typed(*words: object, cores: int = 1) -> Result:
    """A command in this process: starting another costs up to six seconds of imports.

    So do workers; where none are asked for there is one for each core, of which a test has one (see `conftest`).
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        with mock.patch.object(engines, "available_cores", return_value=cores):
            return CliRunner().invoke(app, [*map(str, words)])
    finally:
        signal.signal(signal.SIGTERM, before)


def records(output: Path) -> list[dict[str, Any]]:
    """Lines of a run's manifest."""
    return [json.loads(line) for line in (output / "manifest.jsonl").read_text().splitlines()]
