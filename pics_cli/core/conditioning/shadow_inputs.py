"""What a model with shadows gets besides the layers of the control image: shadow maps, and where changes fade.

K: objects, J: shadow maps, S: model size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pics_cli.core.conditioning.placement import grow_regions, region_fade
from pics_cli.core.conditioning.shadows import PlacedAlpha, shadows_of_orders
from pics_cli.core.images.cutouts import Fit, cut_out, fit_object, is_blank
from pics_cli.core.images.geometry import Box, Letterbox, order_by_lower_edge
from pics_cli.core.images.lighting import Lighting

Bytes = npt.NDArray[np.uint8]


class ShadowInputs(NamedTuple):
    """What the control image of a model with shadows needs besides the picture.

    Attributes:
        lighting: the lamp and the camera's angle; None: no lamp is known, and nothing casts a shadow.
        object_scale: sides of an object over those of its region: the rest is the room over which changes fade.
        room: by which share of their sides regions are wider for shadows than for all else.
    """

    lighting: Lighting | None
    object_scale: float
    room: float = 0.0


def place_alphas(
    paste_boxes: Sequence[Box],
    cutouts: Sequence[Bytes | None],
    fit: Fit = "contain",
    regions: Sequence[Box] | None = None,
) -> list[PlacedAlpha]:
    """The opacity of K cutouts, uint8 [_, _, 4], where `paste_object` pastes them; a clear pixel for None."""
    placed = []
    for box, cutout, region in zip(paste_boxes, cutouts, regions or paste_boxes, strict=True):
        if cutout is None:
            placed.append(PlacedAlpha(0, 0, np.zeros((1, 1), np.uint8)))
        else:
            left, top, rgba = fit_object(box, cutout, fit, region)
            placed.append(PlacedAlpha(left, top, np.ascontiguousarray(rgba[..., 3])))
    return placed


def paste_orders(boxes: Sequence[Box], order: Sequence[int] | None) -> tuple[list[int], list[int]]:
    """Orders back to front in which the first two layers of the control image `layers` are pasted.

    They are one where it is known; else the guess by lower edges, and its reverse.
    """
    if order is not None:
        return list(order), list(order)
    guess = order_by_lower_edge(boxes)
    return guess, guess[::-1]


def prepare_shadow_maps(
    letterbox: Letterbox,
    boxes: Sequence[Box],
    references: Sequence[Bytes],
    shadows: ShadowInputs,
    *,
    order: Sequence[int] | None = None,
    paste_boxes: Sequence[Box] | None = None,
    fit: Fit = "contain",
) -> Bytes:
    """The shadow maps of a control image, uint8 [S, S, 2 J], by the letterbox of its picture.

    Other arguments are those of `prepare_network_inputs`.
    """
    size = letterbox.size
    cutouts = [None if is_blank(reference) else cut_out(reference) for reference in references]
    alphas = place_alphas(boxes if paste_boxes is None else paste_boxes, cutouts, fit, boxes)
    placed = [alpha.scaled(letterbox) for alpha in alphas]
    wider = grow_regions(boxes, shadows.room, letterbox.width, letterbox.height)
    fade = square_fade(wider, letterbox, (1 - shadows.object_scale) / 2)
    maps = shadows_of_orders(placed, shadows.lighting, paste_orders(boxes, order), size, size) * fade
    quantized: Bytes = np.rint(maps * 255).astype(np.uint8).reshape(-1, size, size).transpose(1, 2, 0)
    return quantized


def square_fade(boxes: Sequence[Box], letterbox: Letterbox, room: float) -> npt.NDArray[np.float32]:
    """`region_fade` in the network's square, float32 [S, S]."""
    squares = [letterbox.forward_box(box) for box in boxes]
    content = letterbox.forward_box((0, 0, letterbox.width, letterbox.height))
    return region_fade(squares, content, letterbox.size, letterbox.size, room)
