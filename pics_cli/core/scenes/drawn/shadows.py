"""What things keep from points: soft shadows of the lamp, darkening where surfaces meet.

N: number of points. Things' own frames have their longest side 1.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from pics_cli.core.scenes.drawn.camera import Array, Vec, dot, weighted
from pics_cli.core.scenes.drawn.solids import Caster
from pics_cli.core.scenes.drawn.spec import Light, Thing

# Half width of the sharpest shadow edge, in lengths of the thing that casts it.
_CRISP = 0.012
# How far ambient light is kept off by a surface nearby, likewise.
_REACH = 0.16


def blocked(thing: Thing, p: Vec, light: Light) -> Array:
    """How much of the lamp's light a thing keeps from points: float32 [N] in [0, 1].

    A cross-section z = const of the thing meets the line from the point to the lamp in one point; how far that is
    inside it, against the width of the lamp as seen from there, is how much it hides. Points in a hollow are lit
    through its opening.
    """
    return _blocked(thing, thing.inward(p), light)


def _blocked(thing: Thing, q: Vec, light: Light) -> Array:
    """The same for points of the thing's own frame."""
    towards = thing.inward_direction(light.towards)
    spread = light.spread * math.sqrt(dot(towards, towards))
    shape = thing.shape
    shadow = np.zeros(np.shape(q[0]), np.float32)
    if not len(shadow):
        return shadow
    for caster in shape.casters:
        near = _may_shade(caster, q, towards, spread)
        if not len(near):
            continue
        some = (q[0].take(near), q[1].take(near), q[2].take(near))
        through = _through_discs if caster.sides is None else _through_body
        shadow[near] = np.maximum(shadow.take(near), through(caster, some, towards, spread))
    if shape.cavity is not None:
        at, rim = in_cavity(thing, q)
        if len(at):
            shadow[at] = through_opening((q[0].take(at), q[1].take(at), q[2].take(at)), rim, towards, spread)
    return shadow


def through_opening(q: Vec, rim: tuple[float, float], towards: Vec, spread: float) -> Array:
    """How much of the lamp's light the rim, its height and radius given, keeps from points in a hollow."""
    t = (rim[0] - q[2]) / towards[2]
    ex, ey = q[0] + t * towards[0], q[1] + t * towards[1]
    ex *= ex
    ey *= ey
    ex += ey
    return _soft(rim[1] - np.sqrt(ex, out=ex), t, -spread)


def in_cavity(thing: Thing, q: Vec) -> tuple[npt.NDArray[np.intp], tuple[float, float]]:
    """Which points (own frame) lie in a hollow thing, as indices, and its rim's height and radius."""
    cavity = thing.shape.cavity
    assert cavity is not None
    rim = float(cavity[-1, 0]), float(cavity[-1, 1])
    widest = float(cavity[:, 1].max()) + 0.012
    square = q[0] * q[0]
    square += q[1] * q[1]
    maybe = square < widest * widest
    maybe &= q[2] < thing.shape.height + 1e-3  # the lip around the opening is a little higher than the rim
    maybe &= q[2] > float(cavity[0, 0]) - 0.02
    at = maybe.nonzero()[0]
    if len(at):
        width = np.interp(q[2].take(at), cavity[:, 0], cavity[:, 1]) + 0.012
        at = at[square.take(at) < width * width]
    return at, rim


def _may_shade(caster: Caster, q: Vec, towards: Vec, spread: float) -> npt.NDArray[np.intp]:
    """Indices of the points whose line to the lamp comes near the ball around a caster."""
    x, y, z, reach = caster.ball
    pace = math.sqrt(dot(towards, towards))
    ax, ay, az = (c / pace for c in towards)
    ex, ey, ez = x - q[0], y - q[1], z - q[2]
    along = ex * ax
    along += ey * ay
    along += ez * az
    ex *= ex
    ey *= ey
    ez *= ez
    ex += ey
    ex += ez
    near = along > -reach
    ex -= along * along
    np.maximum(along, 0, out=along)
    along *= spread / pace
    along += reach + _CRISP
    along *= along
    near &= ex < along
    found: npt.NDArray[np.intp] = near.nonzero()[0]
    return found


