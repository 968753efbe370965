"""How blurred a picture is, measured at its edges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pics_cli.core.images.masks import Mask

Floats = npt.NDArray[np.float32]
Crops = Sequence[tuple[npt.NDArray[Any], Mask | None]]

# Edges are measured after a first smoothing, which takes noise away, by how much a second one lowers them.
_FIRST_BLUR, _SECOND_BLUR = 1.0, 1.5
# Variance of the blur of differences between pixels instead of slopes, as measured on steps of known blur.
_PIXEL_VARIANCE = 0.55
# Least step across an edge, in grey levels, and number of pixels on edges that are needed.
_MIN_STEP, _MIN_EDGES = 24.0, 60
# Cells across a picture and down, and edge pixels that one must hold to count.
_GRID, _MIN_CELL = 4, 4


def measure_blur(crops: Crops, share: float, spread: float = 0) -> float | None:
    """Measure how blurred edges are: by how much another blur lowers their slopes (Zhuo and Sim, 2011).

    A step that a Gaussian of deviation σ has blurred rises by 1 / (σ sqrt(2 π)) at its middle, so that a ratio R of its
    slopes before and after a blur by t gives σ² = t² / (R² - 1).

    Args:
        crops: pictures, uint8 or float [h, w, 3], and where each may be looked at, bool [h, w]; None: everywhere.
        share: of the edges that are sharper than the one that counts.
        spread: share of the cells of a grid of 4 x 4 over each picture that must hold edges: a single soft edge, such
            as a horizon or a shadow's, says nothing of a picture.

    Returns:
        The deviation, in pixels; None where there are too few edges.
    """
    found, cells = [], []
    for picture, mask in crops:
        grey = picture.astype(np.float32).mean(axis=2)
        first = cv2.GaussianBlur(grey, (0, 0), _FIRST_BLUR)
        before, after = _slope(first), _slope(cv2.GaussianBlur(first, (0, 0), _SECOND_BLUR))
        ridge = (before >= 0.98 * cv2.dilate(before, np.ones((3, 3), np.uint8))) & (before > 1.05 * after)
        ridge[:4], ridge[-4:], ridge[:, :4], ridge[:, -4:] = False, False, False, False
        if mask is not None:
            ridge &= mask
        slope, ratio = before[ridge], before[ridge] / np.maximum(after[ridge], 1e-6)
        total = _SECOND_BLUR**2 / (ratio**2 - 1)
        strong = slope * np.sqrt(2 * np.pi * total) >= _MIN_STEP
        y, x = (each[strong] * _GRID // length for each, length in zip(np.nonzero(ridge), ridge.shape, strict=True))
        cells.append(np.bincount(y * _GRID + x, minlength=_GRID**2) >= _MIN_CELL)
        found.append(np.sqrt(np.maximum(total[strong] - _FIRST_BLUR**2 - _PIXEL_VARIANCE, 0.01)))
    edges = np.concatenate(found)
    if len(edges) < _MIN_EDGES or np.mean(cells) < spread:
        return None
    return float(np.quantile(edges, share))


def _slope(grey: npt.NDArray[Any]) -> Floats:
    across, down = (np.asarray(each, np.float32) for each in np.gradient(grey)[::-1])
    return np.hypot(across, down)
