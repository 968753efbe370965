"""Shadow maps: where pasted objects darken what they stand on, by the geometry of their outlines alone.

An object is an upright stack of elliptic discs, as wide as each row of its outline and standing on its lower edge. The
lamp casts every disc along the ground, seen by a camera that looks down. What such maps get wrong (shape behind the
outline, ground that is not level), the network corrects by the strength that it gives them. For the idea of a coarse
projected shadow that a network refines see e.g. SGRNet (Hong et al., AAAI 2022).

K: objects, J: maps of an object (`SHADOW_MAPS`), H, W: sides of the raster.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from pics_cli.core.images.cutouts import OPAQUE_ALPHA
from pics_cli.core.images.geometry import Letterbox
from pics_cli.core.images.lighting import Lighting
from pics_cli.core.model.config import SHADOW_MAPS

Floats = npt.NDArray[np.float32]

# The camera's angle where nothing is known of the light, in degrees.
DEFAULT_PITCH = 25.0
# Half depth of a disc over half its width, and the most of it, over the object's height.
_DEPTH, _MAX_DEPTH = 0.7, 0.5
# Longest cast shadow, over the object's height: lower lamps cast no longer ones.
_MAX_REACH = 2.5
# Rows of an outline that are cast, and groups of rows that are softened alike.
_ROWS, _BANDS = 48, 6
# Contact: falls off over this share of the object's height above its lower edge; its softness, over the object's size.
_CONTACT_HEIGHT, _CONTACT_SOFTNESS = 0.05, 0.025
# The sky's light that the body takes from the ground around it: likewise.
_AMBIENT_HEIGHT, _AMBIENT_SOFTNESS = 0.5, 0.1
_SUBPIXELS = 4  # binary digits of cv2's fixed-point coordinates


class PlacedAlpha(NamedTuple):
    """An object's opacity where it is pasted.

    Attributes:
        left, top: of its first pixel on the raster; may be negative.
        alpha: uint8 [h, w].
    """

    left: float
    top: float
    alpha: npt.NDArray[np.uint8]

    def scaled(self, letterbox: Letterbox) -> PlacedAlpha:
        """The same on the raster of a letterbox of its picture."""
        scale = letterbox.size / letterbox.side
        width, height = (max(round(side * scale), 1) for side in self.alpha.shape[::-1])
        interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        alpha = cv2.resize(self.alpha, (width, height), interpolation=interpolation).astype(np.uint8, copy=False)
        return PlacedAlpha((self.left + letterbox.left) * scale, (self.top + letterbox.top) * scale, alpha)


class _Disc(NamedTuple):
    """One run of opaque pixels of an outline's row: a disc at `rise` above the ground, all in pixels."""

    middle: float
    radius: float
    rise: float


def draw_shadow_maps(placed: PlacedAlpha, lighting: Lighting | None, height: int, width: int) -> Floats:
    """The shadow maps of one object, float32 [J, H, W] in 0..1, also where the object itself will be.

    `cast`: the lamp's shadow, soft with distance, times the lamp's strength; 0 where there is no lamp. `ambient`: what
    the body takes from the light of the sky. `contact`: the narrow dark line where it touches the ground.

    Args:
        placed: the object on the raster.
        lighting: the lamp and the camera's angle; None: nothing is known.
        height, width: H, W.
    """
    maps = np.zeros((len(SHADOW_MAPS), height, width), np.float32)
    pitch = math.radians(min(max(DEFAULT_PITCH if lighting is None else lighting.pitch, 8), 80))
    discs, base, depth_limit = _discs(placed, pitch)
    if not discs:
        return maps
    cast, ambient, contact = maps
    object_height = max(placed.alpha.shape[0], 1)
    size = math.hypot(*placed.alpha.shape) / math.sqrt(2)
    if lighting is not None and lighting.strength > 0 and lighting.elevation > 0:
        elevation, azimuth = math.radians(lighting.elevation), math.radians(lighting.azimuth)
        reach = min(1 / math.tan(elevation), _MAX_REACH)
        direction = -reach * math.sin(azimuth), -reach * math.cos(azimuth) * math.sin(pitch)
        penumbra = 0.6 * math.tan(math.radians(min(lighting.radius, 60))) * math.hypot(1, reach)
        _cast(cast, discs, base, direction, penumbra, pitch, depth_limit)
        cast *= lighting.strength
    for canvas, share, softness in (
        (ambient, _AMBIENT_HEIGHT, _AMBIENT_SOFTNESS),
        (contact, _CONTACT_HEIGHT, _CONTACT_SOFTNESS),
    ):
        for disc in discs:  # from the top: lower discs, which are darker, are drawn over higher ones
            weight = math.exp(-disc.rise / (share * object_height))
            if weight > 0.02:
                _draw(canvas, disc, disc.middle, base, pitch, depth_limit, weight, growth=1 + 2 * softness)
        sigma = max(softness * size, 0.5)
        canvas[:] = cv2.GaussianBlur(canvas, (0, 0), sigma, sigmaY=max(sigma * math.sin(pitch), 0.5))
    return np.clip(maps, 0, 1, out=maps)


