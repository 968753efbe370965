"""Linear light to 8-bit colour."""

from __future__ import annotations

import cv2
import numpy as np

from pics_cli.core.data.pictures import RGB
from pics_cli.core.data.synth.camera import Array

# The brightest light that is shown without being compressed much; there is no hard white.
_SHOULDER = 1.25


def spread(values: Array) -> Array:
    """One value per pixel for all three channels: float32 [h, w] to [h, w, 3]; as an array of its own, because NumPy is
    slow where the last axis is that short."""
    return cv2.merge((values, values, values)).astype(np.float32, copy=False)


def develop(light: Array, grain: Array | None = None) -> RGB:
    """Tone curve, gamma 2 and grain: float32 [h, w, 3] to uint8; `grain` is in 8-bit steps, of the same shape.

    x / sqrt(1 + (x / s)²) bends highlights smoothly; its square root is the display's gamma.
    """
    bent = light * light
    bent *= np.float32(1 / _SHOULDER**2)
    bent += 1
    np.sqrt(bent, out=bent)
    np.divide(light, bent, out=bent)
    np.sqrt(bent, out=bent)
    if grain is None:
        return cv2.convertScaleAbs(bent, alpha=255).astype(np.uint8, copy=False)
    bent *= np.float32(255)
    bent += grain
    # Where grain makes black negative, its absolute value is as good.
    return cv2.convertScaleAbs(bent).astype(np.uint8, copy=False)
