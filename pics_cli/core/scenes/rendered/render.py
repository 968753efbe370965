"""Picture, clean plate, masks, other views and pair relations of a planned scene. S: side of the picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import cv2
import numpy as np
import numpy.typing as npt

from pics_cli.core.images.cutouts import PATCH_SIZE
from pics_cli.core.images.image_io import RGB
from pics_cli.core.images.lighting import from_linear
from pics_cli.core.images.masks import Mask
from pics_cli.core.runtime.rng import generator
from pics_cli.core.scenes.drawn.camera import Camera
from pics_cli.core.scenes.drawn.render import RenderedScene, pair_relation
from pics_cli.core.scenes.drawn.silhouettes import longest_side
from pics_cli.core.scenes.rendered.lights import SceneLight
from pics_cli.core.scenes.rendered.mitsuba_scene import (
    Guides,
    Shapes,
    model_shapes,
    render_coverage,
    render_guides,
    render_linear,
    surface_shapes,
)
from pics_cli.core.scenes.rendered.models import load_model
from pics_cli.core.scenes.rendered.placement import outline_box
from pics_cli.core.scenes.rendered.spec import RenderedPlan

# Part of an alternate view's side that the object takes.
_ALTERNATE_SCALE = (0.72, 0.88)
_SHOULDER = 0.6

Array = npt.NDArray[np.float32]


def render_scene(plan: RenderedPlan) -> RenderedScene:
    """Render a plan. The same plan gives the same bytes."""
    size, camera = plan.settings.size, plan.camera
    seeds = generator(plan.seed, "rendered", "paths", plan.pool, plan.index).integers(1 << 31, size=3).tolist()
    objects = [model_shapes(placed, f"object{k}") for k, placed in enumerate(plan.objects)]
    background = surface_shapes(plan.ground, plan.wall, plan.wall_distance)
    for k, placed in enumerate(plan.bystanders):
        background |= model_shapes(placed, f"bystander{k}")
    everything: Shapes = dict(background)
    for shapes in objects:
        everything |= shapes

    full_masks = tuple(render_coverage(shapes, camera, size, seeds[2]) >= 0.5 for shapes in objects)
    masks = _visible(full_masks, everything, camera, seeds[1])
    guides = render_guides(everything, camera, size, seeds[1])
    full, _ = render_linear(everything, plan.lighting, camera, guides, plan.samples, seeds[0])
    behind = _guides_behind(guides, masks, background, camera, seeds[1])
    clean, _ = render_linear(background, plan.lighting, camera, behind, plan.samples, seeds[0])
    grain = _film_grain(plan)
    pairs = combinations(range(len(objects)), 2)
    return RenderedScene(
        tone_map(full, plan.lighting, grain),
        tone_map(clean, plan.lighting, grain),
        masks,
        full_masks,
        tuple(_alternate_view(plan, k) for k in range(len(objects))),
        plan.order,
        tuple(pair_relation(plan.placed_pairs, pair, full_masks, plan.order) for pair in pairs),
    )


def _visible(full_masks: Sequence[Mask], everything: Shapes, camera: Camera, seed: int) -> tuple[Mask, ...]:
    """Visible parts of the full masks: all of them, except in a window around those pixels that several claim."""
    masks = [mask.copy() for mask in full_masks]
    contested = np.sum(full_masks, axis=0) > 1
    if contested.any():
        x, y, width, height = cv2.boundingRect(contested.view(np.uint8))
        px, py = camera.principal_point
        window = replace(camera, principal_point=(px - x, py - y))
        guides = render_guides(everything, window, max(width, height), seed, samples=3)
        place = np.s_[y : y + height, x : x + width]
        shares = np.stack(guides.shares([f"object{k}" for k in range(len(masks))]))[:, :height, :width]
        winner = np.argmax(np.where(np.stack([mask[place] for mask in full_masks]), shares, -1), axis=0)
        for k, mask in enumerate(masks):
            mask[place] &= ~contested[place] | (winner == k)
    return tuple(masks)


def _guides_behind(guides: Guides, masks: Sequence[Mask], background: Shapes, camera: Camera, seed: int) -> Guides:
    """Guides of the clean plate: rendered in a window around the objects, which alone differs."""
    covered = np.any(masks, axis=0).astype(np.uint8)
    x, y, width, height = cv2.boundingRect(cv2.dilate(covered, np.ones((5, 5), np.uint8)))
    side = max(width, height)
    px, py = camera.principal_point
    window = replace(camera, principal_point=(px - x, py - y))
    part = render_guides(background, window, side, seed)
    albedo, normal = guides.albedo.copy(), guides.normal.copy()
    place, inside = np.s_[y : y + height, x : x + width], np.s_[:height, :width]
    albedo[place], normal[place] = part.albedo[inside], part.normal[inside]
    return replace(guides, albedo=albedo, normal=normal)


def tone_map(radiance: Array, lighting: SceneLight, grain: Array | None = None) -> RGB:
    """A photograph of linear light: exposure, a soft shoulder below white, contrast about the middle, grain.

    Args:
        radiance: float32 [H, W, 3].
        lighting: gives exposure and contrast.
        grain: float32 [H, W, 1] in 8-bit steps.
    """
    x = radiance * np.float32(lighting.exposure)
    over = np.maximum(x - _SHOULDER, 0) / np.float32(1 - _SHOULDER)
    x = np.minimum(x, _SHOULDER) + np.float32(1 - _SHOULDER) * (over / (1 + over))
    y = from_linear(x)
    curved = y * y * (3 - 2 * y)
    y = y + np.float32(0.6 * lighting.contrast) * (curved - y)
    levels = y * 255 + (0 if grain is None else grain)
    picture: RGB = np.clip(levels + 0.5, 0, 255).astype(np.uint8)
    return picture


def _film_grain(plan: RenderedPlan) -> Array:
    """Camera noise, the same for both pictures: float32 [S, S, 1] around 0, in 8-bit steps."""
    rng = generator(plan.seed, "rendered", "grain", plan.pool, plan.index)
    noise = rng.standard_normal((plan.settings.size, plan.settings.size)).astype(np.float32)
    grain: Array = cv2.GaussianBlur(noise, (0, 0), 0.6).astype(np.float32)[..., None] * np.float32(rng.uniform(0.5, 3))
    return grain


def _alternate_view(plan: RenderedPlan, k: int) -> npt.NDArray[np.uint8]:
    """The other view of an object: uint8 RGBA [224, 224, 4], not multiplied by alpha, white where alpha is 0."""
    settings, placed, lighting = plan.settings, plan.objects[k], plan.other_lighting[k]
    rng = generator(plan.seed, "rendered", "alternate", plan.pool, plan.index, k)
    turn = math.radians(settings.turn) * rng.uniform(0.2, 1) * rng.choice((-1, 1))
    rise = math.radians(settings.turn) * 0.3 * rng.uniform(-1, 1)
    scale = float(rng.uniform(*_ALTERNATE_SCALE))
    turned = replace(placed, yaw=placed.yaw + turn)
    camera = plan.camera.raised(placed.centre, max(rise, 0.03 - plan.camera.pitch))
    box = outline_box(turned.to_world(load_model(placed.entry).points), camera)
    camera = camera.framed(box, scale * PATCH_SIZE / longest_side(box), PATCH_SIZE, PATCH_SIZE)
    shapes, seed = model_shapes(turned, "object0"), int(rng.integers(1 << 31))
    guides = render_guides(shapes, camera, PATCH_SIZE, seed)
    radiance, alpha = render_linear(shapes, lighting, camera, guides, plan.samples, seed, hide_sky=True)
    straight = radiance / np.maximum(alpha, np.float32(0.02))[..., None]
    picture = tone_map(straight, lighting)
    # On the edge the colour is that of the nearest pixel that is wholly covered: the denoiser mixes it with black.
    solid = (alpha > 0.9).astype(np.uint8)
    if solid.any():
        _, labels = cv2.distanceTransformWithLabels(1 - solid, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
        inside = solid > 0
        nearest = np.zeros((int(labels.max()) + 1, 3), np.uint8)
        nearest[labels[inside]] = picture[inside]
        picture = np.where(inside[..., None], picture, nearest[labels])
    quantized = (alpha * 255 + 0.5).astype(np.uint8)
    picture = np.where(quantized[..., None] > 0, picture, np.uint8(255))
    return np.dstack([picture, quantized])
