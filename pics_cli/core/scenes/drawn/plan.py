"""Camera, light and stage of a scene."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np

from pics_cli.core.recipes.dataset import Pool, SceneRelation
from pics_cli.core.runtime.rng import generator
from pics_cli.core.scenes.drawn.camera import Camera
from pics_cli.core.scenes.drawn.casting import Role, actor, cast
from pics_cli.core.scenes.drawn.colors import GROUNDS, SKIES, WALLS, linear
from pics_cli.core.scenes.drawn.layout import Layout, NoRoom
from pics_cli.core.scenes.drawn.silhouettes import RASTER
from pics_cli.core.scenes.drawn.spec import CATEGORIES, Light, ScenePlan, SceneSettings, Stage, Thing
from pics_cli.core.scenes.drawn.stage import BACKDROPS
from pics_cli.errors import FAILED, PicsError

# A camera this steep sees nothing but the ground.
_NO_WALL = 0.72
FAR_AWAY = 1e5


def draw_camera(size: int, rng: np.random.Generator) -> Camera:
    """From a glance along the ground to a view from well above it; the point looked at is a little above the ground."""
    pitch = math.radians(rng.uniform(15, 33) if rng.random() < 0.65 else rng.uniform(33, 58))
    distance = 0.5 / math.tan(math.radians(rng.uniform(26, 44)) / 2)
    aim = rng.uniform(0.08, 0.16)
    eye = (0.0, -distance * math.cos(pitch), aim + distance * math.sin(pitch))
    return Camera(eye, pitch, size * distance, (size / 2, size / 2))


def draw_light(rng: np.random.Generator) -> Light:
    """A lamp from the side or from behind the viewer, its colour against that of the surroundings."""
    rise = math.radians(rng.uniform(34, 64))
    side = math.radians(rng.uniform(20, 115)) * (1 if rng.random() < 0.5 else -1)  # 0: from behind the viewer
    towards = (math.cos(rise) * math.sin(side), -math.cos(rise) * math.cos(side), math.sin(rise))
    share = rng.uniform(0.55, 0.75)  # of the lamp in the light on the ground
    level = rng.uniform(0.95, 1.25)
    warm = rng.uniform(-0.05, 0.12)
    key = level * share / towards[2]
    sky = level * (1 - share) * 1.15
    bounce = 0.55 * sky
    return Light(
        towards,
        (key * (1 + warm), key, key * (1 - warm)),
        (sky * (1 - 0.6 * warm), sky, sky * (1 + 0.6 * warm)),
        (bounce * (1 + warm), bounce, bounce * (1 - warm)),
        float(rng.choice((0.06, 0.12, 0.22), p=(0.3, 0.4, 0.3))),
    )


def draw_stage(camera: Camera, size: int, pool: str, rng: np.random.Generator) -> Stage:
    """Ground and backdrop; the ground ends in the upper part of the picture, or above it where the camera is steep."""
    grounds = GROUNDS[pool]
    ground = list(grounds)[int(rng.integers(len(grounds)))]
    backdrops = [name for name in BACKDROPS[pool] if (name == "sky") <= (ground in ("lawn", "sand", "concrete"))]
    if ground == "lawn":
        backdrops = ["sky", "photo"]
    backdrop = backdrops[int(rng.integers(len(backdrops)))]
    row = rng.uniform(0.1, 0.36) * size
    reach = camera.rays(size / 2, row)[2]
    wall = FAR_AWAY
    if camera.pitch < _NO_WALL:
        # Not farther than is still seen as ground: beyond that a level view shows a thin streak.
        y = camera.ground(size / 2, row)[1] if reach < -0.06 else 9.0
        wall = min(max(y, 0.45), 9.0 if backdrop == "sky" else 2.4)
    choices = WALLS[pool] if backdrop != "sky" else SKIES[pool]
    tones = grounds[ground]
    return Stage(
        ground,
        tones[int(rng.integers(len(tones)))],
        float(rng.uniform(0.7, 1.2)) if ground != "stone" else float(rng.uniform(1.2, 2)),
        float(rng.choice((0, math.pi / 2)) + rng.normal(0, 0.25)),
        backdrop,
        choices[int(rng.integers(len(choices)))],
        wall,
        int(rng.integers(1 << 31)),
        float(rng.uniform(0.08, 0.24)),
    )


def tinted(light: Light, stage: Stage) -> Light:
    """With light from below in the ground's colour."""
    tone = linear(stage.tones[1])
    mean = float(tone.mean())
    bounce = tuple(
        b * (0.35 + 0.65 * float(c)) * (0.6 + 0.4 * mean)
        for b, c in zip(light.bounce, tone / max(mean, 1e-3), strict=True)
    )
    return Light(light.towards, light.key, light.sky, (bounce[0], bounce[1], bounce[2]), light.spread)


__all__ = ["CATEGORIES", "Pool", "ScenePlan", "SceneRelation", "SceneSettings", "Thing", "plan_scene"]

# Most scenes need one to three attempts; a set of relations that has no room in so many is given up for another.
_ATTEMPTS = 40
_CASTS = 40


def plan_scene(style: SceneSettings, pool: Pool, seed: int, index: int) -> ScenePlan:
    """Plan one scene.

    The relations are drawn first and kept, so that those that are hard to place are not rarer than their weights say;
    then categories, camera and places are drawn until everything is inside the picture and visible enough.
    """
    for number in range(_CASTS):
        roles = cast(style, generator(seed, "synth", "relations", pool, index, number))
        rng = generator(seed, "synth", "places", pool, index, number)
        for _ in range(_ATTEMPTS):
            try:
                return _attempt(style, pool, seed, index, roles, rng)
            except NoRoom:
                continue
    raise PicsError(f"scene {index} of seed {seed}: found no room for {style.objects} objects", exit_code=FAILED)


def _attempt(
    style: SceneSettings, pool: Pool, seed: int, index: int, roles: tuple[Role, ...], rng: np.random.Generator
) -> ScenePlan:
    camera = draw_camera(style.size, rng)
    stage = draw_stage(camera, style.size, pool, rng)
    light = tinted(draw_light(rng), stage)
    layout = Layout(camera.zoomed(RASTER / style.size), stage.wall, roles, rng)
    for role in roles:
        layout.add(actor(role, pool, rng))
    front_to_back = layout.order()
    scale = style.size / RASTER
    things = []
    for thing, shown in zip(layout.things, layout.visible(front_to_back), strict=True):
        x, y, across, down = (value * scale for value in cv2.boundingRect(shown))
        things.append(replace(thing, box=(x, y, x + across, y + down), area=float(np.count_nonzero(shown)) * scale**2))

    # Shuffled, or the first object would always be the one that carries or holds.
    places = rng.permutation(len(roles)).tolist()
    shuffled = [things[places.index(k)] for k in range(len(things))]
    planned = []
    for k, role in enumerate(roles):
        if role.parent is not None and role.relation is not None:
            i, j = sorted((places[k], places[role.parent]))
            planned.append((i, j, role.relation, _subject(role, places, k, front_to_back, i)))
    order = tuple(places[k] for k in front_to_back)
    return ScenePlan(style, pool, seed, index, tuple(shuffled), order, tuple(sorted(planned)), camera, light, stage)


def _subject(role: Role, places: list[int], k: int, order: tuple[int, ...], first: int) -> int:
    assert role.parent is not None
    if role.hosted:
        return places[role.parent]
    if role.relation == "occluding":
        return places[k if order.index(k) < order.index(role.parent) else role.parent]
    return first
