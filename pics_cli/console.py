"""What the user sees: log lines and progress on stderr, results on stdout, as text or as one JSON object (--json).

A stream that nobody reads, that is full or was never opened is no fault of the work, which goes on without it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import io
import json
import logging
import math
import numbers
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pics_cli.core.runtime.progress import Progress
from pics_cli.errors import FAILED, PicsError, reason_of

TERMINAL_SECONDS, LOG_SECONDS = 0.25, 15.0
LOG_WIDTH = 160


class Output(NamedTuple):
    """How a command talks.

    Attributes:
        quiet: errors and what it was asked to print alone.
        verbose: what the loggers say from DEBUG on, and the tracebacks of faults of ours.
        as_json: its result is one JSON object on stdout, and everything else goes to stderr.
    """

    quiet: bool = False
    verbose: bool = False
    as_json: bool = False


_output = Output()
_result: dict[str, Any] | None = {}  # None: printed

# What a terminal may take for a command, or for another order of the letters.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def set_output(output: Output) -> None:
    """Choose how the command of this process talks, before it begins."""
    global _output, _result
    _output, _result = output, {}


def add_output(output: Output) -> None:
    """Choose it further: an option that is given once, before the command's name or after it, is given.

    Raises:
        PicsError: --quiet and --verbose are given.
    """
    global _output  # noqa: PLW0603
    _output = Output(*(before or now for before, now in zip(_output, output, strict=True)))
    if _output.quiet and _output.verbose:
        raise PicsError("--quiet and --verbose exclude each other", "leave one out")


def is_verbose() -> bool:
    """Whether --verbose was given."""
    return _output.verbose


def prepare_streams() -> None:
    """Open streams that are closed, so that no file gets their numbers; letters that a terminal lacks are escaped."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def finish_streams() -> None:
    """Write what is left in them.

    Raises:
        PicsError: stdout is full.
    """
    _write(sys.stderr, "")
    _print("", only=True)


