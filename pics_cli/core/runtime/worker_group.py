"""Who does the items of a job: the ranks of a run, each its share, or an engine's workers, block by block.

What they need for it, such as a model on its device, each process opens once and keeps: workers of an engine that
live on for the next block.
"""

from __future__ import annotations

import atexit
import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar

from pics_cli.core.runtime.engines import Engine
from pics_cli.core.runtime.progress import Progress
from pics_cli.core.runtime.ranks import Ranks
from pics_cli.core.runtime.requirements import Requirements

Job = TypeVar("Job")
State = TypeVar("State")
Item = TypeVar("Item")
Counts = TypeVar("Counts", bound=Progress)
Report = TypeVar("Report")
P = ParamSpec("P")
T = TypeVar("T")

# Blocks for each one that an engine runs side by side, so that none waits long for the last.
_BLOCKS_PER_SLOT = 8


# Opens an engine whose machines are what a job requires, for the time of a `with` block.
OpenEngine = Callable[[Requirements], AbstractContextManager[Engine]]


@contextlib.contextmanager
def open_group(
    ranks: Ranks, progress: Progress, open_engine: OpenEngine | None, requirements: Callable[[], Requirements]
) -> Iterator[WorkerGroup]:
    """The group of an engine, for the time of a `with` block, or of the ranks where there is none.

    Args:
        ranks: of the run.
        progress: says that the engine is being waited for.
        open_engine: opens it; None: the ranks do the items.
        requirements: of the job, asked for where there is an engine.

    Raises:
        PicsError: the engine cannot be opened.
    """
    if open_engine is None:
        yield WorkerGroup(ranks)
        return
    progress.activity = "starting workers"
    with open_engine(requirements()) as engine:
        progress.activity = ""
        yield WorkerGroup(ranks, engine)


