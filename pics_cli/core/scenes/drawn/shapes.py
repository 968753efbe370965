"""Shape families of every category: what they look like, cast shadows with, and where other objects can stand on them.

A family belongs to one pool; the parameters a, b, c in [0, 1] vary it. Bodies of revolution have their profiles in
`profiles`; polyhedra and soft bodies are defined here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial
from itertools import pairwise, product

import cv2
import numpy as np

from pics_cli.core.scenes.drawn import profiles
from pics_cli.core.scenes.drawn.camera import Array
from pics_cli.core.scenes.drawn.revolution import SurfaceOfRevolution
from pics_cli.core.scenes.drawn.solids import ACCENT, INSIDE, MAIN, ConvexPolyhedron, Points, ShadowProxy, Shape, Solid
from pics_cli.core.scenes.drawn.spheres import Metaballs, Tube

ShapeParameters = tuple[float, float, float]
_ANGLES = np.linspace(0, 2 * math.pi, 20, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)


def _convex_hull(points_N2: Points) -> Points:
    return cv2.convexHull(points_N2.astype(np.float32))[:, 0].astype(np.float64)


def _shadow_discs(z: Array, x: Array, y: Array, radius: Array) -> Array:
    return np.stack([z, x, y, radius], axis=1).astype(np.float32)


def _revolution_parts(profile: Array) -> tuple[Points, ...]:
    """Convex parts of a body of revolution: one if its profile is convex, else one per two neighbouring rings."""
    outline = profile[:, :2].astype(np.float64)
    outline = outline[np.append(True, np.abs(np.diff(outline, axis=0)).max(axis=1) > 1e-4)]  # a crease has two points
    step = np.diff(outline, axis=0)
    turn = step[:-1, 0] * step[1:, 1] - step[:-1, 1] * step[1:, 0]
    scale = np.linalg.norm(step[:-1], axis=1) * np.linalg.norm(step[1:], axis=1)
    rings = np.empty((len(outline), len(_CIRCLE), 3))
    rings[..., :2] = _CIRCLE * outline[:, None, 1:]
    rings[..., 2] = outline[:, :1]
    if (turn <= 0.02 * scale + 1e-9).all():
        return (np.concatenate([rings[:: max(1, len(rings) // 8)].reshape(-1, 3), rings[-1]]),)
    bends = np.abs(turn) > 0.25 * scale
    keep = [0, *(i for i in range(1, len(rings) - 1) if i % 2 or bends[i - 1]), len(rings) - 1]
    return tuple(np.concatenate([rings[i], rings[j]]) for i, j in pairwise(keep))


def _revolved(
    profile_of: Callable[[float, float, float], profiles.Profile], supports: bool, a: float, b: float, c: float
) -> Shape:
    """Shape of a body of revolution with its handle and stem; other objects can stand on it if it `supports` them."""
    profile = profile_of(a, b, c)
    unscaled = profiles.sample_curves(profile.outer, 1.0, False)
    scale = 1.0 / max(float(unscaled[-1, 0]), 2 * float(unscaled[:, 1].max()))
    outer = unscaled * np.asarray((scale, scale, 1, 1), np.float32)
    inner = profiles.sample_curves(profile.inner, scale, True) if profile.inner else None
    inner_to_top = profiles.sample_curves(profile.inner_to_top, scale, True) if profile.inner else None
    pattern = profile.pattern[0] * scale, profile.pattern[1] * scale
    solids: list[Solid] = [SurfaceOfRevolution(outer, inner_to_top, pattern)]
    top, max_radius = float(outer[-1, 0]), float(outer[:, 1].max())
    heights, zero = np.linspace(0, top, 9), np.zeros(9)
    radii = np.interp(heights, outer[:, 0], outer[:, 1])
    radii[[0, -1]] = radii[[1, -2]] * 0.5 + radii[[0, -1]] * 0.5
    proxies = [ShadowProxy(_shadow_discs(heights, zero, zero, radii))]
    parts = list(_revolution_parts(outer))
    footprint = _CIRCLE * max_radius
    for centres, radius in _handle_and_stem(profile, scale, outer, inner):
        solids.append(Tube(centres.astype(np.float32), radius))
        sampled = centres[:: len(centres) // 6]
        x, y, z = sampled[np.argsort(sampled[:, 2])].T
        proxies.append(ShadowProxy(_shadow_discs(z, x, y, np.full(len(sampled), radius))))
        cube = np.asarray(list(product((-0.8 * radius, 0.8 * radius), repeat=3)))
        parts += [np.concatenate([cube + p, cube + q]) for p, q in zip(centres[:-1:3], centres[3::3], strict=False)]
        footprint = _convex_hull(np.concatenate([footprint, centres[:, :2] * 1.05]))
        top = max(top, float(centres[:, 2].max()) + radius)
    support = None
    if supports:
        height, radius = (inner[0] if inner is not None else outer[-1])[:2].tolist()
        support = (height, radius * 0.71, radius * 0.71)
    cavity = None if supports else inner
    return Shape(tuple(solids), tuple(proxies), tuple(parts), footprint, top, support, cavity)


def _handle_and_stem(
    profile: profiles.Profile, scale: float, outer: Array, inner: Array | None
) -> list[tuple[Array, float]]:
    """Centre line, float [P, 3], and radius of the tubes of a profile."""
    tubes = []
    if profile.handle:
        path = profiles.bezier(profile.handle, 24) * scale
        # Its ends go into the wall, but not through it.
        path[:, 1] = np.maximum(path[:, 1], np.interp(path[:, 0], outer[:, 0], outer[:, 1]))
        radius = 0.045 * scale
        if inner is not None:
            hollow = [np.interp(path[:, 0] + shift, inner[:, 0], inner[:, 1]) for shift in (-radius, 0, radius)]
            path[:, 1] = np.maximum(path[:, 1], np.max(hollow, axis=0) + 1.05 * radius)
        tubes.append((path, radius))
    if profile.stem:
        path = profiles.bezier([(0.9, 0.0), (1.0, 0.0), (0.95 + profile.stem, 0.06)], 12) * scale
        tubes.append((path, 0.022 * scale))
    return [(np.stack([path[:, 1], np.zeros(len(path)), path[:, 0]], axis=1), radius) for path, radius in tubes]


def _prism(
    corners: Points, height: float, shrink: float, lean: float, slots: tuple[int, int, int], base: float = 0
) -> tuple[ConvexPolyhedron, ShadowProxy, Points]:
    """Solid, shadow proxy and corners of a prism over a convex polygon.

    Args:
        corners: float [M, 2], counter-clockwise.
        shrink: size of the top over that of the bottom.
        lean: how much the top rises along x.
        slots: of the material: top, bottom, sides.
        base: height of the bottom.
    """
    slope = math.hypot(1, lean)
    planes = [(-lean / slope, 0.0, 1 / slope, (base + height) / slope), (0.0, 0.0, -1.0, -base)]
    for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        low, high = np.append(a, base), np.append(a * shrink, base + height)
        normal = np.cross(np.append(b - a, 0), high - low)
        normal /= np.linalg.norm(normal)
        planes.append((*normal, float(normal @ low)))
    all_planes = np.asarray(planes, np.float32)
    solid = ConvexPolyhedron(all_planes, 0.035, np.asarray([*slots[:2], *([slots[2]] * len(corners))], np.int16))
    tops = np.column_stack([corners * shrink, base + height + lean * corners[:, 0] * shrink])
    points = np.concatenate([np.column_stack([corners, np.full(len(corners), base)]), tops])
    heights = np.linspace(base, base + height, 6 if height > 0.12 else 3)
    zero = np.zeros_like(heights)
    reach = np.full_like(heights, float(np.linalg.norm(corners, axis=1).max()))
    return solid, ShadowProxy(_shadow_discs(heights, zero, zero, reach), all_planes), points


def _rectangle(half_x: float, half_y: float) -> Points:
    return np.asarray([(-half_x, -half_y), (half_x, -half_y), (half_x, half_y), (-half_x, half_y)], np.float64)


def _polygon(sides: int, radius: float) -> Points:
    angles = np.arange(sides) * (2 * math.pi / sides)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * radius


def _block(
    corners: Points, height: float, shrink: float = 1, lean: float = 0, slots: tuple[int, int, int] = (MAIN, MAIN, MAIN)
) -> Shape:
    """A single prism (see `_prism`); things can stand on it if its top is level."""
    size = max(float(np.ptp(corners, axis=0).max()), height * (1 + lean))
    corners, height = corners / size, height / size
    solid, proxy, points = _prism(corners, height, shrink, lean, slots)
    half_x, half_y = (np.abs(corners).max(axis=0) * shrink * (1.0 if len(corners) == 4 else 0.72)).tolist()
    support = None if lean else (height, half_x, half_y)
    return Shape((solid,), (proxy,), (points,), corners, float(points[:, 2].max()), support)


def cuboid(a: float, b: float, c: float) -> Shape:
    return _block(_rectangle(0.35 + 0.2 * a, 0.3 + 0.2 * b), 0.55 + 0.6 * c)


def tapered(a: float, b: float, c: float) -> Shape:
    return _block(_rectangle(0.5, 0.4 + 0.1 * b), 0.6 + 0.4 * c, 0.6 + 0.25 * a, slots=(ACCENT, MAIN, MAIN))


def prism(a: float, b: float, c: float) -> Shape:
    return _block(_polygon(6 if a < 0.5 else 5, 0.5), 0.45 + 0.7 * c, 0.85 + 0.15 * b, slots=(ACCENT, MAIN, MAIN))


def wedge(a: float, b: float, c: float) -> Shape:
    return _block(_rectangle(0.5, 0.32 + 0.15 * b), 0.35 + 0.2 * c, 1, 0.35 + 0.3 * a, slots=(ACCENT, MAIN, MAIN))


def volume(a: float, b: float, c: float) -> Shape:
    """A closed book: covers and spine patterned, the other sides paper."""
    shape = _block(_rectangle(0.5, 0.34 + 0.08 * a), 0.12 + 0.14 * b)
    shape.solids[0].slot[[2, 3, 4]] = INSIDE
    shape.solids[0].slot[5] = ACCENT if c < 0.5 else MAIN
    return shape


def slab(a: float, b: float, c: float) -> Shape:
    return _block(_polygon(8, 0.5) * (1, 0.75 + 0.25 * a), 0.14 + 0.16 * b, 0.9 + 0.1 * c, slots=(MAIN, MAIN, ACCENT))


def four_legs(a: float, b: float, c: float) -> Shape:
    x, y, h = 0.5, 0.3 + 0.2 * a, 0.42 + 0.3 * b
    thick, leg = 0.05 + 0.02 * c, 0.028 + 0.015 * c
    parts = [_prism(_rectangle(x, y), thick, 1, 0, (MAIN, ACCENT, MAIN), h - thick)]
    solid, proxy, points = _prism(_rectangle(leg, leg), h - thick, 1, 0, (ACCENT, ACCENT, ACCENT))
    for sign_x, sign_y in product((-1, 1), repeat=2):
        centre = np.asarray((sign_x * (x - 2 * leg), sign_y * (y - 2 * leg)))
        planes = solid.planes.copy()
        planes[:, 3] += planes[:, :2] @ centre.astype(np.float32)
        discs = proxy.discs + np.asarray((0, *centre, 0), np.float32)
        moved = ConvexPolyhedron(planes, solid.bevel / 3, solid.slot)
        parts.append((moved, ShadowProxy(discs, planes), points + np.append(centre, 0)))
    solids, proxies, clouds = zip(*parts, strict=True)
    return Shape(solids, proxies, clouds, _rectangle(x, y), h, (h, x, y))


def _soft(spheres: list[tuple[float, float, float, float]], smoothness: float) -> Shape:
    """Spheres x, y, z, radius of any unit melted into one another."""
    s = np.asarray(spheres, np.float64)
    s[:, 2] -= (s[:, 2] - s[:, 3]).min()
    low, high = (s[:, :3] - s[:, 3:]).min(axis=0), (s[:, :3] + s[:, 3:]).max(axis=0)
    s[:, :2] -= (low + high)[:2] / 2
    s /= float((high - low).max())
    smoothness /= float((high - low).max())
    s[:, 2] -= 0.5 * smoothness  # melting swells the underside as well
    unit_sphere = np.concatenate(
        [np.column_stack([_CIRCLE * math.cos(t), np.full(len(_CIRCLE), math.sin(t))]) for t in (-1, -0.5, 0, 0.5, 1)]
    )
    parts = [unit_sphere * (r + 0.3 * smoothness) + (x, y, z) for x, y, z, r in s]
    necks = [np.concatenate([p * 0.6 + q * 0.4, q * 0.6 + p * 0.4]) for p, q in pairwise(parts)]
    steps = np.linspace(-0.95, 0.95, 7)
    proxies = []
    for x, y, z, r in s:
        rows = [(z + r * step, x, y, r * math.sqrt(1 - step * step)) for step in steps]
        proxies.append(ShadowProxy(np.asarray(rows, np.float32)))
    footprint = _convex_hull(np.concatenate([_CIRCLE * r + (x, y) for x, y, _, r in s]))
    solid = Metaballs(s.astype(np.float32), smoothness)
    return Shape((solid,), tuple(proxies), (*parts, *necks), footprint, float((s[:, 2] + s[:, 3]).max()))


def pebble(a: float, b: float, c: float) -> Shape:
    return _soft([(0, 0, 0.4, 0.4), (0.4 + 0.2 * a, 0.1, 0.34, 0.34), (0.15, 0.3 * b, 0.5 + 0.25 * c, 0.3)], 0.12)


def figure(a: float, b: float, c: float) -> Shape:
    """Body, head and two ears or paws: a soft toy."""
    head, ear, side = 0.95 + 0.1 * a, 0.14 + 0.05 * b, 0.24 + 0.05 * c
    ears = [(side, 0, head + 0.3, ear), (-side, 0, head + 0.3, ear)]
    return _soft([(0, 0, 0.45, 0.45), (0, -0.05, head, 0.34), *ears], 0.05)


def cloud(a: float, b: float, c: float) -> Shape:
    row = [(x, 0.08 * math.sin(5 * x + 6 * c), 0.28, 0.28) for x in (-0.5, 0.0, 0.5)]
    return _soft([row[0], (-0.2, 0, 0.5 + 0.1 * a, 0.3), row[1], (0.28, 0, 0.45 + 0.15 * b, 0.3), row[2]], 0.07)


def totem(a: float, b: float, c: float) -> Shape:
    low, middle, shift = 0.4 + 0.1 * a, 0.3 + 0.08 * b, 0.12 * (c - 0.5)
    return _soft(
        [(0, 0, low, low), (shift, 0, 2 * low + 0.6 * middle, middle), (0, shift, 2 * low + 2 * middle, 0.22)], 0.06
    )


_Builders = dict[str, Callable[[float, float, float], Shape]]


def _built(*builders: Callable[[float, float, float], Shape]) -> _Builders:
    return {builder.__name__: builder for builder in builders}


def _turned(*profiles_of: Callable[[float, float, float], profiles.Profile], supports: bool = False) -> _Builders:
    return {profile_of.__name__: partial(_revolved, profile_of, supports) for profile_of in profiles_of}


# Builders of each category's families, by pool and name of the family.
FAMILIES: dict[str, dict[str, _Builders]] = {
    "box": {"train": _built(cuboid, tapered), "held_out": _built(prism, wedge)},
    "book": {"train": _built(volume), "held_out": _built(slab)},
    "cylinder": {
        "train": _turned(profiles.can, profiles.drum, supports=True),
        "held_out": _turned(profiles.spool, profiles.tiers, supports=True),
    },
    "cup": {
        "train": _turned(profiles.mug, profiles.tumbler, profiles.teacup),
        "held_out": _turned(profiles.tulip, profiles.waist),
    },
    "bowl": {
        "train": _turned(profiles.round_bowl, profiles.deep_bowl),
        "held_out": _turned(profiles.conical_bowl, profiles.ogee_bowl),
    },
    "plate": {
        "train": _turned(profiles.flat_plate, supports=True),
        "held_out": _turned(profiles.coupe_plate, supports=True),
    },
    "table": {"train": _built(four_legs), "held_out": _turned(profiles.pedestal, supports=True)},
    "bottle": {
        "train": _turned(profiles.wine, profiles.flask, profiles.jar),
        "held_out": _turned(profiles.gourd, profiles.jug),
    },
    "ball": {"train": _turned(profiles.sphere), "held_out": _turned(profiles.egg)},
    "fruit": {
        "train": _turned(profiles.apple, profiles.pear),
        "held_out": _turned(profiles.lemon, profiles.squash),
    },
    "blob": {"train": _built(pebble, figure), "held_out": _built(cloud, totem)},
}
CATEGORIES: tuple[str, ...] = tuple(FAMILIES)
_BUILDERS = {
    name: builder for pools in FAMILIES.values() for builders in pools.values() for name, builder in builders.items()
}


@lru_cache(maxsize=64)  # a picture needs each of its shapes several times: for planning, drawing, the alternate views
def build_shape(family: str, parameters: ShapeParameters) -> Shape:
    """The shape of a family; `parameters`, each in [0, 1], vary it."""
    return _BUILDERS[family](*parameters)
