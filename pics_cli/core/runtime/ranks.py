"""The processes of one run: one alone, or several that a launcher started (`accelerate launch`, torchrun)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

from pics_cli.errors import FAILED, PicsError

T = TypeVar("T")

# What torch's messages hold where a process that it exchanges numbers with has ended.
_LOST_PEER = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "NCCL", "Gloo")
# What launchers call the number of processes.
_WORLD_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
# One process may be done long before the others: waiting is no fault.
_TIMEOUT = timedelta(days=30)


class SharedError(PicsError):
    """An error that all processes raise."""


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run: a job that they share is called by each of them.

    Attributes:
        rank: its number; 0 logs, and writes what belongs to all.
        size: number of processes.
        all_gather: gives the objects of all processes, in rank order, to each of them; all must call it.
        device: the one that belongs to this process, None where it runs alone.
    """

    rank: int = 0
    size: int = 1
    all_gather: Callable[[Any], list[Any]] = field(default=lambda item: [item])
    device: str | None = None

    def run_on_all(self, work: Callable[[], T]) -> list[T]:
        """Do work in every process and give all results, in rank order, to each of them.

        Raises:
            PicsError: it failed in one of them; all raise the same, so that none waits for one that gave up.
        """
        try:
            outcome: tuple[T | None, PicsError | None] = (work(), None)
        except PicsError as error:
            outcome = (None, error)
        outcomes = self.all_gather(outcome)
        for _, failure in outcomes:
            if failure is not None:
                raise SharedError(failure.message, failure.hint, failure.exit_code)
        return [result for result, _ in outcomes]

    def run_local(self, work: Callable[[], T]) -> T:
        """Do work in every process and give each its own result, which may be large.

        Raises:
            PicsError: it failed in one of them, as in `run_on_all`.
        """
        results = list[T]()
        self.run_on_all(lambda: results.append(work()))
        return results[0]

    def run_first_alone(self, work: Callable[[], T]) -> T:
        """As `run_local`, but the first process does the work before the others, who find what it left on disk.

        Raises:
            PicsError: as `run_local`.
        """
        if self.size > 1:
            self.run_on_all(lambda: bool(work()) if self.rank == 0 else None)  # not its result, which may be large
        return self.run_local(work)


def local_process_count() -> int:
    """Processes of this run on this machine, as its launcher says."""
    return max(1, int(os.environ.get("LOCAL_WORLD_SIZE") or 1))


def launched() -> bool:
    """Whether a launcher started several processes."""
    return any(int(os.environ.get(name) or 1) > 1 for name in _WORLD_SIZES)


@contextlib.contextmanager
def mark_local_error(ranks: Ranks) -> Iterator[None]:
    """For work in which processes exchange numbers without `run_on_all`: what one of them raises is its own.

    Raises:
        PicsError: as it was raised.
    """
    try:
        yield
    except PicsError as error:
        error.local = ranks.size > 1 and not isinstance(error, SharedError)
        raise


@contextlib.contextmanager
def report_lost_peer(ranks: Ranks) -> Iterator[None]:
    """What torch says where another process has ended, as a line for the user.

    Raises:
        PicsError: another process has ended.
    """
    try:
        yield
    except RuntimeError as error:
        if ranks.size == 1 or not any(words in str(error) for words in _LOST_PEER):
            raise
        reason = str(error).splitlines()[0][:200]
        lost = PicsError(f"another process of this run is gone ({reason})", "its own message, if any, says why", FAILED)
        lost.local = True
        raise lost from None


@contextlib.contextmanager
def leave_together(ranks: Ranks) -> Iterator[None]:
    """Let no process end before the others are done: launchers stop the rest when one has failed.

    An error of this process alone ends it at once, since the others may wait for what it will never send; any other
    exception does, too, and its launcher ends the others.

    Raises:
        PicsError: as it was raised.
    """
    try:
        yield
    except PicsError as error:
        if not error.local:
            _wait_for_all(ranks)
        raise
    _wait_for_all(ranks)


def _wait_for_all(ranks: Ranks) -> None:
    # The work is done or has failed: that a peer has ended meanwhile must not hide which.
    with contextlib.suppress(RuntimeError):
        ranks.all_gather(None)


@contextlib.contextmanager
def join_ranks(cpu: bool) -> Iterator[Ranks]:
    """Meet the other processes, where there are any, for the time of a `with` block.

    Args:
        cpu: compute on the CPU even where there is a GPU.
    """
    if not launched():
        yield Ranks()
        return
    import torch
    from accelerate import PartialState
    from accelerate.utils import gather_object

    state = PartialState(cpu=cpu or not torch.cuda.is_available(), timeout=_TIMEOUT)
    ranks = Ranks(state.process_index, state.num_processes, lambda item: list(gather_object([item])), str(state.device))
    try:
        with leave_together(ranks):
            yield ranks
    finally:
        state.destroy_process_group()
