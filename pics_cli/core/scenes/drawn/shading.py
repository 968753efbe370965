"""Shading of an object's surface: diffuse and glossy reflection of lamp and surroundings.

N: number of points; all light is linear.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pics_cli.core.scenes.drawn.camera import Array, Vec, dot, dot_constant, rotate_z, saturate, take
from pics_cli.core.scenes.drawn.shadows import ambient_occlusion, rim_shadow, shadow
from pics_cli.core.scenes.drawn.solids import INSIDE
from pics_cli.core.scenes.drawn.spec import Light, SceneObject


@dataclass(frozen=True)
class SurfacePoints:
    """Points of an object's surface, in its own frame.

    Attributes:
        positions: [N] per coordinate.
        directions: in which the eye sees them, of any length.
        normals: of length 1.
        slot: of the material, [N].
    """

    positions: Vec
    directions: Vec
    normals: Vec
    slot: Array


def shade(obj: SceneObject, others: Sequence[SceneObject], points: SurfacePoints, albedo: Array, light: Light) -> Array:
    """Light that goes from points of an object to the eye, and 1: float32 [N, 4].

    Args:
        obj: whose surface it is.
        others: objects that may shade it.
        points: of the surface.
        albedo: linear red, green, blue, and 1: float32 [N, 4]; overwritten.
        light: of the scene.
    """
    material = obj.material
    d, n = points.directions, points.normals
    lamp = rotate_z(light.direction, -obj.yaw)
    to_eye = -1 / np.sqrt(dot(d, d))  # turns directions into unit vectors towards the eye
    facing = np.maximum(dot(n, d) * to_eye, 0)
    n_dot_lamp = dot_constant(n, lamp)
    # The mirrored view direction: its cosine with the lamp's, its z component.
    twice = 2 * facing
    mirror_dot_lamp = twice * n_dot_lamp - dot_constant(d, lamp) * to_eye
    mirror_z = twice * n[2] - to_eye * d[2]
    lamp_visibility, sky_visibility = _visibility(obj, others, points, light)

    diffuse = saturate((n_dot_lamp + 0.08) * (1 / 1.08)) * lamp_visibility
    # Reflected surroundings: from the tone of the ground below to that of the sky above.
    low, high = 0.6 * sum(light.bounce) / 3, 1.25 * sum(light.sky) / 3
    reflection = (saturate(mirror_z * 0.9 + 0.5) * (high - low) + low) * sky_visibility
    highlight = _highlight(saturate(mirror_dot_lamp), material.gloss) * lamp_visibility

    key, sky, bounce = (np.asarray(c, np.float32) for c in (light.key, light.sky, light.bounce))
    upward = sky_visibility * n[2]
    zero = np.zeros(3)
    if material.metal:
        ambient = (sky + bounce) * 0.175, (sky - bounce) * 0.175
        direct = _weighted_colors((sky_visibility, upward, diffuse), (*ambient, 0.35 * key), 0)
        direct += _weighted_colors((reflection, highlight, reflection), (np.full(3, 1.1), 0.9 * key, zero), 1)
        return albedo * direct
    fresnel = np.square(np.square(1 - facing)) * (0.7 * material.gloss) + 0.04 * material.gloss
    highlight = highlight * (0.4 * material.gloss)
    if obj.shape.cavity is not None:
        inside = (points.slot == INSIDE).nonzero()[0]
        fresnel[inside] *= np.float32(0.7)
        highlight[inside] *= np.float32(0.7)
    reflection *= fresnel
    transmitted = 1 - fresnel
    parts = (sky_visibility * transmitted, upward * transmitted, diffuse * transmitted)
    albedo *= _weighted_colors(parts, ((sky + bounce) * 0.5, (sky - bounce) * 0.5, key), 1)
    albedo += _weighted_colors((reflection, highlight, reflection), (np.ones(3), key, zero), 0)
    return albedo


def _weighted_colors(weights: tuple[Array, Array, Array], colors: Sequence[npt.NDArray[Any]], alpha: float) -> Array:
    """Sum of three colours, [3] each, with weights, [N] each, and a constant fourth channel: float32 [N, 4]."""
    matrix = np.zeros((4, 5), np.float32)
    matrix[:3, :3] = np.asarray(colors).T
    matrix[3, 4] = alpha
    channels = cv2.merge([weight[None] for weight in (*weights, weights[0])])
    rgba: Array = cv2.transform(channels, matrix)[0]
    return rgba


def _visibility(
    obj: SceneObject, others: Sequence[SceneObject], points: SurfacePoints, light: Light
) -> tuple[Array, Array]:
    """Part of the lamp's and of the ambient light that reaches points of an object: float32 [N] each."""
    q = points.positions
    # The ground, or what it stands on, keeps light from the lowest part.
    height = q[2] * np.float32(1 / 0.07)
    sky = 1 - 0.45 / (1 + height * height)
    lamp = np.ones(sky.shape, np.float32)
    near = [other for other in others if _may_shade(other, obj, light)]
    world_points = obj.to_world(q) if near else q
    for other in near:
        lamp *= 1 - shadow(other, world_points, light)
        sky *= 1 - ambient_occlusion(other, world_points)
    if obj.shape.cavity is not None:
        floor, rim = float(obj.shape.cavity[0, 0]), obj.shape.rim
        inside = ((points.slot == INSIDE) & (q[2] <= rim[0])).nonzero()[0]
        if len(inside):
            height = (q[2].take(inside) - floor) * (1 / (rim[0] - floor))
            sky[inside] *= 0.45 + 0.55 * saturate(height)
            to_lamp = obj.to_local_direction(light.direction)
            lamp_radius = light.angular_radius * math.sqrt(dot(to_lamp, to_lamp))
            lamp[inside] *= 1 - rim_shadow(take(q, inside), rim, to_lamp, lamp_radius)
    return lamp, sky


def _may_shade(other: SceneObject, obj: SceneObject, light: Light) -> bool:
    """Whether another object is near, or near the way from this one to the lamp; both taken as spheres."""
    (ax, ay, az), (bx, by, bz) = obj.centre, other.centre
    offset = bx - ax, by - ay, bz - az
    square = dot(offset, offset)
    along = max(dot(offset, light.direction), 0.0)
    # Half a diagonal of a cube is 0.87 of its side.
    reach = 0.87 * (obj.scale + other.scale) + along * light.angular_radius
    return bool(square < (reach + 0.5 * other.scale) ** 2 or square - along * along < reach * reach)


def _highlight(cosine: Array, gloss: float) -> Array:
    """The lamp's mirror image in a surface: small and bright on glossy ones, wide and faint on matt ones.

    Args:
        cosine: of the angle between the mirrored view direction and the lamp, [N] in [0, 1].
        gloss: of the material.
    """
    wide: Array = np.square(np.square(cosine))
    if gloss < 0.3:
        return wide * 0.5
    edge = 0.93 + 0.05 * gloss
    return saturate((cosine - edge) * (4 / (1 - edge))) + wide * wide * 0.25
