"""Bodies of revolution, met exactly. See `solids`. N: number of rays."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from pics_cli.core.scenes.drawn.camera import Array, Rays, Vec
from pics_cli.core.scenes.drawn.solids import ACCENT, FAR, INSIDE, MAIN, Faces

# How far a strip may be off the outline it stands for: a fifth of a pixel of an object that is 100 pixels long.
_OFF = 0.002
# How far, in radians, its normal may be off.
_BENT = 0.1
# The largest gamma that 32 bits bear.
_CURVED = 8.0
# Entries of the table of texture coordinates.
_STEPS = 1024


@dataclass(frozen=True)
class _Strip:
    """A part of a wall with r² = alpha + beta z + gamma z² between two heights.

    Attributes:
        low, high: the heights.
        reach: the largest r.
        lean: a + b z, the normal's z component where its radial one is r.
        inner, slot: of the cavity's wall; slot of the look.
    """

    low: float
    high: float
    alpha: float
    beta: float
    gamma: float
    reach: float
    lean: tuple[float, float]
    inner: bool
    slot: int


@dataclass(frozen=True, eq=False)
class Lathe:
    """A body of revolution about z: curves r(z) outside and, if hollow, inside, closed by discs.

    The curves are split into strips on which r² is quadratic in z, so that a ray meets them where a quadratic says so.

    Attributes:
        outer: float [P, 4]: z (rising), r, and the outward normal's r and z components.
        inner: the same for the cavity, from its floor to the rim, normals pointing into the cavity; None if massive.
        main: heights between which the outside has the look's pattern; the rest has its accent.
    """

    outer: Array
    inner: Array | None
    main: tuple[float, float]

    @cached_property
    def _strips(self) -> tuple[_Strip, ...]:
        strips = list(_split(self.outer, False, self.main))
        if self.inner is not None:
            strips += _split(self.inner, True, self.main)
        return tuple(strips)

    @cached_property
    def _discs(self) -> tuple[tuple[float, float, float], ...]:
        """Height, inner and outer radius of what closes the curves: bottom, top, floor of the cavity."""
        bottom, top = self.outer[0].tolist(), self.outer[-1].tolist()
        if self.inner is None:
            return (bottom[0], 0.0, bottom[1]), (top[0], 0.0, top[1])
        return (
            (bottom[0], 0.0, bottom[1]),
            (top[0], float(self.inner[-1, 1]), top[1]),
            (float(self.inner[0, 0]), 0.0, float(self.inner[0, 1])),
        )

    @cached_property
    def slot(self) -> Faces:
        """Slot of the look of each face."""
        hole, (height, _, _) = self._discs[1][1], self._discs[1]
        top = ACCENT if self.inner is None and height > self.main[1] else MAIN if hole == 0 else INSIDE
        discs = [ACCENT, top, INSIDE][: len(self._discs)]
        return np.asarray([*(strip.slot for strip in self._strips), *discs], np.int16)

    @cached_property
    def patch(self) -> Faces:
        """Number of the smooth patch of each face; colours that meet on one wall are kept apart as well."""
        walls = [strip.inner + 5 * strip.slot for strip in self._strips]
        return np.asarray([*walls, 2, 3, 4][: len(walls) + len(self._discs)], np.int16)

    @cached_property
    def _tables(self) -> tuple[Array, Array, Array, Array]:
        """By face: a and b of the normal's lean, and its sign; v by height, `_STEPS` entries to the top."""
        leans = [strip.lean for strip in self._strips]
        leans += [(-1e4, 0.0), (1e4, 0.0), (1e4, 0.0)][: len(self._discs)]
        signs = [-1.0 if strip.inner else 1.0 for strip in self._strips] + [1.0] * len(self._discs)
        z, r = self.outer[:, 0].astype(np.float64), self.outer[:, 1].astype(np.float64)
        length = np.append(0.0, np.cumsum(np.hypot(np.diff(z), np.diff(r))))
        rest = 0.0 if self.inner is None else float(np.hypot(*np.diff(self.inner[:, :2], axis=0).T).sum())
        v = np.interp(np.linspace(0, z[-1], _STEPS), z, length / (length[-1] + rest))
        a, b = np.asarray(leans, np.float32).T.copy()
        return a, b, np.asarray(signs, np.float32), v.astype(np.float32)

    def trace(self, rays: Rays) -> tuple[Array, Faces]:
        """See `Solid`."""
        ox, oy, oz = rays.o
        dx, dy, dz = rays.d
        best = np.full(dx.shape, FAR, np.float32)
        face = np.zeros(dx.shape, np.int16)
        a = dx * dx
        a += dy * dy
        b = dx * ox
        b += dy * oy
        square = dz * dz
        c = ox * ox + oy * oy
        away = -(ox * rays.away[0] + oy * rays.away[1])
        # Where a ray misses a strip, its root is NaN and so fails every test.
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            for number, s in enumerate(self._strips):
                at = _band(rays, away, s.reach, s.low - oz, s.high - oz)
                if at.stop <= at.start:
                    continue
                depths = dz[at]
                start = c - s.alpha - (s.beta + s.gamma * oz) * oz
                half = b[at] - depths * (0.5 * s.beta + s.gamma * oz)
                slope = a[at] if s.gamma == 0 else a[at] - square[at] * s.gamma
                root = half * half
                root -= slope * start
                np.sqrt(root, out=root)
                root -= half
                t = np.divide(root, slope, out=root) if s.inner else np.divide(start, root, out=root)
                z = np.multiply(t, depths, out=half)
                z += oz - 0.5 * (s.low + s.high)
                np.abs(z, out=z)
                met = z <= 0.5 * (s.high - s.low) + 1e-6
                nearest = best[at]
                met &= t < nearest
                hits = met.nonzero()[0]  # far faster than a masked copy
                nearest[hits] = t.take(hits)
                face[at][hits] = number
            for number, (height, hole, radius) in enumerate(self._discs, start=len(self._strips)):
                at = _band(rays, away, radius, height - oz, height - oz)
                if at.stop <= at.start or (number == len(self._strips) and oz > height):
                    continue  # a bottom is not seen from above
                t = (height - oz) / dz[at]
                away2 = a[at] * t
                away2 += 2 * b[at]
                away2 *= t
                away2 += c
                nearest = best[at]
                met = away2 <= radius * radius
                met &= t < nearest
                met &= t > 1e-4
                if hole:
                    met &= away2 >= hole * hole
                hits = met.nonzero()[0]
                nearest[hits] = t.take(hits)
                face[at][hits] = number
        return best, face

    def surface(self, face: Faces, p: Vec) -> tuple[Vec, Array, Array]:
        """See `Solid`."""
        x, y, z = p
        a, b, signs, lengths = self._tables
        lean = b.take(face)
        lean *= z
        lean += a.take(face)
        scale = x * x
        scale += y * y
        scale += lean * lean
        scale += np.float32(1e-12)
        np.sqrt(scale, out=scale)
        np.divide(signs.take(face) if self.inner is not None else np.float32(1), scale, out=scale)
        u = np.arctan2(y, x)
        u *= np.float32(0.5 / math.pi)
        u += np.float32(0.5)
        step = (z * np.float32((_STEPS - 1) / float(self.outer[-1, 0]))).astype(np.intp)
        v = lengths.take(step, mode="clip")
        strips = len(self._strips)
        if self.slot[strips + 1] == MAIN:  # a disc continues the pattern of the wall as a plane cut through it
            flat = (face > strips).nonzero()[0]
            u[flat] = x.take(flat) * np.float32(0.4) + np.float32(0.5)
            v[flat] = y.take(flat) * np.float32(0.8) + np.float32(0.5)
        lean *= scale
        return (x * scale, y * scale, lean), u, v


