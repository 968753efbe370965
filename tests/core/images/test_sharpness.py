"""Blur measured where it is known."""

from __future__ import annotations

import cv2
import pytest

from helpers.dirt import edges, ramp, rng
from pics_cli.core.images.sharpness import measure_blur


@pytest.mark.parametrize("blur", [0.6, 1.0, 1.5, 2.0, 3.0])
def test_blur_of_known_deviation(blur: float) -> None:
    """Noise makes edges seem sharper, if anything: then less is done."""
    assert measure_blur([(edges(blur), None)], 0.5) == pytest.approx(blur, rel=0.03)
    noisy = measure_blur([(edges(blur) + rng(6).normal(0, 3, (400, 400, 3)), None)], 0.5)
    assert noisy is not None
    assert 0.85 * blur < noisy < 1.03 * blur


def test_sharp_edges_and_none() -> None:
    found = measure_blur([(edges(0), None)], 0.5)
    assert found is not None
    assert found < 0.3
    assert measure_blur([(ramp(), None)], 0.5) is None


def test_a_single_edge_says_nothing_of_a_window() -> None:
    horizon = ramp()
    horizon[150:] -= 50
    horizon = cv2.GaussianBlur(horizon, (0, 0), 2)
    assert measure_blur([(horizon, None)], 0.5) == pytest.approx(2, rel=0.05)
    assert measure_blur([(horizon, None)], 0.5, 0.55) is None
    assert measure_blur([(edges(2), None)], 0.5, 0.55) == pytest.approx(2, rel=0.05)
