"""Profiles r(z) of bodies of revolution: Bézier curves for every family of lathe-turned objects.

Control points are (z, r) in any unit, the shape is scaled afterwards; where two curves meet there is a crease. The
parameters a, b, c in [0, 1] vary a family. A family belongs to one pool (see `shapes.FAMILIES`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from pics_cli.core.scenes.drawn.camera import Array

Bezier = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Profile:
    """Profile curves of one body.

    Attributes:
        outer: of the outside, from bottom to top.
        inner: of the cavity, from its floor to the rim; empty if massive.
        pattern: heights between which the outside has the material's pattern.
        handle: control points of a handle; empty if there is none.
        stem: height of a stem above the top; 0 if there is none.
    """

    outer: tuple[Bezier, ...]
    inner: tuple[Bezier, ...] = ()
    pattern: tuple[float, float] = (-1.0, 9.0)
    handle: Bezier = ()
    stem: float = 0.0

    @property
    def inner_to_top(self) -> tuple[Bezier, ...]:
        """The cavity's wall continued up to the top: without that one sees through below the lip.

        Light and shadow go by `inner`, without it: the lip lies just above the opening.
        """
        (z, r), top = self.inner[-1][-1], self.outer[-1][-1][0]
        return (*self.inner, [(z, r), (top, r)]) if top > z else self.inner


def bezier(points: Bezier, steps: int) -> Array:
    """Points on a Bézier curve, float32 [steps, 2]."""
    return (_bernstein(len(points) - 1, steps) @ np.asarray(points, np.float64)).astype(np.float32)


@lru_cache(maxsize=32)
def _bernstein(degree: int, steps: int) -> npt.NDArray[np.float64]:
    t = np.linspace(0, 1, steps)[:, None]
    return np.hstack([math.comb(degree, k) * t**k * (1 - t) ** (degree - k) for k in range(degree + 1)])


def _tangents(points: Bezier, steps: int) -> Array:
    """Unit tangents of a Bézier curve, float32 [steps, 2]."""
    controls = np.asarray(points, np.float64)
    legs = controls[1:] - controls[:-1]
    # A doubled control point has no direction of its own.
    legs[np.linalg.norm(legs, axis=1) < 1e-9] = 1e-3 * (controls[-1] - controls[0])
    tangents = bezier([(float(z), float(r)) for z, r in legs], steps)
    tangents /= np.linalg.norm(tangents, axis=1, keepdims=True) + 1e-12
    return tangents


def sample_curves(curves: Sequence[Bezier], scale: float, inward: bool) -> Array:
    """Points of a profile with unit normals, float32 [P, 4]: z (ascending), r, normal r, normal z."""
    rows: list[tuple[float, float, float, float]] = []
    lowest = -1.0
    for curve in curves:
        # Through two points alone a paraboloid is fitted (see `revolution`), so a cone takes several.
        cone = len(curve) == 2 and curve[1][0] - curve[0][0] > 0.1 and abs(curve[1][1] - curve[0][1]) > 0.05
        steps = 5 if cone else {2: 2, 3: 3}.get(len(curve), 8)
        points = bezier(curve, steps) * scale
        for (z, r), (dz, dr) in zip(points.tolist(), _tangents(curve, steps).tolist(), strict=True):
            crease = bool(rows) and abs(r - rows[-1][1]) < 1e-6 and z - lowest < 1e-6
            lowest = max(z, lowest + (0 if crease else 1e-4 * scale))
            rows.append((lowest, max(r, 0.0), -dz if inward else dz, dr if inward else -dr))
    return np.asarray(rows, np.float32)


def _lipped(foot: Bezier, wall: Bezier, width: float) -> tuple[Bezier, ...]:
    """A foot, a wall and a rounded lip of that width around the wall's end."""
    z, r = wall[-1]
    return (foot, wall, [(z, r), (z + 0.5 * width, r), (z + 0.6 * width, r - 0.5 * width)])


def can(a: float, b: float, c: float) -> Profile:
    r = 0.26 + 0.26 * a
    e = 0.02 + 0.03 * b
    wall = [(e, r), (1 - e, r)]
    pieces = ([(0, r - e), (0.002, r), (e, r)], wall, [(1 - e, r), (0.998, r), (1, r - e)])
    return Profile(pieces, pattern=(0.12 + 0.2 * c, 0.88 - 0.2 * c))


