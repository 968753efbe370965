"""Picture, masks, alternate views and pair relations of a planned scene. S: side of the picture."""

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
from pics_cli.core.runtime.rng import generator
from pics_cli.core.scenes.drawn.background import apply_shadows, render_background
from pics_cli.core.scenes.drawn.camera import Array, rotate_z
from pics_cli.core.scenes.drawn.colors import gray_to_rgb, tone_map
from pics_cli.core.scenes.drawn.layers import Layer, draw_object, object_texture
from pics_cli.core.scenes.drawn.silhouettes import longest_side, projected_box
from pics_cli.core.scenes.drawn.spec import Light, PairRelation, ScenePlan

# Coverage above which a pixel belongs to an object.
_COVERED = 0.5
# A pair that was not placed on purpose counts as occluding where this much of the hidden object is behind the other.
_MIN_OCCLUSION = 0.05
# As touching where the masks are no more than so many pixels apart.
_TOUCHING_GAP = 2
# Alternate views are drawn at the resolution that the object has in the picture, so that it is not the blurrier one;
# but no coarser than this, nor finer than is seen of it at `PATCH_SIZE`, where no more detail is asked for.
_MIN_ALTERNATE_SIDE, _MAX_ALTERNATE_SIDE = 88, 144
# Part of an alternate view's side that the object takes.
_ALTERNATE_SCALE = (0.72, 0.88)
_TRANSPARENT_WHITE = np.full((PATCH_SIZE, PATCH_SIZE, 4), (255, 255, 255, 0), np.uint8)
_MAX_GRAIN_SHIFT = 64


