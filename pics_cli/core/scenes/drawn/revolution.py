"""Surfaces of revolution, intersected exactly. See `solids`. N: number of rays or points.

A profile r(z) is approximated by segments on which r² is quadratic in z (quadrics of revolution: cylinders, cones,
paraboloids, ellipsoids, …), so that a ray meets each where a quadratic equation says.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from pics_cli.core.scenes.drawn.camera import Array, Rays, Vec
from pics_cli.core.scenes.drawn.solids import ACCENT, FAR, INSIDE, MAIN, Faces

# How far a segment's radius may be off the profile: a fifth of a pixel of an object that is 100 pixels long.
_RADIUS_TOLERANCE = 0.002
# How far, in radians, its normal may be off.
_NORMAL_TOLERANCE = 0.1
# The largest |gamma| for which float32 is precise enough.
_MAX_GAMMA = 8.0
# Entries of the table of texture coordinates by height.
_TABLE_SIZE = 1024


@dataclass(frozen=True)
class _Segment:
    """A part of a wall with r² = alpha + beta z + gamma z² for z from `low` to `high`.

    Attributes:
        max_radius: the largest r.
        normal_z: a and b of the normal's z component a + b z where its radial component is r.
        inner: whether it is part of the cavity's wall.
        slot: of the material.
    """

    low: float
    high: float
    alpha: float
    beta: float
    gamma: float
    max_radius: float
    normal_z: tuple[float, float]
    inner: bool
    slot: int


@dataclass(frozen=True, eq=False)
class SurfaceOfRevolution:
    """Profiles r(z) turned about the z axis: the outside and, of a vessel, the inside, closed by flat caps.

    Attributes:
        outer: float32 [P, 4]: z (ascending), r, and the outward normal's r and z components.
        inner: the same for the cavity, from its floor to the rim, normals pointing into the cavity; None if massive.
        pattern_range: heights between which the outside has the material's pattern; the rest has its accent.
    """

    outer: Array
    inner: Array | None
    pattern_range: tuple[float, float]

    @cached_property
    def segments(self) -> tuple[_Segment, ...]:
        """Of the outer wall and then of the cavity's, each from the bottom up."""
        inner = () if self.inner is None else _fit_segments(self.inner, True, self.pattern_range)
        return (*_fit_segments(self.outer, False, self.pattern_range), *inner)

    @cached_property
    def _caps(self) -> tuple[tuple[float, float, float], ...]:
        """Height, inner and outer radius of the discs that close the profiles: bottom, top, floor of the cavity."""
        (bottom, r_bottom), (top, r_top) = self.outer[0, :2].tolist(), self.outer[-1, :2].tolist()
        if self.inner is None:
            return (bottom, 0.0, r_bottom), (top, 0.0, r_top)
        (floor, r_floor), r_rim = self.inner[0, :2].tolist(), float(self.inner[-1, 1])
        return (bottom, 0.0, r_bottom), (top, r_rim, r_top), (floor, 0.0, r_floor)

    @cached_property
    def slot(self) -> Faces:
        """See `Solid`: of the segments, then of the caps."""
        top_height, hole, _ = self._caps[1]
        top = ACCENT if self.inner is None and top_height > self.pattern_range[1] else MAIN if hole == 0 else INSIDE
        caps = [ACCENT, top, INSIDE][: len(self._caps)]
        return np.asarray([*(segment.slot for segment in self.segments), *caps], np.int16)

    @cached_property
    def smooth_group(self) -> Faces:
        """See `Solid`; slots that meet on one wall are groups of their own, so that their border is anti-aliased."""
        walls = [segment.inner + 5 * segment.slot for segment in self.segments]
        return np.asarray([*walls, 2, 3, 4][: len(walls) + len(self._caps)], np.int16)

    @cached_property
    def _normal_tables(self) -> tuple[Array, Array, Array]:
        """By face: a and b of the normal's z component, and its sign."""
        caps = len(self._caps)
        coefficients = [segment.normal_z for segment in self.segments]
        coefficients += [(-1e4, 0.0), (1e4, 0.0), (1e4, 0.0)][:caps]
        signs = [-1.0 if segment.inner else 1.0 for segment in self.segments] + [1.0] * caps
        a, b = np.asarray(coefficients, np.float32).T.copy()
        return a, b, np.asarray(signs, np.float32)

    @cached_property
    def _v_by_height(self) -> Array:
        """Texture coordinate v, the length along the profile from 0 to 1, at `_TABLE_SIZE` heights up to the top."""
        z, r = self.outer[:, :2].astype(np.float64).T
        length = np.append(0.0, np.cumsum(np.hypot(np.diff(z), np.diff(r))))
        inner_length = 0.0 if self.inner is None else float(np.hypot(*np.diff(self.inner[:, :2], axis=0).T).sum())
        heights = np.linspace(0, z[-1], _TABLE_SIZE)
        return np.asarray(np.interp(heights, z, length / (length[-1] + inner_length)), np.float32)

    def intersect(self, rays: Rays) -> tuple[Array, Faces]:
        """See `Solid`."""
        ox, oy, oz = rays.origin
        dx, dy, dz = rays.directions
        nearest = np.full(dx.shape, FAR, np.float32)
        face = np.zeros(dx.shape, np.int16)
        # |o + t d|² in the plane is a t² + 2 b t + c.
        a = dx * dx + dy * dy
        b = dx * ox + dy * oy
        c = ox * ox + oy * oy
        dz_squared = dz * dz
        axis_distance = -(ox * rays.forward_xy[0] + oy * rays.forward_xy[1])

        def keep_nearest(rays_slice: slice, hit: Array, t: Array, number: int) -> None:
            part = nearest[rays_slice]
            hit &= t < part
            hits = hit.nonzero()[0]  # far faster than a masked copy
            part[hits] = t.take(hits)
            face[rays_slice][hits] = number

        # Where a ray misses a segment, its root is NaN and so fails every test.
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            for number, s in enumerate(self.segments):
                near = rays.in_ring(axis_distance, s.max_radius, s.low - oz, s.high - oz)
                if near.stop <= near.start:
                    continue
                dz_near = dz[near]
                constant = c - s.alpha - (s.beta + s.gamma * oz) * oz
                half = b[near] - dz_near * (0.5 * s.beta + s.gamma * oz)
                square = a[near] if s.gamma == 0 else a[near] - dz_squared[near] * s.gamma
                root = np.sqrt(half * half - square * constant) - half
                t = root / square if s.inner else constant / root
                height = np.abs(t * dz_near + (oz - 0.5 * (s.low + s.high)))
                keep_nearest(near, height <= 0.5 * (s.high - s.low) + 1e-6, t, number)
            for number, (height, hole, radius) in enumerate(self._caps, start=len(self.segments)):
                near = rays.in_ring(axis_distance, radius, height - oz, height - oz)
                if near.stop <= near.start or (number == len(self.segments) and oz > height):
                    continue  # a bottom is not seen from above
                t = (height - oz) / dz[near]
                r_squared = (a[near] * t + 2 * b[near]) * t + c
                hit = (r_squared <= radius * radius) & (t > 1e-4)
                if hole:
                    hit &= r_squared >= hole * hole
                keep_nearest(near, hit, t, number)
        return nearest, face

    def surface(self, faces: Faces, points: Vec) -> tuple[Vec, Array, Array]:
        """See `Solid`; u runs around the axis, v up the profile."""
        x, y, z = points
        a, b, signs = self._normal_tables
        normal_z = b.take(faces) * z + a.take(faces)
        scale = signs.take(faces) / np.sqrt(x * x + y * y + normal_z * normal_z + 1e-12)
        u = np.arctan2(y, x) * np.float32(0.5 / math.pi) + np.float32(0.5)
        entry = (z * np.float32((_TABLE_SIZE - 1) / float(self.outer[-1, 0]))).astype(np.intp)
        v = self._v_by_height.take(entry, mode="clip")
        bottom = len(self.segments)
        if self.slot[bottom + 1] == MAIN:  # a cap continues the pattern of the wall as a plane cut through it
            flat = (faces > bottom).nonzero()[0]
            u[flat] = x.take(flat) * np.float32(0.4) + np.float32(0.5)
            v[flat] = y.take(flat) * np.float32(0.8) + np.float32(0.5)
        return (x * scale, y * scale, normal_z * scale), u, v