def _split(curve: Array, inner: bool, main: tuple[float, float]) -> Iterator[_Strip]:
    """The fewest strips, from the bottom up, that are nowhere far from a curve, float [P, 4].

    They do not cross the ends of the main pattern.
    """
    sign = -1 if inner else 1
    # Height, r and the angle of the normal above the horizon. Lists: NumPy is slow on so few numbers.
    rows = [(z, r, math.atan2(sign * up, max(sign * out, 0.02))) for z, r, out, up in curve.tolist()]
    steps = [b[0] - a[0] for a, b in pairwise(rows)]
    inside = [inner or main[0] <= (a[0] + b[0]) / 2 <= main[1] for a, b in pairwise(rows)]
    i, last = 0, len(steps)
    while i < last:
        if steps[i] < 1e-6:  # a crease
            i += 1
            continue
        j = i + 1
        fit = _fit(rows[i : j + 1])
        while j < last and steps[j] >= 1e-6 and inside[j] == inside[i]:
            wider = _fit(rows[i : j + 2])
            if wider is None:
                break
            fit, j = wider, j + 1
        assert fit is not None
        alpha, beta, gamma, lean = fit
        low, high = rows[i][0], rows[j][0]
        peak = min(max(-beta / (2 * gamma), low), high) if gamma < 0 else low
        reach = math.sqrt(max(*(alpha + (beta + gamma * h) * h for h in (low, high, peak)), 0.0)) + 1e-4
        slot = INSIDE if inner else MAIN if inside[i] else ACCENT
        yield _Strip(low, high, alpha, beta, gamma, reach, lean, inner, slot)
        i = j


