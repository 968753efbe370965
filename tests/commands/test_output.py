"""-q, -v and --json, before a command's name and after it: what goes to which stream, and how errors are told."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer

from helpers.making import build_folder
from pics_cli import console
from pics_cli.commands.results import RESULTS, schema
from pics_cli.commands.runner import handle_errors
from pics_cli.core.runtime.progress import Progress
from pics_cli.errors import PicsError


def printed(command: str, text: str) -> Any:
    """What a command printed: one object, as its schema says, without numbers that JSON does not know."""
    record = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    jsonschema.validate(record, schema(command))
    return record


@pytest.fixture(scope="module")
def shards(lvis_raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    build_folder("lvis", lvis_raw, folder, limit=6)
    return folder


@pytest.fixture(autouse=True)
def _fresh_output() -> None:
    console.set_output(console.Output())


def test_schemas_say_what_they_are() -> None:
    for command in RESULTS:
        jsonschema.Draft202012Validator.check_schema(schema(command))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"folder": "x"}, schema("cache"))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"error": {"message": "x"}}, schema("explain") | {"anyOf": [{"$ref": "#/$defs/Failure"}]})


@pytest.mark.parametrize("before", [True, False])
def test_the_result_is_one_object_and_all_else_goes_to_stderr(pics, shards: Path, before: bool) -> None:
    words = ["build-shards", "--workers", "1", "--check", shards]
    done = pics(*(["--json", *words] if before else [*words, "--json"]))
    assert done.returncode == 0
    record = printed("build-shards", done.stdout)
    assert record["folder"] == str(shards)
    assert record["errors"] == []
    assert record["samples"] == sum(record["objects"].values()) > 0
    assert f"check of {shards}" in done.stderr
    assert "check of" in pics(*words).stdout, "the next command of this process prints its table"


def test_the_result_and_the_error_stand_in_one_object(pics, shards: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    tar = next(shards.glob("*.tar"))
    (broken / tar.name).write_bytes(tar.read_bytes()[:5000])
    done = pics("build-shards", "--workers", "1", "--check", broken, "--json", "-q")
    record = printed("build-shards", done.stdout)
    assert done.returncode == record["error"]["exit_code"] == 2
    assert record["errors"]
    assert f"{broken}: " in record["error"]["message"]
    assert done.stderr.startswith(f"error: {broken}: "), "--quiet leaves the error on stderr, and nothing else"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["infre"], "No such command 'infre'. Did you mean 'infer'"),
        (["build-shards", "lvis", "--limits", "3"], "No such option: --limits"),
        (["build-shards", "lvis", "--limit", "many"], "Invalid value for '--limit'"),
        (["recipes", ""], "NAME: is empty"),
        (["recipes", "lvsi"], "unknown recipe 'lvsi'"),
        (["recipes", "lvis", "-q", "-v"], "--quiet and --verbose exclude each other"),
        (["-q", "recipes", "-v"], "--quiet and --verbose exclude each other"),
        (["-q", "-v", "recipes"], "--quiet and --verbose exclude each other"),
    ],
)
def test_errors_are_a_line_and_with_json_an_object(pics, words: list[str], message: str) -> None:
    done = pics(*words)
    assert (done.returncode, done.stdout) == (2, "")
    first, empty, hint, *rest = done.stderr.split("\n")
    assert first.startswith(f"error: {message}")
    assert (empty, rest) == ("", [""])
    assert hint.startswith("hint: ")
    told = pics(*words, "--json")
    assert (told.returncode, told.stderr) == (2, done.stderr)
    assert printed("recipes", told.stdout) == {
        "error": {"message": first[len("error: ") :], "hint": hint[len("hint: ") :], "exit_code": 2}
    }


def test_an_unknown_option_is_told_with_the_nearest(pics) -> None:
    assert "--limit" in pics("build-shards", "lvis", "--limits", "3").stderr.split("--limits", 1)[1]


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_by_either_name(pics, flag: str) -> None:
    for words in ([], ["build-shards"], ["cache"]):
        done = pics(*words, flag)
        assert done.returncode == 0
        assert "-h, --help" in done.stdout
        assert "-q, --quiet" in done.stdout


def test_pics_alone_shows_its_help(pics) -> None:
    done = pics()
    assert "Commands:" in done.stdout + done.stderr
    assert "error:" not in done.stderr


def speak() -> None:
    logger = logging.getLogger("pics_cli.core.test")
    logger.debug("cached")
    logger.info("doing")
    logger.error("failing")
    console.note("noted")
    with console.show_progress("work", "things", lambda: Progress(3, 4)):
        pass
    console.result({"value": float("nan"), "path": Path("a"), "counts": {1: 2.0, "x": (float("inf"),)}})
    console.table("made", [("files", "1")])
    console.table("asked", [("for", "this")], only=True)


@pytest.mark.parametrize(
    ("options", "out", "err"),
    [
        ({}, ["made", "files", "asked"], ["doing", "failing", "noted", "work"]),
        ({"quiet": True}, ["asked"], ["failing"]),
        ({"verbose": True}, ["made", "files", "asked"], ["cached", "doing", "failing", "noted", "work"]),
        ({"as_json": True}, ["{"], ["doing", "failing", "noted", "work", "made", "files", "asked"]),
        ({"as_json": True, "quiet": True}, ["{"], ["failing"]),
    ],
)
def test_what_is_said(options: dict[str, bool], out: list[str], err: list[str], capsys) -> None:
    handle_errors(speak)(**options)
    text = capsys.readouterr()
    words = {"made", "files", "asked", "cached", "doing", "failing", "noted", "work", "{"}
    assert sorted(word for word in words if word in text.out) == sorted(out)
    assert sorted(word for word in words if word in text.err) == sorted(err)
    if "as_json" in options:
        assert json.loads(text.out) == {"value": None, "path": "a", "counts": {"1": 2.0, "x": [None]}}


def fail_with(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (PicsError("no such file", "name one"), {"message": "no such file", "hint": "name one", "exit_code": 2}),
        (KeyError("x"), {"message": "KeyError: 'x'", "exit_code": 1}),
        (PermissionError(13, "denied", "a"), {"message": "a: permission denied", "exit_code": 2}),
        (KeyboardInterrupt(), {"message": "stopped", "exit_code": 130}),
    ],
)
def test_whatever_ends_a_command_is_told_in_json(error: BaseException, told: dict[str, Any], capsys) -> None:
    with pytest.raises(typer.Exit) as end:
        handle_errors(fail_with(error))(as_json=True)
    record = json.loads(capsys.readouterr().out)["error"]
    assert told.items() <= record.items()
    assert end.value.exit_code == record["exit_code"]


def test_a_fault_of_ours_in_full(capsys) -> None:
    with pytest.raises(typer.Exit):
        handle_errors(fail_with(LookupError("x")))(verbose=True)
    text = capsys.readouterr().err
    assert "Traceback" in text
    assert "error: LookupError: x\n\nhint: " in text


@pytest.mark.parametrize(
    ("variables", "codes"), [({}, []), ({"FORCE_COLOR": "1"}, ["1"]), ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, ["1"])]
)
def test_colours_of_a_file(variables: dict[str, str], codes: list[str], monkeypatch, capsys) -> None:
    """NO_COLOR leaves weight, which is none; a file has neither unless it is asked for."""
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    console.table("made", [("files", "1")])
    assert [part.split("m")[0] for part in capsys.readouterr().out.split("\x1b[")[1::2]] == codes


def test_a_bar_without_colours(monkeypatch) -> None:
    """At a terminal one line is drawn anew; with NO_COLOR no order to the terminal sets a colour."""
    written = []

    class Terminal:
        encoding = "utf-8"

        def write(self, text: str) -> None:
            written.append(text)

        def flush(self) -> None:
            pass

        def isatty(self) -> bool:
            return True

        def fileno(self) -> int:
            return 2

    def colours() -> bool:
        monkeypatch.setattr(sys, "stderr", Terminal())
        with console.show_progress("work", "things", lambda: Progress(3, 4, activity="reading " * 20)):
            pass
        text = "".join(written)
        written.clear()
        assert "3/4" in text
        assert "\x1b[1A" not in text, "a second line"
        return any(f"\x1b[{code}" in text for code in ("3", "9", "38;"))

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert colours()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colours()
