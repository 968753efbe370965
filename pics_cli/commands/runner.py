"""Runs commands: exit codes and signals of any, processes, log lines and progress of those with a job.

Of several processes that a launcher started, the one of rank 0 speaks to the user.
"""

from __future__ import annotations

import errno
import functools
import os
import re
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, ParamSpec, TypeVar

import typer
from typer.core import TyperCommand

from pics_cli import console
from pics_cli.core.runtime.progress import Progress
from pics_cli.core.runtime.ranks import Ranks, join_ranks, launched
from pics_cli.errors import FAILED, USER_CAN_MEND, PicsError

P = ParamSpec("P")
R = TypeVar("R")

TRACEBACK = "PICS_TRACEBACK"
_TOO_MANY_FILES = PicsError(
    "too many open files: this shell allows few for a process", "allow more: ulimit -n 4096, then the same command"
)
# What is left of scheme://… when it is read as a path.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
# Seconds: a launcher that sees one process fail stops the others, so the one that speaks goes first.
_LINGER = 1.0


# Lines on what was left to other runs.
_IN_USE = 5
# Signals that end a command as an interrupt from the keyboard does: what is finished stays, the rest is undone.
_ENDING = (signal.SIGTERM, signal.SIGHUP)


class Terminated(KeyboardInterrupt):
    """One of these signals came; its argument is the number."""


class Command(TyperCommand):
    """Refuses options and arguments that are empty, as an unset variable of the shell leaves them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        values, _, _ = self.make_parser(ctx).parse_args(list(args))
        for name, value in values.items():
            if "" in (value if isinstance(value, list | tuple) else (value,)):
                words = next(parameter.opts for parameter in self.params if parameter.name == name)
                flag = next((word for word in words if word.startswith("--")), name.upper())
                console.note(PicsError(f"{flag}: is empty", "is a variable of the shell in it that is not set?").text)
                raise typer.Exit(USER_CAN_MEND)
        return super().parse_args(ctx, args)


def run_app(app: typer.Typer) -> None:
    """Run the command of this process, on its own streams."""
    console.prepare_streams()
    try:
        app()
    finally:
        try:
            console.finish_streams()
        except PicsError as error:
            console.note(error.text)
            raise SystemExit(error.exit_code) from None


def handle_errors(command: Callable[P, None]) -> Callable[P, None]:
    """Wrap a command: exit with 0 done, 1 failed, 2 the user can mend it, 129/130/143 stopped by a signal."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        for number in _ENDING:
            if signal.getsignal(number) != signal.SIG_IGN:  # as `nohup` does with SIGHUP
                signal.signal(number, _terminate)
        console.start_logging(_speaks())
        try:
            command(*args, **{name: _local_path(name, value) for name, value in kwargs.items()})  # type: ignore[arg-type]
        except PicsError as error:
            if error.local or _speaks():
                console.note(error.text)
            else:
                time.sleep(_LINGER)
            raise typer.Exit(error.exit_code) from None
        except PermissionError as error:
            console.note(f"error: {error.filename}: permission denied\n\nhint: look at its owner and mode")
            raise typer.Exit(USER_CAN_MEND) from None
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
                console.note(f"error: {error.filename}: the name is too long\n\nhint: choose a shorter one")
                raise typer.Exit(USER_CAN_MEND) from None
            if os.environ.get(TRACEBACK) or isinstance(error, (typer.Exit, typer.Abort)):
                raise
            if os.strerror(errno.EMFILE) in str(error):
                console.note(_TOO_MANY_FILES.text)
                raise typer.Exit(USER_CAN_MEND) from None
            what = f"{type(error).__name__}: {' '.join(str(error).split())}"
            console.note(
                f"error: {what}\n\nhint: this is a fault of pics; please report it with the text that "
                f"{TRACEBACK}=1 in front of the same command gives"
            )
            raise typer.Exit(FAILED) from None
        except KeyboardInterrupt as error:
            console.note("stopped: what is finished is kept; the same command resumes")
            number = error.args[0] if isinstance(error, Terminated) else signal.SIGINT
            raise typer.Exit(128 + number) from None

    return run


def _terminate(number: int, _frame: object) -> NoReturn:
    raise Terminated(number)


def _local_path(name: str, value: object) -> object:
    """A path with `~` replaced: shells do so for `--out ~/x`, not for `--out=~/x`. Addresses are no such paths."""
    if isinstance(value, Path) and _ADDRESS.match(str(value)):
        flag, text = name.replace("_", "-"), str(value).replace(":/", "://", 1)
        raise PicsError(f"--{flag} {text}: expected a path on this machine", "copy it here, or from here afterwards")
    try:
        return value.expanduser() if isinstance(value, Path) else value
    except RuntimeError as error:
        raise PicsError(f"{value}: {error}".lower().rstrip("."), "write the folder out") from None


def _speaks() -> bool:
    """Whether this process tells the user what all of them meet, before or after they have joined."""
    return not launched() or os.environ.get("RANK", "0") == "0"


def run_job(
    work: Callable[[Ranks], R],
    show: Callable[[R], None],
    *,
    label: str,
    unit: str,
    read: Callable[[], Progress],
    device: str,
) -> R:
    """Do a command's work in all processes of the run; one shows its log lines, its progress and the result.

    Args:
        work: what each process does.
        show: tells the user of the result, once the progress is gone.
        label, unit, read: see `console.show_progress`.
        device: what --device says.

    Returns:
        The result of this process.

    Raises:
        PicsError: as `work` and `show` raise it.
    """
    with join_ranks(device == "cpu") as ranks:
        console.start_logging(ranks.rank == 0)
        if ranks.rank != 0:
            return work(ranks)
        with console.show_progress(label, unit, read):
            result = work(ranks)
        show(result)
        return result


def note_in_use(lines: Sequence[str], what: str) -> None:
    """Tell what other runs on the same folder are working on, a line each, and of what kind the rest is."""
    for line in lines[:_IN_USE]:
        console.note(f"left to another run: {line}")
    if len(lines) > _IN_USE:
        console.note(f"and {len(lines) - _IN_USE} more {what} are left to other runs")
