"""Runs commands: exit codes and signals of any, processes, log lines and progress of those with a job.

Of several processes that a launcher started, the one of rank 0 speaks to the user.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import inspect
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from pics_cli import console
from pics_cli.core.runtime.progress import Progress
from pics_cli.core.runtime.ranks import Ranks, join_ranks, launched
from pics_cli.core.runtime.signals import ENDING
from pics_cli.errors import FAILED, PicsError

R = TypeVar("R")

TRACEBACK = "PICS_TRACEBACK"
_TOO_MANY_FILES = PicsError(
    "too many open files: this shell allows few for a process", "allow more: ulimit -n 4096, then the same command"
)
# What is left of scheme://… when it is read as a path.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
# Seconds: a launcher that sees one process fail stops the others, so the one that speaks goes first.
_LINGER = 1.0
# What typer says of words that belong to no option.
_EXTRA = re.compile(r"Got unexpected extra argument(?:s|\(s\))? \((.*)\)")

# Lines on what was left to other runs.
_IN_USE = 5
# Whatever is wrong with a command line; typer has a copy of click in it, or takes the installed one.
_LineError: type[Exception] = typer.BadParameter.__mro__[2]

# Options of `pics` and of each of its commands.
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show errors alone: no progress, no closing table.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Tell what is cached, chosen and tried again; faults in full.")
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print the result as one JSON object on stdout, all else on stderr.")
]
_OUTPUT_OPTIONS = [
    inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
    for name, annotation in (("quiet", Quiet), ("verbose", Verbose), ("as_json", AsJson))
]


class Terminated(KeyboardInterrupt):
    """One of these signals came; its argument is the number."""


class Command(TyperCommand):
    """Refuses options and arguments that are empty, as an unset variable of the shell leaves them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            values, _, _ = self.make_parser(ctx).parse_args(list(args))
        except _LineError as error:
            error.ctx = getattr(error, "ctx", None) or ctx  # type: ignore[attr-defined]  # which command it is about
            raise
        for name, value in values.items():
            if not ctx.resilient_parsing and "" in (value if isinstance(value, list | tuple) else (value,)):
                words = next(parameter.opts for parameter in self.params if parameter.name == name)
                flag = next((word for word in words if word.startswith("--")), name.upper())
                raise PicsError(f"{flag}: is empty", "is a variable of the shell in it that is not set?")
        return super().parse_args(ctx, args)


class Commands(TyperGroup):
    """Tells what is wrong with a command line as it tells all errors: a line and a hint, and in JSON if asked to."""

    def main(self, args: Sequence[str] | None = None, *others: Any, **options: Any) -> NoReturn:
        console.set_output(console.Output(as_json="--json" in (sys.argv[1:] if args is None else args)))
        try:
            code = super().main(args, *others, **{**options, "standalone_mode": False})
        except PicsError as error:
            code = _tell(error)
        except _LineError as error:
            code = _tell_line_error(error)
        sys.exit(code)


def _tell_line_error(error: Any) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return int(error.exit_code)
    context = getattr(error, "ctx", None)
    path = "pics" if context is None else context.command_path
    text = " ".join(error.format_message().split()).replace(": Value error, ", ": ")
    hint = f"{path} --help says what it takes"
    if found := _EXTRA.fullmatch(text):
        text = f"unexpected extra argument{'s' if ' ' in found[1] else ''} ({found[1]})"
        hint = f"a value stands after its option, and is quoted where it holds spaces; {hint}"
    return _tell(PicsError(text, hint))


def _tell(error: PicsError) -> int:
    """Tell the user of an error; returns the exit code."""
    console.tell_error(error)
    if _speaks():
        with contextlib.suppress(PicsError):  # stdout is full
            console.finish(error)
    return error.exit_code


def run_app(app: typer.Typer) -> None:
    """Run the command of this process, on its own streams."""
    console.prepare_streams()
    try:
        app()
    finally:
        try:
            console.finish_streams()
        except PicsError as error:
            console.tell_error(error)
            raise SystemExit(error.exit_code) from None


def handle_errors(command: Callable[..., None], uses_cache: bool = False) -> Callable[..., None]:
    """Wrap a command: it takes --quiet, --verbose and --json as well, and exits with 0 done, 1 failed, 2 the user can
    mend it, 129/130/143 stopped by a signal.

    Args:
        command: the function.
        uses_cache: whether it may read what `pics cache clean` removes, which then waits.
    """

    @functools.wraps(command)
    def run(*args: Any, quiet: bool = False, verbose: bool = False, as_json: bool = False, **kwargs: Any) -> None:
        for number in ENDING:
            if signal.getsignal(number) != signal.SIG_IGN:  # as `nohup` does with SIGHUP
                signal.signal(number, _terminate)
        try:
            console.add_output(console.Output(quiet, verbose, as_json))
            console.start_logging(_speaks())
            with _kept_cache() if uses_cache else contextlib.nullcontext():
                command(*args, **{name: _local_path(name, value) for name, value in kwargs.items()})
            console.finish()
        except PicsError as error:
            if not (error.local or _speaks()):
                time.sleep(_LINGER)
                raise typer.Exit(error.exit_code) from None
            raise typer.Exit(_tell(error)) from None
        except typer.Exit:
            console.finish()
            raise
        except (KeyboardInterrupt, typer.Abort) as error:
            number = error.args[0] if isinstance(error, Terminated) else signal.SIGINT
            kept = "what is finished is kept; the same command resumes"
            console.note(f"stopped: {kept}")
            if _speaks():
                console.finish(PicsError("stopped", kept, 128 + number))
            raise typer.Exit(128 + number) from None
        except Exception as error:
            fault = _explain(error)
            if fault.exit_code == FAILED and os.environ.get(TRACEBACK):
                raise
            if console.is_verbose():
                console.note(traceback.format_exc().rstrip())
            raise typer.Exit(_tell(fault)) from None

    signature = inspect.signature(command, eval_str=True)
    run.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), *_OUTPUT_OPTIONS]
    )
    return run


def _kept_cache() -> contextlib.AbstractContextManager[None]:
    from pics_cli.core.runtime.caches import using_cache

    return using_cache()


def _explain(error: Exception) -> PicsError:
    """What an exception of Python's means to the user."""
    if isinstance(error, PermissionError):
        return PicsError(f"{error.filename}: permission denied", "look at its owner and mode")
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return PicsError(f"{error.filename}: the name is too long", "choose a shorter one")
    if os.strerror(errno.EMFILE) in str(error):
        return _TOO_MANY_FILES
    return PicsError(
        f"{type(error).__name__}: {' '.join(str(error).split())}",
        "this is a fault of pics; please report it with what the same command says with --verbose",
        FAILED,
    )


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
