"""Solids made of balls: bent tubes and soft lumps. See `solids`. N: number of rays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pics_cli.core.data.synth.camera import Array, Rays, Vec, dot, unit
from pics_cli.core.data.synth.solids import ACCENT, FAR, Faces


@dataclass(frozen=True, eq=False)
class Tube:
    """A bent tube, as a chain of balls close enough that no gap shows.

    Attributes:
        centres: float [P, 3].
        radius: of the balls.
    """

    centres: Array
    radius: float
    patch: Faces = field(init=False)
    slot: Faces = field(init=False)
    _along: Array = field(init=False)

    def __post_init__(self) -> None:
        along = np.gradient(self.centres, axis=0)
        object.__setattr__(self, "_along", along / (np.linalg.norm(along, axis=1, keepdims=True) + 1e-9))
        object.__setattr__(self, "patch", np.zeros(len(self.centres), np.int16))
        object.__setattr__(self, "slot", np.full(len(self.centres), ACCENT, np.int16))

    def trace(self, rays: Rays) -> tuple[Array, Faces]:
        o, d = rays.o, rays.d
        best = np.full(d[0].shape, FAR, np.float32)
        face = np.zeros(d[0].shape, np.int16)
        centre = self.centres.mean(axis=0)
        reach = float(np.linalg.norm(self.centres - centre, axis=1).max()) + self.radius
        near = np.flatnonzero(_ball(o, d, centre.tolist(), reach) < FAR)  # most rays pass a handle by
        some = (d[0][near], d[1][near], d[2][near])
        first = np.full(near.shape, FAR, np.float32)
        which = np.zeros(near.shape, np.int16)
        for number, ball in enumerate(self.centres.tolist()):
            t = _ball(o, some, ball, self.radius)
            closer = np.flatnonzero(t < first)
            first[closer], which[closer] = t[closer], number
        best[near], face[near] = first, which
        return best, face

    def surface(self, face: Faces, p: Vec) -> tuple[Vec, Array, Array]:
        c, a = self.centres[face], self._along[face]
        n = (p[0] - c[:, 0], p[1] - c[:, 1], p[2] - c[:, 2])
        along = dot(n, (a[:, 0], a[:, 1], a[:, 2]))  # taken out, or the balls would show as beads
        n = unit((n[0] - along * a[:, 0], n[1] - along * a[:, 1], n[2] - along * a[:, 2]))
        return n, p[0], p[2]


@dataclass(frozen=True, eq=False)
class Lump:
    """Balls melted into one another; found by marching along the ray by the distance to the nearest surface.

    Attributes:
        balls: float [P, 4]: centre and radius.
        melt: how far from each other balls begin to join.
    """

    balls: Array
    melt: float
    patch: Faces = field(default_factory=lambda: np.zeros(1, np.int16))
    slot: Faces = field(default_factory=lambda: np.zeros(1, np.int16))

    def _distance(self, p: Vec) -> tuple[Array, list[Array]]:
        """Smooth minimum of the distances to the balls (exponential), and each ball's weight in it."""
        weights = []
        total: Any = 0
        for x, y, z, r in self.balls.tolist():
            ex, ey, ez = p[0] - x, p[1] - y, p[2] - z
            away = np.sqrt(ex * ex + ey * ey + ez * ez)
            weights.append(np.exp(np.maximum((r - away) * (1 / self.melt), np.float32(-30))))
            total = total + weights[-1]
        return -self.melt * np.log(total), weights

    def trace(self, rays: Rays) -> tuple[Array, Faces]:
        o, d = rays.o, rays.d
        best = np.full(d[0].shape, FAR, np.float32)
        face = np.zeros(d[0].shape, np.int16)
        centre = self.balls[:, :3].mean(axis=0)
        reach = float((np.linalg.norm(self.balls[:, :3] - centre, axis=1) + self.balls[:, 3]).max()) + self.melt
        start = _ball(o, d, centre.tolist(), reach)
        near = np.flatnonzero(start < FAR)
        dx, dy, dz = d[0][near], d[1][near], d[2][near]
        t = start[near]
        pace = 1.0 / np.sqrt(dx * dx + dy * dy + dz * dz)
        gap = t
        for _ in range(18):
            gap = self._distance((o[0] + t * dx, o[1] + t * dy, o[2] + t * dz))[0]
            t = t + gap * pace
        best[near] = np.where(gap < 0.01, t, FAR)
        return best, face

    def surface(self, face: Faces, p: Vec) -> tuple[Vec, Array, Array]:  # noqa: ARG002 (it has one face)
        weights = self._distance(p)[1]
        n: list[Any] = [0, 0, 0]
        for (x, y, z, _), weight in zip(self.balls.tolist(), weights, strict=True):
            away = unit((p[0] - x, p[1] - y, p[2] - z))
            for axis in range(3):
                n[axis] = n[axis] + weight * away[axis]
        u = np.arctan2(p[1], p[0]) * np.float32(0.5 / math.pi) + np.float32(0.5)
        return unit((n[0], n[1], n[2])), u, p[2] * np.float32(0.8)


def _ball(o: Vec, d: Vec, centre: Sequence[float], radius: float) -> Array:
    """Distance at which rays enter a ball, [N]; FAR where they miss it."""
    ox, oy, oz = (float(o[i]) - centre[i] for i in range(3))
    a = dot(d, d)
    b = ox * d[0] + oy * d[1] + oz * d[2]
    root = b * b - a * (ox * ox + oy * oy + oz * oz - radius * radius)
    t = -(b + np.sqrt(np.maximum(root, 0))) / a
    entered: Array = np.where((root > 0) & (t > 1e-4), t, FAR)
    return entered
