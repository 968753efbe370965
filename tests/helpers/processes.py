"""`pics` in processes of its own, forked from a server that has the libraries: loading them takes seconds a process."""

from __future__ import annotations

import logging
import multiprocessing
import os
import runpy
import signal
import sys
import time
from collections.abc import Callable, Mapping
from itertools import count
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Any

import numpy as np
import torch

# What the commands load.
LOADED = [
    "pics_cli.core.evaluation.run", "pics_cli.core.inference.run", "pics_cli.core.segmentation.run",
    "pics_cli.core.training.run",
]  # fmt: skip
_numbers = count()


class Started:
    """A process that runs `pics`; its texts go to files, so that it never waits for a reader."""

    def __init__(self, process: BaseProcess, stdout: Path, stderr: Path) -> None:
        self.process, self._stdout, self._stderr = process, stdout, stderr

    @property
    def stdout(self) -> str:
        return self._stdout.read_text()

    @property
    def stderr(self) -> str:
        return self._stderr.read_text()

    @property
    def text(self) -> str:
        """Both."""
        return self.stdout + self.stderr

    def runs(self) -> bool:
        return self.process.is_alive()

    def send(self, number: int) -> None:
        """A signal, to a process that runs."""
        assert self.runs(), self.text
        os.kill(self.process.pid or 0, number)

    def when(self, ready: Callable[[], bool], number: int) -> int:
        """Send a signal as soon as something is so, wait for the end and return the exit code."""
        while not ready() and self.runs():
            time.sleep(0.005)
        self.send(number)
        return self.code()

    def code(self) -> int:
        """Wait for the end and return the exit code, negative for a signal."""
        self.process.join(200)
        assert self.process.exitcode is not None, self.text
        assert "Traceback" not in self.text, self.text
        return self.process.exitcode


def start(
    at: Path,
    *words: object,
    environment: Mapping[str, str] | None = None,
    prepare: Callable[[], None] | None = None,
    module: str = "pics_cli",
) -> Started:
    """Start `pics` in a folder, where its texts go to files.

    Args:
        at: the folder.
        words: of the command line.
        environment: variables beside those of this process.
        prepare: called in the process before; picklable.
        module: another one to run, a launcher for instance.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED)
    number = next(_numbers)
    texts = at / f"stdout{number}", at / f"stderr{number}"
    for text in texts:
        text.touch()
    arguments = (at, [*map(str, words)], texts, prepare, {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})})
    process = context.Process(target=_main, args=(module, *arguments))
    process.start()
    return Started(process, *texts)


def log_level_here(_: object) -> dict[str, Any]:
    """From which level on this process logs, as an array: for a worker to call, wherever it comes from."""
    return {"level": np.asarray(logging.getLogger("pics_cli").getEffectiveLevel())}


def note_peak_memory(path: Path) -> None:
    """To `prepare` with: have this process write its peak resident memory, KiB, into a file at its end."""
    Finalize(None, lambda: path.write_text(str(getrusage(RUSAGE_SELF).ru_maxrss)), exitpriority=1)


def fork_ranks() -> None:
    """To `prepare` a launcher with: what it starts is forked from it, where another interpreter would load everything.

    All else is as torch's launcher does it: command line, environment, sessions, signals and exit codes.
    """
    from torch.distributed.elastic.multiprocessing.subprocess_handler import SubprocessHandler

    def popen(_handler: Any, command: tuple[str, ...], environment: dict[str, str]) -> _Rank:
        interpreter, unbuffered, flag, module, *words = command
        assert (interpreter, unbuffered, flag) == (sys.executable, "-u", "-m"), command
        process = multiprocessing.get_context("fork").Process(target=_rank, args=(module, words, environment))
        process.start()
        return _Rank(process)

    SubprocessHandler._popen = popen  # type: ignore[method-assign, assignment]


class _Rank:
    """As much of a `subprocess.Popen` as the launcher uses."""

    def __init__(self, process: BaseProcess) -> None:
        self._process, self.pid, self.wait = process, process.pid, process.join

    def poll(self) -> int | None:
        return self._process.exitcode


def _rank(module: str, words: list[str], environment: Mapping[str, str]) -> None:
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):  # the launcher has handlers of its own
        signal.signal(number, signal.SIG_DFL)
    _run(module, words, environment)


def _run(module: str, words: list[str], environment: Mapping[str, str]) -> None:
    """As `python -m`."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["pics", *words]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _main(
    module: str,
    at: Path,
    words: list[str],
    texts: tuple[Path, Path],
    prepare: Callable[[], None] | None,
    environment: Mapping[str, str],
) -> None:
    multiprocessing.set_start_method("fork", force=True)  # as on any Linux, for the processes that read samples
    os.chdir(at)
    torch.set_num_threads(1)
    for descriptor, text in enumerate(texts, 1):
        with text.open("w") as file:
            os.dup2(file.fileno(), descriptor)
    if prepare is not None:
        prepare()
    _run(module, words, environment)
