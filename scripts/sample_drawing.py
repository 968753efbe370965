"""Parts of the bundled samples: drawn scenes with sharp references, and the cup cut out of a photograph."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pics_cli.core.images.geometry import Box
from pics_cli.core.runtime.rng import generator
from pics_cli.core.scenes.drawn.camera import rotate_z
from pics_cli.core.scenes.drawn.colors import gray_to_rgb, tone_map
from pics_cli.core.scenes.drawn.layers import draw_object, object_texture
from pics_cli.core.scenes.drawn.photos import load_photo
from pics_cli.core.scenes.drawn.silhouettes import longest_side, projected_box
from pics_cli.core.scenes.drawn.spec import Light, ScenePlan

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

# Of its region's sides that an object takes; the rest is room for its shadow (`fill` of the bundled model).
FILL = 0.75
REFERENCE = 320
_MARGIN = 10
_FINER = 4  # references are drawn this many times finer, for smooth edges
_TURN = 5.0
_LAMP = 0.6
_TINT = 0.04

# Points on the outlines of saucer, cup and the end of the spoon in coffee.png, read off the picture enlarged.
_SAUCER = (
    (180.4, 68.2), (149.8, 86.5), (121.2, 108), (99.8, 136.5), (85.5, 162), (77, 201.8), (76.3, 216.3), (77.3, 238.8),
    (86.5, 272.4), (109, 308.2), (139.6, 340.8), (174.3, 365.3), (210, 380.6), (243.7, 387.3), (284.5, 390.2),
    (310, 389), (350, 381), (386, 367), (414, 350), (438, 328), (462, 296), (475, 264), (479.6, 230), (478, 204),
    (474, 185), (461.2, 152), (441, 128.2), (417.2, 104.4),
)  # fmt: skip
_RIM = (
    (173.3, 112), (174.3, 95.7), (184.5, 69.2), (202.9, 48.8), (233.5, 29.4), (284.5, 17.8), (300, 18.9),
    (327.5, 23.8), (355, 36.6), (377, 53.1), (395.2, 73.3), (405.3, 95.2), (408.6, 117.2),
)  # fmt: skip
_SPOON = (
    (396.5, 72.5), (400.7, 68.7), (406.2, 67), (412.6, 67), (418.1, 69), (422.3, 72.3), (424.3, 77), (424, 80.6),
    (420.9, 91.6), (417.2, 105.3), (413.5, 117), (405, 110),
)  # fmt: skip
_FINE = 8  # outlines are drawn this many times finer than the picture
_INSET = 1.3  # pixels that the outline is drawn in, past the rim where cup and table mix
_SOFT = 0.7


def full_box(mask: npt.NDArray[np.bool_]) -> Box:
    """The box of a mask's pixels."""
    x, y, width, height = map(int, cv2.boundingRect(mask.view(np.uint8)))
    return x, y, x + width, y + height


def region(box: tuple[float, float, float, float], width: int, height: int) -> Box:
    """An object's region: its box, grown about its middle so that the object takes `FILL` of the sides, clipped."""
    x0, y0, x1, y1 = box
    across, down = (x1 - x0) / FILL / 2, (y1 - y0) / FILL / 2
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    return (
        max(round(x - across), 0), max(round(y - down), 0), min(round(x + across), width), min(round(y + down), height)
    )  # fmt: skip


def reference(plan: ScenePlan, index: int, side: int = REFERENCE) -> Bytes:
    """One object of a plan alone, turned a little and in other light: uint8 RGBA, white where alpha is 0.

    As `synth`'s alternative views are made, but as sharp as this side allows.
    """
    rng = generator(plan.seed, "samples", plan.index, index)
    obj = plan.objects[index]
    turn = math.radians(_TURN) * rng.uniform(0.4, 1) * rng.choice((-1, 1))
    camera = plan.camera.raised(obj.centre, math.radians(_TURN) * 0.2)
    turned = replace(obj, yaw=obj.yaw + turn)
    box = projected_box(turned, camera)
    zoom = (side - 2 * _MARGIN) / longest_side(box)
    width, height = (math.ceil(zoom * length) + 2 * _MARGIN for length in (box[2] - box[0], box[3] - box[1]))
    fine = camera.framed(box, zoom, width, height).scaled(_FINER)
    texture, light = object_texture(obj, plan.pool, _FINER * side), _other(plan.light, rng)
    layer = draw_object(turned, (), fine, light, texture, _FINER * width, _FINER * height)
    cover = np.zeros((_FINER * height, _FINER * width), np.float32)
    carried = np.zeros((*cover.shape, 3), np.float32)
    cover[layer.window] = np.clip(layer.alpha, 0, 1)
    straight = tone_map(layer.rgb / gray_to_rgb(np.maximum(layer.alpha, np.float32(1e-3))))
    carried[layer.window] = straight
    return reduced(carried * gray_to_rgb(cover), cover, (width, height))