def _fit_segments(profile: Array, inner: bool, pattern_range: tuple[float, float]) -> Iterator[_Segment]:
    """The fewest segments, from the bottom up, that are nowhere far from a profile, float [P, 4].

    They do not cross the ends of the main pattern.
    """
    sign = -1 if inner else 1
    # Height, r and the angle of the normal above the horizon. Lists: NumPy is slow on so few numbers.
    rows = [(z, r, math.atan2(sign * nz, max(sign * nr, 0.02))) for z, r, nr, nz in profile.tolist()]
    steps = [b[0] - a[0] for a, b in pairwise(rows)]
    patterned = [inner or pattern_range[0] <= (a[0] + b[0]) / 2 <= pattern_range[1] for a, b in pairwise(rows)]
    i, last = 0, len(steps)
    while i < last:
        if steps[i] < 1e-6:  # a crease
            i += 1
            continue
        j = i + 1
        fit = _fit(rows[i : j + 1])
        while j < last and steps[j] >= 1e-6 and patterned[j] == patterned[i]:
            wider = _fit(rows[i : j + 2])
            if wider is None:
                break
            fit, j = wider, j + 1
        assert fit is not None
        alpha, beta, gamma, normal_z = fit
        low, high = rows[i][0], rows[j][0]
        peak = min(max(-beta / (2 * gamma), low), high) if gamma < 0 else low
        max_radius = math.sqrt(max(*(alpha + (beta + gamma * z) * z for z in (low, high, peak)), 0.0)) + 1e-4
        slot = INSIDE if inner else MAIN if patterned[i] else ACCENT
        yield _Segment(low, high, alpha, beta, gamma, max_radius, normal_z, inner, slot)
        i = j


