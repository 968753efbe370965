"""Metrics of an object's colours and fine detail: pure functions of pictures, uint8 [H, W, 3], and masks, bool [H, W].

P: patches of detail. A metric is None where it is undefined for the example.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from pics_cli.core.evaluation.pixel_metrics import MIN_PIXELS, Floats
from pics_cli.core.images.image_io import RGB
from pics_cli.core.images.masks import Mask, box_mask

# Colours of an object that are compared: so many of its pixels at most.
MAX_COLOURS = 256
# Fine detail is what a Gaussian blur of this deviation takes away, in pixels.
_BLUR = 2.0
# Sides of the patches of detail, how far apart they are, and how far a patch may have moved, in pixels.
PATCH, _STRIDE, _SHIFT = 16, 8, 2
# Patches this near to the outline of what is seen are not judged: there the detail is the outline.
_RIM = 4
# Of an object's patches, the share with most detail; and how much detail a patch must have (root of the mean square).
_SHARE, _MIN_DETAIL = 0.25, 4.0
# A patch with less detail than that, in 8-bit steps, has none: what is left is rounding.
_NO_DETAIL = 0.5

Corners = npt.NDArray[np.intp]


def object_colours(rgb: RGB, mask: Mask) -> Floats | None:
    """Lab of an object's pixels, L from 0 to 100: float32 [n, 3], n <= 256, evenly spaced in reading order.

    None of fewer than 16 pixels.
    """
    pixels = rgb[mask]
    if len(pixels) < MIN_PIXELS:
        return None
    count = min(len(pixels), MAX_COLOURS)
    chosen = pixels[np.arange(count) * len(pixels) // count].astype(np.float32) / 255
    lab: Floats = cv2.cvtColor(chosen[None], cv2.COLOR_RGB2Lab)[0].astype(np.float32, copy=False)
    return lab


def colour_chamfer(first: Floats, second: Floats) -> float:
    """Chamfer distance of two sets of colours, [n, 3] and [m, 3]: the mean distance of a colour to the nearest of the
    other set, averaged over both directions."""
    a, b = first.astype(np.float64), second.astype(np.float64)
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    there, back = (np.sqrt(np.maximum(squares.min(axis=axis), 0)) for axis in (1, 0))
    return float(there.mean() + back.mean()) / 2


def fine_detail(light: Floats) -> Floats:
    """Y less its Gaussian blur, float32 [H, W]."""
    detail: Floats = light - cv2.GaussianBlur(light, (0, 0), _BLUR)
    return detail


def detailed_patches(detail: Floats, mask: Mask) -> Corners:
    """Upper left corners of the patches of an object that have most detail: logos, letters, patterns; [P, 2] as y, x.

    Args:
        detail: of the truth.
        mask: what is seen of the object in it.
    """
    none = np.zeros((0, 2), np.intp)
    if not mask.any():
        return none
    x0, y0, x1, y1 = box_mask(mask).box
    if min(x1 - x0, y1 - y0) < PATCH + 2 * _RIM:
        return none
    inner = cv2.erode(mask[y0:y1, x0:x1].view(np.uint8), np.ones((2 * _RIM + 1,) * 2, np.uint8), borderValue=0)
    shape = (PATCH, PATCH)
    whole = sliding_window_view(inner, shape)[::_STRIDE, ::_STRIDE].min(axis=(2, 3)) > 0
    energy = (sliding_window_view(detail[y0:y1, x0:x1], shape)[::_STRIDE, ::_STRIDE] ** 2).mean(axis=(2, 3))
    rows, columns = np.nonzero(whole)
    strength = energy[rows, columns]
    most = np.argsort(-strength, kind="stable")[: int(np.ceil(_SHARE * len(strength)))]
    most = most[strength[most] >= _MIN_DETAIL**2]
    corners: Corners = np.stack([rows[most] * _STRIDE + y0, columns[most] * _STRIDE + x0], axis=1)
    return corners


def detail_correlation(detail: Floats, true_detail: Floats, corners: Corners) -> float | None:
    """Mean over patches of the normalised correlation of the detail with the truth's, at the best of 25 places.

    A patch may have moved by up to 2 pixels either way: that is still legible. 1: all of it is there; near 0: none.
    None without patches.
    """
    if not len(corners):
        return None
    expected = _patches(true_detail, corners, PATCH)
    found = sliding_window_view(_patches(detail, corners - _SHIFT, PATCH + 2 * _SHIFT), (PATCH, PATCH), axis=(1, 2))
    products = np.einsum("pijab,pab->pij", found, expected)
    energy = np.maximum(np.einsum("pijab,pijab->pij", found, found), PATCH**2 * _NO_DETAIL**2)
    norms = np.sqrt(energy * np.einsum("pab,pab->p", expected, expected)[:, None, None])
    return float((products / norms).max(axis=(1, 2)).mean())


def _patches(values: Floats, corners: npt.NDArray[Any], side: int) -> npt.NDArray[np.float64]:
    """Squares of an array, [P, side, side]; all of them lie inside."""
    return np.stack([values[y : y + side, x : x + side] for y, x in corners]).astype(np.float64)
