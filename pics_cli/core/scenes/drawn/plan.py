"""Plan of a scene: camera, light, background, and objects placed so that each is visible enough."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np

from pics_cli.core.recipes.sources import Pool
from pics_cli.core.runtime.rng import generator
from pics_cli.core.scenes.drawn.background import BACKDROPS
from pics_cli.core.scenes.drawn.camera import Camera
from pics_cli.core.scenes.drawn.colors import GROUND_TONES, SKY_COLORS, WALL_COLORS, linear_rgb
from pics_cli.core.scenes.drawn.layout import Layout, PlacementError
from pics_cli.core.scenes.drawn.roles import Role, placed_pairs, sample_object, sample_roles
from pics_cli.core.scenes.drawn.silhouettes import RASTER
from pics_cli.core.scenes.drawn.spec import Background, Light, ScenePlan, SceneSettings
from pics_cli.errors import FAILED, PicsError

# Most scenes need one to three attempts; roles that have no room in so many are given up for others.
_ATTEMPTS = 40
_ROLE_DRAWS = 40
# A camera this steep sees nothing but the ground.
_STEEP_PITCH = 0.72
_FAR_AWAY = 1e5
_OUTDOOR_GROUNDS = ("lawn", "sand", "concrete")


def plan_scene(settings: SceneSettings, pool: Pool, seed: int, index: int) -> ScenePlan:
    """Plan scene number `index` of a seed.

    The relations are drawn first and kept, so that those that are hard to place are not rarer than their weights say;
    then categories, camera and positions are drawn until everything is inside the picture and visible enough.

    Raises:
        PicsError: no draw fits.
    """
    for number in range(_ROLE_DRAWS):
        roles = sample_roles(settings, generator(seed, "synth", "relations", pool, index, number))
        rng = generator(seed, "synth", "places", pool, index, number)
        for _ in range(_ATTEMPTS):
            try:
                return _attempt(settings, pool, seed, index, roles, rng)
            except PlacementError:
                continue
    raise PicsError(f"scene {index} of seed {seed}: found no room for {settings.num_objects} objects", exit_code=FAILED)


def _attempt(
    settings: SceneSettings, pool: Pool, seed: int, index: int, roles: tuple[Role, ...], rng: np.random.Generator
) -> ScenePlan:
    camera = _sample_camera(settings.size, rng)
    background = _sample_background(camera, settings.size, pool, rng)
    light = _tint_bounce(_sample_light(rng), background)
    layout = Layout(camera.scaled(RASTER / settings.size), background.ground_end, roles, rng)
    for role in roles:
        layout.add(sample_object(role, pool, rng))
    front_to_back = layout.order()
    scale = settings.size / RASTER
    objects = []
    for obj, visible in zip(layout.objects, layout.visible(front_to_back), strict=True):
        x, y, width, height = (value * scale for value in cv2.boundingRect(visible))
        area = float(np.count_nonzero(visible)) * scale**2
        objects.append(replace(obj, box=(x, y, x + width, y + height), area=area))

    # Shuffled, or the first object would always be the one that supports or contains.
    new_index = rng.permutation(len(roles)).tolist()
    shuffled = tuple(objects[new_index.index(k)] for k in range(len(objects)))
    order = tuple(new_index[k] for k in front_to_back)
    pairs = placed_pairs(roles, new_index, order)
    return ScenePlan(settings, pool, seed, index, shuffled, order, pairs, camera, light, background)


def _sample_camera(size: int, rng: np.random.Generator) -> Camera:
    """From a glance along the ground to a view from well above it; the point looked at is a little above the ground."""
    pitch = math.radians(rng.uniform(15, 33) if rng.random() < 0.65 else rng.uniform(33, 58))
    distance = 0.5 / math.tan(math.radians(rng.uniform(26, 44)) / 2)
    target_z = rng.uniform(0.08, 0.16)
    eye = (0.0, -distance * math.cos(pitch), target_z + distance * math.sin(pitch))
    return Camera(eye, pitch, size * distance, (size / 2, size / 2))


def _sample_light(rng: np.random.Generator) -> Light:
    """A lamp from the side or from behind the viewer, its colour against that of the surroundings."""
    elevation = math.radians(rng.uniform(34, 64))
    azimuth = math.radians(rng.uniform(20, 115)) * (1 if rng.random() < 0.5 else -1)  # 0: from behind the viewer
    direction = (
        math.cos(elevation) * math.sin(azimuth),
        -math.cos(elevation) * math.cos(azimuth),
        math.sin(elevation),
    )
    lamp_part = rng.uniform(0.55, 0.75)  # of the light on the ground
    level = rng.uniform(0.95, 1.25)
    warmth = rng.uniform(-0.05, 0.12)
    key = level * lamp_part / direction[2]
    sky = level * (1 - lamp_part) * 1.15
    bounce = 0.55 * sky
    return Light(
        direction,
        (key * (1 + warmth), key, key * (1 - warmth)),
        (sky * (1 - 0.6 * warmth), sky, sky * (1 + 0.6 * warmth)),
        (bounce * (1 + warmth), bounce, bounce * (1 - warmth)),
        float(rng.choice((0.06, 0.12, 0.22), p=(0.3, 0.4, 0.3))),
    )


def _tint_bounce(light: Light, background: Background) -> Light:
    """The light, with that from below in the ground's colour."""
    tone = linear_rgb(background.ground_tones[1])
    mean = float(tone.mean())
    red, green, blue = (
        b * (0.35 + 0.65 * float(c)) * (0.6 + 0.4 * mean)
        for b, c in zip(light.bounce, tone / max(mean, 1e-3), strict=True)
    )
    return replace(light, bounce=(red, green, blue))


def _sample_background(camera: Camera, size: int, pool: str, rng: np.random.Generator) -> Background:
    """Ground and backdrop; the ground ends in the upper part of the picture, or above it where the camera is steep."""
    grounds = GROUND_TONES[pool]
    ground = list(grounds)[int(rng.integers(len(grounds)))]
    backdrops = [name for name in BACKDROPS[pool] if name != "sky" or ground in _OUTDOOR_GROUNDS]
    if ground == "lawn":
        backdrops = ["sky", "photo"]
    backdrop = backdrops[int(rng.integers(len(backdrops)))]
    row = rng.uniform(0.1, 0.36) * size
    ground_end = _FAR_AWAY
    if camera.pitch < _STEEP_PITCH:
        # Not farther than is still seen as ground: beyond that a level view shows a thin streak.
        descends = camera.ray_directions(size / 2, row)[2] < -0.06
        y = camera.ground_point(size / 2, row)[1] if descends else 9.0
        ground_end = min(max(y, 0.45), 9.0 if backdrop == "sky" else 2.4)
    backdrop_colors = (SKY_COLORS if backdrop == "sky" else WALL_COLORS)[pool]
    return Background(
        ground,
        grounds[ground][int(rng.integers(len(grounds[ground])))],
        float(rng.uniform(0.7, 1.2)) if ground != "stone" else float(rng.uniform(1.2, 2)),
        float(rng.choice((0, math.pi / 2)) + rng.normal(0, 0.25)),
        backdrop,
        backdrop_colors[int(rng.integers(len(backdrop_colors)))],
        ground_end,
        int(rng.integers(1 << 31)),
        float(rng.uniform(0.08, 0.24)),
    )
