"""The order in which samples are seen: endless epochs, each a permutation that follows from seed and epoch alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pics_cli.core.runtime.rng import generator

Ints = npt.NDArray[np.int64]

# Of a set's samples at most this share is held out, so that small sets keep some to train on.
_MOST_HELD_OUT = 0.5


class Item(NamedTuple):
    """A sample at its place in the order.

    Attributes:
        set, shard, sample: which sample of which shard of which set.
        epoch: counted from 0.
        repetition: how often it came before in this epoch at most.
    """

    set: int
    shard: int
    sample: int
    epoch: int
    repetition: int


class Listed:
    """Given samples in their order, over and over: for validation."""

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = list(items)
        self.epoch_length = len(self.items)

    def locate(self, position: int) -> Item:
        """The item at a position from 0 on."""
        return self.items[position % self.epoch_length]

    def instead(self, item: Item, rng: np.random.Generator) -> Item:
        """Another of the items, of the same set."""
        same = [each for each in self.items if each.set == item.set]
        return same[int(rng.integers(len(same)))]


class Mixture:
    """Samples of several sets in one endless order.

    An epoch holds each sample of set i `repeats[i]` times; a fraction is a part of the samples that is drawn anew each
    epoch. Which sample stands where is a function of (seed, epoch) alone, whoever asks.

    Args:
        counts: samples of each shard of each set.
        repeats: of each set, above 0.
        seed: of the order.
        share: part of each epoch that is used, its first.
        held_out: sample numbers of each set, counted over its shards, that never come; none: all come.
        windows: of each set: None for any order; n where shards are taken n at a time, for those that must be fetched
            first: the set's own order then shuffles shards, and the samples within every n of them.

    Raises:
        ValueError: no sample is left.
    """

    def __init__(
        self,
        counts: Sequence[Sequence[int]],
        repeats: Sequence[float],
        seed: int,
        *,
        share: float = 1.0,
        held_out: Sequence[Iterable[int]] = (),
        windows: Sequence[int | None] = (),
    ) -> None:
        self._seed = seed
        self._ends: list[Ints] = [np.cumsum(each, dtype=np.int64) for each in counts]
        self._gaps = [_gaps(each) for each in held_out] or [_gaps(())] * len(counts)
        self._windows = list(windows) or [None] * len(counts)
        totals = [int(ends[-1]) if len(ends) else 0 for ends in self._ends]
        self._free = [total - len(gaps) for total, gaps in zip(totals, self._gaps, strict=True)]
        self._whole = [math.floor(repeat) for repeat in repeats]
        self._extra = [
            round((repeat - whole) * free) for repeat, whole, free in zip(repeats, self._whole, self._free, strict=True)
        ]
        sizes = [whole * free + extra for whole, free, extra in zip(self._whole, self._free, self._extra, strict=True)]
        self._bounds: Ints = np.cumsum([0, *sizes], dtype=np.int64)
        total = int(self._bounds[-1])
        if not total:
            raise ValueError("no sample to draw from")
        self.epoch_length = max(1, math.ceil(share * total))
        self.shares = [size / total for size in sizes]
        self._epoch = -1
        self._order = np.empty(0, np.int64)
        self._drawn: list[Ints] = []

    def locate(self, position: int) -> Item:
        """The item at a position, counted from 0 over all epochs."""
        epoch, place = divmod(position, self.epoch_length)
        if epoch != self._epoch:
            self._draw(epoch)
        number = int(self._order[place])
        i = int(np.searchsorted(self._bounds, number, side="right")) - 1
        repetition, free = self._unfold(i, number - int(self._bounds[i]))
        return Item(i, *self._place(i, free), epoch, repetition)

    def instead(self, item: Item, rng: np.random.Generator) -> Item:
        """Another sample of the set, drawn evenly; of the same shard where shards must be fetched."""
        i = item.set
        if self._windows[i] is None:
            free = int(rng.integers(self._free[i]))
        else:
            first, last = self._span(i, item.shard)
            free = int(rng.integers(first, last))
        return Item(i, *self._place(i, free), item.epoch, item.repetition)

    def _draw(self, epoch: int) -> None:
        """Keep the epoch's order: int [total], numbers of items, set after set."""
        self._drawn = [
            generator(self._seed, "part", epoch, i).permutation(free)[:extra]
            for i, (free, extra) in enumerate(zip(self._free, self._extra, strict=True))
        ]
        kind = np.dtype(np.int32 if self._bounds[-1] < 2**31 else np.int64)
        order = np.arange(self._bounds[-1], dtype=kind)
        generator(self._seed, "order", epoch).shuffle(order)
        for i, window in enumerate(self._windows):
            if window is not None:
                low, high = self._bounds[i : i + 2]
                order[(order >= low) & (order < high)] = low + self._by_window(i, window, epoch)
        self._order, self._epoch = order[: self.epoch_length], epoch

    def _by_window(self, i: int, window: int, epoch: int) -> Ints:
        """All items of a set, from 0, in an order that is through with `window` shards before it takes others."""
        rng = generator(self._seed, "windows", epoch, i)
        turn = rng.permutation(len(self._ends[i])) // window
        items = np.arange(self._bounds[i + 1] - self._bounds[i])
        whole = self._whole[i] * self._free[i]
        free = np.concatenate([items[:whole] % max(self._free[i], 1), self._drawn[i]])
        shards = np.searchsorted(self._ends[i], self._number(i, free), side="right")
        order: Ints = np.lexsort((rng.permutation(len(items)), turn[shards]))
        return order

    def _unfold(self, i: int, item: int) -> tuple[int, int]:
        """Repetition, and which of the samples that are not held out."""
        if item < self._whole[i] * self._free[i]:
            return divmod(item, self._free[i])
        return self._whole[i], int(self._drawn[i][item - self._whole[i] * self._free[i]])

    def _number(self, i: int, free: Ints | int) -> Ints:
        """Numbers among all samples of a set, from those among the ones that are not held out."""
        number: Ints = free + np.searchsorted(self._gaps[i], free, side="right")
        return number

    def _place(self, i: int, free: int) -> tuple[int, int]:
        """Shard, and index in it."""
        number = int(self._number(i, free))
        return place(self._ends[i], number)

    def _span(self, i: int, shard: int) -> tuple[int, int]:
        """Which of the samples that are not held out lie in a shard: from, to."""
        first, last = (int(self._ends[i][shard - 1]) if shard else 0), int(self._ends[i][shard])
        held = self._gaps[i] + np.arange(len(self._gaps[i]))
        low, high = np.searchsorted(held, (first, last))
        return first - int(low), last - int(high)


