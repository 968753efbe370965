"""Ground and backdrop of a scene, and the shadows on them. S: side of the picture, R: side of the shadow raster."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from pics_cli.core.images.image_io import RGB
from pics_cli.core.runtime.rng import generator
from pics_cli.core.scenes.drawn import patterns
from pics_cli.core.scenes.drawn.camera import Array
from pics_cli.core.scenes.drawn.colors import LINEAR, rgb
from pics_cli.core.scenes.drawn.grounds import GROUNDS
from pics_cli.core.scenes.drawn.photos import cut
from pics_cli.core.scenes.drawn.shadows import blocked, closeness
from pics_cli.core.scenes.drawn.spec import ScenePlan, Thing

# Backdrops that stand where the ground ends, so that shadows fall on them; the others are far away.
NEAR = ("wall", "paper", "cove", "panel")
BACKDROPS: dict[str, tuple[str, ...]] = {
    "train": ("wall", "paper", "cove", "photo", "sky"),
    "held_out": ("wall", "panel", "photo", "bokeh", "sky"),
}
# Shadows are soft: half the picture's resolution is enough, and never more than this.
_FINEST_SHADOW = 320
_VARIANTS = 5


@dataclass(frozen=True)
class _View:
    """Rays of the picture on a raster of side R, kept by rows and columns: the camera has no roll.

    Attributes:
        across: x per depth of each column, [R].
        forward, rise: y and z per depth of each row, [R].
        far: depth at which a row meets the ground or, above it, the wall, [R].
        first: the first row of the ground; R where none is seen.
    """

    across: Array
    forward: Array
    rise: Array
    far: Array
    first: int


def _view(plan: ScenePlan, raster: int) -> _View:
    camera = plan.camera.zoomed(raster / plan.style.size)
    at = np.arange(raster, dtype=np.float32) + np.float32(0.5)
    across, forward, rise = camera.rays(at, at)
    height, start = camera.eye[2], camera.eye[1]
    ground = height / np.maximum(-rise, np.float32(1e-4))
    on = (rise < -1e-3) & (start + ground * forward < plan.stage.wall)
    far = np.where(on, ground, (plan.stage.wall - start) / np.maximum(forward, np.float32(1e-3)))
    return _View(across, forward, rise, far.astype(np.float32), int(np.count_nonzero(~on)))


@lru_cache(maxsize=40)
def _fibre(pool: str, ground: str, variant: int, side: int) -> npt.NDArray[np.uint8]:
    """Tones of the ground; few variants are enough, as each scene turns, moves, scales and colours it differently."""
    rng = generator(variant, "synth", "ground", pool, ground)
    return patterns.steps(GROUNDS[pool][ground](pool, side, rng).astype(np.float32, copy=False))


def empty(plan: ScenePlan) -> Array:
    """The scene without its objects, linear light: float32 [S, S, 3]."""
    size, stage = plan.style.size, plan.stage
    rng = generator(stage.seed, "synth", "stage", plan.pool)
    fibre = _fibre(plan.pool, stage.ground, stage.seed % _VARIANTS, 256 if size <= 288 else 512)
    tissue = patterns.paint(fibre, stage.tones)
    side = len(tissue)
    view = _view(plan, size)
    ground = slice(view.first, size)
    x = view.far[ground, None] * view.across + plan.camera.eye[0]
    y = plan.camera.eye[1] + view.far * view.forward
    c, s = (f(stage.turn) * side / stage.tile for f in (math.cos, math.sin))
    picture = np.empty((size, size, 3), np.uint8)
    if view.first < size:
        shift = (stage.seed // _VARIANTS) % side
        u, v = c * x + (s * y[ground, None] + shift), (c * y[ground, None] + shift) - s * x
        picture[ground] = cv2.remap(tissue, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    if view.first:
        picture[: view.first] = _backdrop(plan, rng, view)
        picture = _focus(plan, picture, y, view.first)
    glow = 1 + stage.pools * _uneven(plan, rng)
    lit = cv2.LUT(picture, LINEAR).astype(np.float32, copy=False)
    lit *= cv2.merge([glow * row[:, None] for row in _row_light(plan, view).T])
    return lit


def _row_light(plan: ScenePlan, view: _View) -> Array:
    """Light that falls on the ground and the wall: float32 [S, 3], by rows."""
    stage, light, size = plan.stage, plan.light, plan.style.size
    key, sky, bounce = (np.asarray(c, np.float32) for c in (light.key, light.sky, light.bounce))
    ground = sky + key * light.towards[2]
    wall = 0.85 * sky + 0.15 * bounce + key * _wall_share(plan)
    behind = wall if stage.backdrop in NEAR else np.ones(3, np.float32)
    rows = np.where((np.arange(size) >= view.first)[:, None], ground, behind).astype(np.float32)
    if stage.backdrop == "cove":  # one bent sheet: no line between ground and wall
        blurred = cv2.GaussianBlur(rows[:, None], (1, 2 * (size // 8) + 1), size / 20)
        rows = blurred.reshape(size, 3).astype(np.float32, copy=False)
    return rows


def _wall_share(plan: ScenePlan) -> float:
    """Of the lamp's light, what falls on a wall that faces the viewer."""
    return 0.9 * max(0.12, -plan.light.towards[1])


