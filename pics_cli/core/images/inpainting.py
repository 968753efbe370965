"""Inpainting: holes in pictures, filled smoothly from their surroundings."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt

from pics_cli.core.images.image_io import RGB
from pics_cli.core.images.masks import Mask

GREY = 128
# Rows of the full picture that are kept as floats at a time; even.
_BLOCK = 256

# float32 [height, width, 4]: colour, 0 where unknown, and weight, 0 or 1.
Level = npt.NDArray[np.float32]


def fill_hole(rgb: RGB, hole: Mask) -> RGB:
    """Fill a hole with weighted averages of what surrounds it.

    Push-pull of Gortler, Grzeszczuk, Szeliski, Cohen, "The Lumigraph", SIGGRAPH 1996, with a 2 x 2 box as filter. With
    colour x and weight v (1 where known, 0 in the hole) of the picture as level 0:

        pull: v' = min(1, sum of v), x' = (sum of v x) / (sum of v), over each 2 x 2 pixels, until all is known
        push: x <- v x + (1 - v) up(x'), from there back down, `up` bilinear

    Weights stay 0 or 1. Doubled again and again, bilinear becomes a quadratic spline: the hole shows no grid.

    Args:
        rgb: uint8 [H, W, 3].
        hole: bool [H, W].

    Returns:
        A new uint8 [H, W, 3], outside the hole as given; grey (128) where the hole leaves nothing.
    """
    filled: RGB = rgb.copy()
    if not hole.any():
        return filled
    if hole.all():
        filled[:] = GREY
        return filled
    levels = [_first_level(rgb, hole)]
    while levels[-1][..., 3].min() < 1:
        levels.append(_halved(levels[-1]))
    smooth = levels.pop()
    while levels:
        level = levels.pop()
        for top, rows in _doubled_rows(smooth, level.shape[0], level.shape[1]):
            part = level[top : top + len(rows)]
            cv2.copyTo(rows, (part[..., 3] == 0).view(np.uint8), part)
        smooth = level
    for top, rows in _doubled_rows(smooth, *hole.shape):
        target, inside = filled[top : top + len(rows)], hole[top : top + len(rows)]
        cv2.copyTo(cv2.convertScaleAbs(rows[..., :3]), inside.view(np.uint8), target)
    return filled


def _first_level(rgb: RGB, hole: Mask) -> Level:
    """Level 1, without the whole of level 0 as floats."""
    height, width = hole.shape
    coarse = np.empty(((height + 1) // 2, (width + 1) // 2, 4), np.float32)
    for top in range(0, height, _BLOCK):
        known = ~hole[top : top + _BLOCK]
        level = np.zeros((*known.shape, 4), np.float32)
        level[..., :3] = rgb[top : top + _BLOCK]
        level[..., 3] = 1
        level *= known[..., None]
        coarse[top // 2 : (top + _BLOCK) // 2] = _halved(level)
    return coarse


def _halved(level: Level) -> Level:
    """The next coarser level. An odd last row or column is paired with one of weight 0."""
    odd_rows, odd_columns = level.shape[0] % 2, level.shape[1] % 2
    if odd_rows or odd_columns:
        level = np.pad(level, ((0, odd_rows), (0, odd_columns), (0, 0)))
    size = (level.shape[1] // 2, level.shape[0] // 2)
    half = cv2.resize(level, size, interpolation=cv2.INTER_AREA).astype(np.float32, copy=False)
    rim = (half[..., 3] > 0) & (half[..., 3] < 1)
    half[rim] /= half[rim, 3:]
    return half


def _doubled_rows(level: Level, height: int, width: int) -> Iterator[tuple[int, Level]]:
    """A level twice as large, in blocks of rows: the first row's number, float32 [rows, width, 4].

    Bilinear; cut to height and width, for a level that was odd has been padded by one.
    """
    step = _BLOCK // 2
    for start in range(0, len(level), step):
        before = min(start, 1)  # bilinear needs a neighbour on either side
        part = level[start - before : start + step + 1]
        twice = cv2.resize(part, (2 * part.shape[1], 2 * part.shape[0]), interpolation=cv2.INTER_LINEAR)
        stop = min(2 * (start + step), height)
        yield 2 * start, twice[2 * before : stop - 2 * (start - before), :width].astype(np.float32, copy=False)
