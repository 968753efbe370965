"""Solids made of spheres: bent tubes and metaballs. See `solids`. N: number of rays or points."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from pics_cli.core.scenes.drawn.camera import Array, Point, Rays, Vec, dot, dot_constant, normalize, take
from pics_cli.core.scenes.drawn.solids import ACCENT, FAR, Faces


@dataclass(frozen=True, eq=False)
class Tube:
    """A bent tube, as a chain of spheres close enough that no gap shows.

    Attributes:
        centres: of the spheres, float32 [P, 3].
        radius: of the spheres.
    """

    centres: Array
    radius: float

    @cached_property
    def smooth_group(self) -> Faces:
        """See `Solid`."""
        return np.zeros(len(self.centres), np.int16)

    @cached_property
    def slot(self) -> Faces:
        """See `Solid`."""
        return np.full(len(self.centres), ACCENT, np.int16)

    def intersect(self, rays: Rays) -> tuple[Array, Faces]:
        """See `Solid`; a face is a sphere."""
        nearest = np.full(rays.directions[0].shape, FAR, np.float32)
        face = np.zeros(nearest.shape, np.int16)
        centre = self.centres.mean(axis=0)
        bound = float(np.sqrt(((self.centres - centre) ** 2).sum(axis=1).max())) + self.radius
        _, discriminant = _sphere_equation(rays, dot(rays.directions, rays.directions), centre.tolist(), bound)
        active = (discriminant > 0).nonzero()[0]  # most rays miss a handle
        if not len(active):
            return nearest, face
        d = take(rays.directions, active)
        # Spheres by rows, rays by columns.
        o = np.asarray(rays.origin, np.float32) - self.centres
        half = o[:, :1] * d[0] + o[:, 1:2] * d[1] + o[:, 2:] * d[2]
        a = dot(d, d)
        excess = ((o * o).sum(axis=1) - np.float32(self.radius**2))[:, None]
        with np.errstate(invalid="ignore"):  # NaN where a ray misses a sphere: so it is never the largest
            root = np.sqrt(half * half - excess * a) + half
        np.copyto(root, -FAR, where=np.isnan(root))
        sphere = root.argmax(axis=0)
        first = root[sphere, np.arange(len(active))]
        nearest[active] = np.where((first < 0) & (first > -FAR), first / -a, FAR)
        face[active] = sphere
        return nearest, face

    def surface(self, faces: Faces, points: Vec) -> tuple[Vec, Array, Array]:
        """See `Solid`."""
        along = np.gradient(self.centres, axis=0)
        tangents = along / (np.linalg.norm(along, axis=1, keepdims=True) + 1e-9)
        c, tangent = self.centres[faces], tangents[faces].T
        n = (points[0] - c[:, 0], points[1] - c[:, 1], points[2] - c[:, 2])
        part = dot(n, (tangent[0], tangent[1], tangent[2]))  # taken out, or the spheres would show as beads
        n = (n[0] - part * tangent[0], n[1] - part * tangent[1], n[2] - part * tangent[2])
        return normalize(n), points[0], points[2]


@dataclass(frozen=True, eq=False)
class Metaballs:
    """Spheres melted into one another, intersected by sphere tracing: steps along the ray by the distance estimate.

    Attributes:
        spheres: float32 [P, 4]: centre and radius.
        smoothness: distance from one another at which spheres begin to join.
    """

    spheres: Array
    smoothness: float
    smooth_group: Faces = field(default_factory=lambda: np.zeros(1, np.int16))
    slot: Faces = field(default_factory=lambda: np.zeros(1, np.int16))

    def intersect(self, rays: Rays) -> tuple[Array, Faces]:
        """See `Solid`; there is one face."""
        nearest = np.full(rays.directions[0].shape, FAR, np.float32)
        # Melting swells the spheres by no more than this; rays that miss all spheres of that size miss the body.
        swell = self.smoothness * math.log(len(self.spheres))
        a = dot(rays.directions, rays.directions)
        start = np.full(a.shape, FAR, np.float32)
        for x, y, z, r in self.spheres.tolist():
            np.minimum(start, _entry_distance(rays, a, (x, y, z), r + swell), out=start)
        active = (start < FAR).nonzero()[0]
        t, a = start.take(active), a.take(active)
        inverse_length = 1.0 / np.sqrt(a)
        d = take(rays.directions, active)
        quadratics = []  # of the squared distance from each sphere's centre, a t² + b t + c; and its radius
        for x, y, z, r in self.spheres.tolist():
            o = (rays.origin[0] - x, rays.origin[1] - y, rays.origin[2] - z)
            quadratics.append((2 * dot(o, d), dot(o, o), r))
        for steps in (3, 5, 10):
            for _ in range(steps):
                total: Any = 0
                for b, c, r in quadratics:
                    total = total + self._weight(np.sqrt((t * a + b) * t + c), r)
                estimate = np.log(total) * -self.smoothness
                t = t + estimate * inverse_length
            nearest[active] = np.where(estimate < 0.01, t, FAR)
            moving = (np.abs(estimate) > 1e-3).nonzero()[0]  # the others have arrived
            active, t, a, inverse_length = (x.take(moving) for x in (active, t, a, inverse_length))
            quadratics = [(b.take(moving), c, r) for b, c, r in quadratics]
        return nearest, np.zeros(nearest.shape, np.int16)

    def _weight(self, distance: Array, radius: float) -> Array:
        """A sphere's weight in the exponential smooth minimum of the distances to all, float32 [N]."""
        weight: Array = np.exp(np.maximum((distance - radius) * (-1 / self.smoothness), -30))
        return weight

    def surface(self, faces: Faces, points: Vec) -> tuple[Vec, Array, Array]:  # noqa: ARG002 (it has one face)
        """See `Solid`."""
        n: list[Any] = [0, 0, 0]
        for x, y, z, r in self.spheres.tolist():
            offset = (points[0] - x, points[1] - y, points[2] - z)
            distance = np.sqrt(dot(offset, offset))
            weight = 1 / distance * self._weight(distance, r)
            for axis in range(3):
                n[axis] = n[axis] + offset[axis] * weight
        u = np.arctan2(points[1], points[0]) * np.float32(0.5 / math.pi) + np.float32(0.5)
        return normalize((n[0], n[1], n[2])), u, points[2] * np.float32(0.8)


def _sphere_equation(rays: Rays, a: Array, centre: Point, radius: float) -> tuple[Array, Array]:
    """Half of the linear coefficient and a quarter of the discriminant of a ray's quadratic with a sphere, [N] each.

    Args:
        a: squared lengths of the rays' directions.
    """
    x, y, z = (o - c for o, c in zip(rays.origin, centre, strict=True))
    half = dot_constant(rays.directions, (x, y, z))
    return half, half * half - a * (x * x + y * y + z * z - radius * radius)


def _entry_distance(rays: Rays, a: Array, centre: Point, radius: float) -> Array:
    """Distance at which rays enter a sphere, [N]; FAR where they miss it. `a`: see `_sphere_equation`."""
    half, discriminant = _sphere_equation(rays, a, centre, radius)
    entry: Array = (np.sqrt(np.maximum(discriminant, 0)) + half) / -a
    entry[discriminant <= 0] = FAR
    return entry
