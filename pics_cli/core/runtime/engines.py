"""Engines, where blocks of pictures run: this process, a pool of processes or a Ray cluster; live counts, a clean end.

A block is a picklable function of its arguments, so any `concurrent.futures.Executor` will do.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import Any, ParamSpec, TypeVar

from pics_cli.core.runtime.signals import defer_signals, process_pending_signals, terminal_signals_blocked
from pics_cli.errors import FAILED, PicsError

P = ParamSpec("P")
T = TypeVar("T")

_SPAWN = multiprocessing.get_context("spawn")


class Engine(Executor):
    """An executor that says how many calls it runs side by side.

    Attributes:
        cores: that a call may keep busy.
    """

    cores: int = 1

    @property
    @abstractmethod
    def slots(self) -> int:
        """How many calls it runs side by side, now; of a cluster a few more than fit, which may make it grow."""


class PictureCounter:
    """Live counts of pictures that blocks have gone through and kept, shared with the workers of a pool."""

    def __init__(self) -> None:
        self._done: Any = _SPAWN.Value("q", 0)
        self._kept: Any = _SPAWN.Value("q", 0)

    @property
    def done(self) -> int:
        return int(self._done.value)

    @property
    def kept(self) -> int:
        return int(self._kept.value)

    def add(self, done: int, kept: int) -> None:
        with self._done.get_lock():
            self._done.value += done
            self._kept.value += kept


# Called with the pictures that blocks of this process have done, and those of them that were kept.
_count: Callable[[int, int], None] | None = None
_of_cluster = False


def count_picture(kept: bool) -> None:
    """Called by a block after each picture: count it, where there is a counter, and act on pending signals."""
    if _count is not None:
        _count(1, kept)
    process_pending_signals()


class SerialEngine(Engine):
    """Runs each call at once, in this process; signals wait for the end of a picture.

    An exception from a signal handler can rise inside a library's callback, which may turn it into one of its own.
    """

    @property
    def slots(self) -> int:
        return 1

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        with defer_signals():
            try:
                future.set_result(fn(*args, **kwargs))
            except Exception as error:
                future.set_exception(error)
            process_pending_signals()
        return future


class _Pool(ProcessPoolExecutor, Engine):
    """Its workers never see what a terminal sends to them, too: an interrupt, or that it is gone.

    They start with the submitting call.
    """

    def __init__(self, workers: int, counter: PictureCounter | None) -> None:
        super().__init__(workers, _SPAWN, _start_worker, (counter, log_level()))
        self._workers = workers

    @property
    def slots(self) -> int:
        return self._workers

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        with terminal_signals_blocked():  # a new process inherits it
            return super().submit(fn, *args, **kwargs)


@contextlib.contextmanager
def local_executor(workers: int, counter: PictureCounter | None = None) -> Iterator[Engine]:
    """An engine of `workers` processes (one: this process), whose workers end with this process, however it ends.

    Leaving by an exception, a keyboard interrupt among them, stops the workers at once.
    """
    if workers == 1:
        _start_counting(None if counter is None else counter.add)
        try:
            yield SerialEngine()
        finally:
            _start_counting(None)
        return
    pool = _Pool(workers, counter)
    try:
        with explain_lost_worker():
            yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in multiprocessing.active_children():
            child.terminate()
            child.join()
        raise
    pool.shutdown()


@contextlib.contextmanager
def explain_lost_worker() -> Iterator[None]:
    """What a pool of processes raises where one of them has died, as a line for the user.

    Raises:
        PicsError: a worker has died.
    """
    try:
        yield
    except BrokenProcessPool:
        raise PicsError(
            "a worker process died; often the machine ran out of memory",
            "run the same command again with fewer --workers: it resumes",
            FAILED,
        ) from None


def map_in_order(
    executor: Executor, ahead: int | Callable[[], int], call: Callable[..., T], arguments: Iterable[tuple[Any, ...]]
) -> Iterator[T]:
    """Results of a call for each tuple of arguments, in their order, at most `ahead` submitted and not yet taken."""
    pending: deque[Future[T]] = deque()
    for call_arguments in arguments:
        if len(pending) >= (ahead if isinstance(ahead, int) else ahead()):
            yield pending.popleft().result()
        pending.append(executor.submit(call, *call_arguments))
    while pending:
        yield pending.popleft().result()


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_worker() -> bool:
    """Whether this process runs blocks for another one."""
    return _of_cluster or multiprocessing.parent_process() is not None


def become_worker(count: Callable[[int, int], None]) -> None:
    """Called by a process of a cluster: it runs blocks for another one, and tells the function of their pictures."""
    global _of_cluster  # noqa: PLW0603  (for good)
    _of_cluster = True
    _start_counting(count)


def _start_counting(count: Callable[[int, int], None] | None) -> None:
    global _count  # noqa: PLW0603  (a process has one counter)
    _count = count


def _start_worker(counter: PictureCounter | None, level: int) -> None:
    follow_logging(level)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    exit_with_parent()
    _start_counting(None if counter is None else counter.add)


def log_level() -> int:
    """From which level on this process tells the user; see `follow_logging`."""
    return logging.getLogger("pics_cli").getEffectiveLevel()


def follow_logging(level: int) -> None:
    """Called by a worker process: it tells what its parent does, which has told already what is told once.

    A forked one is left as it is: it writes with what it has of its parent.
    """
    logger = logging.getLogger("pics_cli")
    if not logger.hasHandlers():
        logging.basicConfig(format="%(message)s")
        logger.setLevel(logging.WARNING if level == logging.INFO else level)


def exit_with_parent() -> None:
    """Called by a worker process: end when the parent does.

    A parent that was killed cannot stop its workers, and they would go on working beside its successor.
    """
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
