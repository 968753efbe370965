"""The model of a cluster against closed forms, and its samples and errors against what statistics promises."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from pics_cli.core.runtime.cluster_model import Cluster, Ratio, Work, forecast, ratio_of_blocks, sample_blocks

# 1,000 blocks of 100 pictures, 10 ms and 1 MB each.
WORK = Work(items=100_000, seconds=0.01, read=1e6, written=5e5, block=100, calls=0.01)
CLUSTER = Cluster(nodes=10, workers=10, gbit=100, dispatch=0, start=0)


@pytest.mark.parametrize(
    ("work", "cluster", "limit", "seconds"),
    [
        (WORK, CLUSTER, "workers", 10 * 100 * 0.01),
        (WORK, replace(CLUSTER, nodes=1), "workers", 100 * 100 * 0.01),
        (replace(WORK, items=100_001), CLUSTER, "workers", 11 * 100 * 0.01),  # a block more is a round more
        (WORK, replace(CLUSTER, nodes=200), "blocks", 100 * 0.01),
        (WORK, replace(CLUSTER, gbit=0.8), "network", 100_000 * 1e6 / (10 * 1e8)),
        (replace(WORK, read=0, written=2e6), replace(CLUSTER, gbit=0.8), "network", 100_000 * 2e6 / (10 * 1e8)),
        (WORK, replace(CLUSTER, dispatch=0.05), "driver", 1000 * 0.05),
        (WORK, replace(CLUSTER, start=7), "workers", 7 + 10),
    ],
)
def test_the_slowest_part_counts(work: Work, cluster: Cluster, limit: str, seconds: float) -> None:
    ahead = forecast(work, cluster)
    assert ahead.limit == limit
    assert ahead.seconds == pytest.approx(seconds)
    busy = seconds - cluster.start
    assert (ahead.read_rate, ahead.write_rate) == pytest.approx(
        (work.items * work.read / busy, work.items * work.written / busy)
    )


def test_the_error_is_that_of_drawing_blocks_again_and_again() -> None:
    rng = np.random.default_rng(0)
    values, errors = [], []
    for _ in range(400):
        items = rng.integers(5, 12, 24)
        ratio = ratio_of_blocks((items * rng.normal(3, 0.6, 24)).tolist(), items.tolist())
        values.append(ratio.value)
        errors.append(ratio.error)
    assert np.mean(values) == pytest.approx(3, rel=0.01)
    assert 2 * np.std(values) == pytest.approx(np.mean(errors), rel=0.1)
    assert ratio_of_blocks([4.0], [2]) == Ratio(2.0, math.inf)
    assert ratio_of_blocks([0.0, 0.0], [0, 0]) == Ratio(0.0, math.inf)
    assert ratio_of_blocks([6.0, 3.0], [2, 1]) == Ratio(3.0, 0.0)


@pytest.mark.parametrize("items", [1, 7, 8, 100, 1_742_289])
def test_blocks_are_spread_wherever_they_end(items: int) -> None:
    blocks = list(sample_blocks(items, 8))
    assert len({block.start for block in blocks}) == len(blocks)
    assert all(0 <= block.start < block.stop <= items and len(block) <= 8 for block in blocks)
    assert len(blocks) == min(24, max(1, items // 8))
    if items > 1000:
        for count in (3, 7, 15):
            starts = sorted(block.start for block in blocks[:count])
            gaps = np.diff([0, *starts, items])
            assert gaps.max() - gaps.min() <= 32


def test_slow_blocks_end_early(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 30))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    assert len(list(sample_blocks(10_000, 8, seconds=20))) == 4
