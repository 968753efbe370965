"""The order of samples: every one as often as asked, a function of seed and epoch, shares from the start."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from math import ceil, floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pics_cli.core.loading.loader import batch_positions
from pics_cli.core.loading.mixture import FixedOrder, Mixture, SampleRef, choose_validation_samples, sample_refs

COUNTS = st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=5), min_size=1, max_size=4)
REPEATS = st.floats(0.1, 3.5)


def epoch_of(mixture: Mixture, epoch: int) -> list[SampleRef]:
    start = epoch * mixture.epoch_length
    return [mixture[position] for position in range(start, start + mixture.epoch_length)]


@settings(max_examples=60, deadline=None)
@given(COUNTS, st.data())
def test_every_sample_as_often_as_asked(counts: list[list[int]], data: st.DataObject) -> None:
    """Whole repeats for each; fractions for a part; what is held out never; each (sample, repetition) at most once."""
    repeats = [data.draw(REPEATS) for _ in counts]
    held = [data.draw(st.sets(st.integers(0, max(sum(each) - 1, 0)), max_size=sum(each) // 2)) for each in counts]
    windows = [data.draw(st.sampled_from([None, 1, 2])) for _ in counts]
    free = [sum(each) - len(gone) for each, gone in zip(counts, held, strict=True)]
    sizes = [floor(r) * n + round((r - floor(r)) * n) for r, n in zip(repeats, free, strict=True)]
    if not sum(sizes):
        with pytest.raises(ValueError, match="no sample"):
            Mixture(counts, repeats, 0, held_out=held, windows=windows)
        return
    mixture = Mixture(counts, repeats, 3, held_out=held, windows=windows)
    assert mixture.epoch_length == sum(sizes)
    assert mixture.shares == pytest.approx([size / sum(sizes) for size in sizes])
    for epoch in range(2):
        items = epoch_of(mixture, epoch)
        assert len(set(items)) == len(items)
        assert all(item.epoch == epoch for item in items)
        seen = Counter((item.set, sum(counts[item.set][: item.shard]) + item.sample) for item in items)
        for i, each in enumerate(counts):
            numbers = [seen[i, number] for number in range(sum(each))]
            assert sum(numbers) == sizes[i]
            assert all(numbers[gone] == 0 for gone in held[i])
            kept = [n for number, n in enumerate(numbers) if number not in held[i]]
            assert all(floor(repeats[i]) <= n <= ceil(repeats[i]) for n in kept)
        assert all(0 <= item.sample < counts[item.set][item.shard] for item in items)


def test_a_function_of_seed_and_epoch() -> None:
    counts, repeats = [[5, 7], [3]], [1.5, 4.0]
    one, other = Mixture(counts, repeats, 1), Mixture(counts, repeats, 1)
    whole = [one[position] for position in range(100)]
    mixed_up = np.random.default_rng(0).permutation(100)
    assert [other[int(position)] for position in mixed_up] == [whole[position] for position in mixed_up]
    first, second = epoch_of(one, 0), epoch_of(one, 1)
    assert [item[:3] for item in first] != [item[:3] for item in second]
    assert [item[:3] for item in epoch_of(Mixture(counts, repeats, 2), 0)] != [item[:3] for item in first]


def test_fractions_are_drawn_anew_each_epoch() -> None:
    mixture = Mixture([[100]], [0.5], 0)
    assert mixture.epoch_length == 50
    seen = Counter(item.sample for epoch in range(20) for item in epoch_of(mixture, epoch))
    assert len(seen) == 100
    assert max(seen.values()) <= 19


@pytest.mark.parametrize("seed", range(5))
def test_shares_of_the_first_hundred_batches(seed: int) -> None:
    """Within 5 points of what was asked, as no single shard or set comes first; also with a part of the epoch."""
    counts, repeats = [[900] * 4, [150] * 2, [2000] * 5, [60], [90], [30] * 3], [3, 6, 1, 18, 18, 18]
    for share in (1.0, 0.25):
        mixture = Mixture(counts, repeats, seed, share=share, windows=[None, None, 2, None, None, 1])
        first = Counter(mixture[position].set for position in range(1600))
        total = sum(sum(each) * repeat for each, repeat in zip(counts, repeats, strict=True))
        for i, (each, repeat) in enumerate(zip(counts, repeats, strict=True)):
            assert mixture.shares[i] == pytest.approx(sum(each) * repeat / total)
            assert abs(first[i] / 1600 - mixture.shares[i]) < 0.05
    batches = [{mixture[16 * b + i].set for i in range(16)} for b in range(100)]
    assert sum(map(len, batches)) / 100 > 3.5


def test_part_of_an_epoch() -> None:
    whole, part = Mixture([[40]], [1], 5), Mixture([[40]], [1], 5, share=0.3)
    assert part.epoch_length == 12
    assert epoch_of(part, 0) == epoch_of(whole, 0)[:12]
    assert epoch_of(part, 1) == epoch_of(whole, 1)[:12]


@pytest.mark.parametrize("window", [1, 2, 3, 10])
def test_windows_hold_few_shards_at_a_time(window: int) -> None:
    """A set's shards come `window` at a time, with all repetitions; the others are mixed in as ever."""
    counts = [[8, 3, 9, 5, 7, 6, 8], [50]]
    mixture = Mixture(counts, [2.5, 1.0], 4, windows=[window, None])
    for epoch in range(2):
        shards = [item.shard for item in epoch_of(mixture, epoch) if item.set == 0]
        assert len(shards) == round(2.5 * 46)
        spans = {shard: (shards.index(shard), len(shards) - shards[::-1].index(shard)) for shard in set(shards)}
        at_once = [sum(low <= place < high for low, high in spans.values()) for place in range(len(shards))]
        assert max(at_once) <= window
        if window > 1:
            assert sum(a != b for a, b in pairwise(shards)) > 20
    first, second = ([item.shard for item in epoch_of(mixture, e) if item.set == 0] for e in (0, 1))
    assert first != second


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 50), st.integers(1, 6))
def test_ranks_share_every_position(size: int, batch: int, start: int, rounds: int) -> None:
    """All ranks together take each position once, round by round in order."""
    streams = [batch_positions(start, rank, size, batch) for rank in range(size)]
    for number in range(rounds):
        taken = sorted(position for stream in streams for position in next(stream))
        first = start + number * size * batch
        assert taken == list(range(first, first + size * batch))


