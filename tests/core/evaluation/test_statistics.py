"""Intervals hold the true mean about as often as they say."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pics_cli.core.evaluation.statistics import bootstrap_difference, bootstrap_mean


@pytest.mark.parametrize("shares", [False, True])
def test_coverage(shares: bool) -> None:
    """95 % within 2, of values like decibels and of shares that are 0 or 1."""
    rng = np.random.default_rng(0)
    held = []
    for _ in range(2000):
        values = (rng.random(200) < 0.7).astype(float) if shares else rng.normal(2.0, 3.0, 200)
        found = bootstrap_mean(values)
        assert found.low < found.mean < found.high
        held.append(found.low <= (0.7 if shares else 2.0) <= found.high)
    assert 0.93 <= np.mean(held) <= 0.97


def test_width_is_that_of_the_normal_interval() -> None:
    values = np.random.default_rng(1).normal(5, 3, 4000)
    found = bootstrap_mean(values)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * values.std() / 4000**0.5, rel=0.08)
    assert found.mean == pytest.approx(values.mean())


def test_pairs_are_kept() -> None:
    rng = np.random.default_rng(2)
    scene = rng.normal(0, 10, 200)  # which all methods share
    one, other = scene + 1 + rng.normal(0, 0.5, 200), scene + rng.normal(0, 0.5, 200)
    found = bootstrap_difference(one, other)
    assert found.low > 0.8
    assert found.high < 1.2
    alone = bootstrap_mean(one)
    assert alone.high - alone.low > 10 * (found.high - found.low)
    assert bootstrap_difference(other, one).mean == pytest.approx(-found.mean)
    with pytest.raises(ValueError, match="paired"):
        bootstrap_difference(one, other[:-1])


def test_examples_without_a_value() -> None:
    values = np.array([1.0, math.nan, 3.0, math.nan])
    assert bootstrap_mean(values)[0] == 2
    assert bootstrap_mean(values).size == 2
    assert bootstrap_difference(values, np.array([0.0, 1.0, math.nan, 2.0])).size == 1
    empty = bootstrap_mean(np.array([math.nan]))
    assert empty.size == 0
    assert math.isnan(empty.mean)


def test_same_seed_same_interval() -> None:
    values = np.random.default_rng(3).normal(size=50)
    assert bootstrap_mean(values, 4) == bootstrap_mean(values, 4)
    assert bootstrap_mean(values, 4) != bootstrap_mean(values, 5)
