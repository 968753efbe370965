"""Distances between sets of pictures by their features: Fréchet (FID) and kernel (KID).

n, m: pictures of each set, d: width of the features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pics_cli.core.evaluation.network_weights import NetworkWeights
from pics_cli.core.evaluation.networks import Features
from pics_cli.core.evaluation.statistics import QUANTILES, Estimate
from pics_cli.core.runtime.rng import generator
from pics_cli.errors import PicsError

Floats = npt.NDArray[np.float64]

# With fewer pictures the distance is mostly that of their number (Heusel et al. 2017 take 50,000); with fewer than two
# there is none.
ENOUGH_PICTURES, MIN_PICTURES = 2048, 2
# Subsets of a kernel distance, and pictures of each, as published (Bińkowski et al. 2018), at most.
KERNEL_SUBSETS, MAX_SUBSET_SIZE = 100, 1000


def frechet_distance(first: Floats, second: Floats) -> float:
    """Squared Fréchet distance between normal distributions fitted to two sets [n, d] and [m, d].

    |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁ Σ₂)^½), Dowson and Landau 1982; of Inception features known as FID (Heusel et al.,
    NeurIPS 2017). Covariances are unbiased.

    Raises:
        ValueError: fewer than two of either.
    """
    if min(len(first), len(second)) < MIN_PICTURES:
        raise ValueError(f"{len(first)} and {len(second)} pictures have no covariance")
    # The product's eigenvalues, whose roots make tr((Σ₁ Σ₂)^½), are the squares of the singular values of R₁R₂ᵀ: few
    # pictures cost little, and singular covariances lose no digits.
    root_1, root_2 = _covariance_root(first), _covariance_root(second)
    roots = np.linalg.svd(root_1 @ root_2.T, compute_uv=False).sum()
    offset = first.mean(0) - second.mean(0)
    return float(offset @ offset + (root_1**2).sum() + (root_2**2).sum() - 2 * roots)


def _covariance_root(features: Floats) -> Floats:
    """R [min(n, d), d] with RᵀR = Σ."""
    return np.asarray(np.linalg.qr((features - features.mean(0)) / np.sqrt(len(features) - 1), mode="r"))


def kernel_distance(first: Floats, second: Floats) -> float:
    """Squared maximum mean discrepancy of two sets, unbiased, kernel (xᵀy / d + 1)³ (KID, Bińkowski et al., ICLR 2018).

    Raises:
        ValueError: fewer than two of either.
    """
    n, m = len(first), len(second)
    if min(n, m) < MIN_PICTURES:
        raise ValueError(f"{n} and {m} pictures are too few for a kernel distance")
    pairs = ((first, first), (second, second), (first, second))
    xx, yy, xy = (((x @ y.T) / first.shape[1] + 1) ** 3 for x, y in pairs)
    within = (xx.sum() - np.trace(xx)) / (n * (n - 1)) + (yy.sum() - np.trace(yy)) / (m * (m - 1))
    return float(within - 2 * xy.mean())


def estimate_kernel_distance(first: Floats, second: Floats, seed: int) -> Estimate:
    """Mean kernel distance of 100 random subsets of half the pictures, 1,000 at most; and the 95 % interval over them.

    `size` of the estimate is the number of pictures. Fewer than four have no halves: their interval is nan.
    """
    count = min(len(first), len(second))
    size = min(MAX_SUBSET_SIZE, count // 2)
    if size < MIN_PICTURES:
        return Estimate(kernel_distance(first, second), float("nan"), float("nan"), count)
    rng = generator(seed, "kernel", len(first), len(second))
    values = [
        kernel_distance(*(features[rng.choice(len(features), size, replace=False)] for features in (first, second)))
        for _ in range(KERNEL_SUBSETS)
    ]
    low, high = np.quantile(values, QUANTILES)
    return Estimate(float(np.mean(values)), float(low), float(high), count)


def distances_to_truth(
    features: Sequence[Mapping[str, Features]], methods: Sequence[str], weights: Sequence[NetworkWeights], seed: int
) -> dict[str, dict[str, Any]]:
    """Fréchet and kernel distance of every method to the truth by kind of network, as `results.json` has them.

    Args:
        features: of every example by KIND/METHOD, as `read_features` gives them.
        methods: by name.
        weights: of the encoders whose features there are; Inception's make the distances FID and KID.
        seed: of the kernel distance's subsets.

    Raises:
        PicsError: features that are not finite.
    """
    distances: dict[str, dict[str, Any]] = {}
    for network in weights:
        sets: dict[str, Floats] = {}
        for method in ("", *methods):
            key = f"{network.kind}/{method}"
            if rows := [of_example[key] for of_example in features if key in of_example]:
                sets[method] = np.concatenate(rows).astype(np.float64)
        if not all(np.isfinite(rows).all() for rows in sets.values()):
            raise PicsError(f"{network.name}: features that are no numbers", "is this encoder's file whole?")
        truth = sets[""]
        distances[network.kind] = {
            method: {
                "pictures": len(rows),
                "enough": len(rows) >= ENOUGH_PICTURES,
                "frechet": _six_digits(frechet_distance(rows, truth)),
                "kernel": {
                    name: _six_digits(value)
                    for name, value in estimate_kernel_distance(rows, truth, seed)._asdict().items()
                    if name != "size"
                },
            }
            for method, rows in sets.items()
            if method and min(len(rows), len(truth)) >= MIN_PICTURES
        }
    return distances


def _six_digits(value: float) -> float | None:
    """Six significant digits; None of no number."""
    return float(f"{value:.6g}") if np.isfinite(value) else None
