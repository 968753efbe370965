"""Outlines of things on a coarse raster, for planning. R: side of the raster."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from pics_cli.core.data.synth.camera import Camera
from pics_cli.core.data.synth.spec import Thing

RASTER = 256
Cover = npt.NDArray[np.uint8]
_SHIFT = 4
_TURN = np.linspace(0, 2 * np.pi, 32, endpoint=False)


def _fill(canvas: Cover, points_N2: npt.NDArray[np.float64]) -> None:
    # Coordinates name corners of pixels, OpenCV's the centres; it also draws the outline, which adds half a pixel.
    low, high = points_N2.min(axis=0), points_N2.max(axis=0)
    inset = np.maximum(1 - 1 / np.maximum(high - low, 2), 0.5)
    middle = (low + high) / 2
    hull = cv2.convexHull((((points_N2 - middle) * inset + middle - 0.5) * (1 << _SHIFT)).astype(np.int32))
    cv2.fillConvexPoly(canvas, hull, 1, cv2.LINE_8, _SHIFT)


def silhouette(thing: Thing, camera: Camera, window: tuple[int, int, int, int] = (0, 0, RASTER, RASTER)) -> Cover:
    """Everything of a thing, hidden or not: uint8 [R, R], 0 or 1, or of a window x, y, width, height of the picture."""
    x, y, width, height = window
    shape = thing.shape
    points = camera.project(thing.outward_points(shape.points))[:, :2] - (x, y)
    canvas = np.zeros((height, width), np.uint8)
    for first, last in zip(shape.starts[:-1], shape.starts[1:], strict=True):
        _fill(canvas, points[first:last])
    return canvas


def front_wall(vessel: Thing, outline: Cover, camera: Camera) -> Cover:
    """The part of a hollow thing that hides what is inside: its outline below the nearer half of the rim."""
    cavity = vessel.shape.cavity
    assert cavity is not None
    z, r = float(cavity[-1, 0]), float(cavity[-1, 1])
    rim = np.column_stack([np.cos(_TURN) * r, np.sin(_TURN) * r, np.full(len(_TURN), z)])
    points = camera.project(vessel.outward_points(rim))[:, :2]
    wall: Cover = outline.copy()
    wall[: max(round(float(points[:, 1].mean())), 0)] = 0
    opening = np.zeros_like(wall)
    _fill(opening, points)
    wall[opening > 0] = 0
    return wall


def apart(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64], eye: Sequence[float], slack: float = 0.0) -> int:
    """Whether convex outlines on the ground, float [M, 2], leave room between them.

    Returns:
        0 where they meet; else 1 if the first is nearer to the eye's side of a line between them, -1 if the second is.
    """
    best, verdict = slack, 0
    for outline in (a, b):
        edges = np.roll(outline, -1, axis=0) - outline
        normals = np.stack([edges[:, 1], -edges[:, 0]], axis=1)
        normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12
        pa, pb, pe = a @ normals.T, b @ normals.T, np.asarray(eye[:2]) @ normals.T
        for gaps, sign in ((pb.min(axis=0) - pa.max(axis=0), 1), (pa.min(axis=0) - pb.max(axis=0), -1)):
            k = int(np.argmax(gaps))
            if gaps[k] > best:
                middle = (pa[:, k].max() + pb[:, k].min()) / 2 if sign > 0 else (pb[:, k].max() + pa[:, k].min()) / 2
                best = float(gaps[k])
                verdict = sign if pe[k] < middle else -sign
    return verdict
