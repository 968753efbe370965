"""Light on points: soft shadows of things, darkening where surfaces meet, diffuse and glossy reflection.

N: number of points. Light is linear; things' own frames have their longest side 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pics_cli.core.data.synth.camera import Array, Bits, Vec, dot, unit
from pics_cli.core.data.synth.forms import Caster
from pics_cli.core.data.synth.solids import INSIDE
from pics_cli.core.data.synth.spec import Light, Look, Thing

# Half width of the sharpest shadow edge, in lengths of the thing that casts it.
_CRISP = 0.012
# How far ambient light is kept off by a surface nearby, likewise.
_REACH = 0.16


def blocked(thing: Thing, p: Vec, light: Light) -> Array:
    """How much of the lamp's light a thing keeps from points: float [N] in [0, 1].

    A cross-section z = const of the thing meets the line from the point to the lamp in one point; how far that is
    inside it, against the width of the lamp as seen from there, is how much it hides. Points in a hollow are lit
    through its opening.
    """
    q, towards = thing.inward(p), thing.inward_direction(light.towards)
    spread = light.spread * float(np.sqrt(dot(towards, towards)))
    shape = thing.shape
    shadow = np.zeros(np.shape(q[0]), np.float32)
    if not len(shadow):
        return shadow
    for caster in shape.casters:
        if caster.sides is not None:
            np.maximum(shadow, _through_body(caster, q, towards, spread), out=shadow)
            continue
        near = _may_shade(caster, q, towards, spread)
        some = (q[0][near], q[1][near], q[2][near])
        shadow[near] = np.maximum(shadow[near], _through_discs(caster, some, towards, spread))
    if shape.cavity is not None:
        inside, rim = in_cavity(thing, q)
        t = (rim[0] - q[2]) / towards[2]
        ex, ey = q[0] + t * towards[0], q[1] + t * towards[1]
        away = np.sqrt(ex * ex + ey * ey) - rim[1]
        shadow = np.where(inside, _soft(-away, t, spread), shadow)
    return shadow


def in_cavity(thing: Thing, q: Vec) -> tuple[Bits, tuple[float, float]]:
    """Which points (own frame) lie in a hollow thing, and its rim's height and radius."""
    cavity = thing.shape.cavity
    assert cavity is not None
    rim = float(cavity[-1, 0]), float(cavity[-1, 1])
    width = np.interp(q[2], cavity[:, 0], cavity[:, 1]) + 0.012
    inside: Bits = (q[0] * q[0] + q[1] * q[1] < width * width) & (q[2] < rim[0] + 1e-3) & (q[2] > cavity[0, 0] - 0.02)
    return inside, rim


def _may_shade(caster: Caster, q: Vec, towards: Vec, spread: float) -> npt.NDArray[np.intp]:
    """Indices of the points whose line to the lamp comes near the ball around a caster."""
    discs = caster.discs
    x, y, z = (float(v) for v in (discs[:, 1].mean(), discs[:, 2].mean(), (discs[0, 0] + discs[-1, 0]) / 2))
    reach = float(
        np.sqrt((np.hypot(discs[:, 1] - x, discs[:, 2] - y) + discs[:, 3]) ** 2 + (discs[:, 0] - z) ** 2).max()
    )
    ax, ay, az = unit(towards)
    ex, ey, ez = x - q[0], y - q[1], z - q[2]
    along = ex * ax + ey * ay + ez * az
    across = ex * ex + ey * ey + ez * ez - along * along
    pace = float(np.sqrt(dot(towards, towards)))
    width = np.maximum(along, 0) * (spread / pace) + (reach + _CRISP)
    return np.flatnonzero((along > -reach) & (across < width * width))


def _soft(depth: Array, t: Array, spread: float) -> Array:
    """Hidden part of the lamp where the line to it passes `depth` inside an edge at distance t."""
    shadow: Array = np.clip(0.5 + 0.5 * depth / (spread * np.maximum(t, 0) + np.float32(_CRISP)), 0, 1)
    return shadow