def _soft(depth: Array, t: Array, spread: float) -> Array:
    """Hidden part of the lamp where the line to it passes `depth` inside an edge at distance t; with a negative spread
    of what is left. It overwrites its arguments."""
    np.maximum(t, 0, out=t)
    t *= abs(spread)
    t += np.float32(_CRISP)
    depth /= t
    depth *= math.copysign(0.5, spread)
    depth += np.float32(0.5)
    np.maximum(depth, 0, out=depth)
    return np.minimum(depth, 1, out=depth)


def _through_discs(caster: Caster, q: Vec, towards: Vec, spread: float) -> Array:
    ux, uy = towards[0] / towards[2], towards[1] / towards[2]
    width = spread / towards[2]
    # The line to the lamp at height 0, and at a disc's height from there.
    x0, y0 = q[0] - q[2] * ux, q[1] - q[2] * uy
    lowest, highest = float(q[2].min()), float(q[2].max())
    most = np.full(x0.shape, -1, np.float32)
    for z, x, y, r in caster.discs.tolist():
        if z <= lowest + 1e-4:
            continue
        ex, ey = x0 + (ux * z - x), y0 + (uy * z - y)
        ex *= ex
        ey *= ey
        ex += ey
        np.sqrt(ex, out=ex)
        np.subtract(r, ex, out=ex)
        rise = np.subtract(z, q[2], out=ey)
        if z > highest + 1e-4:
            rise *= width
            rise += _CRISP
            ex /= rise
        else:
            below = rise <= 1e-4
            np.maximum(rise, 0, out=rise)
            rise *= width
            rise += _CRISP
            ex /= rise
            ex[below] = -1
        np.maximum(most, ex, out=most)
    most *= np.float32(0.5)
    most += np.float32(0.5)
    return np.minimum(most, 1, out=most)


def _through_body(caster: Caster, q: Vec, towards: Vec, spread: float) -> Array:
    """For a convex body: the line's part between entering and leaving it; negative, by how much it misses."""
    assert caster.sides is not None
    near = np.zeros(np.shape(q[0]), np.float32)
    far = np.full(np.shape(q[0]), 1e6, np.float32)
    for nx, ny, nz, offset in caster.sides.tolist():
        slope = nx * towards[0] + ny * towards[1] + nz * towards[2]
        if abs(slope) < 1e-5:
            np.copyto(far, np.float32(-1e6), where=weighted(q, (nx, ny, nz)) > offset)
            continue
        reached = weighted(q, (-nx / slope, -ny / slope, -nz / slope))
        reached += offset / slope
        if slope < 0:
            np.maximum(near, reached, out=near)
        else:
            np.minimum(far, reached, out=far)
    far -= near
    far *= 0.5 * math.sqrt(dot(towards, towards))
    return _soft(far, near, spread)


def closeness(thing: Thing, p: Vec) -> Array:
    """How much of the ambient light a thing keeps from points outside it: float32 [N] in [0, 0.6]."""
    q = thing.inward(p)
    nearest = np.full(np.shape(q[0]), 1e6, np.float32)
    hollow = thing.shape.cavity is not None
    for caster in thing.shape.casters:
        if caster.sides is not None:
            away = np.zeros(np.shape(q[0]), np.float32)
            for nx, ny, nz, offset in caster.sides.tolist():
                gap = weighted(q, (nx, ny, nz))
                gap -= offset
                np.maximum(away, gap, out=away)
            np.minimum(nearest, away, out=nearest)
            continue
        for z, x, y, r in caster.discs[::3].tolist():
            ex, ey = q[0] - x, q[1] - y
            ex *= ex
            ey *= ey
            ex += ey
            np.sqrt(ex, out=ex)
            ex -= r
            side = np.abs(ex, out=ex) if hollow else np.maximum(ex, 0, out=ex)
            above = np.subtract(q[2], z, out=ey)
            np.abs(above, out=above)
            above *= np.float32(0.8)
            side += above
            np.minimum(nearest, side, out=nearest)
    nearest *= 1 / _REACH
    nearest *= nearest
    nearest += 1
    shut: Array = np.reciprocal(nearest, out=nearest)
    if hollow:  # in it its walls are on all sides, the nearer the deeper
        at, rim = in_cavity(thing, q)
        deep = (rim[0] - q[2].take(at)) * (1 / rim[1])
        shut[at] = np.maximum(0.6 * shut.take(at), np.minimum(np.maximum(deep, 0), 0.8))
    shut *= shut
    shut *= np.float32(0.6)
    return shut
