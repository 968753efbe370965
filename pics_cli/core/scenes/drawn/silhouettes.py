"""Silhouettes of objects from the convex hulls of their parts, on which scenes are planned.

R: side of the raster on which scenes are planned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from pics_cli.core.scenes.drawn.camera import Camera, FloatBox
from pics_cli.core.scenes.drawn.spec import SceneObject

RASTER = 256
# uint8 [R, R], 0 or 1: OpenCV's form of a mask.
Silhouette = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
_SUBPIXEL_BITS = 4
_ANGLES = np.linspace(0, 2 * np.pi, 32, endpoint=False)


def project_points(obj: SceneObject, camera: Camera) -> tuple[Floats, Floats]:
    """Pixel x and y of the points of an object's convex parts, float [N] each."""
    # One product takes them from the object's frame to the camera's: to the right, up, away from it.
    c, s = math.cos(camera.pitch), math.sin(camera.pitch)
    cos, sin = math.cos(obj.yaw) * obj.scale, math.sin(obj.yaw) * obj.scale
    ex, ey, ez = (p - e for p, e in zip(obj.position, camera.eye, strict=True))
    to_camera = np.asarray(
        [
            (cos, -sin, 0.0, ex),
            (s * sin, s * cos, c * obj.scale, s * ey + c * ez),
            (c * sin, c * cos, -s * obj.scale, c * ey - s * ez),
        ]
    )
    right, up, depth = to_camera @ obj.shape.homogeneous_points
    scale = camera.focal / np.maximum(depth, 1e-3)
    return right * scale + camera.principal_point[0], up * -scale + camera.principal_point[1]


def projected_box(obj: SceneObject, camera: Camera) -> FloatBox:
    """Box of a whole object in pixels, x0, y0, x1, y1, not clipped."""
    x, y = project_points(obj, camera)
    return float(x.min()), float(y.min()), float(x.max()), float(y.max())


def longest_side(box: FloatBox) -> float:
    """The larger of width and height."""
    return max(box[2] - box[0], box[3] - box[1])


def _fill_convex_hulls(canvas: Silhouette, x: Floats, y: Floats, starts: Sequence[int]) -> None:
    """Fill the convex hulls of parts of a list of points, [N] each; part i begins at starts[i]."""
    # Coordinates name corners of pixels, OpenCV's the centres; it also draws the outline, which adds half a pixel.
    points = np.empty((len(x), 2), np.int32)
    first, lengths = starts[:-1], np.diff(starts)
    step = 1 << _SUBPIXEL_BITS
    for axis, values in enumerate((x, y)):
        low, high = np.minimum.reduceat(values, first), np.maximum.reduceat(values, first)
        inset = np.maximum(1 - 1 / np.maximum(high - low, 2), 0.5)
        middle = (low + high) / 2 * (1 - inset) - 0.5
        points[:, axis] = values * np.repeat(inset * step, lengths) + np.repeat(middle * step, lengths)
    for start, end in zip(first, starts[1:], strict=True):
        cv2.fillConvexPoly(canvas, cv2.convexHull(points[start:end]), 1, cv2.LINE_8, _SUBPIXEL_BITS)


def silhouette(
    obj: SceneObject, camera: Camera, window: tuple[int, int, int, int] = (0, 0, RASTER, RASTER)
) -> Silhouette:
    """Silhouette of an object, hidden or not, in a window x, y, width, height of the picture."""
    left, top, width, height = window
    x, y = project_points(obj, camera)
    canvas = np.zeros((height, width), np.uint8)
    _fill_convex_hulls(canvas, x - left, y - top, obj.shape.part_starts)
    return canvas


def front_wall(vessel: SceneObject, outline: Silhouette, camera: Camera) -> Silhouette:
    """The part of a vessel that hides what is inside: its silhouette below the nearer half of the rim."""
    z, r = vessel.shape.rim
    rim = np.stack([np.cos(_ANGLES) * r, np.sin(_ANGLES) * r, np.full(len(_ANGLES), z)], axis=1)
    points = camera.project(vessel.to_world_points(rim))
    wall: Silhouette = outline.copy()
    wall[: max(round(float(points[:, 1].mean())), 0)] = 0
    opening = np.zeros_like(wall)
    _fill_convex_hulls(opening, points[:, 0], points[:, 1], (0, len(points)))
    wall[opening > 0] = 0
    return wall


def separation(a: Floats, b: Floats, eye: Sequence[float], min_gap: float = 0.0) -> int:
    """Separating-axis test of two convex outlines on the ground, float [M, 2].

    Args:
        eye: the viewer's position.
        min_gap: gap between them, or less than 0 the overlap, from which on they count as separate.

    Returns:
        0 where they meet; else 1 if `a` is on the eye's side of a line between them, -1 if `b` is.
    """
    best, side = min_gap, 0
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
                side = sign if pe[k] < middle else -sign
    return side