def _through_discs(caster: Caster, q: Vec, towards: Vec, spread: float) -> Array:
    shadow = np.zeros(np.shape(q[0]), np.float32)
    ux, uy = towards[0] / towards[2], towards[1] / towards[2]
    width = spread / towards[2]
    for z, x, y, r in caster.discs.tolist():
        rise = z - q[2]
        ex, ey = q[0] + ux * rise - x, q[1] + uy * rise - y
        depth = r - np.sqrt(ex * ex + ey * ey)
        hides = np.clip(0.5 + 0.5 * depth / (width * np.maximum(rise, 0) + np.float32(_CRISP)), 0, 1)
        np.maximum(shadow, np.where(rise > 1e-4, hides, np.float32(0)), out=shadow)
    return shadow


def _through_body(caster: Caster, q: Vec, towards: Vec, spread: float) -> Array:
    """For a convex body: the line's part between entering and leaving it; negative, by how much it misses."""
    assert caster.sides is not None
    near = np.zeros(np.shape(q[0]), np.float32)
    far = np.full(np.shape(q[0]), 1e6, np.float32)
    for nx, ny, nz, offset in caster.sides.tolist():
        slope = nx * towards[0] + ny * towards[1] + nz * towards[2]
        gap = offset - (nx * q[0] + ny * q[1] + nz * q[2])
        if abs(slope) < 1e-5:
            np.copyto(far, np.float32(-1e6), where=gap < 0)
        elif slope < 0:
            np.maximum(near, gap * (1 / slope), out=near)
        else:
            np.minimum(far, gap * (1 / slope), out=far)
    length = float(np.sqrt(dot(towards, towards)))
    return _soft((far - near) * (0.5 * length), near, spread)


def closeness(thing: Thing, p: Vec) -> Array:
    """How much of the ambient light a thing keeps from points outside it: float [N] in [0, 0.6]."""
    q = thing.inward(p)
    most = np.zeros(np.shape(q[0]), np.float32)
    hollow = thing.shape.cavity is not None
    for caster in thing.shape.casters:
        if caster.sides is not None:
            gaps = [nx * q[0] + ny * q[1] + nz * q[2] - d for nx, ny, nz, d in caster.sides.tolist()]
            away = np.maximum(np.maximum.reduce(gaps), 0)
            np.maximum(most, 1 / (1 + (away * (1 / _REACH)) ** 2), out=most)
            continue
        for z, x, y, r in caster.discs[::3].tolist():
            ex, ey = q[0] - x, q[1] - y
            side = np.sqrt(ex * ex + ey * ey) - r
            side = np.abs(side) if hollow else np.maximum(side, 0)
            away = side + 0.8 * np.abs(z - q[2])
            np.maximum(most, 1 / (1 + (away * (1 / _REACH)) ** 2), out=most)
    if hollow:  # in it its walls are on all sides, the nearer the deeper
        inside, rim = in_cavity(thing, q)
        most = np.where(inside, np.maximum(0.6 * most, np.clip((rim[0] - q[2]) * (1 / rim[1]), 0, 0.8)), most)
    shut: Array = np.float32(0.6) * most * most
    return shut


