"""Scenes that `synth` draws as cases: everything about them is known."""

from __future__ import annotations

import contextlib

import cv2
import numpy as np

from pics_cli.core.data.masks import Mask
from pics_cli.core.data.synth.plan import Style, plan_scene
from pics_cli.core.data.synth.render import render
from pics_cli.core.evaluation.case import Case
from pics_cli.core.geometry import Box, box_iou, by_lower_edge, clip_box, scaled
from pics_cli.core.sources import Pool
from pics_cli.errors import PicsError

# Numbers of the scenes whose objects are only there to be told apart from: beyond those that are measured.
_OTHERS, OTHER_SCENES = 10_000_000, 24


def make_case(style: Style, seed: int, index: int, fill: float, pool: Pool = "held_out") -> Case:
    """Draw a scene; a function of its arguments alone.

    Args:
        style: of two objects.
        seed, index: which scene.
        fill: share of a region's sides that the object's place takes.
        pool: of shapes, colours and textures.

    Raises:
        PicsError: no room for the objects.
    """
    plan = plan_scene(style, pool, seed, index)
    scene = render(plan)
    (pair,) = scene.pairs
    places = tuple(bounds(mask) for mask in scene.full)
    size = style.size
    regions = tuple(clip_box(scaled(place, 1 / fill), size, size) for place in places)
    orders = [scene.order[::-1]] + ([scene.order] if pair.relation == "containing" else [])
    overlap = bool(np.any(scene.full[0] & scene.full[1]))
    wrong = tuple(render(plan, order).image for order in orders) if overlap else ()
    return Case(
        key=f"{index:08d}",
        background=scene.clean,
        truth=scene.image,
        references=scene.alternates,
        places=places,
        regions=regions,
        order=tuple(by_lower_edge(regions)),
        visible=scene.masks,
        full=scene.full,
        clean=True,
        wrong=wrong,
        front=tuple(scene.order),
        relation=pair.relation,
        iou=float(box_iou(*(np.array([place], np.float64) for place in places))[0, 0]),
    )


def bounds(mask: Mask) -> Box:
    """Box of a mask's set pixels."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    return x, y, x + width, y + height


def other_cases(style: Style, seed: int, fill: float, pool: Pool = "held_out") -> list[Case]:
    """Scenes that are not measured: their objects are there to be told apart from."""
    found = []
    for number in range(OTHER_SCENES):
        with contextlib.suppress(PicsError):  # no room for the objects
            found.append(make_case(style, seed, _OTHERS + number, fill, pool))
    return found
