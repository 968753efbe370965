"""Heights of models over a grid on the ground: their level surfaces and hollows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from skimage.morphology import reconstruction

_RASTER = 64

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Cavity:
    """A hollow that opens upwards.

    Attributes:
        rim: height of its rim.
        depth: of the hollow below the rim.
        radius: of the largest circle in it, seen from above.
        x, y: where that circle's centre is.
    """

    rim: float
    depth: float
    radius: float
    x: float
    y: float


def height_map(
    points: npt.NDArray[Any], low: Sequence[float], cell: float, shape: tuple[int, int], upper: bool
) -> npt.NDArray[np.float64]:
    """Highest (or lowest) point over each cell of a horizontal grid, [rows by y, columns by x].

    Args:
        points: [N, 3]; those outside the grid are left out.
        low: x and y of its corner.
        cell: side of a cell.
        shape: rows and columns.
        upper: the highest points, where there are none -inf; else the lowest, and +inf.
    """
    column = ((points[:, 0] - low[0]) / cell).astype(np.int64)
    row = ((points[:, 1] - low[1]) / cell).astype(np.int64)
    inside = (points[:, 0] >= low[0]) & (points[:, 1] >= low[1]) & (column < shape[1]) & (row < shape[0])
    flat = row[inside] * shape[1] + column[inside]
    heights = np.full(shape[0] * shape[1], -np.inf if upper else np.inf)
    (np.maximum if upper else np.minimum).at(heights, flat, points[inside, 2].astype(np.float64))
    return heights.reshape(shape)


def find_surfaces(points: Array, size: tuple[float, float, float]) -> tuple[float | None, Cavity | None]:
    """Level surface and hollow of a model, from its heights as seen from above."""
    width, depth, height = size
    cell = max(width, depth) / (_RASTER - 2)
    rows, columns = int(depth / cell) + 3, int(width / cell) + 3
    heights = height_map(points, (-width / 2 - cell, -depth / 2 - cell), cell, (rows, columns), upper=True)
    covered = np.isfinite(heights)
    ground = np.where(covered, heights, 0.0)
    ground = cv2.morphologyEx(ground.astype(np.float32), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)).astype(np.float64)
    area = int(np.count_nonzero(covered))

    support = None
    levels = ground[covered]
    counts, edges = np.histogram(levels, bins=40, range=(0, height * 1.0001))
    pairs = counts[:-1] + counts[1:]
    best = int(np.argmax(pairs))
    level = float(np.median(levels[(levels >= edges[best]) & (levels <= edges[best + 2])])) if pairs[best] else 0.0
    if pairs[best] > 0.4 * area and level > 0.06 * height:
        support = level

    # Water poured from above stays up to the rim: morphological filling, the border of the grid being the drain.
    seed = np.where(np.pad(np.zeros((rows - 2, columns - 2)), 1, constant_values=1) > 0, ground, ground.max())
    filled = reconstruction(seed, ground, method="erosion")
    depth_below = filled - ground
    hollow = (depth_below > 0.3 * max(depth_below.max(), 1e-9)).astype(np.uint8)
    cavity = None
    if depth_below.max() > 0.25 * height and depth_below.max() > 0.12 * max(width, depth):
        distance = cv2.distanceTransform(hollow, cv2.DIST_L2, 5)
        radius = float(distance.max()) * cell
        y, x = np.unravel_index(int(np.argmax(distance)), distance.shape)
        centre_x, centre_y = (float(x) - 0.5) * cell - width / 2, (float(y) - 0.5) * cell - depth / 2
        if radius > 0.22 * min(width, depth) and abs(centre_x) < 0.25 * width and abs(centre_y) < 0.25 * depth:
            cavity = Cavity(float(filled[y, x]), float(depth_below[y, x]), radius, centre_x, centre_y)
    if cavity and support is not None and support < cavity.rim:  # the floor of the hollow
        support = None
    return support, cavity