def _fit(rows: list[tuple[float, float, float]]) -> tuple[float, float, float, tuple[float, float]] | None:
    """alpha, beta, gamma and lean of the strip through the ends of a part of a curve that fits the rest best.

    Args:
        rows: z, r and the angle of the normal.

    Returns:
        None where it is too far off.
    """
    (low, r_a, a), (high, r_b, b) = rows[0], rows[-1]
    start = r_a * r_a
    slope = (r_b * r_b - start) / (high - low)
    rest = [(z, r, turn, start + slope * (z - low), (z - low) * (z - high)) for z, r, turn in rows[1:-1]]
    gamma = 0.0
    if rest:
        bows = sum(bow * bow for *_, bow in rest)
        gamma = sum(bow * (r * r - chord) for _, r, _, chord, bow in rest) / bows
        if abs(gamma) > _CURVED:
            return None
    for _, r, _, chord, bow in rest:
        square = chord + gamma * bow
        if square < 0 or abs(math.sqrt(square) - r) > _OFF:
            return None
    for (z_a, r_1, _), (z_b, r_2, _) in pairwise(rows) if rest else ():  # a step has no points that tell it
        z = (z_a + z_b) / 2
        square = start + slope * (z - low) + gamma * (z - low) * (z - high)
        if square < 0 or abs(math.sqrt(square) - (r_1 + r_2) / 2) > 5 * _OFF:
            return None
    beta = slope - gamma * (low + high)
    # The lean is taken as linear, which would make a wall that turns quickly from level to upright level for long.
    middle, tan_a, tan_b = math.tan((a + b) / 2), math.tan(a), math.tan(b)
    if abs(a) > abs(b):
        tan_a = 2 * middle - tan_b
    else:
        tan_b = 2 * middle - tan_a
    lean_a = tan_a * r_a if r_a > 1e-3 else -(0.5 * beta + gamma * low)
    lean_b = tan_b * r_b if r_b > 1e-3 else -(0.5 * beta + gamma * high)
    rise = (lean_b - lean_a) / (high - low)
    for z, r, turn, _, _ in rest:
        if abs(math.atan2(lean_a + rise * (z - low), r) - turn) > _BENT:
            return None
    return start - (beta + gamma * low) * low, beta, gamma, (lean_a - rise * low, rise)


def _band(rays: Rays, away: float, reach: float, low: float, high: float) -> slice:
    """The rays that may meet a ring: its axis `away` from their start, its radius `reach`, its heights above it."""
    near, far = max(away - reach, 1e-3), max(away + reach, 2e-3)
    return rays.between(min(low / near, low / far), max(high / near, high / far))
