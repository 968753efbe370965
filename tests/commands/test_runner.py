"""How commands end: streams that nobody reads, signals, names that a terminal would obey."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from helpers.making import build_folder
from pics_cli import console
from pics_cli.commands.runner import handle_errors
from pics_cli.errors import PicsError

# Drawn scenes, of which --inspect looks into one.
ONE_SCENE = """{kind: dataset, name: a, out: a, source: {format: synth, size: 64, relations: {apart: 1},
  splits: {train: {pool: train, scenes: 1}}}}"""


@pytest.fixture(scope="module")
def work(lvis_raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a few shards, and a link to them with a name that Latin-1 lacks."""
    here = tmp_path_factory.mktemp("work")
    build_folder("lvis", lvis_raw, here / "shards", limit=6)
    (here / "日本").symlink_to("shards")
    return here


def check(work: Path, folder: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """`pics build-shards --check`, which says what it found on stdout alone, in a process of its own."""
    words = [sys.executable, "-m", "pics_cli", "build-shards", "--workers", "1", "--check", folder]
    return subprocess.run(words, cwd=work, check=False, stderr=subprocess.PIPE, **options)


def test_a_reader_that_has_gone(work: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = check(work, "shards", stdout=write)
    finally:
        os.close(write)
    assert done.returncode == 0
    assert b"error" not in done.stderr.lower()


def test_full_and_closed_streams(work: Path) -> None:
    """What a check found is all it does; of a build the shards are there, and of stderr nobody needs to know."""
    with Path("/dev/full").open("wb") as full:
        done = check(work, "shards", stdout=full)
        assert (done.returncode, done.stderr.splitlines()[-1]) == (
            1, b"error: standard output: cannot write: no space left on device"
        )  # fmt: skip
        (work / "one.yaml").write_text(ONE_SCENE)
        words = [sys.executable, "-m", "pics_cli", "build-shards", "one.yaml", "--inspect"]
        looked = subprocess.run(words, cwd=work, check=False, stdout=full, stderr=subprocess.PIPE)
        assert (looked.returncode, b"the work is done" in looked.stderr) == (1, False)
        words = [sys.executable, "-m", "pics_cli", "build-shards", "--convert", "shards", "--out", "converted"]
        job = subprocess.run(words, cwd=work, check=False, stdout=full, stderr=subprocess.PIPE)
        assert job.returncode == 0
        assert b"warning: standard output: cannot write: no space left on device; the work is done" in job.stderr
        assert list((work / "converted").glob("*.tar"))
        assert subprocess.run(words, cwd=work, check=False, stdout=full, stderr=full).returncode == 0
    script = 'exec "$0" -m pics_cli build-shards --check shards --workers 1 >&- 2>&-'
    closed = subprocess.run(["sh", "-c", script, sys.executable], cwd=work, check=False)
    assert closed.returncode == 0


def test_a_terminal_of_another_encoding(work: Path) -> None:
    done = check(work, "日本", stdout=subprocess.PIPE, env={**os.environ, "PYTHONIOENCODING": "latin-1"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"check of \\u65e5\\u672c\n")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGHUP, 129), (signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals(number: signal.Signals, code: int, capsys: pytest.CaptureFixture[str], keep_handlers: None) -> None:
    # The tests may run under nohup.
    signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    def command() -> None:
        os.kill(os.getpid(), number)
        signal.pause()

    with pytest.raises(typer.Exit) as caught:
        handle_errors(command)()
    assert caught.value.exit_code == code
    assert "stopped: what is finished is kept" in capsys.readouterr().err


def test_a_signal_that_is_ignored_stays_so(keep_handlers: None) -> None:
    """As under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    handle_errors(lambda: os.kill(os.getpid(), signal.SIGHUP))()
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


@pytest.fixture
def keep_handlers() -> Iterator[None]:
    """Handlers of signals as they were, after the test."""
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def fail_with(error: Exception) -> Callable[[], None]:
    def command() -> None:
        raise error

    return command


def test_names_that_a_terminal_would_obey(capsys: pytest.CaptureFixture[str], keep_handlers: None) -> None:
    name = "a\x1b[31m\x07\x9b2J\u202egnp.b"
    shown = r"a\x1b[31m\x07\x9b2J\u202egnp.b"
    console.note(name)
    console.table(name, [(name, "1")])
    with pytest.raises(typer.Exit):
        handle_errors(fail_with(PicsError(name)))()
    out, err = capsys.readouterr()
    assert out == f"{shown}\n  {shown}    1\n"
    assert err == f"{shown}\nerror: {shown}\n"


def test_too_many_open_files(capsys: pytest.CaptureFixture[str], keep_handlers: None) -> None:
    for error in (OSError(24, "Too many open files"), ImportError("x.so: cannot open: Too many open files")):
        with pytest.raises(typer.Exit) as caught:
            handle_errors(fail_with(error))()
        assert caught.value.exit_code == 2
        assert "error: too many open files" in capsys.readouterr().err
