"""How long a large job takes on a cluster, and what limits it: workers, the number of blocks, the network, the driver.

A model of four lines, fed with figures that `--plan` measures and with the constants below, which
`scripts/bench/cluster.py` measures; docs/scale.md works through examples.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

# Seconds of the driver's one process for a call: submit it, take its result. Ray on one machine.
DISPATCH_SECONDS = 0.0022
# Seconds until the first block runs: processes are started, libraries imported.
START_SECONDS = 6.0
# Bytes a second and direction of a node's network where nothing else is said: 10 Gbit/s.
NODE_GBIT = 10.0
# Clusters that are shown where the user names none.
NODES = (1, 20, 200)
# Blocks that are tried for a plan: at least, and at most where there is time.
_LEAST_BLOCKS, MOST_BLOCKS = 4, 24


@dataclass(frozen=True)
class Work:
    """A job over many items, which is cut into blocks.

    Attributes:
        items: how many, such as pictures.
        seconds: of one worker for an item, with waiting for its files.
        read, written: bytes for an item.
        block: items of a block, which one worker does.
        calls: that the driver makes for an item: one for each block, and what goes before.
    """

    items: int
    seconds: float
    read: float
    written: float
    block: float
    calls: float


@dataclass(frozen=True)
class Cluster:
    """Nodes of one kind.

    Attributes:
        nodes: how many.
        workers: blocks that a node does side by side: one for each core or GPU.
        gbit: gigabits a second that a node reads and that it writes.
        dispatch, start: see `DISPATCH_SECONDS` and `START_SECONDS`.
    """

    nodes: int
    workers: int
    gbit: float = NODE_GBIT
    dispatch: float = DISPATCH_SECONDS
    start: float = START_SECONDS


class Forecast(NamedTuple):
    """How long a job takes.

    Attributes:
        seconds: from start to end.
        limit: what takes longest: `workers`, `blocks` (fewer than workers), `network` or `driver`.
        read_rate, write_rate: bytes a second that all nodes together ask of the storage.
    """

    seconds: float
    limit: str
    read_rate: float
    write_rate: float


def forecast(work: Work, cluster: Cluster) -> Forecast:
    """How long the work takes on the cluster: the longest of what goes on side by side, and the start.

    Blocks are done in rounds, one for each worker; a node reads and writes at the same time.
    """
    blocks = max(1, math.ceil(work.items / work.block))
    slots = cluster.nodes * cluster.workers
    rounds = math.ceil(blocks / slots)
    busy_nodes = min(cluster.nodes, blocks)
    times = {
        "workers" if blocks >= slots else "blocks": rounds * min(work.block, work.items) * work.seconds,
        "network": work.items * max(work.read, work.written) * 8 / (busy_nodes * cluster.gbit * 1e9),
        "driver": work.items * work.calls * cluster.dispatch,
    }
    limit = max(times, key=lambda name: times[name])
    busy = max(times[limit], 1e-9)
    return Forecast(cluster.start + busy, limit, work.items * work.read / busy, work.items * work.written / busy)


class Ratio(NamedTuple):
    """An estimate, and two of its standard errors."""

    value: float
    error: float

    def of(self, total: float) -> Ratio:
        """Times a number that is known."""
        return Ratio(self.value * total, self.error * total)

    def inverse(self) -> Ratio:
        """One over it, for small errors."""
        return Ratio(1 / self.value, self.error / self.value**2) if self.value else Ratio(math.inf, math.inf)


def ratio_of_blocks(amounts: Sequence[float], items: Sequence[float]) -> Ratio:
    """An amount for each item, from blocks that were drawn: sum over sum, its error from how the blocks scatter.

    The ratio estimator of survey sampling (Cochran, Sampling Techniques, 1977, chapter 2.11). Fewer than two blocks
    say nothing of the error: it is infinite.
    """
    total, count = sum(items), len(items)
    if not total:
        return Ratio(0.0, math.inf)
    value = sum(amounts) / total
    if count < 2:
        return Ratio(value, math.inf)
    scatter = sum((amount - value * each) ** 2 for amount, each in zip(amounts, items, strict=True)) / (count - 1)
    return Ratio(value, 2 * math.sqrt(scatter * count) / total)


def sample_blocks(items: int, size: int, seconds: float = 20.0) -> Iterator[range]:
    """Short blocks of consecutive items that are spread over a job, to be done one by one for so many seconds.

    Whenever it ends, those that were given are spread evenly: the middle of the job, its quarters, and so on. At least
    four are given, at most 24, none twice.
    """
    end, given = time.monotonic() + seconds, set[int]()
    places = max(1, items - size + 1)
    for number in range(1, 256):
        if len(given) >= MOST_BLOCKS or (len(given) >= _LEAST_BLOCKS and time.monotonic() > end):
            return
        bits = number.bit_length()
        place = (number * 2 + 1 - (1 << bits)) / (1 << bits)  # 1/2, 1/4, 3/4, 1/8, …
        start = int(place * places) // size * size
        if start not in given:
            given.add(start)
            yield range(start, min(start + size, items))
