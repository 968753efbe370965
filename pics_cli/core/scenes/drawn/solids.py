"""Solids that rays are cast at: what they have in common, and convex bodies. See also `lathe` and `rounded`.

N: number of rays.

Each has `trace`, which finds the first surface along rays, and `surface`, which tells normal and texture coordinates
there; both in the solid's own frame. `faces` names, for every number that `trace` may return, the smooth patch it
belongs to (edges between patches are anti-aliased) and the slot of the look that colours it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pics_cli.core.scenes.drawn.camera import Array, Rays, Vec, unit, weighted

# Slots of a look.
MAIN, ACCENT, INSIDE = 0, 1, 2
FAR = np.float32(1e9)
Faces = npt.NDArray[np.int16]


class Solid(Protocol):
    """Anything rays can meet."""

    @property
    def patch(self) -> Faces:
        """Number of the smooth patch of each face."""
        ...

    @property
    def slot(self) -> Faces:
        """Slot of the look of each face."""
        ...

    def trace(self, rays: Rays) -> tuple[Array, Faces]:
        """Distance in lengths of the directions (FAR: missed) and face, [N] each."""
        ...

    def surface(self, face: Faces, p: Vec) -> tuple[Vec, Array, Array]:
        """Outward normal and texture coordinates u, v at points of the given faces."""
        ...


@dataclass(frozen=True, eq=False)
class Hull:
    """A convex body: the points x with planes[:, :3] · x ≤ planes[:, 3].

    Attributes:
        planes: float [F, 4], outward normals of length 1 and offsets.
        bevel: width of the rounding that shading shows along edges.
        slots: slot of the look per face.
        texture: texture units per length.
    """

    planes: Array
    bevel: float
    slots: tuple[int, ...]
    texture: float
    patch: Faces = field(init=False)
    slot: Faces = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "patch", np.arange(len(self.planes), dtype=np.int16))
        object.__setattr__(self, "slot", np.asarray(self.slots, np.int16))

    def trace(self, rays: Rays) -> tuple[Array, Faces]:
        """See `Solid`. The inverse of the distance to a plane is linear in a ray's direction: it enters at the smallest
        one of the planes that face the start, and leaves at the largest of the others."""
        (ox, oy, oz), (dx, dy, dz) = rays.o, rays.d
        enters, leaves = np.full(dx.shape, FAR, np.float32), np.full(dx.shape, 1e-9, np.float32)
        face = np.zeros(dx.shape, np.int16)
        for number, (nx, ny, nz, offset) in enumerate(self.planes.tolist()):
            gap = offset - (nx * ox + ny * oy + nz * oz)
            gap = gap if abs(gap) > 1e-6 else 1e-6
            inverse = weighted((dx, dy, dz), (nx / gap, ny / gap, nz / gap))
            if gap > 0:
                np.maximum(leaves, inverse, out=leaves)
            else:
                np.copyto(face, np.int16(number), where=inverse < enters)
                np.minimum(enters, inverse, out=enters)
        t = np.reciprocal(enters)
        t[(enters <= leaves) | (t < 1e-4)] = FAR
        return t, face

    def surface(self, face: Faces, p: Vec) -> tuple[Vec, Array, Array]:
        n: list[Any] = [0.0, 0.0, 0.0]
        u = np.zeros(face.shape, np.float32)
        v = np.zeros(face.shape, np.float32)
        k = 1 / self.bevel
        for number, (nx, ny, nz, offset) in enumerate(self.planes.tolist()):
            # On a face its own normal has weight 1, its neighbours' ones grow towards the edges.
            weight = weighted(p, (nx * k, ny * k, nz * k))
            weight += 1 - offset * k
            np.maximum(weight, 0, out=weight)
            weight *= weight
            for axis, part in enumerate((nx, ny, nz)):
                if part:
                    n[axis] = n[axis] + part * weight
            on = np.flatnonzero(face == number)
            if not len(on) or self.slot[number] != MAIN:
                continue
            x, y = p[0].take(on), p[1].take(on)
            across = math.hypot(nx, ny)
            if across > 0.3:  # a side: u runs along it, v up
                u[on] = (nx * y - ny * x) * (self.texture / across) + 0.37 * number
                v[on] = p[2].take(on) * self.texture
            else:
                u[on], v[on] = x * self.texture, y * self.texture
        return unit((n[0], n[1], n[2])), u, v


Points = npt.NDArray[np.float64]
Knobs = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Caster:
    """Cross-sections of a part, for shadows: discs x, y, r at heights z, cut by planes if it is a convex body.

    Attributes:
        discs: float [M, 4]: z, x, y, r; z rising.
        sides: float [F, 4]: planes of a convex body, used instead of r; None where it is round.
    """

    discs: Array
    sides: Array | None = None

    @cached_property
    def ball(self) -> tuple[float, float, float, float]:
        """A ball around all of it: x, y, z and radius."""
        z, x, y, r = self.discs.astype(np.float64).T
        cx, cy, cz = x.mean(), y.mean(), (z[0] + z[-1]) / 2
        reach = np.sqrt((np.hypot(x - cx, y - cy) + r) ** 2 + (z - cz) ** 2).max()
        return float(cx), float(cy), float(cz), float(reach)


@dataclass(frozen=True, eq=False)
class Shape:
    """One shape at unit size.

    Attributes:
        solids: what rays meet.
        casters: what casts shadows.
        pieces: convex point clouds, float [P, 3] each; their hulls in the picture make the silhouette.
        foot: convex outline of everything as seen from above, float [M, 2].
        height: of the highest point.
        top: height and half sides (x, y) of the flat place where things can stand; None where there is none.
        cavity: float [P, 4], the inner curve of a hollow shape (see `Lathe`).
    """

    solids: tuple[Solid, ...]
    casters: tuple[Caster, ...]
    pieces: tuple[Points, ...]
    foot: Points
    height: float
    top: tuple[float, float, float] | None = None
    cavity: Array | None = None

    @cached_property
    def points(self) -> Points:
        """The pieces' points one after the other, float [N, 3]; piece i has those from starts[i] to starts[i + 1]."""
        return np.concatenate(self.pieces)

    @cached_property
    def columns(self) -> Points:
        """The same by columns, with a fourth row of ones: float [4, N]."""
        return np.vstack([self.points.T, np.ones(len(self.points))])

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """See `points`."""
        return (0, *np.cumsum([len(piece) for piece in self.pieces]).tolist())

    def radius_at(self, z: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Largest distance from the axis at heights z, 0 above and below the shape: float as z."""
        radius = np.zeros_like(z)
        for caster in self.casters:
            height, x, y, r = caster.discs.T
            inside = (z >= height[0]) & (z <= height[-1])
            reach = np.interp(z, height, np.hypot(x, y) + r)
            radius = np.where(inside, np.maximum(radius, reach), radius)
        return radius