def _fit(rows: list[tuple[float, float, float]]) -> tuple[float, float, float, tuple[float, float]] | None:
    """alpha, beta, gamma and normal_z of the segment through both ends of a part of a profile that fits the rest best.

    Args:
        rows: z, r and the angle of the normal.

    Returns:
        None where the best one is too far off.
    """
    (low, r_low, angle_low), (high, r_high, angle_high) = rows[0], rows[-1]
    start = r_low * r_low
    slope = (r_high * r_high - start) / (high - low)
    # Of the points between: also r² on the chord, and how much gamma = 1 adds to it.
    between = [(z, r, angle, start + slope * (z - low), (z - low) * (z - high)) for z, r, angle in rows[1:-1]]
    gamma = 0.0
    if between:
        weight = sum(bow * bow for *_, bow in between)
        gamma = sum(bow * (r * r - chord) for _, r, _, chord, bow in between) / weight
        if abs(gamma) > _MAX_GAMMA:
            return None
    for _, r, _, chord, bow in between:
        square = chord + gamma * bow
        if square < 0 or abs(math.sqrt(square) - r) > _RADIUS_TOLERANCE:
            return None
    for (z_a, r_a, _), (z_b, r_b, _) in pairwise(rows) if between else ():  # a single step has no points to tell
        z = (z_a + z_b) / 2
        square = start + slope * (z - low) + gamma * (z - low) * (z - high)
        if square < 0 or abs(math.sqrt(square) - (r_a + r_b) / 2) > 5 * _RADIUS_TOLERANCE:
            return None
    beta = slope - gamma * (low + high)
    # Taken as linear, which would make a wall that turns quickly from level to upright level for long.
    middle, tan_low, tan_high = math.tan((angle_low + angle_high) / 2), math.tan(angle_low), math.tan(angle_high)
    if abs(angle_low) > abs(angle_high):
        tan_low = 2 * middle - tan_high
    else:
        tan_high = 2 * middle - tan_low
    normal_low = tan_low * r_low if r_low > 1e-3 else -(0.5 * beta + gamma * low)
    normal_high = tan_high * r_high if r_high > 1e-3 else -(0.5 * beta + gamma * high)
    rise = (normal_high - normal_low) / (high - low)
    for z, r, angle, _, _ in between:
        if abs(math.atan2(normal_low + rise * (z - low), r) - angle) > _NORMAL_TOLERANCE:
            return None
    return start - (beta + gamma * low) * low, beta, gamma, (normal_low - rise * low, rise)