def drum(a: float, b: float, c: float) -> Profile:
    r = 0.3 + 0.2 * a
    swell = r * (1.1 + 0.3 * b)
    return Profile(([(0, r), (0.33, swell), (0.66, swell), (1, r)],), pattern=(0.1 * c, 1 - 0.1 * c))


def spool(a: float, b: float, c: float) -> Profile:
    r = 0.3 + 0.2 * a
    w = r * (0.35 + 0.3 * b)
    e = 0.1 + 0.08 * c
    return Profile(
        ([(0, r), (e, r)], [(e, r), (0.35, w), (0.65, w), (1 - e, r)], [(1 - e, r), (1, r)]), pattern=(e, 1 - e)
    )


def tiers(a: float, b: float, c: float) -> Profile:
    r = 0.36 + 0.16 * a
    m = 0.35 + 0.3 * b
    s = r * (0.55 + 0.2 * c)
    return Profile(([(0, r), (m, r)], [(m, r), (m + 0.02, s)], [(m + 0.02, s), (1, s * 0.96)]), pattern=(0, m))


def mug(a: float, b: float, c: float) -> Profile:
    r = 0.38 + 0.12 * a
    w = 0.05
    handle = ((0.8, r - 0.02), (0.82, r + 0.2), (0.62, r + 0.32), (0.3, r + 0.26), (0.2, r - 0.02))
    outer = _lipped([(0, r - 0.06), (0.003, r), (0.06, r)], [(0.06, r), (0.96, r * (1 + 0.06 * b))], w)
    inner = ([(0.07, 0.5 * r), (0.075, r - w), (0.2, r - w)], [(0.2, r - w), (0.98, r * (1 + 0.06 * b) - w)])
    return Profile(outer, inner, (0.1 + 0.25 * c, 0.9 - 0.1 * c), handle)


def tumbler(a: float, b: float, c: float) -> Profile:
    low, high, w = 0.27 + 0.06 * a, 0.36 + 0.1 * b, 0.035
    outer = _lipped([(0, low - 0.03), (0.003, low), (0.03, low)], [(0.03, low), (0.97, high)], w)
    return Profile(outer, ([(0.06, low - w), (0.98, high - w)],), (0.15 * c, 0.95 - 0.3 * c))


def teacup(a: float, b: float, c: float) -> Profile:
    r, w = 0.6 + 0.12 * a, 0.04
    foot = 0.28 + 0.08 * b
    outer = _lipped([(0, foot), (0.05, foot)], [(0.05, foot), (0.08, r), (0.5, r * 0.96), (0.97, r)], w)
    inner = ([(0.1, 0.2), (0.14, r - 1.6 * w), (0.5, r * 0.95 - w), (0.98, r - w)],)
    handle = ((0.78, r - 0.08), (0.9, r + 0.14), (0.62, r + 0.3), (0.42, r + 0.14), (0.34, r - 0.1))
    return Profile(outer, inner, (0.05, 0.6 + 0.4 * c), handle)


def tulip(a: float, b: float, c: float) -> Profile:
    foot, r, w = 0.26 + 0.06 * a, 0.5 + 0.1 * b, 0.04
    outer = _lipped([(0, foot), (0.06, foot)], [(0.06, foot), (0.3, 0.72), (0.6, 0.25), (0.97, r)], w)
    inner = ([(0.1, foot - w), (0.32, 0.72 - w), (0.62, 0.25 - w), (0.98, r - w)],)
    return Profile(outer, inner, (0.06, 0.7 + 0.3 * c))


def waist(a: float, b: float, c: float) -> Profile:
    r, m, w = 0.36 + 0.08 * a, 0.26 + 0.06 * b, 0.04
    outer = _lipped([(0, r), (0.02, r)], [(0.02, r), (0.4, m), (0.55, m), (0.97, r * 1.1)], w)
    inner = ([(0.07, r - w), (0.42, m - w), (0.56, m - w), (0.98, r * 1.1 - w)],)
    return Profile(outer, inner, (0.3 * c, 0.9))


