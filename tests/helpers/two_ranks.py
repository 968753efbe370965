"""Two ranks of a run: as threads of this process, and as the processes that a launcher starts."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from threading import Barrier, Thread
from typing import Any, TypeVar

from helpers.processes import start
from pics_cli.core.runtime.ranks import Ranks

T = TypeVar("T")


def in_threads(work: Callable[[Ranks], T]) -> list[T]:
    """What each of two ranks returns."""
    # One that waits in vain for the other ends, too.
    barrier, slots, found = Barrier(2, timeout=60), list[Any]([None, None]), dict[int, T]()

    def gather_of(rank: int) -> Callable[[Any], list[Any]]:
        def gather(mine: Any) -> list[Any]:
            slots[rank] = mine
            barrier.wait()
            both = list(slots)
            barrier.wait()
            return both

        return gather

    def one(rank: int) -> None:
        found[rank] = work(Ranks(rank, 2, gather_of(rank)))

    threads = [Thread(target=one, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[rank] for rank in range(2)]


def environments() -> list[dict[str, str]]:
    """Environment of each of two processes on the CPU."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    shared["ACCELERATE_USE_CPU"] = "true"
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]


def in_processes(at: Path, *words: object) -> list[tuple[int, str, str]]:
    """Exit code, stdout and stderr of `pics` in each of two processes."""
    ranks = [start(at, *words, environment=environment) for environment in environments()]
    return [(rank.code(), rank.stdout, rank.stderr) for rank in ranks]
