"""A plan drawn: the picture, the same without its objects, masks, other views of each object, who hides whom."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations

import cv2
import numpy as np
import numpy.typing as npt

from pics_cli.core.images.cutouts import PATCH_SIZE
from pics_cli.core.images.image_io import RGB
from pics_cli.core.images.masks import Mask
from pics_cli.core.recipes.dataset import SceneRelation
from pics_cli.core.runtime.rng import generator
from pics_cli.core.scenes.drawn.camera import Array, Camera, Point
from pics_cli.core.scenes.drawn.colors import develop, spread
from pics_cli.core.scenes.drawn.layers import Layer, draw, extent, paper
from pics_cli.core.scenes.drawn.spec import Light, ScenePlan
from pics_cli.core.scenes.drawn.stage import empty, shaded

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


# A pair that was not placed on purpose counts as occluding where this much of the hidden object is behind the other.
HIDES = 0.05
TOUCHING_GAP = 2
# Coverage above which a pixel belongs to an object.
COVERED = 0.5
_SHIFT = 64


@dataclass(frozen=True)
class PairTruth:
    """Two objects and how they stand to each other.

    Attributes:
        objects: their indices, i < j.
        subject: the one that occludes, supports or contains; objects[0] where they are apart or touch.
    """

    objects: tuple[int, int]
    relation: SceneRelation
    subject: int


@dataclass(frozen=True)
class RenderedScene:
    """A drawn scene of K objects; S: side of the picture.

    Attributes:
        image: uint8 [S, S, 3].
        clean: the same scene without the objects and their shadows.
        masks: the visible part of each object, bool [S, S].
        full_masks: with the parts that other objects hide, inside the frame.
        alternates: uint8 RGBA [224, 224, 4]: each object alone, seen and lit differently; colour is not multiplied by
            alpha, and white where alpha is 0.
        order: front to back.
        pairs: every pair.
    """

    image: RGB
    clean: RGB
    masks: tuple[Mask, ...]
    full_masks: tuple[Mask, ...]
    alternates: tuple[npt.NDArray[np.uint8], ...]
    order: tuple[int, ...]
    pairs: tuple[PairTruth, ...]


def render_scene(plan: ScenePlan, order: Sequence[int] | None = None) -> RenderedScene:
    """Draw a plan. The same plan gives the same bytes.

    Args:
        plan: from `plan_scene`.
        order: front to back; where the full masks of several objects meet, the first of them is shown, whatever stands
            in front in truth. Default: the true order, with a vessel's content between its walls.
    """
    size, things = plan.style.size, plan.things
    if order is not None and sorted(order) != list(range(len(things))):
        raise ValueError(f"order is {tuple(order)}, expected each of 0 to {len(things) - 1} once")
    layers = []
    tissues = []
    for k, thing in enumerate(things):
        x0, y0, x1, y1 = extent(thing, plan.camera)
        tissues.append(paper(thing, plan.pool, max(x1 - x0, y1 - y0)))
        others = [other for i, other in enumerate(things) if i != k]
        layers.append(draw(thing, others, plan.camera, plan.light, tissues[k], size, size))
    held = plan.held() if order is None else {}
    front_to_back = tuple(plan.order if order is None else order)
    weights = _weights(layers, held, size)

    empty_scene = empty(plan)
    scene = shaded(plan, empty_scene, things)
    for k in reversed(front_to_back):
        rows, columns = layers[k].window
        part = scene[rows, columns]
        # Colours already carry their coverage; what is in front of this object takes its share afterwards.
        share = weights[k] / np.maximum(layers[k].cover, np.float32(1e-6))
        part *= spread(1 - weights[k])
        part += layers[k].rgb * spread(share)
    grain = _grain(plan)
    masks, full = _masks(layers, weights, front_to_back, size)
    return RenderedScene(
        develop(scene, grain),
        develop(empty_scene, grain),
        masks,
        full,
        tuple(alternate(plan, k, tissues[k]) for k in range(len(things))),
        front_to_back,
        tuple(_pair(plan, i, j, full, front_to_back) for i, j in combinations(range(len(things)), 2)),
    )


def _weights(layers: list[Layer], held: dict[int, int], size: int) -> list[Array]:
    """With how much of its window each layer is painted over what is behind it, [h, w] each: its coverage, except for
    the part of a vessel that lies behind its content."""
    weights = [layer.cover for layer in layers]
    for content, vessel in held.items():
        outer, inner = layers[vessel], layers[content]
        depth = np.full((size, size), np.inf, np.float32)
        cover = np.zeros((size, size), np.float32)
        rows, columns = inner.window
        depth[rows, columns], cover[rows, columns] = inner.depth, inner.cover
        rows, columns = outer.window
        behind = outer.depth > depth[rows, columns]
        share = cover[rows, columns]
        weights[vessel] = weights[vessel] * np.where(behind, 1 - share, np.float32(1))
        # The vessel is painted after its content: on the content's edges it takes only what the content leaves, so the
        # content goes on whole there.
        whole = np.zeros((size, size), np.bool_)
        whole[rows, columns] = behind & (outer.cover > COVERED) & (share > 0)
        weights[content] = np.where(whole[inner.window], np.float32(1), weights[content])
    return weights


def _masks(
    layers: list[Layer], weights: list[Array], order: tuple[int, ...], size: int
) -> tuple[tuple[Mask, ...], tuple[Mask, ...]]:
    """Visible and full masks: a pixel is of the object whose colour has more than half of it."""
    full, visible = [], [np.zeros((size, size), np.bool_) for _ in layers]
    for layer in layers:
        mask = np.zeros((size, size), np.bool_)
        mask[layer.window] = layer.cover > COVERED
        full.append(mask)
    free = np.ones((size, size), np.bool_)
    for k in order:
        window = layers[k].window
        shown = (layers[k].cover > COVERED) & (weights[k] >= COVERED) & free[window]
        visible[k][window] = shown
        free[window] &= ~shown
    return tuple(visible), tuple(full)


def _pair(plan: ScenePlan, i: int, j: int, full: tuple[Mask, ...], order: tuple[int, ...]) -> PairTruth:
    for a, b, relation, subject in plan.planned:
        if (a, b) == (i, j):
            return PairTruth((i, j), relation, subject)
    front, back = (i, j) if order.index(i) < order.index(j) else (j, i)
    shared = np.count_nonzero(full[i] & full[j])
    if shared >= HIDES * min(np.count_nonzero(full[i]), np.count_nonzero(full[j])) and shared:
        return PairTruth((i, j), "occluding", front)
    grown = cv2.dilate(full[back].view(np.uint8), np.ones((2 * TOUCHING_GAP + 1,) * 2, np.uint8))
    return PairTruth((i, j), "touching" if np.any(full[front] & (grown > 0)) else "apart", i)


@lru_cache(maxsize=4)
def _film(size: int) -> Array:
    """Grain of a picture and what is needed to shift it, the same in all channels: float32 [S + 64, S + 64, 3]."""
    grain = generator(0, "synth", "film").standard_normal((size + _SHIFT, size + _SHIFT)).astype(np.float32)
    return spread(cv2.GaussianBlur(grain, (0, 0), 0.7).astype(np.float32, copy=False))


def _grain(plan: ScenePlan) -> Array:
    """A camera's noise, the same for both pictures: float32 [S, S, 3] around 0, in units of 8-bit steps."""
    rng = generator(plan.seed, "synth", "grain", plan.pool, plan.index)
    y, x = rng.integers(_SHIFT, size=2).tolist()
    size = plan.style.size
    grain: Array = _film(size)[y : y + size, x : x + size] * np.float32(rng.uniform(0.8, 3.0))
    return grain
