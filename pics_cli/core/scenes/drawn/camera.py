"""A pinhole camera over a ground z = 0. World: x right, y away from the viewer, z up. N: number of points or rays."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Bits = npt.NDArray[np.bool_]
# Vectors are kept as three arrays (or numbers), one per coordinate: that is what numpy works on fastest.
Vec = tuple[Any, Any, Any]
Point = tuple[float, float, float]


def unit(v: Vec) -> Vec:
    """Scaled to length 1."""
    x, y, z = v
    scale = 1.0 / np.sqrt(x * x + y * y + z * z + 1e-12)
    return x * scale, y * scale, z * scale


def dot(a: Vec, b: Vec) -> Any:
    """Inner product."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def weighted(v: Vec, weights: tuple[float, float, float]) -> Array:
    """Inner product of vectors, float32 [N] each, with one of numbers; a new array."""
    total: Array | None = None
    for part, weight in zip(v, weights, strict=True):
        if weight:
            if total is None:
                total = part * weight
            else:
                total += part * weight
    return np.zeros_like(v[0]) if total is None else total


def spin(v: Vec, yaw: float) -> Vec:
    """Turned about the vertical axis by `yaw` radians."""
    c, s = math.cos(yaw), math.sin(yaw)
    return c * v[0] - s * v[1], s * v[0] + c * v[1], v[2]


@dataclass(frozen=True)
class Rays:
    """Rays from one point, in the order of the picture's rows.

    Attributes:
        o: where they start.
        d: their directions, float32 [N] per coordinate.
        falls: how far the rays of each row of pixels sink per distance away from the viewer, rising; `slack` is how far
            it may be off.
        starts: the first ray of each row, and at the end N.
        away: unit vector (x, y) away from the viewer along the ground.
    """

    o: Point
    d: Vec
    falls: list[float]
    starts: list[int]
    slack: float
    away: tuple[float, float]

    def between(self, low: float, high: float) -> slice:
        """The rays that may climb by `low` to `high` per distance."""
        first = bisect_left(self.falls, -high - self.slack)
        last = bisect_left(self.falls, -low + self.slack)
        return slice(self.starts[first], self.starts[last])


@dataclass(frozen=True)
class Camera:
    """Where the viewer stands and looks.

    Attributes:
        eye: position.
        pitch: radians below the horizon; the view has no roll and looks along +y.
        focal: focal length in pixels.
        centre: the pixel (x, y) that the optical axis meets.
    """

    eye: Point
    pitch: float
    focal: float
    centre: tuple[float, float]

    def rays(self, x: Any, y: Any) -> Vec:
        """Directions through pixel coordinates (x to the right, y down; the first pixel's centre is 0.5, 0.5).

        Not of length 1: their component along the optical axis is 1, so a distance along them is a depth.
        """
        c, s = math.cos(self.pitch), math.sin(self.pitch)
        right = (x - self.centre[0]) / self.focal
        down = (y - self.centre[1]) / self.focal
        return right, c - s * down, -s - c * down

    def project(self, points_N3: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Pixel x, y and depth of world points: float [N, 3]."""
        c, s = math.cos(self.pitch), math.sin(self.pitch)
        x, y, z = (points_N3 - np.asarray(self.eye)).T
        depth = np.maximum(c * y - s * z, 1e-3)
        scale = self.focal / depth
        seen = np.empty((len(depth), 3))
        seen[:, 0] = x * scale + self.centre[0]
        seen[:, 1] = self.centre[1] - (s * y + c * z) * scale
        seen[:, 2] = depth
        return seen

    def ground(self, x: float, y: float) -> tuple[float, float]:
        """The point of the ground seen at a pixel; it must lie below the horizon."""
        dx, dy, dz = self.rays(x, y)
        t = -self.eye[2] / min(dz, -1e-3)
        return self.eye[0] + t * dx, self.eye[1] + t * dy

    def zoomed(self, factor: float) -> Camera:
        """The same view on a raster `factor` times as fine."""
        return Camera(self.eye, self.pitch, self.focal * factor, (self.centre[0] * factor, self.centre[1] * factor))

    def swung(self, pivot: Point, angle: float) -> Camera:
        """Raised about `pivot` by `angle` radians, looking at it as before."""
        x, y, z = (e - p for e, p in zip(self.eye, pivot, strict=True))
        c, s = math.cos(angle), math.sin(angle)
        eye = (pivot[0] + x, pivot[1] + c * y + s * z, pivot[2] - s * y + c * z)
        return Camera(eye, self.pitch + angle, self.focal, self.centre)