@dataclass(frozen=True)
class RenderedScene:
    """A drawn scene of K objects.

    Attributes:
        image: uint8 [S, S, 3].
        clean: the same scene without the objects and their shadows.
        masks: the visible part of each object, bool [S, S].
        full_masks: amodal masks, with the parts that other objects hide, inside the frame.
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
    pairs: tuple[PairRelation, ...]


def render_scene(plan: ScenePlan, order: Sequence[int] | None = None) -> RenderedScene:
    """Draw a plan. The same plan gives the same bytes.

    Args:
        plan: from `plan_scene`.
        order: front to back; where the full masks of several objects overlap, the first of them is shown, also against
            the true order. None: the true order, with a container's content between its walls.

    Raises:
        ValueError: `order` does not name every object once.
    """
    size, objects = plan.settings.size, plan.objects
    if order is not None and sorted(order) != list(range(len(objects))):
        raise ValueError(f"order is {tuple(order)}, expected each of 0 to {len(objects) - 1} once")
    textures = [object_texture(obj, plan.pool, longest_side(projected_box(obj, plan.camera))) for obj in objects]
    layers = []
    for k, obj in enumerate(objects):
        others = objects[:k] + objects[k + 1 :]
        layers.append(draw_object(obj, others, plan.camera, plan.light, textures[k], size, size))
    containers = plan.containers() if order is None else {}
    front_to_back = tuple(plan.order if order is None else order)
    weights = _layer_weights(layers, containers, size)

    background = render_background(plan)
    scene = apply_shadows(plan, background)
    for k in reversed(front_to_back):
        window = scene[layers[k].window]
        # Colours are premultiplied by alpha; what is in front of this object takes its part afterwards.
        visibility = weights[k] / np.maximum(layers[k].alpha, np.float32(1e-6))
        window *= gray_to_rgb(1 - weights[k])
        window += layers[k].rgb * gray_to_rgb(visibility)
    grain = _film_grain(plan)
    masks, full_masks = _masks(layers, weights, front_to_back, size)
    return RenderedScene(
        tone_map(scene, grain),
        tone_map(background, grain),
        masks,
        full_masks,
        tuple(_alternate_view(plan, k, textures[k]) for k in range(len(objects))),
        front_to_back,
        tuple(
            pair_relation(plan.placed_pairs, pair, full_masks, front_to_back)
            for pair in combinations(range(len(objects)), 2)
        ),
    )


def _layer_weights(layers: list[Layer], containers: dict[int, int], size: int) -> list[Array]:
    """Opacity with which each layer is painted over what is behind it, [h, w] each.

    That is its alpha, except for the part of a container that lies behind its content.
    """
    weights = [layer.alpha for layer in layers]
    for content, container in containers.items():
        outer, inner = layers[container], layers[content]
        inner_depth = np.full((size, size), np.inf, np.float32)
        inner_alpha = np.zeros((size, size), np.float32)
        inner_depth[inner.window], inner_alpha[inner.window] = inner.depth, inner.alpha
        behind = outer.depth > inner_depth[outer.window]
        alpha = inner_alpha[outer.window]
        weights[container] = weights[container] * np.where(behind, 1 - alpha, np.float32(1))
        # The container is painted after its content: on the content's edges it takes only what the content leaves, so
        # the content is painted opaque there.
        opaque = np.zeros((size, size), np.bool_)
        opaque[outer.window] = behind & (outer.alpha > _COVERED) & (alpha > 0)
        weights[content] = np.where(opaque[inner.window], np.float32(1), weights[content])
    return weights


def _masks(
    layers: list[Layer], weights: list[Array], order: tuple[int, ...], size: int
) -> tuple[tuple[Mask, ...], tuple[Mask, ...]]:
    """Visible and full masks: a pixel is of the object whose colour has more than half of it."""
    visible, full = ([np.zeros((size, size), np.bool_) for _ in layers] for _ in range(2))
    free = np.ones((size, size), np.bool_)
    for k in order:
        window, covered = layers[k].window, layers[k].alpha > _COVERED
        full[k][window] = covered
        visible[k][window] = covered & (weights[k] >= _COVERED) & free[window]
        free &= ~visible[k]
    return tuple(visible), tuple(full)


def pair_relation(
    placed_pairs: Sequence[PairRelation],
    pair: tuple[int, int],
    full_masks: tuple[Mask, ...],
    order: tuple[int, ...],
) -> PairRelation:
    """The relation of a pair: the one it was placed in, else one derived from the masks."""
    for placed in placed_pairs:
        if placed.objects == pair:
            return placed
    front, back = sorted(pair, key=order.index)
    shared, *areas = (
        np.count_nonzero(m) for m in (full_masks[front] & full_masks[back], *(full_masks[k] for k in pair))
    )
    if shared and shared >= _MIN_OCCLUSION * min(areas):
        return PairRelation(pair, "occluding", front)
    kernel = np.ones((2 * _TOUCHING_GAP + 1,) * 2, np.uint8)
    near = cv2.dilate(full_masks[back].view(np.uint8), kernel) > 0
    return PairRelation(pair, "touching" if np.any(full_masks[front] & near) else "apart", pair[0])


@lru_cache(maxsize=4)
def _film(size: int) -> Array:
    """Grain for a picture and for shifting it, the same in all channels: float32 [S + 64, S + 64, 3]."""
    side = size + _MAX_GRAIN_SHIFT
    grain = generator(0, "synth", "film").standard_normal((side, side)).astype(np.float32)
    return gray_to_rgb(cv2.GaussianBlur(grain, (0, 0), 0.7).astype(np.float32, copy=False))


def _film_grain(plan: ScenePlan) -> Array:
    """Camera noise, the same for both pictures: float32 [S, S, 3] around 0, in 8-bit steps."""
    rng = generator(plan.seed, "synth", "grain", plan.pool, plan.index)
    y, x = rng.integers(_MAX_GRAIN_SHIFT, size=2).tolist()
    size = plan.settings.size
    grain: Array = _film(size)[y : y + size, x : x + size] * np.float32(rng.uniform(0.8, 3.0))
    return grain


def _alternate_view(plan: ScenePlan, index: int, main_texture: RGB) -> npt.NDArray[np.uint8]:
    """The other view of an object: uint8 RGBA [224, 224, 4], white where alpha is 0.

    The camera keeps its axes and moves about the object, so that with `turn` 0 and `light` 0 this is the object of the
    picture, unhidden and without other objects' shadows.
    """
    settings, obj = plan.settings, plan.objects[index]
    rng = generator(plan.seed, "synth", "alternate", plan.pool, plan.index, index)
    turn = math.radians(settings.turn) * rng.uniform(0.4, 1) * rng.choice((-1, 1))
    rise = math.radians(settings.turn) * 0.3 * rng.uniform(-0.6, 1)
    distance = 1 - 0.25 * settings.turn / 90 * rng.uniform(-1, 1)
    scale = rng.uniform(*_ALTERNATE_SCALE)
    turned = replace(obj, yaw=obj.yaw + turn)
    camera = plan.camera.raised(obj.centre, max(rise, 0.06 - plan.camera.pitch))  # never from below the ground
    ex, ey, ez = (c + (e - c) * distance for c, e in zip(obj.centre, camera.eye, strict=True))
    camera = replace(camera, eye=(ex, ey, ez))
    light = _alternate_light(plan.light, settings.light, rng)

    pixels = settings.detail * longest_side(projected_box(obj, plan.camera)) / scale
    side = int(np.clip(pixels, _MIN_ALTERNATE_SIDE, min(_MAX_ALTERNATE_SIDE * settings.detail, PATCH_SIZE)))
    box = projected_box(turned, camera)
    camera = camera.framed(box, scale * side / longest_side(box), side, side)
    layer = draw_object(turned, (), camera, light, main_texture, side, side)
    # Over white while it is resized, so that no dark seam comes in; then only edges need their own colour back.
    straight = tone_map(layer.rgb / gray_to_rgb(np.maximum(layer.alpha, np.float32(1e-3))))
    over_white = 255.5 + (straight - np.float32(255)) * gray_to_rgb(layer.alpha)
    rgba = np.full((side, side, 4), (255, 255, 255, 0), np.uint8)
    rgba[layer.window] = np.dstack([over_white, layer.alpha * 255 + 0.5])
    rgba = cv2.resize(rgba, (PATCH_SIZE, PATCH_SIZE), interpolation=cv2.INTER_CUBIC).astype(np.uint8, copy=False)
    pixels_4 = rgba.reshape(-1, 4)
    alpha = pixels_4[:, 3].copy()
    edge = np.flatnonzero((alpha > 0) & (alpha < 255))
    color = 255.5 + (pixels_4[edge, :3] - np.float32(255)) * (255 / alpha[edge, None].astype(np.float32))
    pixels_4[edge, :3] = np.clip(color, 0, 255)
    cv2.copyTo(_TRANSPARENT_WHITE, (alpha == 0).view(np.uint8).reshape(rgba.shape[:2]), rgba)
    return rgba


def _alternate_light(light: Light, change: float, rng: np.random.Generator) -> Light:
    """The scene's light, turned by up to a half circle and tinted, both in proportion to `change`."""
    angle = change * rng.uniform(0.3, 1) * math.pi * rng.choice((-1, 1)) * 0.8
    x, y, z = rotate_z(light.direction, angle)
    z = min(max(z + change * rng.uniform(-0.25, 0.25), 0.35), 0.95)
    horizontal = math.sqrt(max(1 - z * z, 0) / max(x * x + y * y, 1e-9))
    warmth = change * rng.uniform(-0.14, 0.14)
    level = 1 + change * rng.uniform(-0.15, 0.15)
    red, green, blue = light.key
    key = (red * (level * (1 + warmth)), green * level, blue * (level * (1 - warmth)))
    return replace(light, direction=(x * horizontal, y * horizontal, z), key=key)