def place(ends: Ints, number: int) -> tuple[int, int]:
    """Shard, and index in it, of a sample's number; `ends` are running sums of the shards' samples."""
    shard = int(np.searchsorted(ends, number, side="right"))
    return shard, number - (int(ends[shard - 1]) if shard else 0)


def held_out(counts: Sequence[Sequence[int]], number: int, seed: int, most: Sequence[float] = ()) -> list[set[int]]:
    """Sample numbers of each set to validate on: of all sets in proportion to their samples, at least one of each.

    `number` in all where there are that many; fewer sets than `number` get one each. Of a set at most the share that
    `most` says, half by default, but one sample of any set that has two.
    """
    totals = [sum(each) for each in counts]
    shares = most or [_MOST_HELD_OUT] * len(totals)
    room = [max(int(total * share), min(1, total // 2)) for total, share in zip(totals, shares, strict=True)]
    takes = [0] * len(totals)
    for _ in range(min(number, sum(room))):
        # The set that is furthest behind its share; one that has none yet comes first, the largest of those before.
        open_ = [i for i in range(len(totals)) if takes[i] < room[i]]
        i = min(open_, key=lambda i: (takes[i] > 0, (takes[i] + 0.5) / totals[i], i))
        takes[i] += 1
    return [
        {int(n) for n in generator(seed, "held out", i).permutation(total)[:take]}
        for i, (total, take) in enumerate(zip(totals, takes, strict=True))
    ]


def items_of(counts: Sequence[Sequence[int]], numbers: Sequence[Iterable[int]]) -> list[Item]:
    """Items for these sample numbers of each set, set after set, ascending."""
    found = []
    for i, (each, chosen) in enumerate(zip(counts, numbers, strict=True)):
        ends: Ints = np.cumsum(each, dtype=np.int64)
        found += [Item(i, *place(ends, number), 0, 0) for number in sorted(chosen)]
    return found


def _gaps(held: Iterable[int]) -> Ints:
    """For each held out number, in order, how many that are not come before it."""
    numbers: Ints = np.array(sorted(held), np.int64)
    return numbers - np.arange(len(numbers))
