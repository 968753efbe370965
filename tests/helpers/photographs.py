"""A drawn photograph of one object, whose alpha is known."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


def photograph(side: int, seed: int = 0, shadow: float = 0.0) -> tuple[Bytes, Floats]:
    """A toy of two colours on grass of many greens, with the shadow that it casts: uint8 RGB, and alpha in 0..1."""
    rng = np.random.default_rng(seed)
    grass = np.array((90, 130, 60), np.float32) + rng.normal(0, 22, (side, side, 1)).astype(np.float32)
    slow = rng.normal(0, 10, (5, 5)).astype(np.float32)
    grass += cv2.resize(slow, (side, side), interpolation=cv2.INTER_CUBIC)[..., None]
    ground = cv2.GaussianBlur(grass, (0, 0), 0.8)
    big = np.zeros((side * 4, side * 4), np.float32)
    cv2.ellipse(big, (side * 2, side * 2), (side * 4 // 4, side * 4 // 6), 20, 0, 360, 1, -1)
    cv2.circle(big, (side * 27 // 10, side * 12 // 10), side * 4 // 9, 1, -1)
    alpha = cv2.GaussianBlur(cv2.resize(big, (side, side), interpolation=cv2.INTER_AREA), (0, 0), 0.7)
    dark = cv2.GaussianBlur(np.roll(alpha, (side // 12, -side // 8), (0, 1)), (0, 0), side / 60)
    ground = ground * (1 - shadow * dark[..., None])
    own = np.where(
        np.arange(side)[:, None, None] < side * 0.4,
        np.array((190, 60, 40), np.float32),
        np.array((225, 190, 70), np.float32),
    )
    own = own + rng.normal(0, 8, (side, side, 3))
    mixed = alpha[..., None] * own + (1 - alpha[..., None]) * ground
    return np.clip(mixed, 0, 255).astype(np.uint8), alpha.astype(np.float32)
