"""Shadow maps of a part of a window at its own resolution, made block by block as the layers are blended.

K: objects, J: shadow maps, R: raster on which they are drawn, h, w: sides of the part or of a block of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pics_cli.core.conditioning.placement import region_fade
from pics_cli.core.conditioning.shadows import PlacedAlpha, draw_shadow_maps, layer_shadows, paint_alpha
from pics_cli.core.images.cutouts import Fit, cut_out, fit_object, is_blank
from pics_cli.core.images.geometry import Box, Letterbox, order_by_lower_edge
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
    references: Sequence[Bytes],
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
        references: their pictures.
        content: the window, which the picture may end with.
        size: width and height of the part.
        order: back to front, where it is known.
        fit: how objects fit the boxes they are pasted into.
        lighting: by which shadows are cast.
        room: see `region_fade`.
    """
    width, height = size
    letterbox = Letterbox(width, height, min(max(width, height), _RASTER))
    scale = letterbox.size / letterbox.side
    placed, maps = list[PlacedAlpha](), list[Floats]()
    for box, region, reference in zip(paste_boxes, boxes, references, strict=True):
        if is_blank(reference):
            placed.append(PlacedAlpha(0, 0, np.zeros((1, 1), np.uint8)))
        else:
            left, top, rgba = fit_object(box, cut_out(reference), fit, region)
            placed.append(PlacedAlpha(left, top, np.ascontiguousarray(rgba[..., 3])))
        maps.append(draw_shadow_maps(placed[-1].scaled(letterbox, scale), lighting, letterbox.size, letterbox.size))
    back_to_front = order_by_lower_edge(boxes) if order is None else list(order)
    return PartShadows(
        letterbox,
        np.stack(maps),
        placed,
        (back_to_front, back_to_front[::-1] if order is None else back_to_front),
        region_fade(boxes, content, height, width, room),
        region_fade(wider, content, height, width, room),
    )
