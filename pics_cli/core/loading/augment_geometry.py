"""Rotation of a cut-out object in and out of its plane, resampled once.

h, w: sides of the object's picture.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pics_cli.core.images.cutouts import premultiply

RGBA = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

# Distance of the pinhole camera from the object, in longer sides of the object: it is seen under 28 degrees.
_DISTANCE = 2.0
# Pixels of the source to one of the result after it was shrunk by area. With 1, area and bilinear would blur twice.
_OVERSAMPLING = 1.25
# A side that shrinks to fewer pixels than this gets transparent ones around it first, for it cannot shrink below one.
_MIN_SIDE = 8


def rotate_object(rgba: RGBA, angles: tuple[float, float, float], *, scale: float, size: int, detail: int = 0) -> RGBA:
    """An object rotated and centred in a square, with all of its rim.

    Args:
        rgba: uint8 [h, w, 4], cropped to the object, not premultiplied.
        angles: yaw, pitch and roll in degrees: rotation about its vertical axis, about the horizontal one, then in the
            plane of the result, clockwise.
        scale: side of the square over the longer side of the object; more where the rim needs room.
        size: least side of the square.
        detail: longer side up to which the object keeps its sharpness.

    Returns:
        uint8 [side, side, 4], premultiplied.
    """
    height, width = rgba.shape[:2]
    projection = _projection(width, height, angles)
    outline = _outline(rgba[..., 3])
    low, high = _bounds(projection, outline)
    longer = float(np.max(high - low))
    side = max(size, math.ceil(min(detail, longer * max(width, height)) * scale))
    middle = (low + high) / 2
    zoom = side / (scale * longer)
    factors = _shrink_factors(_to_square(projection, middle, zoom, side), outline.mean(axis=0))
    source, to_rgba, rim = _shrink(premultiply(rgba), factors)

    corners = np.concatenate([outline + rim * (a, b) for a in (-1, 1) for b in (-1, 1)])
    reach = np.max(np.abs(np.stack(_bounds(projection, corners)) - middle))
    to_square = _to_square(projection, middle, min(zoom, (side / 2 - 1) / reach), side)
    # OpenCV counts from the middle of the first pixel, all else here from its corner.
    matrix = _translation(-0.5, -0.5) @ to_square @ to_rgba @ _translation(0.5, 0.5)
    return cv2.warpPerspective(source, matrix, (side, side), flags=cv2.INTER_LINEAR).astype(np.uint8, copy=False)


def _projection(width: int, height: int, angles: tuple[float, float, float]) -> Floats:
    """Homography [3, 3] from pixels of the object to a plane in which it has a longer side of 1 when not rotated.

    It is seen by a pinhole camera in front of its middle: p = d (R q)_xy / (d + (R q)_z), R = pitch yaw, then the roll.
    """
    yaw, pitch, roll = (math.radians(angle) for angle in angles)
    about_y = np.array([[math.cos(yaw), 0], [0, 1], [-math.sin(yaw), 0]])
    about_x = np.array([[1, 0, 0], [0, math.cos(pitch), -math.sin(pitch)], [0, math.sin(pitch), math.cos(pitch)]])
    camera = np.zeros((3, 3))
    camera[:, :2] = about_x @ about_y
    camera[:2] *= _DISTANCE
    camera[2, 2] = _DISTANCE
    rolled = np.array([[math.cos(roll), -math.sin(roll), 0], [math.sin(roll), math.cos(roll), 0], [0, 0, 1]])
    unit = 1 / max(width, height)
    product: Floats = rolled @ camera @ np.diag([unit, unit, 1]) @ _translation(-width / 2, -height / 2)
    return product


def _to_square(projection: Floats, middle: Floats, zoom: float, side: int) -> Floats:
    """Homography [3, 3]: after `projection`, enlarged so that `middle` is that of a square of this side."""
    product: Floats = (
        _translation(side / 2, side / 2) @ np.diag([zoom, zoom, 1]) @ _translation(-middle[0], -middle[1]) @ projection
    )
    return product


def _translation(x: float, y: float) -> Floats:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], np.float64)


def _bounds(matrix: Floats, points: Floats) -> tuple[Floats, Floats]:
    """Lowest and highest x, y of points [n, 2] after a homography."""
    projected = points @ matrix[:, :2].T + matrix[:, 2]
    projected = projected[:, :2] / projected[:, 2:]
    return projected.min(axis=0), projected.max(axis=0)


def _outline(alpha: npt.NDArray[np.uint8]) -> Floats:
    """Corners of the pixels at the convex hull of those above 0, float [n, 2]: a homography keeps what is inside."""
    opaque = alpha > 0
    rows = np.flatnonzero(opaque.any(axis=1))
    left = opaque[rows].argmax(axis=1)
    right = alpha.shape[1] - opaque[rows, ::-1].argmax(axis=1)
    corners = [np.stack([x, rows + dy], axis=1) for x in (left, right) for dy in (0, 1)]
    hull = cv2.convexHull(np.concatenate(corners).astype(np.float32))
    return hull[:, 0].astype(np.float64)


def _shrink_factors(matrix: Floats, point: Floats) -> tuple[float, float]:
    """Factors, at most 1, by which columns and rows are shrunk first, so that bilinear sampling skips no pixel.

    One pixel of the result covers a parallelogram of the object, spanned by the columns of the inverse Jacobian.
    """
    x, y, weight = matrix @ (point[0], point[1], 1)
    jacobian = (matrix[:2, :2] - np.outer([x / weight, y / weight], matrix[2, :2])) / weight
    covered: npt.NDArray[Any] = np.hypot(*np.linalg.inv(jacobian).T)
    factor_x, factor_y = np.minimum(_OVERSAMPLING / covered, 1).tolist()
    return factor_x, factor_y


def _shrink(source: RGBA, factors: tuple[float, float]) -> tuple[RGBA, Floats, Floats]:
    """Shrink a premultiplied object by area.

    Returns:
        The object, the homography back to its former pixels [3, 3], and the reach of bilinear sampling beyond its
        outline in x and y [2].
    """
    back, rim = np.eye(3), np.full(2, 0.5)  # half a pixel of its own
    for axis in np.argsort(source.shape[1::-1])[::-1]:  # the long side first: the thin one may get much around it
        factor, length = factors[axis], source.shape[1 - axis]
        if factor == 1:
            continue
        pad = math.ceil(_MIN_SIDE / 2 / factor) if length * factor < _MIN_SIDE else 0
        if pad:
            source = np.pad(source, [(pad * (axis == 1),) * 2, (pad * (axis == 0),) * 2, (0, 0)])
        size = list(source.shape[1::-1])
        size[axis] = round((length + 2 * pad) * factor)
        source = cv2.resize(source, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
        step = (length + 2 * pad) / size[axis]
        back[axis, axis], back[axis, 2] = step, -pad
        rim[axis] = 1.5 * step  # and another pixel that the object covers in part
    return source, back, rim