def lit(
    thing: Thing, others: Sequence[Thing], p: Vec, n: Vec, eye: Vec, albedo: Vec, slot: Array, light: Light
) -> Array:
    """Light that comes from points of a thing to the eye, linear: float32 [N, 3].

    Args:
        thing: whose surface it is.
        others: things that may shade it.
        p, n: world points and unit normals, [N] each.
        eye: where the viewer is.
        albedo: red, green, blue [N] each, linear.
        slot: slot of the look, [N].
    """
    look: Look = thing.look
    view = unit((eye[0] - p[0], eye[1] - p[1], eye[2] - p[2]))
    facing = np.maximum(dot(n, view), 0)
    open_to_lamp = np.ones(facing.shape, np.float32)
    open_to_sky = np.ones(facing.shape, np.float32)
    for other in others:
        if _may_dim(other, thing, light):
            open_to_lamp *= 1 - blocked(other, p, light)
            open_to_sky *= 1 - closeness(other, p)
    q = thing.inward(p)
    # The ground, or what it stands on, keeps light from the lowest part.
    open_to_sky *= 1 - np.float32(0.45) / (1 + (q[2] * (1 / 0.07)) ** 2)
    if thing.shape.cavity is not None:
        inside, rim = in_cavity(thing, q)
        inside &= slot == INSIDE
        floor = float(thing.shape.cavity[0, 0])
        open_to_sky *= np.where(inside, 0.45 + 0.55 * np.clip((q[2] - floor) / (rim[0] - floor), 0, 1), 1)
        at = np.flatnonzero(inside)
        open_to_lamp[at] *= 1 - blocked(thing, (p[0][at], p[1][at], p[2][at]), light)
    lamp = np.clip((dot(n, light.towards) + 0.08) * (1 / 1.08), 0, 1) * open_to_lamp
    up = 0.5 + 0.5 * n[2]
    twice = 2 * facing
    mirrored = (twice * n[0] - view[0], twice * n[1] - view[1], twice * n[2] - view[2])
    # What a surface mirrors of the room: the tone of the ground below, of the sky above.
    low, high = 0.6 * sum(light.bounce) / 3, 1.25 * sum(light.sky) / 3
    room = (low + (high - low) * np.clip(0.5 + 0.9 * mirrored[2], 0, 1)) * open_to_sky
    window = _window(mirrored, light, look.gloss) * open_to_lamp
    grazing = 1 - facing
    grazing *= grazing
    fresnel = 0.04 + 0.7 * grazing * grazing
    gloss = look.gloss * np.where(slot == INSIDE, np.float32(0.7), np.float32(1))
    out = np.empty((3, len(facing)), np.float32)
    fresnel *= gloss
    kept, mirror, shine = 1 - fresnel, fresnel * room, 0.4 * gloss * window
    for i in range(3):
        ambient = (light.bounce[i] + (light.sky[i] - light.bounce[i]) * up) * open_to_sky
        direct = lamp * light.key[i]
        if look.metal:
            out[i] = albedo[i] * (0.35 * (ambient + direct) + 1.1 * room + (0.9 * light.key[i]) * window)
        else:
            out[i] = albedo[i] * (ambient + direct) * kept + mirror + shine * light.key[i]
    return np.ascontiguousarray(out.T)


def _may_dim(other: Thing, thing: Thing, light: Light) -> bool:
    """Whether another thing is near, or near the way from this one to the lamp; both taken as balls."""
    (ax, ay, az), (bx, by, bz) = thing.position, other.position
    ex, ey, ez = bx - ax, by - ay, bz + other.shape.height * other.scale / 2 - az - thing.shape.height * thing.scale / 2
    square = ex * ex + ey * ey + ez * ez
    along = max(ex * light.towards[0] + ey * light.towards[1] + ez * light.towards[2], 0.0)
    # Half a diagonal of a cube is 0.87 of its side.
    reach = 0.87 * (thing.scale + other.scale) + along * light.spread
    return square < (reach + 0.5 * other.scale) ** 2 or square - along * along < reach * reach


def _window(mirrored: Vec, light: Light, gloss: float) -> Array:
    """The lamp's image in a surface: small and bright on glossy ones, wide and faint on matt ones."""
    toward = np.clip(dot(mirrored, light.towards), 0, 1)
    if gloss < 0.3:
        toward *= toward
        broad: Array = 0.5 * toward * toward
        return broad
    edge = 0.93 + 0.05 * gloss
    sharp: Array = np.clip((toward - edge) * (4 / (1 - edge)), 0, 1)
    for _ in range(3):
        toward *= toward
    sharp += np.float32(0.25) * toward
    return sharp