def test_the_order_of_a_large_mixture_is_quick_and_small() -> None:
    mixture = Mixture([[10_000] * 100], [2.0], 0)
    mixture[0]
    assert mixture._order.nbytes == 4 * 2_000_000


@settings(max_examples=60, deadline=None)
@given(COUNTS, st.integers(0, 40))
def test_held_out(counts: list[list[int]], number: int) -> None:
    """At most half of each set, as many as asked where there is room, of each set where the number allows."""
    found = choose_validation_samples(counts, number, 1)
    totals = [sum(each) for each in counts]
    room = [total // 2 for total in totals]
    assert sum(map(len, found)) == min(number, sum(room))
    for numbers, total, most in zip(found, totals, room, strict=True):
        assert len(numbers) <= most
        assert all(0 <= one < total for one in numbers)
        assert numbers or not most or number < sum(map(bool, room))
    assert found == choose_validation_samples(counts, number, 1)


def test_held_out_in_proportion() -> None:
    found = choose_validation_samples([[500] * 2, [3000], [10]], 41, 0)
    assert [len(numbers) for numbers in found] == [10, 30, 1]
    assert choose_validation_samples([[1000]], 30, 0) != choose_validation_samples([[1000]], 30, 1)


def test_held_out_samples_by_item() -> None:
    counts = [[2, 3], [4]]
    items = sample_refs(counts, [{4, 0, 2}, {1}])
    assert items == [
        SampleRef(0, 0, 0, 0, 0),
        SampleRef(0, 1, 0, 0, 0),
        SampleRef(0, 1, 2, 0, 0),
        SampleRef(1, 0, 1, 0, 0),
    ]
    listed = FixedOrder(items)
    assert [listed[position] for position in range(6)] == [*items, *items[:2]]
    assert {listed.resample(items[0], np.random.default_rng(seed)).set for seed in range(9)} == {0}


def test_another_sample_of_the_same_set() -> None:
    """Never one that is held out; of the same shard where shards must be fetched."""
    counts, gone = [[4, 4], [5, 5, 5]], [{0, 5}, {5, 7, 14}]
    mixture = Mixture(counts, [1, 1], 0, held_out=gone, windows=[None, 1])
    for position in range(mixture.epoch_length):
        item = mixture[position]
        others = [mixture.resample(item, np.random.default_rng(seed)) for seed in range(40)]
        numbers = {sum(counts[item.set][: other.shard]) + other.sample for other in others}
        assert {other.set for other in others} == {item.set}
        assert not numbers & gone[item.set]
        wanted = range(sum(counts[item.set]))
        if item.set == 1:
            assert {other.shard for other in others} == {item.shard}
            wanted = range(5 * item.shard, 5 * item.shard + 5)
        assert numbers == set(wanted) - gone[item.set]
