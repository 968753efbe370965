"""An object alone, seen and lit differently: a reference that is not cut out of the picture."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt

from pics_cli.core.data.patches import PATCH_SIZE
from pics_cli.core.data.pictures import RGB
from pics_cli.core.data.synth.camera import Camera, Point
from pics_cli.core.data.synth.layers import draw, extent
from pics_cli.core.data.synth.spec import Light, ScenePlan
from pics_cli.core.data.synth.tone import develop, spread
from pics_cli.core.rng import generator

# Drawn at the resolution that the object has in the picture, so that it is not the blurrier one; no coarser than this.
_LEAST = 88
# Nor finer than this, which is large enough for what is seen of it at 224, where no more detail is asked for.
_MOST = 144
_FILL = (0.72, 0.88)
_NOTHING = np.full((PATCH_SIZE, PATCH_SIZE, 4), (255, 255, 255, 0), np.uint8)


def alternate(plan: ScenePlan, index: int, tissue: RGB) -> npt.NDArray[np.uint8]:
    """The other view of an object: uint8 RGBA [224, 224, 4], white where alpha is 0.

    The camera keeps its axes and swings about the object, so that with `turn` 0 and `light` 0 this is the object of the
    picture, unhidden and without other objects' shadows.
    """
    style, thing = plan.style, plan.things[index]
    rng = generator(plan.seed, "synth", "alternate", plan.pool, plan.index, index)
    turn = math.radians(style.turn) * rng.uniform(0.4, 1) * rng.choice((-1, 1))
    rise = math.radians(style.turn) * 0.3 * rng.uniform(-0.6, 1)
    nearer = 1 - 0.25 * style.turn / 90 * rng.uniform(-1, 1)
    fill = rng.uniform(*_FILL)
    seen = replace(thing, yaw=thing.yaw + turn)
    middle: Point = (thing.position[0], thing.position[1], thing.position[2] + 0.5 * thing.shape.height * thing.scale)
    low = 0.06 - plan.camera.pitch  # never from below the ground
    camera = plan.camera.swung(middle, max(rise, low))
    eye = tuple(m + (e - m) * nearer for m, e in zip(middle, camera.eye, strict=True))
    camera = replace(camera, eye=(eye[0], eye[1], eye[2]))
    light = _other_light(plan.light, style.light, rng)

    x0, y0, x1, y1 = extent(thing, plan.camera)
    most = min(_MOST * style.detail, PATCH_SIZE)
    side = int(np.clip(style.detail * max(x1 - x0, y1 - y0) / fill, _LEAST, most))
    layer = draw(seen, (), _framed(extent(seen, camera), camera, side, fill), light, tissue, side, side)
    # Over white while it is resized, so that no dark seam comes in; then only edges need their own colour back.
    cover = layer.cover
    straight = develop(layer.rgb / spread(np.maximum(cover, np.float32(1e-3))))
    rgba = np.full((side, side, 4), 255, np.uint8)
    rgba[..., 3] = 0
    over_white = 255.5 + (straight - np.float32(255)) * spread(cover)
    rgba[layer.window] = np.dstack([over_white, cover * 255 + 0.5])
    rgba = cv2.resize(rgba, (PATCH_SIZE, PATCH_SIZE), interpolation=cv2.INTER_CUBIC).astype(np.uint8, copy=False)
    pixels = rgba.reshape(-1, 4)
    alpha = pixels[:, 3].copy()
    edge = np.flatnonzero((alpha > 0) & (alpha < 255))
    colour = 255.5 + (pixels[edge, :3] - np.float32(255)) * (255 / alpha[edge, None].astype(np.float32))
    pixels[edge, :3] = np.clip(colour, 0, 255)
    cv2.copyTo(_NOTHING, (alpha == 0).view(np.uint8).reshape(rgba.shape[:2]), rgba)
    return rgba


def _framed(box: tuple[float, float, float, float], camera: Camera, side: int, fill: float) -> Camera:
    """The camera with another window: the box centred, its longer side `fill` of the window's."""
    x0, y0, x1, y1 = box
    zoom = fill * side / max(x1 - x0, y1 - y0)
    shift = (side / 2 - zoom * ((x0 + x1) / 2 - camera.centre[0]), side / 2 - zoom * ((y0 + y1) / 2 - camera.centre[1]))
    return Camera(camera.eye, camera.pitch, camera.focal * zoom, shift)


def _other_light(light: Light, change: float, rng: np.random.Generator) -> Light:
    """The scene's light, turned by up to a half circle and tinted, both in proportion to `change`."""
    angle = change * rng.uniform(0.3, 1) * math.pi * rng.choice((-1, 1)) * 0.8
    c, s = math.cos(angle), math.sin(angle)
    x, y, z = light.towards
    x, y = c * x - s * y, s * x + c * y
    z = min(max(z + change * rng.uniform(-0.25, 0.25), 0.35), 0.95)
    flat = math.sqrt(max(1 - z * z, 0) / max(x * x + y * y, 1e-9))
    warm = change * rng.uniform(-0.14, 0.14)
    level = 1 + change * rng.uniform(-0.15, 0.15)
    tint = (level * (1 + warm), level, level * (1 - warm))
    key = tuple(k * f for k, f in zip(light.key, tint, strict=True))
    return replace(light, towards=(x * flat, y * flat, z), key=(key[0], key[1], key[2]))
