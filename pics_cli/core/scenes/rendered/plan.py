"""Plan of a rendered scene: roles, models, camera, light, surfaces, and a layout in which each object is visible."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from pics_cli.core.recipes.sources import RenderedPool
from pics_cli.core.runtime.rng import generator
from pics_cli.core.scenes.drawn.camera import Camera
from pics_cli.core.scenes.drawn.layout import PlacementError
from pics_cli.core.scenes.drawn.roles import Role, placed_pairs, sample_roles
from pics_cli.core.scenes.drawn.spec import SceneSettings
from pics_cli.core.scenes.rendered.layout import Layout
from pics_cli.core.scenes.rendered.lights import SceneLight, sample_lighting, vary_lighting
from pics_cli.core.scenes.rendered.placement import RASTER
from pics_cli.core.scenes.rendered.spec import Material, RenderedPlan, Surface, UsableModel
from pics_cli.errors import FAILED, PicsError

_ATTEMPTS = 30
_ROLE_DRAWS = 30
_FAR_AWAY = 30.0
# True lengths of two models in a scene differ by at most this factor.
_COMPATIBLE = 6.0


def plan_scene(
    settings: SceneSettings, material: Material, pool: RenderedPool, samples: int, seed: int, index: int
) -> RenderedPlan:
    """Plan scene number `index` of a seed.

    The relations are drawn first and kept, so that those that are hard to place are not rarer than their weights say;
    then models, camera and positions are drawn until everything is inside the picture and visible enough.

    Raises:
        PicsError: no model has the relation that is asked for, or no draw fits.
    """
    for number in range(_ROLE_DRAWS):
        roles = sample_roles(settings, generator(seed, "rendered", "relations", pool, index, number))
        rng = generator(seed, "rendered", "places", pool, index, number)
        for _ in range(_ATTEMPTS):
            try:
                return _attempt(settings, material, pool, samples, seed, index, roles, rng)
            except PlacementError:
                continue
    raise PicsError(f"scene {index} of seed {seed}: found no room for {settings.num_objects} models", exit_code=FAILED)


def _attempt(
    settings: SceneSettings, material: Material, pool: RenderedPool, samples: int, seed: int, index: int,
    roles: tuple[Role, ...], rng: np.random.Generator,
) -> RenderedPlan:  # fmt: skip
    camera = _sample_camera(settings.size, rng)
    lighting = sample_lighting(material.hdris, rng)
    wall, wall_distance = _sample_wall(camera, settings.size, lighting, material, rng)
    models = _sample_models(roles, material.models, rng)
    layout = Layout(camera.scaled(RASTER / settings.size), wall_distance, roles, models, rng)
    layout.add_objects()
    front_to_back = layout.order()
    for number in range(int(rng.choice((0, 1, 2), p=(0.25, 0.45, 0.3)))):
        bystander = _sample_model(_compatible(material.models, models[0].length), rng)
        x, y, _ = lighting.direction
        flat = math.hypot(x, y)
        layout.add_bystander(bystander, (x / flat, y / flat) if number == 0 and rng.random() < 0.5 else None)
    scale = settings.size / RASTER
    visible = layout.visible()
    areas, boxes = [], []
    for mask in visible:
        x, y, width, height = (value * scale for value in cv2.boundingRect(mask.view(np.uint8)))
        areas.append(float(np.count_nonzero(mask)) * scale**2)
        boxes.append((x, y, x + width, y + height))

    # Shuffled, or the first object would always be the one that supports or contains.
    new_index = rng.permutation(len(roles)).tolist()
    old = [new_index.index(k) for k in range(len(roles))]
    order = tuple(new_index[k] for k in front_to_back)
    others = tuple(
        vary_lighting(lighting, material.hdris, settings.light, generator(seed, "rendered", "light", pool, index, k))
        for k in range(len(roles))
    )
    return RenderedPlan(
        settings=settings, pool=pool, seed=seed, index=index, samples=samples,
        objects=tuple(layout.objects[k] for k in old),
        areas=tuple(areas[k] for k in old),
        boxes=tuple(boxes[k] for k in old),
        bystanders=tuple(layout.bystanders),
        order=order,
        placed_pairs=placed_pairs(roles, new_index, order),
        camera=camera, lighting=lighting, other_lighting=others,
        ground=_sample_surface(material, rng, is_wall=False), wall=wall, wall_distance=wall_distance,
    )  # fmt: skip


def _sample_models(roles: Sequence[Role], models: Sequence[UsableModel], rng: np.random.Generator) -> list[UsableModel]:
    chosen: list[UsableModel] = []
    for role in roles:
        usable = [m for m in models if (m.support or not role.supports) and (m.cavity or not role.contains)]
        if not usable:
            need = "level surface" if role.supports else "hollow"
            raise PicsError(
                f"none of the {len(models)} models has a {need}, which the relation "
                f"{'supporting' if role.supports else 'containing'} needs",
                "add such models, or set its weight to 0 with --set source.relations",
            )
        if role.parent is not None:
            usable = _compatible(usable, chosen[role.parent].length, smaller=role.hosted) or usable
        chosen.append(_sample_model(usable, rng))
    return chosen


def _compatible(models: Sequence[UsableModel], length: float, smaller: bool = False) -> list[UsableModel]:
    """Models whose true length is compatible with this one."""
    high = 1.1 if smaller else _COMPATIBLE
    return [m for m in models if length / _COMPATIBLE / 2 < m.length < length * high]


def _sample_model(models: Sequence[UsableModel], rng: np.random.Generator) -> UsableModel:
    return models[int(rng.integers(len(models)))]


def _sample_camera(size: int, rng: np.random.Generator) -> Camera:
    """From table height to well above; the point looked at is a little above the ground."""
    pitch = math.radians(rng.uniform(7, 32) if rng.random() < 0.68 else rng.uniform(32, 60))
    distance = 0.5 / math.tan(math.radians(rng.uniform(24, 50)) / 2)
    target = rng.uniform(0.08, 0.17)
    eye = (0.0, -distance * math.cos(pitch), target + distance * math.sin(pitch))
    return Camera(eye, pitch, size * distance, (size / 2, size / 2))


def _sample_wall(
    camera: Camera, size: int, lighting: SceneLight, material: Material, rng: np.random.Generator
) -> tuple[Surface | None, float]:
    """A wall where the ground ends, not in the way of the lamp, in seven of ten scenes that would see one."""
    azimuth = abs(lighting.lamp.azimuth)
    row = rng.uniform(0.06, 0.36) * size
    descends = camera.ray_directions(size / 2, row)[2] < -0.06
    distance = min(max(camera.ground_point(size / 2, row)[1] if descends else 3.0, 0.5), 3.5)
    if rng.random() < 0.7 and azimuth < 100:
        return _sample_surface(material, rng, is_wall=True), distance
    return None, _FAR_AWAY


def _sample_surface(material: Material, rng: np.random.Generator, is_wall: bool) -> Surface:
    """A photograph on ground or wall, dark and pale alike, from nearly plain to what it is."""
    photo = material.grounds[int(rng.integers(len(material.grounds)))]
    whole = bool(is_wall and rng.random() < 0.35)  # a wall painted with, or a view of, the photograph itself
    side = 1.0 if whole else float(rng.uniform(0.25, 1.0))
    left, top = (float(value) for value in rng.random(2))
    level = float(np.exp(rng.uniform(math.log(0.035), math.log(0.8))))
    if is_wall:
        level = float(np.exp(rng.uniform(math.log(0.12), math.log(0.85))))
    plain = rng.random() < (0.6 if is_wall and not whole else 0.25)
    return Surface(
        photo,
        (left, top, side),
        float(rng.uniform(2.5, 4.0) if whole else rng.uniform(0.8, 2.2)),
        0.0 if is_wall else float(rng.choice((0, 90)) + rng.normal(0, 15)),
        level,
        float(rng.uniform(0.05, 0.35) if plain else rng.uniform(0.5, 1.0)),
        float(rng.uniform(0.15, 1.0)),
        float(rng.uniform(0.2, 0.4) if rng.random() < 0.15 and not is_wall else rng.uniform(0.5, 1.0)),
    )