def round_bowl(a: float, b: float, c: float) -> Profile:
    r, foot, w = 1.0 + 0.25 * a, 0.4 + 0.1 * b, 0.06
    outer = _lipped([(0, foot), (0.06, foot)], [(0.06, foot), (0.1, r * 0.85), (0.5, r), (0.95, r)], w)
    inner = ([(0.12, 0.35), (0.16, r * 0.82 - w), (0.53, r - w), (0.97, r - w)],)
    return Profile(outer, inner, (0.06, 0.5 + 0.6 * c))


def deep_bowl(a: float, b: float, c: float) -> Profile:
    r, w = 0.72 + 0.2 * a, 0.05
    outer = _lipped([(0, 0.4), (0.03, 0.4)], [(0.03, 0.4), (0.05, r * 1.05), (0.6, r), (0.96, r * (0.95 + 0.1 * b))], w)
    inner = ([(0.09, 0.3), (0.1, r * 1.02 - w), (0.6, r - w), (0.98, r * (0.95 + 0.1 * b) - w)],)
    return Profile(outer, inner, (0.4 * c, 1.2))


def conical_bowl(a: float, b: float, c: float) -> Profile:
    r, foot, w = 1.0 + 0.2 * a, 0.32 + 0.12 * b, 0.06
    outer = _lipped([(0, foot), (0.1, foot * 0.9)], [(0.1, foot * 0.9), (0.95, r)], w)
    return Profile(outer, ([(0.16, foot * 0.75), (0.97, r - w)],), (0.1, 0.6 + 0.5 * c))


def ogee_bowl(a: float, b: float, c: float) -> Profile:
    r, foot, w = 1.0 + 0.2 * a, 0.4 + 0.1 * b, 0.05
    outer = _lipped([(0, foot), (0.05, foot)], [(0.05, foot), (0.2, r * 1.25), (0.75, r * 0.62), (0.96, r)], w)
    inner = ([(0.11, foot - w), (0.24, r * 1.22 - w), (0.76, r * 0.62 - w), (0.98, r - w)],)
    return Profile(outer, inner, (0.05, 0.5 + 0.6 * c))


def flat_plate(a: float, b: float, c: float) -> Profile:
    rise = 0.08 + 0.05 * a
    floor = 0.56 + 0.1 * b
    outer = ([(0, floor - 0.04), (0.012, floor)], [(0.012, floor), (0.03, 0.8), (rise, 1)])
    inner = ([(0.03, floor), (0.05, floor + 0.06)], [(0.05, floor + 0.06), (rise - 0.002, 0.985)])
    return Profile(outer, inner, (0.02, 0.3 + c))


def coupe_plate(a: float, b: float, c: float) -> Profile:
    rise = 0.12 + 0.06 * a
    floor = 0.42 + 0.1 * b
    outer = ([(0, floor - 0.04), (0.01, floor)], [(0.01, floor), (0.015, 0.9), (0.06, 0.97), (rise, 1)])
    inner = ([(0.03, floor), (0.034, 0.84), (0.07, 0.95), (rise - 0.002, 0.98)],)
    return Profile(outer, inner, (0.02, 0.3 + c))


def wine(a: float, b: float, c: float) -> Profile:
    r, n, s = 0.14 + 0.05 * a, 0.045, 0.52 + 0.12 * b
    body = ([(0, r - 0.02), (0.002, r), (0.02, r)], [(0.02, r), (s, r)])
    neck = ([(s, r), (s + 0.12, r), (s + 0.12, n), (s + 0.26, n)], [(s + 0.26, n), (0.94, n)])
    return Profile((*body, *neck, [(0.94, n + 0.012), (1, n + 0.012)]), pattern=(0.08 + 0.05 * c, s - 0.05))


def flask(a: float, b: float, c: float) -> Profile:
    r, n = 0.34 + 0.14 * a, 0.05 + 0.03 * b
    body = ([(0, 0.16), (0.01, r), (0.5, r), (0.62, n)], [(0.62, n), (0.9, n)], [(0.9, n), (0.96, n), (1, n + 0.05)])
    return Profile(body, pattern=(0.02, 0.35 + 0.2 * c))


