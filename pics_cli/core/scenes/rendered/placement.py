"""Placed models: where they lie, what they touch, and what the camera sees of them.

All of it is measured on points spread over the models' surfaces: as heights over a grid on the ground, and as depths
on a coarse raster of the picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from pics_cli.core.scenes.drawn.camera import Camera, Point
from pics_cli.core.scenes.rendered.catalogue import ModelEntry
from pics_cli.core.scenes.rendered.heights import height_map

RASTER = 128
# Cells of the grid of heights along the longer side of what falls.
_CELLS = 56
# What is closer than this to the surface below, as a part of the length, rests on it.
CONTACT = 0.02

Array = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class PlacedModel:
    """A model in the scene.

    Attributes:
        entry: which one.
        unit_size: width, depth and height of a model whose longest side is 1.
        position: of the centre of its base.
        yaw: rotation about the vertical axis, radians.
        scale: length of its longest side.
    """

    entry: ModelEntry
    unit_size: tuple[float, float, float]
    position: Point
    yaw: float
    scale: float

    def to_world(self, points: Array) -> Array:
        """Points of the model in the world, [N, 3]."""
        c, s = math.cos(self.yaw) * self.scale, math.sin(self.yaw) * self.scale
        matrix = np.array([[c, -s, 0], [s, c, 0], [0, 0, self.scale]], np.float32)
        moved: Array = points @ matrix.T + np.asarray(self.position, np.float32)
        return moved

    @property
    def size(self) -> tuple[float, float, float]:
        """Width, depth and height before it is turned."""
        width, depth, height = self.unit_size
        return width * self.scale, depth * self.scale, height * self.scale

    @property
    def centre(self) -> Point:
        """The point at half its height."""
        x, y, z = self.position
        return x, y, z + self.size[2] / 2


def drop(falling: Array, below: Sequence[Array]) -> tuple[float, bool]:
    """Let something fall: the height of its base then, and whether its centre lies above what it rests on.

    Args:
        falling: points of what falls, above x and y where it is let go, its base at z = 0: [N, 3].
        below: points of what it may fall on, besides the ground at z = 0.
    """
    low, high = falling.min(axis=0)[:2], falling.max(axis=0)[:2]
    near = [p[((p[:, :2] >= low) & (p[:, :2] <= high)).all(axis=1)] for p in below]
    # No finer than there are points to fill the cells.
    cells = int(np.clip(math.sqrt(max([len(p) for p in near], default=0) / 3), 20, _CELLS))
    cell = float((high - low).max()) / cells
    columns, rows = (int(side / cell) + 1 for side in high - low)
    shape = (rows, columns)
    under = height_map(falling, low, cell, shape, upper=False)
    over = np.zeros(shape)
    for points in near:
        over = np.maximum(over, height_map(points, low, cell, shape, upper=True))
    # A surface may be higher between the points that were drawn on it.
    over = cv2.dilate(over.astype(np.float32), np.ones((3, 3), np.uint8)).astype(np.float64)
    occupied = np.isfinite(under)
    gaps = np.where(occupied, over - under, -np.inf)
    height = float(gaps.max())
    length = float(np.ptp(falling, axis=0).max())
    contacts = np.argwhere(gaps > height - CONTACT * length)[:, ::-1].astype(np.float32)
    centre = np.argwhere(occupied).mean(axis=0)[::-1]
    hull = cv2.convexHull(contacts)
    stable = len(contacts) > 3 and cv2.pointPolygonTest(hull, (float(centre[0]), float(centre[1])), True) > 1
    return height, bool(stable)


def collide(a: Array, b: Array, allowed: float) -> bool:
    """Whether two models cut through each other by more than `allowed` in height, over some cell of the ground."""
    low = np.maximum(a.min(axis=0), b.min(axis=0))
    high = np.minimum(a.max(axis=0), b.max(axis=0))
    if (high <= low + 1e-4).any():
        return False
    spans = [np.ptp(points[:, :2], axis=0).max() for points in (a, b)]
    cell = float(min(spans)) / 32
    columns, rows = (int(side / cell) + 1 for side in (high - low)[:2])
    heights = [height_map(p, low[:2], cell, (rows, columns), upper) for p in (a, b) for upper in (True, False)]
    a_top, a_base, b_top, b_base = heights
    shared = np.minimum(a_top, b_top) - np.maximum(a_base, b_base)
    return bool((np.where(np.isfinite(shared), shared, -1) > allowed).any())


def depth_map(points: Array, camera: Camera) -> Array:
    """Depths of a model on a raster of the picture, +inf where it is not: float32 [RASTER, RASTER].

    Args:
        points: of its surface, world coordinates.
        camera: of the raster.
    """
    column, row, depth = camera.project(points).T
    x, y = np.floor(column).astype(np.int64), np.floor(row).astype(np.int64)
    inside = (x >= 0) & (y >= 0) & (x < RASTER) & (y < RASTER) & (depth > 0.05)
    depths = np.full(RASTER * RASTER, np.inf, np.float32)
    np.minimum.at(depths, (y * RASTER + x)[inside], depth[inside].astype(np.float32))
    raster: Array = depths.reshape(RASTER, RASTER)
    covered = np.isfinite(raster).astype(np.uint8)
    closed = cv2.morphologyEx(covered, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    around = cv2.erode(raster, np.ones((3, 3), np.uint8))
    filled: Array = np.where((closed > 0) & (covered == 0), around, raster).astype(np.float32)
    return filled


def outline_box(points: Array, camera: Camera) -> tuple[float, float, float, float]:
    """Box of a model in the picture, x0, y0, x1, y1, not cut at the frame."""
    projected = camera.project(points)
    (x0, y0), (x1, y1) = projected[:, :2].min(axis=0).tolist(), projected[:, :2].max(axis=0).tolist()
    return x0, y0, x1, y1