def printable(text: str) -> str:
    """A text in which nothing but its line ends moves the cursor: names of files and samples may hold anything."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def note(text: str) -> None:
    """One line on stderr, but with --quiet."""
    if not _output.quiet:
        _write(sys.stderr, f"{printable(text)}\n")


def show(text: str, only: bool = False) -> None:
    """Lines on stdout; on stderr with --json.

    Args:
        text: without control characters; see `printable`.
        only: the command does nothing else, so that it fails where they cannot be written, and --quiet shows them.

    Raises:
        PicsError: that. A reader that has seen enough, as in `| head`, is no failure.
    """
    if _output.as_json:
        note(text)
    elif only or not _output.quiet:
        _print(text, only)


def result(record: object) -> None:
    """Keep what a command found or made, a dataclass of `commands.results` or plain data; see `finish`."""
    global _result  # noqa: PLW0603  (of the command that this process runs)
    _result = _plain(record)


def tell_error(error: PicsError) -> None:
    """An error, on stderr."""
    _write(sys.stderr, f"{printable(error.text)}\n")


def finish(error: PicsError | None = None) -> None:
    """With --json, print the result of a command and the error that it ended with as one object, if there is any.

    Raises:
        PicsError: stdout is full.
    """
    global _result  # noqa: PLW0603
    if not _output.as_json or _result is None:
        return
    record = dict(_result)
    if error is not None:
        record["error"] = {"message": error.message, "hint": error.hint, "exit_code": error.exit_code}
    if record:
        _result = None
        _print(json.dumps(record, indent=2, allow_nan=False), only=True)


def _plain(value: Any) -> Any:
    """A value as JSON has it: numbers that are none (nan, infinity) are null, paths texts."""
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(each) for each in value]
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, numbers.Real):  # of NumPy, too
        number = int(value) if isinstance(value, numbers.Integral) else float(value)
        return number if math.isfinite(number) else None
    return str(value)


def _print(text: str, only: bool) -> None:
    error = _write(sys.stdout, text and f"{text}\n")
    if error is None or error.errno == errno.EPIPE:
        return
    problem = f"standard output: cannot write: {reason_of(error)}"
    if only:
        raise PicsError(problem, exit_code=FAILED)
    note(f"warning: {problem}; the work is done, and what it made is there")


def _write(stream: Any, text: str) -> OSError | None:
    """Write at once; what hindered it, if anything did, and then nothing is written any more."""
    try:
        if text:
            stream.write(text)
        stream.flush()
    except OSError as error:
        with contextlib.suppress(OSError, ValueError):  # what is still in its buffer would fail again at the end
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return error
    return None


class _LineHandler(logging.Handler):
    """Each record is a line on stderr, as it is at that moment: a live progress bar puts itself in its place."""

    def emit(self, record: logging.LogRecord) -> None:
        _write(sys.stderr, f"{printable(self.format(record))}\n")


def start_logging(speaks: bool = True) -> None:
    """Show what the loggers of `pics_cli` say from INFO on, or as `Output` has it; errors alone where another process
    speaks for this one."""
    logger = logging.getLogger("pics_cli")
    logger.handlers = [_LineHandler()]
    level = logging.ERROR if _output.quiet else logging.DEBUG if _output.verbose else logging.INFO
    logger.setLevel(level if speaks else logging.ERROR)


@contextlib.contextmanager
def show_progress(label: str, unit: str, read: Callable[[], Progress]) -> Iterator[None]:
    """Show a live line while the block runs: a bar at a terminal, a line now and then where stderr is a log; with
    --quiet nothing.

    Args:
        label: what is done, such as `train`.
        unit: what is counted, in the plural.
        read: how far it is at the moment.
    """
    if _output.quiet:
        yield
        return
    show = _terminal_line if sys.stderr.isatty() else _log_line
    with show(label, unit) as update:
        stop = threading.Event()
        interval = TERMINAL_SECONDS if sys.stderr.isatty() else LOG_SECONDS

        def watch() -> None:
            while not stop.wait(interval):
                update(read())

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            stop.set()
            watcher.join()
            update(read())


def table(
    title: str,
    rows: Sequence[Sequence[str]],
    header: Sequence[str] = (),
    right: Collection[int] = (),
    only: bool = False,
) -> None:
    """A table on stdout.

    Args:
        title: the line above it.
        rows: cells of each row, as many as there are columns.
        header: names of the columns; none: two columns, a name and its value, without names.
        right: columns that are aligned to the right, such as numbers.
        only: see `show`.
    """
    from rich.console import Console
    from rich.table import Table

    grid = Table(show_header=bool(header), box=None, padding=(0, 1 if header else 2))
    for k, name in enumerate(header or ("", "")):
        grid.add_column(name, justify="right" if k in right else "left", no_wrap=k == 0 and not header, overflow="fold")
    for row in rows:
        grid.add_row(*map(printable, row))
    text, terminal = io.StringIO(), sys.stdout.isatty()
    console = Console(
        file=text, force_terminal=terminal or None, highlight=False, markup=False, width=None if terminal else LOG_WIDTH
    )
    console.print(printable(title), style="bold")
    console.print(grid)
    show("\n".join(line.rstrip() for line in text.getvalue().split("\n")).rstrip("\n"), only)


class _Terminal:
    """A terminal that a live line is drawn on, for as long as it is there."""

    def __init__(self, stream: Any) -> None:
        self._stream, self.encoding, self.isatty, self.fileno = stream, stream.encoding, stream.isatty, stream.fileno

    def write(self, text: str) -> None:
        _write(self._stream, text)

    def flush(self) -> None:
        _write(self._stream, "")


@contextlib.contextmanager
def _terminal_line(label: str, unit: str) -> Iterator[Callable[[Progress], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as ProgressBar
    from rich.table import Column
    from rich.text import Text

    class DetailColumn(ProgressColumn):
        """Cut off where the line is full: a second one would need a cursor that moves up, which notebooks lack."""

        def render(self, task: Task) -> Text:
            return Text(task.fields["detail"], no_wrap=True, overflow="ellipsis")

    class RateColumn(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed or 0
            slow = 0 < speed < 1
            return Text(f"{1 / speed:,.1f} s/{unit.removesuffix('s')}" if slow else f"{speed:,.0f} {unit}/s")

    whole = Column(no_wrap=True)
    columns = (
        TextColumn(printable(label), markup=False, table_column=whole), BarColumn(20),
        MofNCompleteColumn(table_column=whole), RateColumn(whole), DetailColumn(),
        TextColumn("ETA", table_column=whole), TimeRemainingColumn(table_column=whole),
    )  # fmt: skip
    stderr: Any = _Terminal(sys.stderr)
    with ProgressBar(*columns, console=Console(file=stderr), refresh_per_second=4, speed_estimate_period=60) as bar:
        task = bar.add_task(label, total=None, detail="")
        yield lambda now: bar.update(
            task, completed=round(now.done), total=now.total or None, detail=printable(now.detail)
        )


@contextlib.contextmanager
def _log_line(label: str, unit: str) -> Iterator[Callable[[Progress], None]]:
    from tqdm import tqdm

    start = time.monotonic()

    def update(now: Progress) -> None:
        elapsed = time.monotonic() - start
        done = round(now.done)
        if not (now.total or done):  # published shards do not say how many samples they hold
            return
        rate_unit = f" {unit}" if done - now.done_before > elapsed else unit.removesuffix("s")  # 3 units/s, 3 s/unit
        initial = now.done_before
        line = tqdm.format_meter(
            done, now.total, elapsed, ncols=0, prefix=label, unit=rate_unit, postfix=now.detail, initial=initial
        )
        note(line)

    yield update
