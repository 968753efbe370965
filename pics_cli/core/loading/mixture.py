"""Order of the training samples: endless epochs, each a permutation that follows from seed and epoch alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pics_cli.core.runtime.rng import generator

Ints = npt.NDArray[np.int64]

# Of a set's samples at most this part is held out for validation, so that small sets keep some to train on.
_MAX_VALIDATION = 0.5


class SampleRef(NamedTuple):
    """A sample in the order.

    Attributes:
        set, shard, sample: which sample of which shard of which set.
        epoch: counted from 0.
        repetition: at most how often the sample occurred before in this epoch.
    """

    set: int
    shard: int
    sample: int
    epoch: int
    repetition: int


class FixedOrder:
    """Given samples in their order, over and over: for validation."""

    def __init__(self, refs: Sequence[SampleRef]) -> None:
        self.refs = list(refs)
        self.epoch_length = len(self.refs)

    def __getitem__(self, position: int) -> SampleRef:
        """The sample at a position from 0 on."""
        return self.refs[position % self.epoch_length]

    def resample(self, ref: SampleRef, rng: np.random.Generator) -> SampleRef:
        """Another of the samples, of the same set."""
        same_set = [other for other in self.refs if other.set == ref.set]
        return same_set[int(rng.integers(len(same_set)))]


class Mixture:
    """Samples of several sets in one endless order.

    An epoch holds each sample of set i `repeats[i]` times; a fraction is a part of the samples that is drawn anew each
    epoch. Which sample is at a position is a function of (seed, epoch) alone. Samples that are not held out are "free"
    and numbered from 0 in each set.

    Args:
        counts: samples of each shard of each set.
        repeats: of each set, above 0.
        seed: of the order.
        share: part of each epoch that is used, its first.
        held_out: sample numbers of each set, counted over its shards, that are left out; empty: none.
        windows: of each set: None for any order; n where shards must be fetched first and are taken n at a time: the
            set's own order then shuffles its shards, and the samples within every n of them.

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
        self._ends: list[Ints] = [np.cumsum(shard_counts, dtype=np.int64) for shard_counts in counts]
        self._gaps = [_free_before(numbers) for numbers in held_out] or [_free_before(())] * len(counts)
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

    def __getitem__(self, position: int) -> SampleRef:
        """The sample at a position, counted from 0 over all epochs."""
        epoch, index = divmod(position, self.epoch_length)
        if epoch != self._epoch:
            self._start_epoch(epoch)
        number = int(self._order[index])
        i = int(np.searchsorted(self._bounds, number, side="right")) - 1
        repetition, free = self._repetition(i, number - int(self._bounds[i]))
        return SampleRef(i, *self._locate(i, free), epoch, repetition)

    def resample(self, ref: SampleRef, rng: np.random.Generator) -> SampleRef:
        """Another sample of the set, drawn evenly; of the same shard where shards must be fetched."""
        i = ref.set
        low, high = (0, self._free[i]) if self._windows[i] is None else self._free_range(i, ref.shard)
        return SampleRef(i, *self._locate(i, int(rng.integers(low, high))), ref.epoch, ref.repetition)

    def _start_epoch(self, epoch: int) -> None:
        """Keep the epoch's order: int [total], numbers of its items, set after set."""
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
                order[(order >= low) & (order < high)] = low + self._windowed_order(i, window, epoch)
        self._order, self._epoch = order[: self.epoch_length], epoch

    def _windowed_order(self, i: int, window: int, epoch: int) -> Ints:
        """All items of a set, from 0, in an order that is through with `window` shards before it takes others."""
        rng = generator(self._seed, "windows", epoch, i)
        turn = rng.permutation(len(self._ends[i])) // window
        items = np.arange(self._bounds[i + 1] - self._bounds[i])
        whole = self._whole[i] * self._free[i]
        free = np.concatenate([items[:whole] % max(self._free[i], 1), self._drawn[i]])
        shards = np.searchsorted(self._ends[i], self._number(i, free), side="right")
        order: Ints = np.lexsort((rng.permutation(len(items)), turn[shards]))
        return order

    def _repetition(self, i: int, item: int) -> tuple[int, int]:
        """Repetition, and number among the free samples, of an item of a set."""
        if item < self._whole[i] * self._free[i]:
            return divmod(item, self._free[i])
        return self._whole[i], int(self._drawn[i][item - self._whole[i] * self._free[i]])

    def _number(self, i: int, free: Ints | int) -> Ints:
        """Numbers among all samples of a set, from those among the free ones."""
        number: Ints = free + np.searchsorted(self._gaps[i], free, side="right")
        return number

    def _locate(self, i: int, free: int) -> tuple[int, int]:
        """Shard, and index in it, of a free sample."""
        return locate(self._ends[i], int(self._number(i, free)))

    def _free_range(self, i: int, shard: int) -> tuple[int, int]:
        """Numbers of the free samples of a shard: from, to."""
        first, last = (int(self._ends[i][shard - 1]) if shard else 0), int(self._ends[i][shard])
        held_out = self._gaps[i] + np.arange(len(self._gaps[i]))
        low, high = np.searchsorted(held_out, (first, last))
        return first - int(low), last - int(high)


def locate(ends: Ints, number: int) -> tuple[int, int]:
    """Shard, and index in it, of a sample's number; `ends` are running sums of the shards' samples."""
    shard = int(np.searchsorted(ends, number, side="right"))
    return shard, number - (int(ends[shard - 1]) if shard else 0)


def choose_validation_samples(
    counts: Sequence[Sequence[int]], total: int, seed: int, max_parts: Sequence[float] = ()
) -> list[set[int]]:
    """Sample numbers of each set to validate on: of all sets in proportion to their samples, at least one of each.

    Args:
        counts: samples of each shard of each set.
        total: samples to choose in all, where there are that many; more sets than that get one each.
        seed: of the draw.
        max_parts: of each set, the part of its samples that may be chosen; half by default. A set of two samples gives
            one in any case.
    """
    sizes = [sum(shard_counts) for shard_counts in counts]
    parts = max_parts or [_MAX_VALIDATION] * len(sizes)
    room = [max(int(size * part), min(1, size // 2)) for size, part in zip(sizes, parts, strict=True)]
    takes = [0] * len(sizes)
    for _ in range(min(total, sum(room))):
        # The set that is furthest behind its share; one that has none yet comes first, the largest of those before.
        i = min(
            (i for i in range(len(sizes)) if takes[i] < room[i]),
            key=lambda i: (takes[i] > 0, (takes[i] + 0.5) / sizes[i], i),
        )
        takes[i] += 1
    return [
        {int(number) for number in generator(seed, "held out", i).permutation(size)[:take]}
        for i, (size, take) in enumerate(zip(sizes, takes, strict=True))
    ]


def sample_refs(counts: Sequence[Sequence[int]], numbers: Sequence[Iterable[int]]) -> list[SampleRef]:
    """The samples with these numbers of each set, set after set, ascending."""
    refs = []
    for i, (shard_counts, chosen) in enumerate(zip(counts, numbers, strict=True)):
        ends: Ints = np.cumsum(shard_counts, dtype=np.int64)
        refs += [SampleRef(i, *locate(ends, number), 0, 0) for number in sorted(chosen)]
    return refs


def _free_before(held_out: Iterable[int]) -> Ints:
    """Number of free samples before each of the held-out ones, ascending."""
    numbers: Ints = np.array(sorted(held_out), np.int64)
    return numbers - np.arange(len(numbers))
