"""Means with 95 % intervals, by resampling the scenes (Efron 1979, percentile intervals).

N: scenes, B: resamples. A scene without a value is nan and takes no part.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pics_cli.core.runtime.rng import generator

Values = npt.NDArray[np.float64]

RESAMPLES = 2000
LEVEL = 0.95


class Estimate(NamedTuple):
    """A mean, its interval, and of how many scenes it is; nan where of none."""

    mean: float
    low: float
    high: float
    scenes: int


def estimate(values: Values, seed: int = 0) -> Estimate:
    """Mean of the values, float [N], and its interval; a function of them and the seed alone."""
    known = values[np.isfinite(values)]
    count = len(known)
    if not count:
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    means = (_times(seed, count) @ known.astype(np.float32)).astype(np.float64) / count
    low, high = np.quantile(means, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Estimate(float(known.mean()), float(low), float(high), count)


def difference(one: Values, other: Values, seed: int = 0) -> Estimate:
    """Mean of one - other over the scenes that have both, and its interval: scenes are drawn in pairs.

    Raises:
        ValueError: arrays of different lengths.
    """
    if one.shape != other.shape:
        raise ValueError(f"values of {one.shape} and {other.shape} scenes cannot be paired")
    return estimate(one - other, seed)


@lru_cache(maxsize=4)
def _times(seed: int, count: int) -> npt.NDArray[np.float32]:
    """How often each of N scenes is drawn, [B, N]: all that a mean needs of a resample; not to be written to."""
    drawn = generator(seed, "bootstrap", count).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    return drawn.astype(np.float32)
