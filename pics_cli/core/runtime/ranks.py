"""The processes of one run: started alone, or several by `accelerate launch`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from pics_cli.errors import FAILED, PicsError

T = TypeVar("T")

# How torch says that a process it exchanges numbers with is not there any more.
_GONE = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "NCCL", "Gloo")

# What launchers call the number of processes.
_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
# One process may be done long before the others: waiting is no fault.
_PATIENCE = timedelta(days=30)


def _alone(mine: Any) -> list[Any]:
    return [mine]


class Agreed(PicsError):
    """An error that all processes raise."""


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run.

    Attributes:
        rank: its number; 0 speaks and writes what belongs to all.
        size: how many there are.
        all_gather: everybody's objects, in rank order, to everybody; all must call it.
        device: the one that belongs to this process, None where it runs alone.
    """

    rank: int = 0
    size: int = 1
    all_gather: Callable[[Any], list[Any]] = _alone
    device: str | None = None

    def run_on_all(self, work: Callable[[], T]) -> list[T]:
        """Do work in every process and give everybody all results, in rank order.

        Raises:
            PicsError: it failed in one of them; all raise the same, so that none waits for one that gave up.
        """
        try:
            mine: tuple[T | None, PicsError | None] = (work(), None)
        except PicsError as error:
            mine = (None, error)
        everyone = self.all_gather(mine)
        for _, failure in everyone:
            if failure is not None:
                raise Agreed(failure.message, failure.hint, failure.exit_code)
        return [result for result, _ in everyone]

    def run_local(self, work: Callable[[], T]) -> T:
        """Do work in every process and give each its own result, which may be large.

        Raises:
            PicsError: it failed in one of them, as in `run_on_all`.
        """
        found = list[T]()
        self.run_on_all(lambda: found.append(work()))
        return found[0]


def beside() -> int:
    """Processes of this run on this machine, as its launcher says."""
    return max(1, int(os.environ.get("LOCAL_WORLD_SIZE") or 1))


def launched() -> bool:
    """Whether a launcher started several processes."""
    return any(int(os.environ.get(name) or 1) > 1 for name in _SIZES)


@contextlib.contextmanager
def mark_local_error(ranks: Ranks) -> Iterator[None]:
    """For work in which processes exchange numbers without `run_on_all`: what one of them raises is its own.

    Raises:
        PicsError: as it was raised.
    """
    try:
        yield
    except PicsError as error:
        error.local = ranks.size > 1 and not isinstance(error, Agreed)
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
        if ranks.size == 1 or not any(word in str(error) for word in _GONE):
            raise
        why = str(error).splitlines()[0][:200]
        gone = PicsError(f"another process of this run is gone ({why})", "its own message, if any, says why", FAILED)
        gone.local = True
        raise gone from None


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

    state = PartialState(cpu=cpu or not torch.cuda.is_available(), timeout=_PATIENCE)
    ranks = Ranks(state.process_index, state.num_processes, lambda mine: list(gather_object([mine])), str(state.device))
    try:
        try:
            yield ranks
        except PicsError as error:  # anything else ends this process, and its launcher the others
            if not error.local:
                ranks.all_gather(None)
            raise
        ranks.all_gather(None)  # none goes before the others are done: launchers stop the rest when one has failed
    finally:
        state.destroy_process_group()
