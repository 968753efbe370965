"""Light from the points of a thing's surface: diffuse and glossy reflection. N: number of points; light is linear."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pics_cli.core.scenes.drawn.camera import Array, Vec, dot, spin, weighted
from pics_cli.core.scenes.drawn.shadows import blocked, closeness, through_opening
from pics_cli.core.scenes.drawn.solids import INSIDE
from pics_cli.core.scenes.drawn.spec import Light, Look, Thing


@dataclass(frozen=True)
class Points:
    """Points of a thing's surface, in its own frame.

    Attributes:
        q: where they are, [N] per coordinate.
        d: direction in which the eye sees them, of any length.
        n: unit normals.
        slot: slot of the look, [N].
    """

    q: Vec
    d: Vec
    n: Vec
    slot: Array


def lit(thing: Thing, others: Sequence[Thing], points: Points, albedo: Array, light: Light) -> Array:
    """Light that comes from points of a thing to the eye, linear, and 1: float32 [N, 4].

    Args:
        thing: whose surface it is.
        others: things that may shade it.
        points: the points.
        albedo: red, green, blue, linear, and 1: float32 [N, 4]; overwritten.
        light: what falls on them.
    """
    look: Look = thing.look
    d, n, slot = points.d, points.n, points.slot
    lamp_x, lamp_y, lamp_z = spin(light.towards, -thing.yaw)
    away = dot(d, d)
    np.sqrt(away, out=away)
    np.divide(np.float32(-1), away, out=away)  # makes unit vectors towards the eye of directions
    facing = dot(n, d)
    facing *= away
    np.maximum(facing, 0, out=facing)
    on_lamp = weighted(n, (lamp_x, lamp_y, lamp_z))
    # What a surface mirrors: its part towards the lamp, its z component.
    twice = 2 * facing
    mirrored = twice * on_lamp
    mirrored -= weighted(d, (lamp_x, lamp_y, lamp_z)) * away
    twice *= n[2]
    away *= d[2]
    twice -= away
    to_lamp, to_sky = _open(thing, others, points, light)

    on_lamp += np.float32(0.08)
    on_lamp *= np.float32(1 / 1.08)
    np.maximum(on_lamp, 0, out=on_lamp)
    np.minimum(on_lamp, 1, out=on_lamp)
    on_lamp *= to_lamp
    # Of the room: the tone of the ground below, of the sky above.
    low, high = 0.6 * sum(light.bounce) / 3, 1.25 * sum(light.sky) / 3
    room = twice
    room *= np.float32(0.9)
    room += np.float32(0.5)
    np.maximum(room, 0, out=room)
    np.minimum(room, 1, out=room)
    room *= high - low
    room += low
    room *= to_sky
    window = _window(mirrored, look.gloss)
    window *= to_lamp

    key, sky, bounce = (np.asarray(c, np.float32) for c in (light.key, light.sky, light.bounce))
    upward = to_sky * n[2]
    if look.metal:
        direct = _mixed((to_sky, upward, on_lamp), ((sky + bounce) * 0.175, (sky - bounce) * 0.175, 0.35 * key), 0)
        direct += _mixed((room, window, room), (np.full(3, 1.1), 0.9 * key, np.zeros(3)), 1)
        albedo *= direct
        return albedo
    fresnel = 1 - facing
    fresnel *= fresnel
    fresnel *= fresnel
    fresnel *= 0.7 * look.gloss
    fresnel += 0.04 * look.gloss
    window *= 0.4 * look.gloss
    if thing.shape.cavity is not None:
        at = (slot == INSIDE).nonzero()[0]
        fresnel[at] *= np.float32(0.7)
        window[at] *= np.float32(0.7)
    room *= fresnel
    kept = np.subtract(1, fresnel, out=fresnel)
    parts = (to_sky, upward, on_lamp)
    for reaching in parts:
        np.multiply(reaching, kept, out=reaching)
    albedo *= _mixed(parts, ((sky + bounce) * 0.5, (sky - bounce) * 0.5, key), 1)
    albedo += _mixed((room, window, room), (np.ones(3), key, np.zeros(3)), 0)
    return albedo


def _mixed(parts: tuple[Array, Array, Array], colours: Sequence[npt.NDArray[Any]], last: float) -> Array:
    """Sum of parts, [N] each, in colours, [3] each, and a fourth channel: float32 [N, 4]."""
    matrix = np.zeros((4, 5), np.float32)
    matrix[:3, :3] = np.asarray(colours).T
    matrix[3, 4] = last
    four = cv2.merge([part[None] for part in (*parts, parts[0])])
    mixed: Array = cv2.transform(four, matrix)[0]
    return mixed


def _open(thing: Thing, others: Sequence[Thing], points: Points, light: Light) -> tuple[Array, Array]:
    """How much of the lamp's and of the ambient light reaches points of a thing: float32 [N] each."""
    q = points.q
    # The ground, or what it stands on, keeps light from the lowest part.
    to_sky = q[2] * np.float32(1 / 0.07)
    to_sky *= to_sky
    to_sky += 1
    np.divide(np.float32(-0.45), to_sky, out=to_sky)
    to_sky += 1
    to_lamp = np.ones(to_sky.shape, np.float32)
    dimming = [other for other in others if _may_dim(other, thing, light)]
    p = thing.outward(q) if dimming else q
    for other in dimming:
        to_lamp *= 1 - blocked(other, p, light)
        to_sky *= 1 - closeness(other, p)
    if thing.shape.cavity is not None:
        floor, rim = (
            float(thing.shape.cavity[0, 0]),
            (float(thing.shape.cavity[-1, 0]), float(thing.shape.cavity[-1, 1])),
        )
        at = ((points.slot == INSIDE) & (q[2] <= rim[0])).nonzero()[0]
        if len(at):
            some = (q[0].take(at), q[1].take(at), q[2].take(at))
            high = (some[2] - floor) * (1 / (rim[0] - floor))
            to_sky[at] *= 0.45 + 0.55 * np.minimum(np.maximum(high, 0), 1)
            towards = thing.inward_direction(light.towards)
            spread = light.spread * math.sqrt(dot(towards, towards))
            to_lamp[at] *= 1 - through_opening(some, rim, towards, spread)
    return to_lamp, to_sky


