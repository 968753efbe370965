"""Means with 95 % intervals, by resampling the examples (bootstrap, Efron 1979, percentile intervals).

N: examples, B: resamples. An example without a value is nan and takes no part.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pics_cli.core.runtime.rng import generator

Values = npt.NDArray[np.float64]

RESAMPLES = 2000
CONFIDENCE = 0.95
QUANTILES = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)


class Estimate(NamedTuple):
    """A mean, its 95 % interval, and of how many examples it is; nan where of none."""

    mean: float
    low: float
    high: float
    size: int


def bootstrap_mean(values: Values, seed: int = 0) -> Estimate:
    """Mean of the values, float [N], and its interval; a function of them and the seed alone."""
    known = values[np.isfinite(values)]
    count = len(known)
    if not count:
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    means = (_resample_counts(seed, count) @ known.astype(np.float32)).astype(np.float64) / count
    low, high = np.quantile(means, QUANTILES)
    return Estimate(float(known.mean()), float(low), float(high), count)


def bootstrap_difference(first: Values, second: Values, seed: int = 0) -> Estimate:
    """Mean of first - second over the examples that have both, and its interval: examples are drawn in pairs.

    Raises:
        ValueError: arrays of different lengths.
    """
    if first.shape != second.shape:
        raise ValueError(f"values of {first.shape} and {second.shape} examples cannot be paired")
    return bootstrap_mean(first - second, seed)


@lru_cache(maxsize=4)
def _resample_counts(seed: int, count: int) -> npt.NDArray[np.float32]:
    """How often each of N examples is drawn, [B, N]: all that a mean needs of a resample; not to be written to."""
    counts = generator(seed, "bootstrap", count).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    return counts.astype(np.float32)
