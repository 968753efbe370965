"""What the user sees: notes and progress on stderr, results on stdout."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

TERMINAL_SECONDS, LOG_SECONDS = 0.25, 15.0
LOG_WIDTH = 160


class State(NamedTuple):
    """How far a job is: counts of `unit`, words on what happened, and what earlier runs had done."""

    done: int
    total: int
    detail: str
    before: int = 0


def note(text: str) -> None:
    """One line on stderr."""
    print(text, file=sys.stderr, flush=True)


class _LineHandler(logging.Handler):
    """Each record is a line on stderr, as it is at that moment: a live progress bar puts itself in its place."""

    def emit(self, record: logging.LogRecord) -> None:
        note(self.format(record))


def start_logging(speaks: bool) -> None:
    """Show what the loggers of `pics_cli` say from INFO on; nothing where another process speaks for this one."""
    logger = logging.getLogger("pics_cli")
    logger.handlers = [_LineHandler()] if speaks else [logging.NullHandler()]
    logger.setLevel(logging.INFO)


@contextlib.contextmanager
def progress(label: str, unit: str, read: Callable[[], State]) -> Iterator[None]:
    """Show a live line while the block runs: a bar at a terminal, a line now and then where stderr is a log."""
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


def table(title: str, rows: Sequence[tuple[str, str]]) -> None:
    """Two columns on stdout, under a title."""
    from rich.console import Console
    from rich.table import Table

    grid = Table(show_header=False, box=None, padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(name, value)
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else LOG_WIDTH)
    with console.capture() as capture:
        console.print(title, style="bold")
        console.print(grid)
    print("\n".join(line.rstrip() for line in capture.get().splitlines()), flush=True)


@contextlib.contextmanager
def _terminal_line(label: str, unit: str) -> Iterator[Callable[[State], None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed or 0
            slow = 0 < speed < 1
            return Text(f"{1 / speed:,.1f} s/{unit.removesuffix('s')}" if slow else f"{speed:,.0f} {unit}/s")

    columns = (
        TextColumn(label, markup=False), BarColumn(20), MofNCompleteColumn(), Rate(),
        TextColumn("{task.fields[detail]}", markup=False), TextColumn("ETA"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=4, speed_estimate_period=60) as bar:
        task = bar.add_task(label, total=None, detail="")
        yield lambda state: bar.update(task, completed=state.done, total=state.total or None, detail=state.detail)


@contextlib.contextmanager
def _log_line(label: str, unit: str) -> Iterator[Callable[[State], None]]:
    from tqdm import tqdm

    start = time.monotonic()

    def update(state: State) -> None:
        elapsed = time.monotonic() - start
        if state.total or state.done:  # published shards do not say how many samples they hold
            fast = state.done - state.before > elapsed
            each = f" {unit}" if fast else unit.removesuffix("s")  # 3 units/s, or 3 s/unit
            note(
                tqdm.format_meter(
                    state.done,
                    state.total,
                    elapsed,
                    prefix=label,
                    unit=each,
                    ncols=0,
                    postfix=state.detail,
                    initial=state.before,
                )
            )

    yield update
