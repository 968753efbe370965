"""The main object of a photograph, by GrabCut (Rother, Kolmogorov and Blake 2004) as OpenCV has it."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from pics_cli.core.images.image_io import RGB
from pics_cli.core.images.masks import Mask

Bytes = npt.NDArray[np.uint8]

# Longer side of the picture that is cut: colours of regions need no more.
_SIDE = 512
# Part of the picture, on each side, that surely shows no object.
_MARGIN = 0.03
_ITERATIONS = 6
# What may be shadow of all that seemed to be object; more, and the object merely has the background's colour.
_MAX_SHADOW = 0.5
# A part beside the largest that counts as the object's, too, in areas of the largest.
_SECOND = 0.1
# Holes up to this part of the object's area are closed.
_HOLE = 0.005


def grab_cut(rgb: RGB) -> tuple[Mask, float]:
    """Cut the main object out of a photograph whose border shows none of it.

    The border is surely background, what lies within it the object's at first; colour models of both and the cut
    between them are then found in turn. What has the colour of the ground around the object, only darker, is given to
    the background once: the shadow that the object casts. The largest connected part is the object, with others of a
    tenth of its area or more.

    Args:
        rgb: uint8 [h, w, 3].

    Returns:
        bool [h, w], and the pixels of the picture that one of the cut's takes: how exact the outline is.
    """
    height, width = rgb.shape[:2]
    scale = max(max(height, width) / _SIDE, 1)
    size = max(round(width / scale), 8), max(round(height / scale), 8)
    small: RGB = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    rows, columns = small.shape[:2]
    margin = max(round(_MARGIN * min(rows, columns)), 2)
    labels = np.full((rows, columns), cv2.GC_BGD, np.uint8)
    labels[margin : rows - margin, margin : columns - margin] = cv2.GC_PR_FGD
    found = _cut(small, labels, _ITERATIONS)
    shadow = _darkened(small, found)
    if 0 < np.count_nonzero(shadow) < _MAX_SHADOW * np.count_nonzero(found):
        # Once more, with the shadow's colours among the background's.
        labels[:] = np.where(labels == cv2.GC_BGD, cv2.GC_BGD, cv2.GC_PR_BGD)
        labels[found & ~shadow] = cv2.GC_PR_FGD
        found = _cut(small, labels, _ITERATIONS // 2)
    mask = largest_parts(found)
    return cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) > 0.5, scale


def _cut(rgb: RGB, labels: Bytes, iterations: int) -> Mask:
    """GrabCut from labels of each pixel, uint8 [h, w], which it changes."""
    cv2.setRNGSeed(0)  # of the first clustering; the generator is this thread's own
    bgr, unused = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), (0, 0, 0, 0)
    cv2.grabCut(bgr, labels, unused, np.zeros((1, 65)), np.zeros((1, 65)), iterations, cv2.GC_INIT_WITH_MASK)
    cut: Mask = (labels & 1) == 1
    return cut


def _darkened(rgb: RGB, found: Mask) -> Mask:
    """What of the object has the colour of the background around it, only darker: the shadow that it casts."""
    reach = (0, 0), 0.06 * max(found.shape)
    free = (~found).astype(np.float32)
    ground = (
        cv2.GaussianBlur(rgb * free[..., None], *reach) / np.maximum(cv2.GaussianBlur(free, *reach), 1e-4)[..., None]
    )
    ratio = cv2.GaussianBlur(rgb.astype(np.float32), (0, 0), 1.5) / np.maximum(ground, 8)
    low, high = ratio.min(2), ratio.max(2)
    darker: Mask = found & (high < 0.95) & (low > 0.1) & (high - low < 0.2 * high)
    return darker


def largest_parts(mask: Mask) -> Mask:
    """The largest connected part and those that are nearly as large, without small holes and thin threads."""
    opened = cv2.morphologyEx(mask.view(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(opened, connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    if count == 1:
        return np.zeros(mask.shape, np.bool_)
    kept = np.isin(labels, 1 + np.flatnonzero(areas >= _SECOND * areas.max()))
    count, labels, stats, _ = cv2.connectedComponentsWithStats((~kept).view(np.uint8), connectivity=4)
    small = np.flatnonzero(stats[:, cv2.CC_STAT_AREA] <= _HOLE * np.count_nonzero(kept))
    filled: Mask = kept | np.isin(labels, small[small > 0])
    return filled
