"""Solids that rays are cast at exactly: bodies of revolution, convex bodies, bent tubes, soft lumps. N: number of rays.

Each has `trace`, which finds the first surface along rays, and `surface`, which tells normal and texture coordinates
there; both in the solid's own frame. `faces` names, for every number that `trace` may return, the smooth patch it
belongs to (edges between patches are anti-aliased) and the slot of the look that colours it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pics_cli.core.data.synth.camera import Array, Rays, Vec, unit

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
class Lathe:
    """A body of revolution about z: curves r(z) outside and, if hollow, inside, closed by discs.

    Between two points of a curve r² is linear in z, so that a ray meets a strip where a quadratic says so.

    Attributes:
        outer: float [P, 4]: z (rising), r, and the outward normal's r and z components.
        inner: the same for the cavity, from its floor to the rim, normals pointing into the cavity; None if massive.
        main: heights between which the outside has the look's pattern; the rest has its accent.
    """

    outer: Array
    inner: Array | None
    main: tuple[float, float]
    patch: Faces = field(init=False)
    slot: Faces = field(init=False)
    _strips: tuple[tuple[float, float, float, float, float], ...] = field(init=False)
    _discs: tuple[tuple[float, float, float], ...] = field(init=False)
    _slopes: Array = field(init=False)  # of normal r, normal z and v over z, as a + b z, by strip

    def __post_init__(self) -> None:
        strips, slopes, patch, slot = [], [], [], []
        length = 0.0
        for curve, number, sign in ((self.outer, 0, 1.0), (self.inner, 1, -1.0)):
            for a, b in pairwise([] if curve is None else curve.tolist()):
                rise = b[0] - a[0]
                if rise < 1e-6:  # a crease
                    continue
                beta = (b[1] ** 2 - a[1] ** 2) / rise
                strips.append((a[0], b[0], a[1] ** 2 - beta * a[0], beta, sign))
                step = math.hypot(b[1] - a[1], rise)
                ends = ((a[2], b[2]), (a[3], b[3]), (length, length + step))
                slopes.append([f for v, w in ends for f in (v - (w - v) / rise * a[0], (w - v) / rise)])
                length += step
                inside = self.main[0] <= (a[0] + b[0]) / 2 <= self.main[1]
                slot.append(INSIDE if number else MAIN if inside else ACCENT)
                patch.append(number + 5 * slot[-1])  # colours that meet on one wall are kept apart as well
        bottom, top = self.outer[0], self.outer[-1]
        hole = 0.0 if self.inner is None else float(self.inner[-1, 1])
        discs = [(float(bottom[0]), 0.0, float(bottom[1])), (float(top[0]), hole, float(top[1]))]
        slot += [ACCENT, ACCENT if self.inner is None and top[0] > self.main[1] else MAIN if hole == 0 else INSIDE]
        patch += [2, 3]
        if self.inner is not None:
            discs.append((float(self.inner[0, 0]), 0.0, float(self.inner[0, 1])))
            slot.append(INSIDE)
            patch.append(4)
        table = np.asarray(slopes, np.float32)
        table[:, 4:] /= length
        for name, value in (
            ("patch", np.asarray(patch, np.int16)),
            ("slot", np.asarray(slot, np.int16)),
            ("_strips", tuple(strips)),
            ("_discs", tuple(discs)),
            ("_slopes", np.ascontiguousarray(table.T)),
        ):
            object.__setattr__(self, name, value)

    def trace(self, rays: Rays) -> tuple[Array, Faces]:
        ox, oy, oz = rays.o
        dx, dy, dz = rays.d
        best = np.full(dx.shape, FAR, np.float32)
        face = np.zeros(dx.shape, np.int16)
        a = dx * dx + dy * dy + np.float32(1e-12)
        b = ox * dx + oy * dy
        c = ox * ox + oy * oy
        inverse = -1.0 / a
        away = -(ox * rays.away[0] + oy * rays.away[1])
        with np.errstate(invalid="ignore"):  # where a ray misses a strip, its root is NaN and so fails every test
            for number, (low, high, alpha, beta, sign) in enumerate(self._strips):
                reach = math.sqrt(max(alpha + beta * low, alpha + beta * high, 0.0)) + 1e-4
                at = _band(rays, away, reach, low - oz, high - oz)
                if at.stop <= at.start:
                    continue
                t = dz[at] * (-0.5 * beta)
                t += b[at]
                root = t * t
                root -= a[at] * (c - alpha - beta * oz)
                np.sqrt(root, out=root)
                t += root if sign > 0 else -root
                t *= inverse[at]
                z = t * dz[at]
                z += oz - 0.5 * (low + high)
                np.abs(z, out=z)
                hits = np.flatnonzero((z <= 0.5 * (high - low)) & (t < best[at]))  # far faster than a masked copy
                best[at][hits] = t[hits]
                face[at][hits] = number
        for number, (height, hole, radius) in enumerate(self._discs, start=len(self._strips)):
            at = _band(rays, away, radius, height - oz, height - oz)
            slope = dz[at]
            t = (height - oz) / np.where(np.abs(slope) < 1e-6, np.float32(1e-6), slope)
            square = (a[at] * t + 2 * b[at]) * t + c
            ok = (square <= radius * radius) & (square >= hole * hole) & (t < best[at]) & (t > 1e-4)
            hits = np.flatnonzero(ok)  # far faster than a masked copy
            best[at][hits] = t[hits]
            face[at][hits] = number
        return best, face

    def surface(self, face: Faces, p: Vec) -> tuple[Vec, Array, Array]:
        x, y, z = p
        strips = len(self._strips)
        at = np.minimum(face, strips - 1)
        radial, upward, v = (self._slopes[2 * i][at] + self._slopes[2 * i + 1][at] * z for i in range(3))
        away = 1.0 / np.sqrt(x * x + y * y + 1e-12)
        u = np.arctan2(y, x) * np.float32(0.5 / math.pi) + np.float32(0.5)
        flat = np.flatnonzero(face >= strips)
        radial[flat] = 0
        upward[flat] = np.where(face[flat] == strips, -1, 1)
        # A disc continues the pattern of the wall as a plane cut through it.
        u[flat] = x[flat] * np.float32(0.4) + np.float32(0.5)
        v[flat] = y[flat] * np.float32(0.8) + np.float32(0.5)
        across = radial * away
        return unit((x * across, y * across, upward)), u, v


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
        o, d = rays.o, rays.d
        near = np.full(d[0].shape, 1e-4, np.float32)
        far = np.full(d[0].shape, FAR, np.float32)
        face = np.full(d[0].shape, -1, np.int16)
        for number, (nx, ny, nz, offset) in enumerate(self.planes.tolist()):
            slope = nx * d[0] + ny * d[1] + nz * d[2]
            with np.errstate(divide="ignore"):  # a ray along a plane meets it at infinity, on the proper side
                t = (offset - (nx * o[0] + ny * o[1] + nz * o[2])) / slope
            enters = slope < 0
            face = np.where(enters & (t > near), np.int16(number), face)
            near = np.maximum(near, np.where(enters, t, -FAR))
            far = np.minimum(far, np.where(enters, FAR, t))
        return np.where((near < far) & (face >= 0), near, FAR), face

    def surface(self, face: Faces, p: Vec) -> tuple[Vec, Array, Array]:
        own = self.planes[face]
        n = [own[:, 0].copy(), own[:, 1].copy(), own[:, 2].copy()]
        u = np.zeros(face.shape, np.float32)
        v = np.zeros(face.shape, np.float32)
        for number, (nx, ny, nz, offset) in enumerate(self.planes.tolist()):
            gap = offset - (nx * p[0] + ny * p[1] + nz * p[2])
            weight = np.clip(1 - gap * (1 / self.bevel), 0, 1)
            weight = np.where(face == number, np.float32(0), weight * weight)
            for axis, part in enumerate((nx, ny, nz)):
                if part:
                    n[axis] += part * weight
            on = np.flatnonzero(face == number)
            across = math.hypot(nx, ny)
            if across > 0.3:  # a side: u runs along it, v up
                u[on] = (nx * p[1][on] - ny * p[0][on]) * (self.texture / across) + 0.37 * number
                v[on] = p[2][on] * self.texture
            else:
                u[on], v[on] = p[0][on] * self.texture, p[1][on] * self.texture
        return unit((n[0], n[1], n[2])), u, v


def _band(rays: Rays, away: float, reach: float, low: float, high: float) -> slice:
    """The rays that may meet a ring: its axis `away` from their start, its radius `reach`, its heights above it."""
    near, far = max(away - reach, 1e-3), max(away + reach, 2e-3)
    return rays.between(min(low / near, low / far), max(high / near, high / far))