def _may_dim(other: Thing, thing: Thing, light: Light) -> bool:
    """Whether another thing is near, or near the way from this one to the lamp; both taken as balls."""
    (ax, ay, az), (bx, by, bz) = thing.position, other.position
    ex, ey, ez = bx - ax, by - ay, bz + other.shape.height * other.scale / 2 - az - thing.shape.height * thing.scale / 2
    square = ex * ex + ey * ey + ez * ez
    along = max(ex * light.towards[0] + ey * light.towards[1] + ez * light.towards[2], 0.0)
    # Half a diagonal of a cube is 0.87 of its side.
    reach = 0.87 * (thing.scale + other.scale) + along * light.spread
    return square < (reach + 0.5 * other.scale) ** 2 or square - along * along < reach * reach


def _window(toward: Array, gloss: float) -> Array:
    """The lamp's image in a surface: small and bright on glossy ones, wide and faint on matt ones.

    Args:
        toward: cosine of the angle between what a point mirrors and the lamp, [N]; overwritten.
        gloss: of the surface.
    """
    np.maximum(toward, 0, out=toward)
    np.minimum(toward, 1, out=toward)
    if gloss < 0.3:
        toward *= toward
        toward *= toward
        toward *= np.float32(0.5)
        return toward
    edge = 0.93 + 0.05 * gloss
    sharp: Array = toward - edge
    sharp *= 4 / (1 - edge)
    np.maximum(sharp, 0, out=sharp)
    np.minimum(sharp, 1, out=sharp)
    for _ in range(3):
        toward *= toward
    toward *= np.float32(0.25)
    sharp += toward
    return sharp
