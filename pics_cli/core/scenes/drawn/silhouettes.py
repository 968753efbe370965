"""Outlines of things on a coarse raster, for planning. R: side of the raster."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from pics_cli.core.scenes.drawn.camera import Camera
from pics_cli.core.scenes.drawn.spec import Thing

RASTER = 256
Cover = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
_SHIFT = 4
_TURN = np.linspace(0, 2 * np.pi, 32, endpoint=False)


def pixels(thing: Thing, camera: Camera) -> tuple[Floats, Floats]:
    """Where the points of a thing's shape are in the picture: x and y in pixels, float [N] each."""
    # One product takes them from the shape's frame to the camera's: to the right, up, away from it.
    c, s = math.cos(camera.pitch), math.sin(camera.pitch)
    cos, sin = math.cos(thing.yaw) * thing.scale, math.sin(thing.yaw) * thing.scale
    ex, ey, ez = (p - e for p, e in zip(thing.position, camera.eye, strict=True))
    turn = np.asarray(
        [
            (cos, -sin, 0.0, ex),
            (s * sin, s * cos, c * thing.scale, s * ey + c * ez),
            (c * sin, c * cos, -s * thing.scale, c * ey - s * ez),
        ]
    )
    right, up, depth = turn @ thing.shape.columns
    scale = camera.focal / np.maximum(depth, 1e-3)
    right *= scale
    right += camera.centre[0]
    up *= -scale
    up += camera.centre[1]
    return right, up


def _fill(canvas: Cover, x: Floats, y: Floats, starts: Sequence[int]) -> None:
    """Fill the convex hulls of parts of a list of points, [N] each; part i begins at starts[i]."""
    # Coordinates name corners of pixels, OpenCV's the centres; it also draws the outline, which adds half a pixel.
    points = np.empty((len(x), 2), np.int32)
    first, lengths = starts[:-1], np.diff(starts)
    for axis, along in enumerate((x, y)):
        low, high = np.minimum.reduceat(along, first), np.maximum.reduceat(along, first)
        inset = np.maximum(1 - 1 / np.maximum(high - low, 2), 0.5)
        middle = (low + high) / 2 * (1 - inset) - 0.5
        step = 1 << _SHIFT
        points[:, axis] = along * np.repeat(inset * step, lengths) + np.repeat(middle * step, lengths)
    for start, end in zip(first, starts[1:], strict=True):
        cv2.fillConvexPoly(canvas, cv2.convexHull(points[start:end]), 1, cv2.LINE_8, _SHIFT)


def silhouette(thing: Thing, camera: Camera, window: tuple[int, int, int, int] = (0, 0, RASTER, RASTER)) -> Cover:
    """Everything of a thing, hidden or not: uint8 [R, R], 0 or 1, or of a window x, y, width, height of the picture."""
    left, top, width, height = window
    x, y = pixels(thing, camera)
    canvas = np.zeros((height, width), np.uint8)
    _fill(canvas, x - left, y - top, thing.shape.starts)
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
    _fill(opening, points[:, 0], points[:, 1], (0, len(points)))
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