def reduced(carried: Floats, cover: Floats, size: tuple[int, int]) -> Bytes:
    """Colour times opacity, float [H, W, 3], and opacity, [H, W], at another (width, height): uint8 RGBA."""
    share = cv2.resize(cover, size, interpolation=cv2.INTER_AREA)
    colour = cv2.resize(carried, size, interpolation=cv2.INTER_AREA)
    colour = colour / gray_to_rgb(np.maximum(share, np.float32(1e-3)).astype(np.float32))
    alpha = np.rint(share * 255).astype(np.uint8)
    rgb = np.clip(np.rint(colour), 0, 255).astype(np.uint8)
    rgb[alpha == 0] = 255
    return np.dstack([rgb, alpha])


def _other(light: Light, rng: np.random.Generator) -> Light:
    """The scene's light from another side, and a little warmer or colder."""
    angle, warm = _LAMP * rng.uniform(0.5, 1) * rng.choice((-1, 1)), rng.uniform(-_TINT, _TINT)
    red, green, blue = light.key
    return replace(light, direction=rotate_z(light.direction, angle), key=(red * (1 + warm), green, blue * (1 - warm)))


def cup(width: int = REFERENCE) -> Bytes:
    """The cup of coffee.png with saucer and spoon, cut out along smooth outlines: uint8 RGBA, `width` pixels wide."""
    rgb = load_photo("coffee.png")
    height, across = rgb.shape[:2]
    fine = np.zeros((height * _FINE, across * _FINE), np.uint8)
    for outline in (_smooth(_SAUCER, 3), _smooth(_RIM, 1), np.asarray(_SPOON)):
        cv2.fillPoly(fine, [np.rint(outline * _FINE).astype(np.int32)], 255)
    deep = cv2.distanceTransform(fine, cv2.DIST_L2, 5) / _FINE
    # An edge as soft as the photograph's own, inside the outline, so that nothing of the table shows.
    ramp = np.clip((deep - _INSET + _SOFT) / (2 * _SOFT), 0, 1).astype(np.float32)
    alpha = cv2.resize(ramp, (across, height), interpolation=cv2.INTER_AREA).astype(np.float32)
    inside = cv2.resize(deep.astype(np.float32), (across, height), interpolation=cv2.INTER_AREA) >= _INSET + _SOFT
    colour = _outward(rgb, inside)
    rows, columns = np.flatnonzero(alpha.any(axis=1)), np.flatnonzero(alpha.any(axis=0))
    part = np.s_[rows[0] - 2 : rows[-1] + 3, columns[0] - 2 : columns[-1] + 3]
    alpha, colour = alpha[part], colour[part]
    size = (width, round(alpha.shape[0] * width / alpha.shape[1]))
    return reduced(colour.astype(np.float32) * gray_to_rgb(alpha), alpha, size)


def _smooth(points: tuple[tuple[float, float], ...], waves: int) -> npt.NDArray[np.float64]:
    """A closed outline near points: the ellipse that fits best, its radius bent by a few waves. float [720, 2]"""
    at = np.asarray(points, np.float32)
    (x, y), (a, b), turn = cv2.fitEllipseDirect(at)
    angle = math.radians(turn)
    spun = (at - (x, y)) @ np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    spun /= (a / 2, b / 2)
    around = np.arctan2(spun[:, 1], spun[:, 0])
    bent, *_ = np.linalg.lstsq(_waves(around, waves), np.hypot(spun[:, 0], spun[:, 1]), rcond=None)
    turns = np.linspace(0, 2 * math.pi, 720, endpoint=False)
    radius = _waves(turns, waves) @ bent
    local = np.stack([radius * np.cos(turns) * a / 2, radius * np.sin(turns) * b / 2], axis=1)
    back: npt.NDArray[np.float64] = local @ np.array(
        [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]
    ) + (x, y)
    return back


def _waves(angles: npt.NDArray[Any], count: int) -> npt.NDArray[np.float64]:
    columns = [np.ones_like(angles)]
    for k in range(1, count + 1):
        columns += [np.cos(k * angles), np.sin(k * angles)]
    return np.stack(columns, axis=1).astype(np.float64)


def _outward(rgb: npt.NDArray[Any], inside: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """The picture with the colours of the nearest inner pixels outside, so that edges carry no other colour."""
    _, labels = cv2.distanceTransformWithLabels(
        (~inside).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    table = np.zeros((int(labels.max()) + 1, 3), rgb.dtype)
    table[labels[inside]] = rgb[inside]
    return np.where(inside[..., None], rgb, table[labels])