class WorkerGroup:
    """The processes that do a job's items.

    Args:
        ranks: of the run; with an engine this process alone, which plans, and writes what belongs to all.
        engine: whose workers do the items, on machines that see the same files; None: the ranks do.
    """

    def __init__(self, ranks: Ranks, engine: Engine | None = None) -> None:
        if engine is not None and ranks.size > 1:
            raise ValueError("an engine's workers are handed their items by one process")
        self.ranks, self.engine = ranks, engine

    @property
    def cores(self) -> int | None:
        """Cores of a worker of the engine; None without."""
        return None if self.engine is None else self.engine.cores

    def own(self, items: Sequence[Item]) -> Sequence[Item]:
        """The items that this process does, or has done by the engine."""
        return items[self.ranks.rank :: self.ranks.size]

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a function gives where the items are done: in this process, or in one of the workers."""
        if self.engine is None:
            return function(*args, **kwargs)
        return self.engine.submit(function, *args, **kwargs).result()

    def block_size(self, items: int, largest: int) -> int:
        """Items of a block, at most `largest`, of which so many are handed to an engine."""
        slots = 1 if self.engine is None else self.engine.slots
        return max(1, min(largest, items // (_BLOCKS_PER_SLOT * slots)))

    @contextlib.contextmanager
    def open(
        self,
        opener: Callable[[Job], AbstractContextManager[State]],
        job: Job,
        needed: bool = True,
        here: Callable[[], AbstractContextManager[State]] | None = None,
    ) -> Iterator[Opened[State]]:
        """Open what the items need, where they are done, for the time of a `with` block; all ranks call it.

        Args:
            opener: opens it; a function of a module, so that workers find it.
            job: its argument, and the key under which workers keep what was opened.
            needed: whether there are items; False: nothing is opened.
            here: how a rank opens it, with what it has found already; None: as workers do.

        Raises:
            PicsError: it cannot be opened; of an engine one worker is asked, so that nothing is begun in vain.
        """
        with ExitStack() as stack:
            if self.engine is None:
                states = self.ranks.run_local(
                    lambda: [stack.enter_context(here() if here else opener(job))] if needed else []
                )
                yield Opened(self, opener, job, states)
            else:
                opened = Opened[State](self, opener, job, [])
                if needed:
                    opened.ask(_nothing)
                yield opened


class Opened(Generic[State]):
    """What the processes of a group have opened for a job."""

    def __init__(self, group: WorkerGroup, opener: Callable[[Any], Any], job: Any, states: Sequence[State]) -> None:
        self._group, self._opener, self._job, self._states = group, opener, job, states

    def ask(self, function: Callable[..., T], *arguments: Any) -> T:
        """What a function of the opened gives, with these further arguments."""
        if self._group.engine is None:
            return function(self._states[0], *arguments)
        return self._group.engine.submit(_call_opened, self._opener, self._job, function, *arguments).result()

    def run(
        self,
        work: Callable[[State, Sequence[Item], Counts], Report],
        items: Sequence[Item],
        progress: Counts,
        blocks: Iterable[Sequence[Item]],
        take: Callable[[Report], None] = lambda _report: None,
    ) -> None:
        """Do items; all ranks call it.

        Args:
            work: does some of them; its progress is counted here.
            items: of this rank.
            progress: of this rank, or of all workers together.
            blocks: the items as they are handed to an engine, read as they are handed out; ranks do not use them.
            take: called, in all ranks, with the report of each rank that had items, or of each block, in their order.

        Raises:
            PicsError: one of them failed.
        """
        if self._group.engine is None:
            found = self._group.ranks.run_on_all(
                lambda: [work(state, items, progress) for state in self._states if items]
            )
            for reports in found:
                for report in reports:
                    take(report)
            return
        engine, running = self._group.engine, dict[Future[tuple[Report, Counts]], int]()
        waiting = dict[int, Report]()  # for blocks before them, so that not one stays for each block of a long job
        taken = 0

        def finish() -> None:
            nonlocal taken
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                number = running.pop(future)
                waiting[number], counts = future.result()
                progress.add(counts)
            while taken in waiting:
                take(waiting.pop(taken))
                taken += 1

        for number, block in enumerate(blocks):
            future = engine.submit(_do_block, self._opener, self._job, work, block, type(progress)())
            running[future] = number
            while len(running) > engine.slots:  # one more, for the worker that is done first
                finish()
        while running:
            finish()


def in_blocks(items: Sequence[Item], size: int, key: Callable[[Item], Any] = lambda _item: None) -> list[list[Item]]:
    """Runs of consecutive items with the same key, cut into blocks of this size; the last of a run may be smaller."""
    blocks: list[list[Item]] = []
    for item in items:
        if not blocks or len(blocks[-1]) == size or key(blocks[-1][0]) != key(item):
            blocks.append([])
        blocks[-1].append(item)
    return blocks


class _Kept(NamedTuple):
    """What this process has opened: by which function, for which job, how it is closed, and itself."""

    opener: Callable[[Any], Any]
    job: Any
    stack: ExitStack
    state: Any


_kept: _Kept | None = None


def _call_opened(
    opener: Callable[[Any], AbstractContextManager[State]], job: Any, function: Callable[..., T], *arguments: Any
) -> T:
    """In a worker: call a function of what was opened; an error closes it."""
    global _kept  # noqa: PLW0603  (a cache of one)
    if _kept is None or (_kept.opener, _kept.job) != (opener, job):
        _close()
        atexit.register(_close)
        stack = ExitStack()
        _kept = _Kept(opener, job, stack, stack.enter_context(opener(job)))
    try:
        return function(_kept.state, *arguments)
    except BaseException:
        _close()
        raise


def _close() -> None:
    global _kept
    kept, _kept = _kept, None
    atexit.unregister(_close)
    if kept is not None:
        kept.stack.__exit__(*sys.exc_info())


def _nothing(_state: object) -> None:
    pass


def _do_block(
    opener: Callable[[Any], AbstractContextManager[Any]],
    job: Any,
    work: Callable[[Any, Sequence[Item], Counts], Report],
    items: Sequence[Item],
    progress: Counts,
) -> tuple[Report, Counts]:
    return _call_opened(opener, job, work, items, progress), progress