def layer_shadows(maps: Floats, alphas: Floats, order: Sequence[int]) -> Floats:
    """The shadows of all objects as they are seen: on the ground and on objects behind, not on those in front.

    Args:
        maps: float32 [K, J, H, W], see `draw_shadow_maps`.
        alphas: float32 [K, H, W] in 0..1, each object where it is pasted.
        order: object numbers, back to front.

    Returns:
        float32 [J, H, W] in 0..1.
    """
    seen = np.zeros(maps.shape[1:], np.float32)
    for k in order:
        np.maximum(seen, maps[k], out=seen)
        seen *= 1 - alphas[k]
    return seen


def shadows_of_orders(
    placed: Sequence[PlacedAlpha],
    lighting: Lighting | None,
    orders: Sequence[Sequence[int]],
    height: int,
    width: int,
) -> Floats:
    """`layer_shadows` of K placed objects in several orders: float32 [orders, J, H, W]."""
    maps = np.stack([draw_shadow_maps(alpha, lighting, height, width) for alpha in placed])
    alphas = np.zeros((len(placed), height, width), np.float32)
    for canvas, (left, top, alpha) in zip(alphas, placed, strict=True):
        paint_alpha(canvas, round(left), round(top), alpha)
    return np.stack([layer_shadows(maps, alphas, order) for order in orders])


def paint_alpha(canvas: Floats, left: int, top: int, alpha: npt.NDArray[np.uint8]) -> None:
    """Opacity in 0..1 onto a raster that may end before it does, in place."""
    height, width = canvas.shape
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + alpha.shape[1], width), min(top + alpha.shape[0], height)
    if x1 > x0 and y1 > y0:
        canvas[y0:y1, x0:x1] = alpha[y0 - top : y1 - top, x0 - left : x1 - left] / np.float32(255)


def _discs(placed: PlacedAlpha, pitch: float) -> tuple[list[_Disc], float, float]:
    """Discs from the top down, the y of the ground under their middles, and their largest half depth, in pixels."""
    opaque = placed.alpha >= OPAQUE_ALPHA
    rows = np.flatnonzero(opaque.any(1))
    if not len(rows):
        return [], 0.0, 0.0
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    depth_limit = _MAX_DEPTH * (bottom - top)
    lowest = np.asarray(opaque[bottom - max((bottom - top) // 12, 1) : bottom].any(axis=0))
    base_radius = max((stop - start) / 2 for start, stop in _runs(lowest))
    base = bottom - min(_DEPTH * base_radius, depth_limit) * math.sin(pitch)
    discs = []
    for y in np.unique(np.linspace(top, bottom - 1, min(_ROWS, bottom - top)).astype(int)).tolist():
        rise = max(base - y, 0) / math.cos(pitch)
        for start, stop in _runs(opaque[y]):
            discs.append(_Disc(placed.left + (start + stop) / 2, (stop - start) / 2, rise))
    return discs, placed.top + base, depth_limit


def _runs(row: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Half-open runs of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], row, [False]]).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _cast(
    canvas: Floats,
    discs: Sequence[_Disc],
    base: float,
    direction: tuple[float, float],
    penumbra: float,
    pitch: float,
    depth_limit: float,
) -> None:
    """The shadows of all discs, in place; the higher a disc, the more often it is softened."""
    highest = max(disc.rise for disc in discs)
    edges = np.linspace(highest, 0, _BANDS + 1)
    for high, low in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        for disc in discs:
            if low <= disc.rise <= high:
                x, y = disc.middle + disc.rise * direction[0], base + disc.rise * direction[1]
                _draw(canvas, disc, x, y, pitch, depth_limit, 1.0)
        sigma = penumbra * math.sqrt(max(high**2 - low**2, 0))
        if sigma > 0.3:
            canvas[:] = cv2.GaussianBlur(canvas, (0, 0), sigma, sigmaY=max(sigma * math.sin(pitch), 0.3))


def _draw(
    canvas: Floats, disc: _Disc, x: float, y: float, pitch: float, depth_limit: float, value: float, growth: float = 1.0
) -> None:
    """A disc lying on the ground around a point, as the camera sees it."""
    depth = min(_DEPTH * disc.radius, depth_limit) * math.sin(pitch)
    scale = 1 << _SUBPIXELS
    center = round((x - 0.5) * scale), round((y - 0.5) * scale)
    axes = round(max(disc.radius * growth, 0.5) * scale), round(max(depth * growth, 0.75) * scale)
    if max(map(abs, (*center, *axes))) < 1 << 20:  # beyond, it is far outside of any raster
        cv2.ellipse(canvas, center, axes, 0, 0, 360, value, cv2.FILLED, cv2.LINE_8, _SUBPIXELS)