def jar(a: float, b: float, c: float) -> Profile:
    r, n = 0.28 + 0.1 * a, 0.2 + 0.06 * b
    body = ([(0, r - 0.04), (0.003, r), (0.05, r)], [(0.05, r), (0.66, r)], [(0.66, r), (0.78, r), (0.8, n)])
    return Profile(
        (*body, [(0.8, n + 0.03), (0.97, n + 0.03)], [(0.97, n + 0.03), (1, n)]), pattern=(0.12, 0.5 + 0.15 * c)
    )


def gourd(a: float, b: float, c: float) -> Profile:
    r, s = 0.42 + 0.1 * a, 0.2 + 0.12 * b
    low = [(0, 0.14), (0.02, r), (0.4, r), (0.52, 0.13)]
    return Profile(
        (low, [(0.52, 0.13), (0.6, s), (0.8, s), (0.88, 0.06)], [(0.88, 0.06), (1, 0.08)]), pattern=(0, 0.3 + 0.25 * c)
    )


def jug(a: float, b: float, c: float) -> Profile:
    r, n = 0.38 + 0.12 * a, 0.09 + 0.05 * b
    body = ([(0, 0.2), (0.04, r), (0.55, r), (0.74, n)], [(0.74, n), (0.86, n), (1, n + 0.1)])
    handle = ((0.93, n), (0.96, n + 0.2), (0.75, n + 0.3), (0.55, r * 0.72))
    return Profile(body, pattern=(0.05 + 0.1 * c, 0.5), handle=handle)


def sphere(a: float, b: float, c: float) -> Profile:  # noqa: ARG001 (a ball has no other form)
    k = 0.5523 / 2
    return Profile(([(0, 0.0), (0, k), (0.5 - k, 0.5), (0.5, 0.5)], [(0.5, 0.5), (0.5 + k, 0.5), (1, k), (1, 0.0)]))


def egg(a: float, b: float, c: float) -> Profile:  # noqa: ARG001
    r, m = 0.36 + 0.04 * a, 0.36 + 0.1 * b
    low = [(0, 0.0), (0, r * 0.55), (m * 0.45, r), (m, r)]
    return Profile((low, [(m, r), (m + 0.55 * (1 - m), r), (1, r * 0.5), (1, 0.0)]))


def apple(a: float, b: float, c: float) -> Profile:
    r = 0.52 + 0.06 * a
    low = [(0.0, 0.12), (0.0, 0.34), (0.3, r + 0.04 * b), (0.55, r)]
    return Profile((low, [(0.55, r), (0.86, r * 0.98), (0.97, 0.3), (0.95 + 0.03 * c, 0.04)]), stem=0.16)


def pear(a: float, b: float, c: float) -> Profile:
    r, n = 0.42 + 0.06 * a, 0.16 + 0.06 * b
    low = [(0, 0.08), (0.0, r), (0.42, r * 1.2), (0.6, n + 0.05)]
    return Profile((low, [(0.6, n + 0.05), (0.75, n - 0.03), (0.97, n + 0.02 * c), (0.97, 0.02)]), stem=0.14)


def lemon(a: float, b: float, c: float) -> Profile:
    r, n = 0.36 + 0.08 * a, 0.06 + 0.03 * b
    low = [(0, 0.0), (0.02, n)]
    return Profile((low, [(0.02, n), (0.2, r * 1.35), (0.8 - 0.1 * c, r * 1.35), (0.97, n)], [(0.97, n), (1, 0.02)]))


def squash(a: float, b: float, c: float) -> Profile:
    r = 0.75 + 0.2 * a
    low = [(0, 0.2), (0, r), (0.45, r * 1.1), (0.55, r * 0.85)]
    return Profile((low, [(0.55, r * 0.85), (0.7, r * (0.5 + 0.2 * b)), (0.98, 0.3 + 0.1 * c), (1, 0.1)]), stem=0.2)


def pedestal(a: float, b: float, c: float) -> Profile:
    foot, h = 0.22 + 0.1 * a, 0.5 + 0.25 * b
    t = 0.04 + 0.03 * c
    base = ([(0, foot), (0.03, foot)], [(0.035, foot * 0.9), (0.09, 0.05), (0.3, 0.04)], [(0.3, 0.04), (h - t, 0.05)])
    return Profile(
        (*base, [(h - t, 0.05), (h - t + 0.004, 0.49)], [(h - t + 0.004, 0.5), (h, 0.5)]), pattern=(h - t, 9)
    )
