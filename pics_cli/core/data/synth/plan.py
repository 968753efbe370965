"""What is in a scene and where: `plan_scene` is a function of style, pool, seed and index alone."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from pics_cli.core.data.synth.casting import Role, actor, cast
from pics_cli.core.data.synth.layout import Layout, NoRoom
from pics_cli.core.data.synth.setting import draw_camera, draw_light, draw_stage, tinted
from pics_cli.core.data.synth.silhouettes import RASTER
from pics_cli.core.data.synth.spec import (
    CATEGORIES,
    ScenePlan,
    Style,
    Thing,
)
from pics_cli.core.rng import generator
from pics_cli.core.sources import Pool, SceneRelation
from pics_cli.errors import FAILED, PicsError

__all__ = ["CATEGORIES", "Pool", "ScenePlan", "SceneRelation", "Style", "Thing", "plan_scene"]

# Most scenes need one to three attempts; a set of relations that has no room in so many is given up for another.
_ATTEMPTS = 40
_CASTS = 40


def plan_scene(style: Style, pool: Pool, seed: int, index: int) -> ScenePlan:
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
    style: Style, pool: Pool, seed: int, index: int, roles: tuple[Role, ...], rng: np.random.Generator
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
