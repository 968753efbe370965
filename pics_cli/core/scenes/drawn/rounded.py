"""Solids made of balls: bent tubes and soft lumps. See `solids`. N: number of rays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pics_cli.core.scenes.drawn.camera import Array, Bits, Rays, Vec, dot, unit
from pics_cli.core.scenes.drawn.solids import ACCENT, FAR, Faces


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
        best = np.full(rays.d[0].shape, FAR, np.float32)
        face = np.zeros(rays.d[0].shape, np.int16)
        centre = self.centres.mean(axis=0)
        reach = float(np.sqrt(((self.centres - centre) ** 2).sum(axis=1).max())) + self.radius
        near = _meets(rays.o, rays.d, centre.tolist(), reach).nonzero()[0]  # most rays pass a handle by
        if not len(near):
            return best, face
        dx, dy, dz = (c.take(near) for c in rays.d)
        # Balls by rows, rays by columns: the half of the linear term, then the root of the quadratic.
        o = np.asarray(rays.o, np.float32) - self.centres
        half = o[:, :1] * dx
        half += o[:, 1:2] * dy
        half += o[:, 2:] * dz
        a = dx * dx + dy * dy + dz * dz
        root = half * half
        root -= ((o * o).sum(axis=1) - np.float32(self.radius**2))[:, None] * a
        with np.errstate(invalid="ignore"):  # NaN where a ray misses a ball: so it is never the largest
            np.sqrt(root, out=root)
        root += half
        np.copyto(root, -FAR, where=np.isnan(root))
        which = root.argmax(axis=0)
        first = root[which, np.arange(len(near))]
        best[near] = np.where((first < 0) & (first > -FAR), first / -a, FAR)
        face[near] = which
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

    def trace(self, rays: Rays) -> tuple[Array, Faces]:
        best = np.full(rays.d[0].shape, FAR, np.float32)
        face = np.zeros(rays.d[0].shape, np.int16)
        # Melting swells the balls by no more than this; rays that pass all of them by then pass the lump by.
        swell = self.melt * math.log(len(self.balls))
        a = dot(rays.d, rays.d)
        start = np.full(a.shape, FAR, np.float32)
        for x, y, z, r in self.balls.tolist():
            np.minimum(start, _enters(rays, a, (x, y, z), r + swell), out=start)
        near = (start < FAR).nonzero()[0]
        t, a = start.take(near), a.take(near)
        pace = 1.0 / np.sqrt(a)
        dx, dy, dz = (c.take(near) for c in rays.d)
        quadratics = []
        for x, y, z, r in self.balls.tolist():
            o = (rays.o[0] - x, rays.o[1] - y, rays.o[2] - z)
            twice = 2 * (o[0] * dx + o[1] * dy + o[2] * dz)
            quadratics.append((twice, o[0] * o[0] + o[1] * o[1] + o[2] * o[2], r))
        for rounds in (3, 5, 10):
            for _ in range(rounds):
                total: Any = 0
                for twice, square, r in quadratics:
                    away = t * a
                    away += twice
                    away *= t
                    away += square
                    np.sqrt(away, out=away)
                    total = total + self._weight(away, r)
                gap = np.log(total)
                gap *= -self.melt
                t = t + gap * pace
            best[near] = np.where(gap < 0.01, t, FAR)
            on = (np.abs(gap) > 1e-3).nonzero()[0]  # the others have arrived
            near, t, a, pace = near.take(on), t.take(on), a.take(on), pace.take(on)
            quadratics = [(twice.take(on), square, r) for twice, square, r in quadratics]
        return best, face

    def _weight(self, away: Array, radius: float) -> Array:
        """Weight of a ball in the smooth minimum of the distances to all (exponential), at distances from its centre;
        it overwrites them."""
        away -= radius
        away *= -1 / self.melt
        np.maximum(away, -30, out=away)
        return np.exp(away, out=away)

    def surface(self, face: Faces, p: Vec) -> tuple[Vec, Array, Array]:  # noqa: ARG002 (it has one face)
        n: list[Any] = [0, 0, 0]
        for x, y, z, r in self.balls.tolist():
            e = (p[0] - x, p[1] - y, p[2] - z)
            away = np.sqrt(dot(e, e))
            inverse = 1 / away
            inverse *= self._weight(away, r)
            for axis in range(3):
                n[axis] = n[axis] + e[axis] * inverse
        u = np.arctan2(p[1], p[0]) * np.float32(0.5 / math.pi) + np.float32(0.5)
        return unit((n[0], n[1], n[2])), u, p[2] * np.float32(0.8)


def _meets(o: Vec, d: Vec, centre: Sequence[float], radius: float) -> Bits:
    """Which rays, or their other halves, meet a ball: [N]."""
    x, y, z = (o[i] - centre[i] for i in range(3))
    half = d[0] * x
    half += d[1] * y
    half += d[2] * z
    half *= half
    half -= dot(d, d) * (x * x + y * y + z * z - radius * radius)
    meets: Bits = half > 0
    return meets


def _enters(rays: Rays, a: Array, centre: Sequence[float], radius: float) -> Array:
    """Distance at which rays enter a ball, [N]; FAR where they miss it. `a`: squared lengths of their directions."""
    x, y, z = (rays.o[i] - centre[i] for i in range(3))
    half = rays.d[0] * x
    half += rays.d[1] * y
    half += rays.d[2] * z
    root = half * half
    root -= a * (x * x + y * y + z * z - radius * radius)
    missed = root <= 0
    np.maximum(root, 0, out=root)
    np.sqrt(root, out=root)
    root += half
    root /= -a
    np.copyto(root, FAR, where=missed)
    entered: Array = root
    return entered
