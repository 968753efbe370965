"""`pics infer` as a user types it, and what it wrote."""

from __future__ import annotations

import json
import signal
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest import mock

import jsonschema
from typer.testing import CliRunner, Result

from helpers.kept_models import kept_models
from pics_cli import console
from pics_cli.cli import app
from pics_cli.commands.results import RESULTS, schema
from pics_cli.core.runtime import engines


def infer(*words: object) -> Result:
    """`pics infer` in this process; a model is kept from one run to the next."""
    with kept_models():
        return typed("infer", *words)


def typed(*words: object, cores: int = 1) -> Result:
    """A command in this process: starting another costs up to six seconds of imports.

    So do workers; where none are asked for there is one for each core, of which a test has one (see `conftest`).
    Whatever the command is: it has a result for --json, which is as its schema says.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        with mock.patch.object(engines, "available_cores", return_value=cores):
            done = CliRunner().invoke(app, [*map(str, words)])
    finally:
        signal.signal(signal.SIGTERM, before)
    _check_result([*map(str, words)], done)
    return done


def _check_result(words: list[str], done: Result) -> None:
    record = json.loads(done.stdout) if "--json" in words else console._result
    command = next((word for word in words if word in RESULTS), None)
    if record and (command is not None or "error" in record):
        _validator(command or "env").validate(record)
    elif done.exit_code == 0:
        assert {"-h", "--help", "--version", "--show-completion"} & {*words}, "a command without a result for --json"


@lru_cache
def _validator(command: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(schema(command))


def records(output: Path) -> list[dict[str, Any]]:
    """Lines of a run's manifest."""
    return [json.loads(line) for line in (output / "manifest.jsonl").read_text().splitlines()]
