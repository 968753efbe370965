"""Shadow maps of a part of a window at its own resolution, made block by block as the layers are blended.

K: objects, J: shadow maps, R: raster on which they are drawn, h, w: sides of the part or of a block of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pics_cli.core.conditioning.placement import region_fade
from pics_cli.core.conditioning.shadow_inputs import paste_orders, place_alphas
from pics_cli.core.conditioning.shadows import PlacedAlpha, draw_shadow_maps, layer_shadows, paint_alpha
from pics_cli.core.images.cutouts import Fit
from pics_cli.core.images.geometry import Box, Letterbox
from pics_cli.core.images.lighting import Lighting

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

# Shadows are soft: drawn on a raster of at most this side, and enlarged; only what hides them is as sharp as the part.
_RASTER = 512


class PartShadows(NamedTuple):
    """Shadows of a part and where they may be.

    Attributes:
        letterbox: from the part to the raster.
        maps: float32 [K, J, R, R], see `draw_shadow_maps`.
        placed: the K objects in the part's pixels.
        orders: back to front, of the first two layers of the control image.
        fade: float32 [h, w]: factor on what else the network changes; see `region_fade`.
        shadow_fade: float32 [h, w]: factor on the shadows; differs where regions are wider for them.
    """

    letterbox: Letterbox
    maps: Floats
    placed: Sequence[PlacedAlpha]
    orders: tuple[Sequence[int], Sequence[int]]
    fade: Floats
    shadow_fade: Floats

    def blended(self, block: Box, weights: Floats) -> Floats:
        """The shadow maps of a block of the part, as `blend_shadows` blends them: float32 [J, h, w].

        Args:
            block: in the part's pixels.
            weights: float32 [3, h, w], blend weights of the layers there.
        """
        x0, y0, x1, y1 = block
        count, kinds = self.maps.shape[:2]
        maps = np.stack(
            [[self.letterbox.inverse_map(self.maps[k, j], block) for j in range(kinds)] for k in range(count)]
        )
        alphas = np.zeros((count, y1 - y0, x1 - x0), np.float32)
        for canvas, (left, top, alpha) in zip(alphas, self.placed, strict=True):
            paint_alpha(canvas, round(left) - x0, round(top) - y0, alpha)
        first, second = (layer_shadows(maps, alphas, order) for order in self.orders)
        seen = first * weights[0] + second * weights[1] + np.maximum(first, second) * weights[2]
        blended: Floats = seen * self.shadow_fade[y0:y1, x0:x1]
        return blended


def part_shadows(
    boxes: Sequence[Box],
    wider: Sequence[Box],
    paste_boxes: Sequence[Box],
    cutouts: Sequence[Bytes | None],
    content: Box,
    *,
    size: tuple[int, int],
    order: Sequence[int] | None,
    fit: Fit,
    lighting: Lighting | None,
    room: float,
) -> PartShadows:
    """The shadows of a part of a window.

    Args:
        boxes: regions, in the part's pixels, as the following.
        wider: the same, as wide as they are for shadows.
        paste_boxes: where the objects are pasted.
        cutouts: their pictures, uint8 [_, _, 4]; None where nothing is pasted.
        content: the window, which the picture may end with.
        size: width and height of the part.
        order: back to front, where it is known.
        fit: how objects fit the boxes they are pasted into.
        lighting: by which shadows are cast.
        room: see `region_fade`.
    """
    width, height = size
    letterbox = Letterbox(width, height, min(max(width, height), _RASTER))
    placed = place_alphas(paste_boxes, cutouts, fit, boxes)
    raster = letterbox.size
    maps = [draw_shadow_maps(alpha.scaled(letterbox), lighting, raster, raster) for alpha in placed]
    return PartShadows(
        letterbox,
        np.stack(maps),
        placed,
        paste_orders(boxes, order),
        region_fade(boxes, content, height, width, room),
        region_fade(wider, content, height, width, room),
    )
