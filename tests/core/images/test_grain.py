"""Grain measured where it is known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from helpers.dirt import GREY, grainy, ramp, rng
from pics_cli.core.images.grain import measure_grain


@pytest.mark.parametrize(("deviation", "blur"), [(1.5, 0), (3, 0), (5, 0.7), (8, 1.1)])
def test_grain_of_known_deviation_and_correlation(deviation: float, blur: float) -> None:
    found = measure_grain([(grainy(deviation, blur), None)], 16)
    assert found is not None
    assert found.deviation == pytest.approx(deviation, rel=0.05)
    assert found.blur == pytest.approx(blur, abs=0.15)
    np.testing.assert_allclose(found.covariance / deviation**2, GREY, atol=0.1)


def test_colours_of_grain() -> None:
    coloured = np.array([[0.2, 0, 0], [0, 0.5, -0.3], [0, -0.3, 2.0]])
    found = measure_grain([(grainy(5, covariance=coloured), None)], 16)
    assert found is not None
    np.testing.assert_allclose(found.covariance / 25, coloured, atol=0.1)


def test_texture_is_no_grain() -> None:
    """Fine texture that varies from place to place, coarse texture, and too little to measure."""
    strength = cv2.resize(rng(3).uniform(0, 1, (12, 16)).astype(np.float32) ** 2, (400, 300))[..., None]
    fine = ramp() + strength * rng(4).normal(0, 25, (300, 400, 1))
    coarse = ramp() + cv2.GaussianBlur(rng(5).normal(0, 80, (300, 400)), (0, 0), 3)[..., None]
    for texture in (fine, coarse, grainy(5)[:40, :40], np.full((300, 400, 3), 255)):
        assert measure_grain([(texture.clip(0, 255).astype(np.uint8), None)], 16) is None


def test_masked_parts_are_not_looked_at() -> None:
    picture = np.concatenate([grainy(6), grainy(2)])
    mask = np.zeros(picture.shape[:2], np.bool_)
    mask[300:] = True
    found = measure_grain([(picture, mask)], 16)
    assert found is not None
    assert found.deviation == pytest.approx(2, rel=0.1)
