"""What the user sees: log lines and progress on stderr, results on stdout."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence

from pics_cli.core.runtime.progress import Progress

TERMINAL_SECONDS, LOG_SECONDS = 0.25, 15.0
LOG_WIDTH = 160


def note(text: str) -> None:
    """One line on stderr."""
    print(text, file=sys.stderr, flush=True)


class _LineHandler(logging.Handler):
    """Each record is a line on stderr, as it is at that moment: a live progress bar puts itself in its place."""

    def emit(self, record: logging.LogRecord) -> None:
        note(self.format(record))


def start_logging(speaks: bool = True) -> None:
    """Show what the loggers of `pics_cli` say from INFO on; errors alone where another process speaks for this one."""
    logger = logging.getLogger("pics_cli")
    logger.handlers = [_LineHandler()]
    logger.setLevel(logging.INFO if speaks else logging.ERROR)


@contextlib.contextmanager
def show_progress(label: str, unit: str, read: Callable[[], Progress]) -> Iterator[None]:
    """Show a live line while the block runs: a bar at a terminal, a line now and then where stderr is a log.

    Args:
        label: what is done, such as `train`.
        unit: what is counted, in the plural.
        read: how far it is at the moment.
    """
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


def table(title: str, rows: Sequence[Sequence[str]], header: Sequence[str] = (), right: Collection[int] = ()) -> None:
    """A table on stdout.

    Args:
        title: the line above it.
        rows: cells of each row, as many as there are columns.
        header: names of the columns; none: two columns, a name and its value, without names.
        right: columns that are aligned to the right, such as numbers.
    """
    from rich.console import Console
    from rich.table import Table

    grid = Table(show_header=bool(header), box=None, padding=(0, 1 if header else 2))
    for k, name in enumerate(header or ("", "")):
        grid.add_column(name, justify="right" if k in right else "left", no_wrap=k == 0 and not header, overflow="fold")
    for row in rows:
        grid.add_row(*row)
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else LOG_WIDTH)
    with console.capture() as capture:
        console.print(title, style="bold")
        console.print(grid)
    print("\n".join(line.rstrip() for line in capture.get().splitlines()), flush=True)


@contextlib.contextmanager
def _terminal_line(label: str, unit: str) -> Iterator[Callable[[Progress], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as ProgressBar
    from rich.text import Text

    class RateColumn(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed or 0
            slow = 0 < speed < 1
            return Text(f"{1 / speed:,.1f} s/{unit.removesuffix('s')}" if slow else f"{speed:,.0f} {unit}/s")

    columns = (
        TextColumn(label, markup=False), BarColumn(20), MofNCompleteColumn(), RateColumn(),
        TextColumn("{task.fields[detail]}", markup=False), TextColumn("ETA"), TimeRemainingColumn(),
    )  # fmt: skip
    with ProgressBar(*columns, console=Console(stderr=True), refresh_per_second=4, speed_estimate_period=60) as bar:
        task = bar.add_task(label, total=None, detail="")
        yield lambda now: bar.update(task, completed=round(now.done), total=now.total or None, detail=now.detail)


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
