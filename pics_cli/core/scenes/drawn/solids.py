"""Geometry of objects: the interface of a solid that rays hit, convex polyhedra, and shapes composed of solids.

The other solids are in `revolution` and `spheres`. N: number of rays or points; everything is in the shape's own
frame, in which the longest side is 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pics_cli.core.scenes.drawn.camera import Array, Rays, Vec, dot_constant, normalize

# Slots of a material: the pattern, the accent colour, the colour of a vessel's inside.
MAIN, ACCENT, INSIDE = 0, 1, 2
FAR = np.float32(1e9)
# Texture units per length on flat faces.
_TEXTURE_SCALE = 1.2
Faces = npt.NDArray[np.int16]
Points = npt.NDArray[np.float64]


class Solid(Protocol):
    """Anything that rays can hit.

    `smooth_group` and `slot` have an entry for every face number that `intersect` may return.
    """

    @property
    def smooth_group(self) -> Faces:
        """Smoothing group of each face: edges between groups are anti-aliased."""
        ...

    @property
    def slot(self) -> Faces:
        """Slot of the material that colours each face."""
        ...

    def intersect(self, rays: Rays) -> tuple[Array, Faces]:
        """First hit of each ray: distance in lengths of its direction (FAR: none), float32 [N], and face, int16 [N]."""
        ...

    def surface(self, faces: Faces, points: Vec) -> tuple[Vec, Array, Array]:
        """Unit outward normals and texture coordinates u, v, float32 [N] each, at points of the given faces."""
        ...


@dataclass(frozen=True, eq=False)
class ConvexPolyhedron:
    """A convex body: the points x with planes[:, :3] · x ≤ planes[:, 3].

    Attributes:
        planes: float32 [F, 4], outward normals of length 1 and offsets.
        bevel: width of the rounding that shading shows along edges.
        slot: see `Solid`.
    """

    planes: Array
    bevel: float
    slot: Faces

    @cached_property
    def smooth_group(self) -> Faces:
        """See `Solid`: every face is its own."""
        return np.arange(len(self.planes), dtype=np.int16)

    def intersect(self, rays: Rays) -> tuple[Array, Faces]:
        """See `Solid`. The inverse of the distance to a plane is linear in a ray's direction: it enters at the smallest
        one of the planes that face the origin, and leaves at the largest of the others."""
        ox, oy, oz = rays.origin
        shape = rays.directions[0].shape
        entry, exit_ = np.full(shape, FAR, np.float32), np.full(shape, 1e-9, np.float32)
        face = np.zeros(shape, np.int16)
        for number, (nx, ny, nz, offset) in enumerate(self.planes.tolist()):
            gap = offset - (nx * ox + ny * oy + nz * oz)
            gap = gap if abs(gap) > 1e-6 else 1e-6
            inverse = dot_constant(rays.directions, (nx / gap, ny / gap, nz / gap))
            if gap > 0:
                np.maximum(exit_, inverse, out=exit_)
            else:
                np.copyto(face, np.int16(number), where=inverse < entry)
                np.minimum(entry, inverse, out=entry)
        t = np.reciprocal(entry)
        t[(entry <= exit_) | (t < 1e-4)] = FAR
        return t, face

    def surface(self, faces: Faces, points: Vec) -> tuple[Vec, Array, Array]:
        """See `Solid`."""
        normal: list[Any] = [0.0, 0.0, 0.0]
        u, v = np.zeros(faces.shape, np.float32), np.zeros(faces.shape, np.float32)
        k = 1 / self.bevel
        for number, (nx, ny, nz, offset) in enumerate(self.planes.tolist()):
            # On a face its own normal has weight 1, its neighbours' ones grow towards the edges.
            weight = np.maximum(dot_constant(points, (nx * k, ny * k, nz * k)) + (1 - offset * k), 0)
            weight *= weight
            for axis, component in enumerate((nx, ny, nz)):
                if component:
                    normal[axis] = normal[axis] + component * weight
            on_face = np.flatnonzero(faces == number)
            if not len(on_face) or self.slot[number] != MAIN:
                continue
            x, y = points[0].take(on_face), points[1].take(on_face)
            horizontal = math.hypot(nx, ny)
            if horizontal > 0.3:  # a side: u runs along it, v up
                u[on_face] = (nx * y - ny * x) * (_TEXTURE_SCALE / horizontal) + 0.37 * number
                v[on_face] = points[2].take(on_face) * _TEXTURE_SCALE
            else:
                u[on_face], v[on_face] = x * _TEXTURE_SCALE, y * _TEXTURE_SCALE
        return normalize((normal[0], normal[1], normal[2])), u, v


@dataclass(frozen=True, eq=False)
class ShadowProxy:
    """Simple geometry that stands for a part of a shape when shadows are computed.

    Attributes:
        discs: horizontal cross-sections, float32 [M, 4]: z, x, y, radius; z ascending.
        planes: float32 [F, 4] of a convex polyhedron, used instead of the radii; None where the part is round.
    """

    discs: Array
    planes: Array | None = None

    @cached_property
    def bounding_sphere(self) -> tuple[float, float, float, float]:
        """Centre x, y, z and radius of a sphere around the part."""
        z, x, y, r = self.discs.astype(np.float64).T
        cx, cy, cz = x.mean(), y.mean(), (z[0] + z[-1]) / 2
        radius = np.sqrt((np.hypot(x - cx, y - cy) + r) ** 2 + (z - cz) ** 2).max()
        return float(cx), float(cy), float(cz), float(radius)


@dataclass(frozen=True, eq=False)
class Shape:
    """Geometry of an object that stands on z = 0 about the z axis, its longest side 1.

    Attributes:
        solids: what camera rays hit.
        shadow_proxies: what casts shadows.
        convex_parts: point clouds, float [P, 3] each; their convex hulls in the picture make up the silhouette.
        footprint: convex outline of everything as seen from above, float [M, 2].
        height: of the highest point.
        support: height and half sides (x, y) of the flat area on which things can stand; None where there is none.
        cavity: profile of a vessel's inside (see `SurfaceOfRevolution.inner`), float32 [P, 4]; None if it is no vessel.
    """

    solids: tuple[Solid, ...]
    shadow_proxies: tuple[ShadowProxy, ...]
    convex_parts: tuple[Points, ...]
    footprint: Points
    height: float
    support: tuple[float, float, float] | None = None
    cavity: Array | None = None

    @property
    def rim(self) -> tuple[float, float]:
        """Height and radius of a vessel's opening."""
        assert self.cavity is not None
        return float(self.cavity[-1, 0]), float(self.cavity[-1, 1])

    @cached_property
    def homogeneous_points(self) -> Points:
        """The points of all convex parts, one after the other, by columns with a fourth row of ones: float [4, N]."""
        points = np.concatenate(self.convex_parts)
        return np.vstack([points.T, np.ones(len(points))])

    @cached_property
    def part_starts(self) -> tuple[int, ...]:
        """Index of each convex part's first point in `homogeneous_points`, and at the end N."""
        return (0, *np.cumsum([len(part) for part in self.convex_parts]).tolist())

    def radius_at(self, z: Points) -> Points:
        """Largest distance from the axis at heights z, 0 above and below the shape: float as z."""
        radius = np.zeros_like(z)
        for proxy in self.shadow_proxies:
            height, x, y, r = proxy.discs.T
            inside = (z >= height[0]) & (z <= height[-1])
            reach = np.interp(z, height, np.hypot(x, y) + r)
            radius = np.where(inside, np.maximum(radius, reach), radius)
        return radius
