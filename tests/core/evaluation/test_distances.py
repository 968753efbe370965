"""Distances between sets of features: closed forms, and computed independently."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import linalg
from torchmetrics.image.fid import FrechetInceptionDistance

from pics_cli.core.evaluation.distances import (
    MAX_SUBSET_SIZE,
    estimate_kernel_distance,
    frechet_distance,
    kernel_distance,
)


def features(seed: int, count: int, width: int = 6, shift: float = 0.0, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, scale, (count, width))


def test_frechet_against_the_matrix_root() -> None:
    one, other = features(0, 80), features(1, 60, shift=0.5, scale=2.0) @ np.diag([1, 2, 1, 3, 1, 0.5])
    first, second = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    root = linalg.sqrtm(first @ second).real
    expected = ((one.mean(0) - other.mean(0)) ** 2).sum() + np.trace(first + second - 2 * root)
    assert frechet_distance(one, other) == pytest.approx(expected, abs=1e-8)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-8)
    assert frechet_distance(other, one) == pytest.approx(expected, abs=1e-8)


def test_frechet_of_known_gaussians() -> None:
    """Independent dimensions: sum of (difference of means)² + (difference of deviations)²."""
    one = features(0, 200_000, 3)
    other = features(1, 200_000, 3) * (1, 2, 0.5) + (0, 1, -2)
    assert frechet_distance(one, other) == pytest.approx(1 + 4 + 1 + 0.25, rel=0.02)


def test_frechet_with_fewer_pictures_than_features() -> None:
    one, other = features(0, 5, 12), features(1, 7, 12)
    first, second = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    # tr((AB)^1/2) by singular values of A^1/2 B^1/2, which is sure for singular matrices too.
    roots = [linalg.sqrtm(each + 0j).real for each in (first, second)]
    root = np.linalg.svd(roots[0] @ roots[1], compute_uv=False).sum()
    expected = ((one.mean(0) - other.mean(0)) ** 2).sum() + np.trace(first) + np.trace(second) - 2 * root
    assert frechet_distance(one, other) == pytest.approx(expected, abs=1e-5)


def test_kernel_by_brute_force() -> None:
    one, other = features(0, 9), features(1, 7, shift=0.3)

    def k(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / 6 + 1) ** 3)

    within = [np.mean([k(x, y) for i, x in enumerate(s) for j, y in enumerate(s) if i != j]) for s in (one, other)]
    across = np.mean([k(x, y) for x in one for y in other])
    assert kernel_distance(one, other) == pytest.approx(sum(within) - 2 * across, abs=1e-9)


def test_kernel_is_unbiased() -> None:
    """Of two sets of one distribution it is 0 on average, below 0 as often as above."""
    found = [kernel_distance(features(2 * seed, 30), features(2 * seed + 1, 30)) for seed in range(200)]
    assert abs(np.mean(found)) < 3 * np.std(found) / 200**0.5
    assert 60 < sum(value < 0 for value in found) < 140


def test_kernel_estimate() -> None:
    few = estimate_kernel_distance(features(0, 20), features(1, 25, shift=1.0), 0)
    assert few.low < few.mean < few.high
    assert few.size == 20
    assert np.isnan(estimate_kernel_distance(features(0, 3), features(1, 3), 0).low)
    one, other = features(0, MAX_SUBSET_SIZE + 400), features(1, MAX_SUBSET_SIZE + 400, shift=0.2)
    many = estimate_kernel_distance(one, other, 0)
    assert many.low < kernel_distance(one, other) < many.high
    assert many == estimate_kernel_distance(one, other, 0)


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_too_few(distance: object) -> None:
    with pytest.raises(ValueError, match="1 and 5 pictures"):
        distance(features(0, 1), features(1, 5))  # type: ignore[operator]


def test_fid_is_torchmetrics() -> None:
    """Of the same features: torchmetrics takes any network, here one that hands them through."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, (40, 12)), rng.normal(0.3, 1.4, (50, 12))

    class Through(torch.nn.Module):
        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return features.flatten(1)

    metric = FrechetInceptionDistance(feature=Through(), input_img_size=(1, 1, 12))
    metric.set_dtype(torch.float64)
    metric.update(torch.from_numpy(a), real=True)
    metric.update(torch.from_numpy(b), real=False)
    assert frechet_distance(b, a) == pytest.approx(float(metric.compute()), rel=1e-5)
