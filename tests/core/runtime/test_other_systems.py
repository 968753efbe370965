"""Data work and a picture where Python has neither what Windows nor what macOS lacks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pics_cli

SAMPLE = Path(pics_cli.__file__).parent / "samples" / "egg_in_cup"
# Python's own modules, and filelock, are those of this system; what they need is imported before it is gone.
LESS = """
import asyncio, multiprocessing.spawn, os, signal, subprocess, sys, tempfile
for name in ("fcntl", "resource", "termios", "pwd", "grp"):
    sys.modules[name] = None
for module, names in (
    (signal, "pthread_sigmask sigwaitinfo SIGHUP SIGKILL SIGCHLD SIGBUS SIGUSR1"),
    (os, "fork pread pwrite sched_getaffinity killpg getuid O_NONBLOCK O_CLOEXEC mkfifo"),
):
    for name in names.split():
        delattr(module, name)
"""
WORK = """
from pathlib import Path
from pics_cli.cli import main
from pics_cli.core.runtime.locks import InUse, lock_holder, locked, single_writer

folder = Path(sys.argv[1])
with single_writer(folder), locked(folder / "cache.lock"):
    try:
        with single_writer(folder):
            print("held twice")
    except InUse as error:
        print(str(os.getpid()) in str(error), str(os.getpid()) in lock_holder(folder / ".lock"))
print((folder / ".lock").exists())
import pics_cli.core.evaluation.run, pics_cli.ui.server

for words in (
    ["build-shards", "synth", "--out", folder / "shards", "--limit", "3", "--workers", "1"],
    ["build-shards", "--check", folder / "shards"],
    ["infer", "--input", sys.argv[2], "--output", folder / "out"],
):
    sys.argv[1:] = map(str, words)
    try:
        main()
    except SystemExit as stop:
        assert not stop.code, words
"""


def test_without_what_other_systems_lack(tmp_path: Path) -> None:
    """Locks hold, shards are built and checked, and a picture is made."""
    command = [sys.executable, "-c", LESS + WORK, str(tmp_path), str(SAMPLE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == ["True True", "False"]
    assert (tmp_path / "out/composed/composed_egg_in_cup.png").is_file()
    assert list((tmp_path / "shards").glob("*.tar"))
    assert not list(tmp_path.rglob("*.lock")) or {path.name for path in tmp_path.rglob("*.lock")} == {"cache.lock"}
