"""Pictures of known grain and blur."""

from __future__ import annotations

import cv2
import numpy as np

from pics_cli.core.images.grain import Grain, draw_grain

GREY = np.array([[1.0, 0.6, 0.6], [0.6, 1.0, 0.6], [0.6, 0.6, 1.0]])


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def ramp(height: int = 300, width: int = 400) -> np.ndarray:
    """A smooth picture, float32 [height, width, 3]."""
    return np.linspace(60, 190, width, dtype=np.float32)[None, :, None].repeat(height, 0).repeat(3, 2)


def grainy(deviation: float, blur: float = 0, covariance: np.ndarray = GREY, **size: int) -> np.ndarray:
    clean = ramp(**size)
    height, width = clean.shape[:2]
    noise = draw_grain(Grain(covariance * deviation**2, blur), height, width, rng(1))
    return np.rint((clean + noise).clip(0, 255)).astype(np.uint8)


def edges(blur: float, side: int = 400) -> np.ndarray:
    """Squares of random grey, uint8."""
    squares = rng(2).integers(30, 220, (10, 10)).astype(np.float32)
    sharp = cv2.resize(squares, (side, side), interpolation=cv2.INTER_NEAREST)
    picture = cv2.GaussianBlur(sharp, (0, 0), blur) if blur else sharp
    return np.rint(picture)[..., None].repeat(3, 2).astype(np.uint8)
