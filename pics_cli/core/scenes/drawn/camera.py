"""Pinhole camera over the ground z = 0, the rays it casts, and arithmetic on 3-vectors.

World axes: x right, y away from the viewer, z up. N: number of points or rays.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.intp]
# Vectors are kept as three arrays (or numbers), one per coordinate: NumPy is fastest on those.
Vec = tuple[Any, Any, Any]
Point = tuple[float, float, float]
FloatBox = tuple[float, float, float, float]


def normalize(v: Vec) -> Vec:
    """Vectors scaled to length 1."""
    x, y, z = v
    scale = 1.0 / np.sqrt(x * x + y * y + z * z + 1e-12)
    return x * scale, y * scale, z * scale


def dot(a: Vec, b: Vec) -> Any:
    """Inner product."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def dot_constant(v: Vec, constant: Point) -> Array:
    """Inner product of vectors, float32 [N] each, with one vector of numbers; a new array."""
    total: Array | None = None
    for component, weight in zip(v, constant, strict=True):
        if weight:
            if total is None:
                total = component * weight
            else:
                total += component * weight
    return np.zeros_like(v[0]) if total is None else total


def take(v: Vec, indices: Indices) -> Vec:
    """The vectors at `indices`."""
    return v[0].take(indices), v[1].take(indices), v[2].take(indices)


def rotate_z(v: Vec, angle: float) -> Vec:
    """Vectors turned about the vertical axis by `angle` radians."""
    c, s = math.cos(angle), math.sin(angle)
    return c * v[0] - s * v[1], s * v[0] + c * v[1], v[2]


def saturate(values: Array) -> Array:
    """Clamp to [0, 1], in place."""
    np.maximum(values, 0, out=values)
    return np.minimum(values, 1, out=values)


@dataclass(frozen=True)
class Rays:
    """Rays from one point, sorted by the picture's pixel rows.

    Attributes:
        origin: where they start.
        directions: float32 [N] per coordinate.
        row_descents: how far the rays of each pixel row sink per unit of distance away from the viewer, ascending.
        tolerance: by how much `row_descents` may be off.
        row_starts: index of the first ray of each row, and at the end N.
        forward_xy: unit vector (x, y) away from the viewer along the ground.
    """

    origin: Point
    directions: Vec
    row_descents: list[float]
    row_starts: list[int]
    tolerance: float
    forward_xy: tuple[float, float]

    def in_ring(self, distance: float, radius: float, low: float, high: float) -> slice:
        """The rays that may meet a ring about a vertical axis: a conservative test by pixel rows.

        Args:
            distance: of the axis from the rays' origin, along `forward_xy`.
            radius: of the ring.
            low, high: of the ring, relative to the origin's height.
        """
        near, far = max(distance - radius, 1e-3), max(distance + radius, 2e-3)
        lowest, highest = min(low / near, low / far), max(high / near, high / far)
        first = bisect_left(self.row_descents, -highest - self.tolerance)
        last = bisect_left(self.row_descents, -lowest + self.tolerance)
        return slice(self.row_starts[first], self.row_starts[last])


@dataclass(frozen=True)
class Camera:
    """A pinhole camera without roll, looking along +y and down.

    Attributes:
        eye: position.
        pitch: radians below the horizon.
        focal: focal length in pixels.
        principal_point: the pixel (x, y) that the optical axis meets.
    """

    eye: Point
    pitch: float
    focal: float
    principal_point: tuple[float, float]

    def ray_directions(self, x: Any, y: Any) -> Vec:
        """Directions through pixel coordinates (x to the right, y down; the first pixel's centre is 0.5, 0.5).

        Not of length 1: their component along the optical axis is 1, so a distance along them is a depth.
        """
        c, s = math.cos(self.pitch), math.sin(self.pitch)
        right = (x - self.principal_point[0]) / self.focal
        down = (y - self.principal_point[1]) / self.focal
        return right, c - s * down, -s - c * down

    def project(self, points_N3: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Pixel x, y and depth of world points: float [N, 3]."""
        c, s = math.cos(self.pitch), math.sin(self.pitch)
        x, y, z = (points_N3 - np.asarray(self.eye)).T
        depth = np.maximum(c * y - s * z, 1e-3)
        scale = self.focal / depth
        column, row = x * scale + self.principal_point[0], self.principal_point[1] - (s * y + c * z) * scale
        return np.stack([column, row, depth], axis=1)

    def depth(self, point: Point) -> float:
        """Distance of a world point along the optical axis."""
        return float(self.project(np.asarray([point]))[0, 2])

    def ground_point(self, x: float, y: float) -> tuple[float, float]:
        """World x, y of the ground seen at a pixel, which must lie below the horizon."""
        dx, dy, dz = self.ray_directions(x, y)
        t = -self.eye[2] / min(dz, -1e-3)
        return self.eye[0] + t * dx, self.eye[1] + t * dy

    def scaled(self, factor: float) -> Camera:
        """The same view on a raster `factor` times as fine."""
        x, y = self.principal_point
        return Camera(self.eye, self.pitch, self.focal * factor, (x * factor, y * factor))

    def framed(self, box: FloatBox, zoom: float, width: float, height: float) -> Camera:
        """The same view enlarged by `zoom`, in a window of that size, centred on a box of the old one."""
        x0, y0, x1, y1 = box
        x = width / 2 - zoom * ((x0 + x1) / 2 - self.principal_point[0])
        y = height / 2 - zoom * ((y0 + y1) / 2 - self.principal_point[1])
        return Camera(self.eye, self.pitch, self.focal * zoom, (x, y))

    def raised(self, pivot: Point, angle: float) -> Camera:
        """The camera turned upwards about `pivot` by `angle` radians, looking at it from the same distance."""
        x, y, z = (e - p for e, p in zip(self.eye, pivot, strict=True))
        c, s = math.cos(angle), math.sin(angle)
        eye = (pivot[0] + x, pivot[1] + c * y + s * z, pivot[2] - s * y + c * z)
        return Camera(eye, self.pitch + angle, self.focal, self.principal_point)
