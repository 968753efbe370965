"""Holes of an object on a plain background, told from labels, eyes and highlights that have the background's colour.

h, w: sides of the picture.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from pics_cli.core.images.image_io import RGB
from pics_cli.core.images.masks import Mask
from pics_cli.core.images.matting import Colours, rim_width

Bytes = npt.NDArray[np.uint8]

# Walls around a hole, in square roots of its area, at most: those on its open side, and those of a ring.
_THIN_WALL, _THIN_RING = 0.7, 0.3
# Parts of an object's area below which an enclosed area is a detail of it.
_DETAIL = 0.0005


def find_holes(
    pockets: Mask, clear: Mask, near: Mask, rgb: RGB, distance: Bytes, background: Colours, spread: float
) -> Mask:
    """Areas that an object encloses and through which the background shows, bool [h, w].

    A label, an eye or a highlight may have the background's colour, too, and in doubt it is one. A hole has the
    background's very colour and evenness, a sharp edge as the object has, nothing printed on it; and along one stretch
    of at least half its outline it is closer to the background than it is wide, as in a handle, or all around very
    much closer. It is not tiny.

    Args:
        pockets: what has the background's colour and is not reached from the border, bool [h, w].
        clear: the background that is, bool [h, w].
        near: pixels near strong edges, where JPEG leaves its traces, bool [h, w].
        rgb: uint8 [h, w, 3].
        distance: of each pixel from the background's colour, uint8 [h, w].
        background: its colour at n pixels; see `rgba_from_mask`.
        spread: standard deviation around it.
    """
    radius = detail_radius(distance.shape)
    rows, columns = np.nonzero(clear & near if (clear & near).any() else clear)
    offsets = rgb[rows, columns] - background(rows, columns)
    around = _Surroundings(
        offset=offsets.mean(0) if rows.size else np.zeros(3),
        spread=max(spread, float(offsets.std(0).max(initial=0)) if rows.size else 0.0),
        sharpness=_sharpness(clear, distance, radius),
        softness=max(rim_width(distance, ~clear) - 2, 0),
        reach=cv2.distanceTransform((~clear).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5).astype(np.float32),
    )
    smallest = max(_DETAIL * np.count_nonzero(~clear), 8 * (2 * radius + 1))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(pockets.view(np.uint8), connectivity=4)
    holes = np.zeros(pockets.shape, np.bool_)
    margin = 8 * radius + 2
    for label in range(1, count):
        x, y, w, h, area = (int(value) for value in stats[label])
        part = np.s_[max(y - margin, 0) : y + h + margin, max(x - margin, 0) : x + w + margin]
        pocket = labels[part] == label
        if area >= smallest and _is_hole(pocket, rgb, distance, part, background, around, radius):
            holes[part] |= pocket
    return holes


def detail_radius(shape: tuple[int, ...]) -> int:
    """Radius in pixels of what is a detail in a picture of this shape."""
    return max(round(max(shape) / 700), 1)


def disc(radius: int) -> Bytes:
    """A disc as a structuring element, uint8 [2 radius + 1, 2 radius + 1]."""
    element: Bytes = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2).astype(np.uint8)
    return element


class _Surroundings(NamedTuple):
    """The background around an object, with which areas that the object encloses are compared.

    Attributes:
        offset, spread: mean [3] and standard deviation of its colour's difference from what is expected, near the
            object, where JPEG leaves its traces.
        sharpness: of the object's outline; see `_sharpness`.
        softness: width of the object's rim, in pixels.
        reach: distance of each pixel from the background, float32 [h, w].
    """

    offset: npt.NDArray[np.floating]
    spread: float
    sharpness: float
    softness: float
    reach: npt.NDArray[np.float32]


def _is_hole(
    pocket: Mask,
    rgb: RGB,
    distance: Bytes,
    part: tuple[slice, slice],
    background: Colours,
    around: _Surroundings,
    radius: int,
) -> bool:
    """Whether an enclosed area of the background's colour, a mask of a part of the picture, is a hole."""
    core = cv2.erode(pocket.view(np.uint8), disc(radius + 1), borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0
    if np.count_nonzero(core) < 16:
        return False
    rows, columns = np.nonzero(core)
    field = background(rows + part[0].start, columns + part[1].start)
    offsets = rgb[part][core] - field
    if np.abs(offsets.mean(0) - around.offset).max() > max(0.75, 0.7 * around.spread):
        return False
    if offsets.std(0).max() > 1.3 * around.spread + 0.5:
        return False
    area = np.count_nonzero(pocket)
    filled = np.zeros(pocket.shape, np.uint8)
    contours, _ = cv2.findContours(pocket.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(filled, contours, -1, 1, cv2.FILLED)
    if np.count_nonzero(filled) > 1.02 * area:
        return False
    if _sharpness(filled > 0, distance[part], radius) < 0.6 * around.sharpness:
        return False
    outline = max(contours, key=len).reshape(-1, 2)
    walls = (around.reach[part][outline[:, 1], outline[:, 0]] - around.softness) / (np.sqrt(area) + around.softness)
    return _longest_run(walls < _THIN_WALL) >= 0.5 and (walls.max() >= _THIN_WALL or float(walls.mean()) < _THIN_RING)


def _sharpness(area: Mask, distance: Bytes, radius: int) -> float:
    """How much of the step at an area's outline is done within its first pixels, 0..1."""
    rim = (cv2.dilate(area.view(np.uint8), disc(1)) > 0) & ~area
    if not rim.any():
        return 0.0
    # Squares: a disc of this size takes a hundred times as long.
    squares = (np.ones((2 * steps + 1,) * 2, np.uint8) for steps in (2 * radius, 8 * radius))
    near, far = (cv2.dilate(distance, square)[rim].astype(np.float32) for square in squares)
    return float(np.median(near / np.maximum(far, 1)))


def _longest_run(values: Mask) -> float:
    """Part of a circle of values, bool [n], that is in its longest run of true ones."""
    breaks = np.flatnonzero(~values)
    if not breaks.size:
        return 1.0
    gaps = np.diff(np.append(breaks, breaks[0] + values.size)) - 1
    return float(gaps.max() / values.size)