def _uneven(plan: ScenePlan, rng: np.random.Generator) -> Array:
    """Broad light and dark: brighter towards the lamp's side, darker corners. About -1 to 1, float32 [S, S]."""
    at = np.linspace(-1, 1, 24)
    spot = 0.6 * plan.light.towards[0] + rng.uniform(-0.2, 0.2), rng.uniform(-0.4, 0.5)
    away = np.hypot(at[None] - spot[0], at[:, None] - spot[1])
    field = 0.5 - 0.75 * np.minimum(away, 2.2) ** 1.5
    wide = cv2.resize(field.astype(np.float32), (plan.style.size,) * 2, interpolation=cv2.INTER_LINEAR)
    return wide.astype(np.float32, copy=False)


def _focus(plan: ScenePlan, picture: RGB, y: Array, first: int) -> RGB:
    """Blur what is far behind the middle of the ground, as a lens does."""
    size = plan.style.size
    reach = max(0.6, min(plan.stage.wall, 4.0))
    weight = np.clip((y - 0.15 * reach) / reach, 0, 1)
    weight[:first] = 1
    weight = weight.astype(np.float32)
    last = int(np.count_nonzero(weight > 0.02))
    margin = min(last + size // 16, size)
    blurred = cv2.GaussianBlur(picture[:margin], (0, 0), size / 110)[:last]
    share = np.repeat(weight[:last, None], size, axis=1)
    picture[:last] = cv2.blendLinear(picture[:last], blurred, 1 - share, share)
    return picture


def _backdrop(plan: ScenePlan, rng: np.random.Generator, view: _View) -> RGB:
    """What is above the ground: uint8 [first row of the ground, S, 3]."""
    size, stage, rows = plan.style.size, plan.stage, view.first
    low, high = (np.asarray(rgb(colour), np.float32) for colour in stage.colours)
    if stage.backdrop == "photo":
        part = cv2.resize(cut(plan.pool, rng, 0.5, 0.9), (64, 64), interpolation=cv2.INTER_AREA)
        soft = cv2.GaussianBlur(part, (0, 0), 64 * rng.uniform(0.03, 0.07)) * np.float32(0.75) + (0.25 * high + 18)
        return _stretched(soft, size)[:rows]
    if stage.backdrop == "bokeh":
        return _stretched(_bokeh(low, high, rng), size)[:rows]
    eye = plan.camera.eye
    z = (eye[2] + view.far[:rows] * view.rise[:rows])[:, None]
    if stage.backdrop == "sky":
        cloud = _broad(plan.pool, size, rng, 2.0)[:rows]
        up = np.clip(view.rise[:rows, None] * 2.2 + 0.1, 0, 1) - 0.7 * np.maximum(cloud - 0.52, 0)
    elif stage.backdrop == "paper":
        x = eye[0] + view.far[:rows, None] * view.across
        up = np.clip(z * 0.8, 0, 1) + 0.25 * np.clip(np.sin(x * rng.uniform(9, 26)) * 5, -1, 1)
    elif stage.backdrop == "panel":
        rail = rng.uniform(0.25, 0.5)
        up = np.where(z < rail, -0.5, 0.7) + 0.6 * (np.abs(z - rail) < 0.018) + 0 * view.across
    else:
        up = np.clip(z * 0.8, 0, 1) + 0.2 * (_broad(plan.pool, size, rng, 1.0)[:rows] - 0.5)
    up = np.clip(up, -0.4, 1.2).astype(np.float32)
    wall = [up * (h - b) + b for b, h in zip(low.tolist(), high.tolist(), strict=True)]
    if stage.backdrop == "cove":  # the ground itself, bent upwards
        bend = np.clip(z / 0.5, 0, 1).astype(np.float32)
        bend = bend * bend * (3 - 2 * bend)
        wall = [f + (w - f) * bend for f, w in zip(rgb(stage.tones[1]), wall, strict=True)]
    behind: RGB = cv2.convertScaleAbs(cv2.merge(wall))
    return behind


def _stretched(picture: Array, size: int) -> RGB:
    wide = cv2.resize(cv2.convertScaleAbs(picture), (size, size), interpolation=cv2.INTER_CUBIC)
    return wide.astype(np.uint8, copy=False)


def _broad(pool: str, size: int, rng: np.random.Generator, stretch: float) -> Array:
    wide = cv2.resize(patterns.noise(pool, 64, rng, 1.7, stretch), (size, size), interpolation=cv2.INTER_CUBIC)
    return wide.astype(np.float32, copy=False)


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


def shaded(plan: ScenePlan, clean: Array, things: Sequence[Thing]) -> Array:
    """The empty scene with the shadows of things: float32 [S, S, 3] of linear light; a new array."""
    size, light = plan.style.size, plan.light
    raster = min(max(size // 2, 64), _FINEST_SHADOW)
    view = _view(plan, raster)
    eye = plan.camera.eye
    start = 0 if plan.stage.backdrop in NEAR else view.first
    lamp = np.ones((raster, raster), np.float32)
    sky = np.ones((raster, raster), np.float32)
    for thing in things:
        rows, columns = _reached(plan, thing, raster)
        rows = slice(max(rows.start, start), max(rows.stop, start))
        far, shape = view.far[rows, None], (rows.stop - rows.start, columns.stop - columns.start)
        p = (
            (eye[0] + far * view.across[columns]).ravel(),
            np.repeat(eye[1] + far * view.forward[rows, None], shape[1]),
            np.repeat(eye[2] + far * view.rise[rows, None], shape[1]),
        )
        lamp[rows, columns] *= 1 - blocked(thing, p, light).reshape(shape)
        sky[rows, columns] *= 1 - closeness(thing, p).reshape(shape)
    share = np.where(np.arange(raster) >= view.first, light.towards[2], _wall_share(plan)).astype(np.float32)[:, None]
    factor = [(s * sky + k * share * lamp) / (s + k * share) for s, k in zip(light.sky, light.key, strict=True)]
    shadows = cv2.resize(cv2.merge(factor), (size, size), interpolation=cv2.INTER_LINEAR)
    scene: Array = clean * shadows
    return scene


def _reached(plan: ScenePlan, thing: Thing, raster: int) -> tuple[slice, slice]:
    """Rows and columns of the raster that a thing's shadow may touch."""
    x, y = thing.foot().T
    low, high = thing.position[2], thing.position[2] + thing.shape.height * thing.scale
    points = np.concatenate([np.stack([x, y, np.full_like(x, z)], axis=1) for z in (low, high)])
    towards = np.asarray(plan.light.towards)
    cloud = [points, points - towards * (points[:, 2:] / towards[2])]
    if plan.stage.backdrop in NEAR:
        back = np.maximum((points[:, 1:2] - plan.stage.wall) / min(towards[1], -1e-3), 0)
        cloud.append(points - towards * np.minimum(back, points[:, 2:] / towards[2]))
    margin = 0.25 * thing.scale + 2 * plan.light.spread * high
    spread = [np.concatenate(cloud) + np.asarray(shift) for shift in ((margin, margin, 0), (-margin, -margin, 0))]
    reached = np.concatenate(spread)
    reached[:, 1] = np.minimum(reached[:, 1], plan.stage.wall)
    seen = plan.camera.zoomed(raster / plan.style.size).project(reached)[:, :2]
    first = np.clip(seen.min(axis=0) - 2, 0, raster).astype(int)
    last = np.clip(seen.max(axis=0) + 3, 0, raster).astype(int)
    return slice(int(first[1]), int(last[1])), slice(int(first[0]), int(last[0]))
