"""Ground and backdrop of a scene, and the shadows that objects throw on them.

S: side of the picture, R: side of the raster of shadows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from pics_cli.core.images.image_io import RGB
from pics_cli.core.runtime.rng import generator
from pics_cli.core.scenes.drawn.camera import Array
from pics_cli.core.scenes.drawn.colors import LINEAR_LIGHT, rgb
from pics_cli.core.scenes.drawn.grounds import GROUNDS
from pics_cli.core.scenes.drawn.patterns import Canvas, colorize, quantize
from pics_cli.core.scenes.drawn.photos import random_crop
from pics_cli.core.scenes.drawn.shadows import ambient_occlusion, shadow
from pics_cli.core.scenes.drawn.spec import SceneObject, ScenePlan

BACKDROPS: dict[str, tuple[str, ...]] = {
    "train": ("wall", "paper", "cove", "photo", "sky"),
    "held_out": ("wall", "panel", "photo", "bokeh", "sky"),
}
# Those that stand where the ground ends, so that shadows fall on them; the others are far away.
_NEAR_BACKDROPS = ("wall", "paper", "cove", "panel")
# Shadows are soft: half the picture's resolution is enough, and never more than this.
_MAX_SHADOW_RASTER = 320
_GROUND_VARIANTS = 5


@dataclass(frozen=True)
class _PixelRays:
    """Rays of a raster of side R and where they end, kept by rows and columns: the camera has no roll.

    Attributes:
        across: x per depth of each column, [R].
        forward, rise: y and z per depth of each row, [R].
        depth: at which a row meets the ground or, above it, the plane where the ground ends, [R].
        first_ground_row: R where no ground is seen.
    """

    across: Array
    forward: Array
    rise: Array
    depth: Array
    first_ground_row: int


def _pixel_rays(plan: ScenePlan, raster: int) -> _PixelRays:
    camera = plan.camera.scaled(raster / plan.settings.size)
    centres = np.arange(raster, dtype=np.float32) + np.float32(0.5)
    across, forward, rise = camera.ray_directions(centres, centres)
    _, eye_y, eye_z = camera.eye
    to_ground = eye_z / np.maximum(-rise, np.float32(1e-4))
    on_ground = (rise < -1e-3) & (eye_y + to_ground * forward < plan.background.ground_end)
    to_end = (plan.background.ground_end - eye_y) / np.maximum(forward, np.float32(1e-3))
    depth = np.where(on_ground, to_ground, to_end).astype(np.float32)
    return _PixelRays(across, forward, rise, depth, int(np.count_nonzero(~on_ground)))


@lru_cache(maxsize=40)
def _ground_steps(pool: str, ground: str, variant: int, side: int) -> npt.NDArray[np.uint8]:
    """Texture of a ground before it is coloured, uint8 [side, side].

    Few variants are enough, as each scene turns, moves, scales and colours it differently.
    """
    canvas = Canvas(pool, side, generator(variant, "synth", "ground", pool, ground))
    return quantize(GROUNDS[pool][ground](canvas).astype(np.float32, copy=False))


def render_background(plan: ScenePlan) -> Array:
    """The scene without its objects, linear light: float32 [S, S, 3]."""
    size, background = plan.settings.size, plan.background
    rng = generator(background.seed, "synth", "stage", plan.pool)
    side = 256 if size <= 288 else 512
    steps = _ground_steps(plan.pool, background.ground, background.seed % _GROUND_VARIANTS, side)
    ground_texture = colorize(steps, background.ground_tones)
    rays = _pixel_rays(plan, size)
    first = rays.first_ground_row
    y = plan.camera.eye[1] + rays.depth * rays.forward
    picture = np.empty((size, size, 3), np.uint8)
    if first < size:
        x = rays.depth[first:, None] * rays.across + plan.camera.eye[0]
        c, s = (f(background.tile_angle) * side / background.tile_size for f in (math.cos, math.sin))
        shift = (background.seed // _GROUND_VARIANTS) % side
        u, v = c * x + (s * y[first:, None] + shift), (c * y[first:, None] + shift) - s * x
        picture[first:] = cv2.remap(ground_texture, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    if first:
        picture[:first] = _backdrop(plan, rng, rays)
        _blur_distance(plan, picture, y, first)
    unevenness = 1 + background.unevenness * _uneven_light(plan, rng)
    linear = cv2.LUT(picture, LINEAR_LIGHT).astype(np.float32, copy=False)
    linear *= cv2.merge([unevenness * channel[:, None] for channel in _light_by_row(plan, first).T])
    return linear


def _light_by_row(plan: ScenePlan, first_ground_row: int) -> Array:
    """Light that falls on ground and backdrop: float32 [S, 3], by rows."""
    light, size = plan.light, plan.settings.size
    key, sky, bounce = (np.asarray(c, np.float32) for c in (light.key, light.sky, light.bounce))
    ground = sky + key * light.direction[2]
    wall = 0.85 * sky + 0.15 * bounce + key * _lamp_on_wall(plan)
    behind = wall if plan.background.backdrop in _NEAR_BACKDROPS else np.ones(3, np.float32)
    rows = np.where((np.arange(size) >= first_ground_row)[:, None], ground, behind).astype(np.float32)
    if plan.background.backdrop == "cove":  # one bent sheet: no line between ground and wall
        blurred = cv2.GaussianBlur(rows[:, None], (1, 2 * (size // 8) + 1), size / 20)
        rows = blurred.reshape(size, 3).astype(np.float32, copy=False)
    return rows


def _lamp_on_wall(plan: ScenePlan) -> float:
    """Part of the lamp's light that falls on a wall which faces the viewer."""
    return 0.9 * max(0.12, -plan.light.direction[1])


