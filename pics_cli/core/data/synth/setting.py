"""Camera, light and stage of a scene."""

from __future__ import annotations

import math

import numpy as np

from pics_cli.core.data.synth.camera import Camera
from pics_cli.core.data.synth.palettes import GROUNDS, SKIES, WALLS, linear
from pics_cli.core.data.synth.spec import Light, Stage
from pics_cli.core.data.synth.stage import BACKDROPS

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
