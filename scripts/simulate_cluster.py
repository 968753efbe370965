"""A cluster as a discrete-event model: one driver that hands out blocks one by one, and workers that do them.

A worker that is done tells the driver; the driver serves such messages in the order in which they come, and each costs
it the same time, in which it takes the result and sends the next block. Messages take time on the way. Slots are the
workers of all nodes; nodes differ in nothing, so that they need no part in the model.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import NamedTuple


class Simulated(NamedTuple):
    """What became of the blocks.

    Attributes:
        seconds: until the last one is done.
        busy: share of the time, from the first block's start to the last one's end, in which workers work.
    """

    seconds: float
    busy: float


def simulate(slots: int, blocks: int, work: Callable[[int], float], dispatch: float, gap: float) -> Simulated:
    """Let workers do blocks.

    Args:
        slots: workers, all free at the start.
        blocks: how many there are to do.
        work: seconds of a block, by its number.
        dispatch: seconds of the driver for a block.
        gap: seconds between two blocks of a worker while the driver has nothing else to do; `dispatch` is part of it.
    """
    transit = max(0.0, gap - dispatch)
    free = [0.0] * min(slots, blocks)  # when the driver hears of each worker
    heapq.heapify(free)
    driver = worked = last = 0.0
    first = float("inf")
    for block in range(blocks):
        driver = max(driver, heapq.heappop(free)) + dispatch
        start = driver + transit / 2
        end = start + work(block)
        first, last, worked = min(first, start), max(last, end), worked + end - start
        heapq.heappush(free, end + transit / 2)
    return Simulated(last, worked / (slots * (last - first)))
