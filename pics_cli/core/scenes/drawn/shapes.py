"""The shapes of objects: solids, what they cast shadows with, their silhouettes, where other things can stand in them.

A shape stands on z = 0 about the z axis and its longest side is 1. Every family of shapes belongs to one pool.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise, product

import cv2
import numpy as np

from pics_cli.core.scenes.drawn import profiles
from pics_cli.core.scenes.drawn.camera import Array
from pics_cli.core.scenes.drawn.lathe import Lathe
from pics_cli.core.scenes.drawn.rounded import Lump, Tube
from pics_cli.core.scenes.drawn.solids import ACCENT, INSIDE, MAIN, Caster, Hull, Knobs, Points, Shape, Solid

_TURN = np.linspace(0, 2 * math.pi, 20, endpoint=False)
_CIRCLE = np.stack([np.cos(_TURN), np.sin(_TURN)], axis=1)


def _hull2(points: Points) -> Points:
    return cv2.convexHull(points.astype(np.float32))[:, 0].astype(np.float64)


def _rings(curve: Array) -> tuple[Points, ...]:
    """Point clouds of a body of revolution: one if its outline is convex, else one per two neighbouring rings."""
    outline = curve[:, :2].astype(np.float64)
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


def _revolved(outline: profiles.Outline, stand: bool) -> Shape:
    raw = profiles.curve(outline.outer, 1.0, False)
    scale = 1.0 / max(float(raw[-1, 0]), 2 * float(raw[:, 1].max()))
    outer = raw * np.asarray((scale, scale, 1, 1), np.float32)
    inner = profiles.curve(outline.inner, scale, True) if outline.inner else None
    walls = profiles.curve(outline.walls, scale, True) if outline.inner else None
    solids: list[Solid] = [Lathe(outer, walls, (outline.main[0] * scale, outline.main[1] * scale))]
    top, reach = float(outer[-1, 0]), float(outer[:, 1].max())
    heights, zero = np.linspace(0, top, 9), np.zeros(9)
    radii = np.interp(heights, outer[:, 0], outer[:, 1])
    radii[[0, -1]] = radii[[1, -2]] * 0.5 + radii[[0, -1]] * 0.5
    casters = [Caster(np.stack([heights, zero, zero, radii], axis=1).astype(np.float32))]
    pieces = list(_rings(outer))
    foot = _CIRCLE * reach
    bent: list[tuple[Array, float]] = []
    if outline.handle:
        path = profiles.bezier(outline.handle, 24) * scale
        # Its ends go into the wall, but not through it.
        path[:, 1] = np.maximum(path[:, 1], np.interp(path[:, 0], outer[:, 0], outer[:, 1]))
        thick = 0.045 * scale
        if inner is not None:
            hollow = [np.interp(path[:, 0] + shift, inner[:, 0], inner[:, 1]) for shift in (-thick, 0, thick)]
            path[:, 1] = np.maximum(path[:, 1], np.max(hollow, axis=0) + 1.05 * thick)
        bent.append((np.stack([path[:, 1], np.zeros(24), path[:, 0]], axis=1), thick))
    if outline.stem:
        path = profiles.bezier([(0.9, 0.0), (1.0, 0.0), (0.95 + outline.stem, 0.06)], 12) * scale
        bent.append((np.stack([path[:, 1], np.zeros(12), path[:, 0]], axis=1), 0.022 * scale))
    for centres, radius in bent:
        solids.append(Tube(centres.astype(np.float32), radius))
        some = centres[:: len(centres) // 6]
        order = some[np.argsort(some[:, 2])]
        casters.append(
            Caster(np.column_stack([order[:, 2], order[:, :2], np.full(len(some), radius)]).astype(np.float32))
        )
        cube = np.asarray(list(product((-0.8 * radius, 0.8 * radius), repeat=3)))
        for a, b in zip(centres[:-1:3], centres[3::3], strict=False):
            pieces.append(np.concatenate([cube + a, cube + b]))
        foot = _hull2(np.concatenate([foot, centres[:, :2] * 1.05]))
        top = max(top, float(centres[:, 2].max()) + radius)
    place = None
    if stand:
        flat = inner[0] if inner is not None else outer[-1]
        place = (float(flat[0]), float(flat[1]) * 0.71, float(flat[1]) * 0.71)
    return Shape(tuple(solids), tuple(casters), tuple(pieces), foot, top, place, None if stand else inner)


def _convex(
    corners: Points,
    height: float,
    shrink: float,
    lean: float,
    slots: tuple[int, int, int],
    texture: float,
    base: float = 0,
) -> tuple[Hull, Caster, Points]:
    """A prism over a convex polygon [M, 2] (counter-clockwise): its top is `shrink` times as large and rises by `lean`
    along x. Slots are those of top, bottom and sides."""
    planes, sides = [], []
    slope = math.hypot(1, lean)
    planes.append((-lean / slope, 0.0, 1 / slope, (base + height) / slope))
    planes.append((0.0, 0.0, -1.0, -base))
    for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        edge = b - a
        low, high = np.append(a, base), np.append(a * shrink, base + height)
        normal = np.cross(np.append(edge, 0), high - low)
        normal /= np.linalg.norm(normal)
        sides.append((*normal, float(normal @ low)))
    hull = Hull(
        np.asarray(planes + sides, np.float32),
        0.035,
        (slots[0], slots[1], *([slots[2]] * len(sides))),
        texture,
    )
    tops = np.column_stack([corners * shrink, base + height + lean * corners[:, 0] * shrink])
    cloud = np.concatenate([np.column_stack([corners, np.full(len(corners), base)]), tops])
    reach = float(np.linalg.norm(corners, axis=1).max())
    heights = np.linspace(base, base + height, 6 if height > 0.12 else 3)
    zero = np.zeros_like(heights)
    caster = Caster(
        np.stack([heights, zero, zero, np.full_like(heights, reach)], axis=1).astype(np.float32),
        np.asarray(planes + sides, np.float32),
    )
    return hull, caster, cloud


def _rectangle(x: float, y: float) -> Points:
    return np.asarray([(-x, -y), (x, -y), (x, y), (-x, y)], np.float64)


def _polygon(sides: int, r: float) -> Points:
    turn = np.arange(sides) * (2 * math.pi / sides)
    return np.stack([np.cos(turn), np.sin(turn)], axis=1) * r


def _block(
    corners: Points, height: float, shrink: float = 1, lean: float = 0, slots: tuple[int, int, int] = (MAIN, MAIN, MAIN)
) -> Shape:
    """A single convex body; things can stand on it if its top is level."""
    size = max(float(np.ptp(corners, axis=0).max()), height * (1 + lean))
    corners, height = corners / size, height / size
    hull, caster, cloud = _convex(corners, height, shrink, lean, slots, 1.2)
    half_x, half_y = (np.abs(corners).max(axis=0) * shrink * (1.0 if len(corners) == 4 else 0.72)).tolist()
    top = None if lean else (height, half_x, half_y)
    return Shape((hull,), (caster,), (cloud,), corners, float(cloud[:, 2].max()), top)


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
    hull = shape.solids[0]
    assert isinstance(hull, Hull)
    hull.slot[[2, 3, 4]] = INSIDE
    hull.slot[5] = ACCENT if c < 0.5 else MAIN
    return shape


def slab(a: float, b: float, c: float) -> Shape:
    return _block(_polygon(8, 0.5) * (1, 0.75 + 0.25 * a), 0.14 + 0.16 * b, 0.9 + 0.1 * c, slots=(MAIN, MAIN, ACCENT))


def four_legs(a: float, b: float, c: float) -> Shape:
    x, y, h = 0.5, 0.3 + 0.2 * a, 0.42 + 0.3 * b
    thick, leg = 0.05 + 0.02 * c, 0.028 + 0.015 * c
    parts = [_convex(_rectangle(x, y), thick, 1, 0, (MAIN, ACCENT, MAIN), 1.2, h - thick)]
    for sx, sy in product((-1, 1), repeat=2):
        at = np.asarray((sx * (x - 2 * leg), sy * (y - 2 * leg)))
        hull, caster, cloud = _convex(_rectangle(leg, leg), h - thick, 1, 0, (ACCENT, ACCENT, ACCENT), 1.2)
        planes = hull.planes.copy()
        planes[:, 3] += planes[:, :2] @ at.astype(np.float32)
        moved = Hull(planes, hull.bevel / 3, hull.slots, hull.texture)
        discs = caster.discs + np.asarray((0, *at, 0), np.float32)
        parts.append((moved, Caster(discs, planes), cloud + np.append(at, 0)))
    hulls, casters, clouds = zip(*parts, strict=True)
    return Shape(hulls, casters, clouds, _rectangle(x, y), h, (h, x, y))


def _lump(balls: list[tuple[float, float, float, float]], melt: float) -> Shape:
    b = np.asarray(balls, np.float64)
    b[:, 2] -= (b[:, 2] - b[:, 3]).min()
    low, high = (b[:, :3] - b[:, 3:]).min(axis=0), (b[:, :3] + b[:, 3:]).max(axis=0)
    b[:, :2] -= (low + high)[:2] / 2
    b /= float((high - low).max())
    melt /= float((high - low).max())
    b[:, 2] -= 0.5 * melt  # melting swells the underside as well
    sphere = np.concatenate(
        [np.column_stack([_CIRCLE * math.cos(t), np.full(20, math.sin(t))]) for t in (-1, -0.5, 0, 0.5, 1)]
    )
    clouds = [sphere * (r + 0.3 * melt) + (x, y, z) for x, y, z, r in b]
    casters = []
    for x, y, z, r in b:
        steps = np.linspace(-0.95, 0.95, 7)
        rows = [(z + r * s, x, y, r * math.sqrt(1 - s * s)) for s in steps]
        casters.append(Caster(np.asarray(rows, np.float32)))
    necks = [np.concatenate([p * 0.6 + q * 0.4, q * 0.6 + p * 0.4]) for p, q in pairwise(clouds)]
    foot = _hull2(np.concatenate([_CIRCLE * r + (x, y) for x, y, _, r in b]))
    solid = Lump(b.astype(np.float32), melt)
    return Shape((solid,), tuple(casters), (*clouds, *necks), foot, float((b[:, 2] + b[:, 3]).max()))


def pebble(a: float, b: float, c: float) -> Shape:
    return _lump([(0, 0, 0.4, 0.4), (0.4 + 0.2 * a, 0.1, 0.34, 0.34), (0.15, 0.3 * b, 0.5 + 0.25 * c, 0.3)], 0.12)


def figure(a: float, b: float, c: float) -> Shape:
    """Body, head and two ears or paws: a soft toy."""
    head = 0.95 + 0.1 * a
    ear = 0.14 + 0.05 * b
    side = 0.24 + 0.05 * c
    return _lump(
        [(0, 0, 0.45, 0.45), (0, -0.05, head, 0.34), (side, 0, head + 0.3, ear), (-side, 0, head + 0.3, ear)], 0.05
    )


def cloud(a: float, b: float, c: float) -> Shape:
    row = [(x, 0.08 * math.sin(5 * x + 6 * c), 0.28, 0.28) for x in (-0.5, 0.0, 0.5)]
    return _lump([row[0], (-0.2, 0, 0.5 + 0.1 * a, 0.3), row[1], (0.28, 0, 0.45 + 0.15 * b, 0.3), row[2]], 0.07)


def totem(a: float, b: float, c: float) -> Shape:
    low, middle = 0.4 + 0.1 * a, 0.3 + 0.08 * b
    shift = 0.12 * (c - 0.5)
    return _lump(
        [(0, 0, low, low), (shift, 0, 2 * low + 0.6 * middle, middle), (0, shift, 2 * low + 2 * middle, 0.22)], 0.06
    )


def _turned(outline: Callable[[float, float, float], profiles.Outline], stand: bool = False) -> Callable[..., Shape]:
    def build(a: float, b: float, c: float) -> Shape:
        return _revolved(outline(a, b, c), stand)

    return build


_Families = dict[str, Callable[..., Shape]]
# category → pool → families
FAMILIES: dict[str, dict[str, _Families]] = {
    "box": {"train": {"cuboid": cuboid, "tapered": tapered}, "held_out": {"prism": prism, "wedge": wedge}},
    "book": {"train": {"volume": volume}, "held_out": {"slab": slab}},
    "cylinder": {
        "train": {"can": _turned(profiles.can, True), "drum": _turned(profiles.drum, True)},
        "held_out": {"spool": _turned(profiles.spool, True), "tiers": _turned(profiles.tiers, True)},
    },
    "cup": {
        "train": {name: _turned(getattr(profiles, name)) for name in ("mug", "tumbler", "teacup")},
        "held_out": {name: _turned(getattr(profiles, name)) for name in ("tulip", "waist")},
    },
    "bowl": {
        "train": {name: _turned(getattr(profiles, name)) for name in ("round_bowl", "deep_bowl")},
        "held_out": {name: _turned(getattr(profiles, name)) for name in ("conical_bowl", "ogee_bowl")},
    },
    "plate": {
        "train": {"flat_plate": _turned(profiles.flat_plate, True)},
        "held_out": {"coupe_plate": _turned(profiles.coupe_plate, True)},
    },
    "table": {"train": {"four_legs": four_legs}, "held_out": {"pedestal": _turned(profiles.pedestal, True)}},
    "bottle": {
        "train": {name: _turned(getattr(profiles, name)) for name in ("wine", "flask", "jar")},
        "held_out": {name: _turned(getattr(profiles, name)) for name in ("gourd", "jug")},
    },
    "ball": {"train": {"sphere": _turned(profiles.sphere)}, "held_out": {"egg": _turned(profiles.egg)}},
    "fruit": {
        "train": {name: _turned(getattr(profiles, name)) for name in ("apple", "pear")},
        "held_out": {name: _turned(getattr(profiles, name)) for name in ("lemon", "squash")},
    },
    "blob": {"train": {"pebble": pebble, "figure": figure}, "held_out": {"cloud": cloud, "totem": totem}},
}
# A picture meets each of its shapes several times: in planning, drawing and the alternative views.
SHAPES_KEPT = 64


@lru_cache(maxsize=SHAPES_KEPT)
def build(category: str, family: str, knobs: Knobs) -> Shape:
    """The shape of a family; `knobs`, each in [0, 1], vary it."""
    for families in FAMILIES[category].values():
        if family in families:
            return families[family](*knobs)
    raise KeyError(family)