def _uneven_light(plan: ScenePlan, rng: np.random.Generator) -> Array:
    """Broad light and dark: brighter towards the lamp's side, darker corners. About -1 to 1, float32 [S, S]."""
    grid = np.linspace(-1, 1, 24)
    spot_x, spot_y = 0.6 * plan.light.direction[0] + rng.uniform(-0.2, 0.2), rng.uniform(-0.4, 0.5)
    distance = np.hypot(grid[None] - spot_x, grid[:, None] - spot_y)
    field = (0.5 - 0.75 * np.minimum(distance, 2.2) ** 1.5).astype(np.float32)
    return _enlarged(field, plan.settings.size, cv2.INTER_LINEAR)


def _enlarged(field: Array, size: int, interpolation: int = cv2.INTER_CUBIC) -> Array:
    return cv2.resize(field, (size, size), interpolation=interpolation).astype(field.dtype, copy=False)


def _to_bytes(values: Array) -> RGB:
    return cv2.convertScaleAbs(values).astype(np.uint8, copy=False)


def _blur_distance(plan: ScenePlan, picture: RGB, y: Array, first_ground_row: int) -> None:
    """Blur what is far behind the middle of the ground, as a lens does; in place. `y`: distance by rows, [S]."""
    size = plan.settings.size
    depth_of_field = max(0.6, min(plan.background.ground_end, 4.0))
    weight = np.clip((y - 0.15 * depth_of_field) / depth_of_field, 0, 1)
    weight[:first_ground_row] = 1
    weight = weight.astype(np.float32)
    last = int(np.count_nonzero(weight > 0.02))
    blurred = cv2.GaussianBlur(picture[: min(last + size // 16, size)], (0, 0), size / 110)[:last]
    weights = np.repeat(weight[:last, None], size, axis=1)
    picture[:last] = cv2.blendLinear(picture[:last], blurred, 1 - weights, weights)


def _backdrop(plan: ScenePlan, rng: np.random.Generator, rays: _PixelRays) -> RGB:
    """What is above the ground: uint8 [first row of the ground, S, 3]."""
    size, background, rows = plan.settings.size, plan.background, rays.first_ground_row
    low, high = (np.asarray(rgb(color), np.float32) for color in background.backdrop_colors)
    if background.backdrop == "photo":
        crop = cv2.resize(random_crop(plan.pool, rng, 0.5, 0.9), (64, 64), interpolation=cv2.INTER_AREA)
        soft = cv2.GaussianBlur(crop, (0, 0), 64 * rng.uniform(0.03, 0.07)) * np.float32(0.75) + (0.25 * high + 18)
        return _enlarged(_to_bytes(soft), size)[:rows]
    if background.backdrop == "bokeh":
        return _enlarged(_to_bytes(_bokeh(low, high, rng)), size)[:rows]
    eye = plan.camera.eye
    z = (eye[2] + rays.depth[:rows] * rays.rise[:rows])[:, None]
    # From the low colour (0) to the high one (1).
    if background.backdrop == "sky":
        clouds = _broad_noise(plan.pool, size, rng, 2.0)[:rows]
        blend = np.clip(rays.rise[:rows, None] * 2.2 + 0.1, 0, 1) - 0.7 * np.maximum(clouds - 0.52, 0)
    elif background.backdrop == "paper":
        x = eye[0] + rays.depth[:rows, None] * rays.across
        blend = np.clip(z * 0.8, 0, 1) + 0.25 * np.clip(np.sin(x * rng.uniform(9, 26)) * 5, -1, 1)
    elif background.backdrop == "panel":
        rail = rng.uniform(0.25, 0.5)
        blend = np.where(z < rail, -0.5, 0.7) + 0.6 * (np.abs(z - rail) < 0.018) + 0 * rays.across
    else:
        blend = np.clip(z * 0.8, 0, 1) + 0.2 * (_broad_noise(plan.pool, size, rng, 1.0)[:rows] - 0.5)
    blend = np.clip(blend, -0.4, 1.2).astype(np.float32)
    channels = [blend * (h - b) + b for b, h in zip(low.tolist(), high.tolist(), strict=True)]
    if background.backdrop == "cove":  # the ground itself, bent upwards
        bend = np.clip(z / 0.5, 0, 1).astype(np.float32)
        bend = bend * bend * (3 - 2 * bend)
        ground = rgb(background.ground_tones[1])
        channels = [g + (channel - g) * bend for g, channel in zip(ground, channels, strict=True)]
    return _to_bytes(cv2.merge(channels))


def _broad_noise(pool: str, size: int, rng: np.random.Generator, stretch: float) -> Array:
    return _enlarged(Canvas(pool, 64, rng).noise(1.7, stretch), size)


def _bokeh(low: Array, high: Array, rng: np.random.Generator) -> Array:
    """Lights out of focus, float32 [128, 128, 3]."""
    side = 128
    canvas = np.linspace(0, 1, side, dtype=np.float32)[:, None, None] * (0.55 * low - 0.4 * high) + 0.4 * high
    canvas = np.ascontiguousarray(np.broadcast_to(canvas, (side, side, 3)))
    for _ in range(int(rng.integers(14, 30))):
        x, y, r = int(rng.uniform(0, side)), int(rng.uniform(0, 0.8 * side)), int(rng.uniform(4, 13))
        disc = np.zeros((2 * r + 3, 2 * r + 3), np.float32)
        cv2.circle(disc, (r + 1, r + 1), r, 1.0, -1, cv2.LINE_AA)
        tint = low + (high - low) * rng.random() + np.asarray((60, 35, 5), np.float32) * rng.random()
        strength = np.float32(rng.uniform(0.12, 0.4))
        top, left = max(y - r - 1, 0), max(x - r - 1, 0)
        part = canvas[top : y + r + 2, left : x + r + 2]
        disc = disc[top - y + r + 1 :, left - x + r + 1 :][: part.shape[0], : part.shape[1]]
        part += disc[..., None] * (tint - part) * strength
    return cv2.GaussianBlur(canvas, (0, 0), 1.6).astype(np.float32, copy=False)


def apply_shadows(plan: ScenePlan, background: Array) -> Array:
    """The background with the shadows of the plan's objects: float32 [S, S, 3] of linear light; a new array."""
    size, light = plan.settings.size, plan.light
    raster = min(max(size // 2, 64), _MAX_SHADOW_RASTER)
    rays = _pixel_rays(plan, raster)
    eye = plan.camera.eye
    first = 0 if plan.background.backdrop in _NEAR_BACKDROPS else rays.first_ground_row
    lamp = np.ones((raster, raster), np.float32)
    sky = np.ones((raster, raster), np.float32)
    for obj in plan.objects:
        rows, columns = _shadow_window(plan, obj, raster)
        rows = slice(max(rows.start, first), max(rows.stop, first))
        depth, shape = rays.depth[rows, None], (rows.stop - rows.start, columns.stop - columns.start)
        points = (
            (eye[0] + depth * rays.across[columns]).ravel(),
            np.repeat(eye[1] + depth * rays.forward[rows, None], shape[1]),
            np.repeat(eye[2] + depth * rays.rise[rows, None], shape[1]),
        )
        lamp[rows, columns] *= 1 - shadow(obj, points, light).reshape(shape)
        sky[rows, columns] *= 1 - ambient_occlusion(obj, points).reshape(shape)
    on_ground = np.arange(raster) >= rays.first_ground_row
    cosine = np.where(on_ground, light.direction[2], _lamp_on_wall(plan)).astype(np.float32)[:, None]
    factors = [(s * sky + k * cosine * lamp) / (s + k * cosine) for s, k in zip(light.sky, light.key, strict=True)]
    scene: Array = background * _enlarged(cv2.merge(factors), size, cv2.INTER_LINEAR)
    return scene


def _shadow_window(plan: ScenePlan, obj: SceneObject, raster: int) -> tuple[slice, slice]:
    """Rows and columns of the raster that an object's shadow may touch."""
    x, y = obj.footprint().T
    low, high = obj.position[2], obj.position[2] + obj.shape.height * obj.scale
    points = np.concatenate([np.stack([x, y, np.full_like(x, z)], axis=1) for z in (low, high)])
    to_lamp = np.asarray(plan.light.direction)
    cloud = [points, points - to_lamp * (points[:, 2:] / to_lamp[2])]
    if plan.background.backdrop in _NEAR_BACKDROPS:
        to_wall = np.maximum((points[:, 1:2] - plan.background.ground_end) / min(to_lamp[1], -1e-3), 0)
        cloud.append(points - to_lamp * np.minimum(to_wall, points[:, 2:] / to_lamp[2]))
    margin = 0.25 * obj.scale + 2 * plan.light.angular_radius * high
    spread = [np.concatenate(cloud) + np.asarray(shift) for shift in ((margin, margin, 0), (-margin, -margin, 0))]
    touched = np.concatenate(spread)
    touched[:, 1] = np.minimum(touched[:, 1], plan.background.ground_end)
    pixels = plan.camera.scaled(raster / plan.settings.size).project(touched)[:, :2]
    first = np.clip(pixels.min(axis=0) - 2, 0, raster).astype(int)
    last = np.clip(pixels.max(axis=0) + 3, 0, raster).astype(int)
    return slice(int(first[1]), int(last[1])), slice(int(first[0]), int(last[0]))
