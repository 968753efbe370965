"""Where in its region an object is pasted, when the rest of the region is room for its shadow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from pics_cli.core.images.cutouts import crop_to_opaque, cut_out, is_blank
from pics_cli.core.images.geometry import Box, check_boxes, scale_box

CropKind = Literal["auto", "full"]

# Side of the window in longer sides of the box around all boxes: these then take up two thirds of it, and a picture
# with the light and scale of the place is left around them.
CONTEXT = 1.5
# A window of less than this part of S would be enlarged to blur.
MIN_WINDOW = 0.5
# From this part of S on, up to S, a window is widened to S: it is then not resized at all.
NEARLY_SIZE = 0.8
# A window of this part of the picture's longer side may as well be the whole of it.
NEARLY_WHOLE = 0.85


def choose_window(boxes: Sequence[Box], width: int, height: int, kind: CropKind, size: int) -> Box:
    """Choose the part of a picture that the network sees.

    `full` is all of it, the published way. `auto` is a square around all boxes with context, moved to lie inside the
    picture; where the picture is smaller than the square, the window ends with the picture and is not square. It never
    cuts a box.

    Args:
        boxes: inside the picture.
        width, height: of the picture.
        kind: `auto` or `full`.
        size: S, the network's.

    Raises:
        ValueError: no boxes, one that is empty or reaches outside, or an unknown kind.
    """
    check_boxes(boxes, width, height)
    if kind not in ("auto", "full"):
        raise ValueError(f"crop {kind!r} is none of auto, full")
    left, top, right, bottom = enclosing_box(boxes)
    side = int(np.ceil(CONTEXT * max(right - left, bottom - top)))
    side = max(side, min(int(MIN_WINDOW * size), width, height))
    if NEARLY_SIZE * size <= side < size:
        side = size
    if kind == "full" or side >= NEARLY_WHOLE * max(width, height):
        return 0, 0, width, height
    across, down = min(side, width), min(side, height)
    x0 = min(max(left - (across - (right - left)) // 2, 0), width - across)
    y0 = min(max(top - (down - (bottom - top)) // 2, 0), height - down)
    return x0, y0, x0 + across, y0 + down


def to_window(boxes: Sequence[Box], part: Box) -> list[Box]:
    """Boxes of the picture as boxes of a window of it."""
    left, top = part[:2]
    return [(x0 - left, y0 - top, x1 - left, y1 - top) for x0, y0, x1, y1 in boxes]


def enclosing_box(boxes: Sequence[Box]) -> Box:
    """The box around them all."""
    left, top, right, bottom = zip(*boxes, strict=True)
    return int(min(left)), int(min(top)), int(max(right)), int(max(bottom))


Bytes = npt.NDArray[np.uint8]


def fit_paste_boxes(
    regions: Sequence[Box], references: Sequence[Bytes], object_scale: float, width: int, height: int
) -> list[Box]:
    """Where each object goes in a region that may end with the picture.

    A region is an object's box with room around it. Where it ends at the picture's border, some of that room may have
    been cut off, and its middle is not the object's: the other side and the object's own aspect then say how wide it
    was. A region that is wide enough for its object as it is counts as whole.

    Args:
        regions: K boxes inside the picture.
        references: their pictures, uint8 [h, w, 3] on white or [h, w, 4].
        object_scale: share of a whole region's sides that its object takes.
        width, height: of the picture.

    Returns:
        K boxes inside the picture, of the references' aspects where a region was cut.
    """
    if object_scale == 1:
        return list(regions)
    return [
        _place(region, reference, object_scale, width, height)
        for region, reference in zip(regions, references, strict=True)
    ]


def _place(region: Box, reference: Bytes, object_scale: float, width: int, height: int) -> Box:
    x0, y0, x1, y1 = region
    cut = (x0 == 0 or x1 == width, y0 == 0 or y1 == height)
    if not any(cut) or is_blank(reference):
        return scale_box(region, object_scale)
    size = crop_to_opaque(cut_out(reference)).shape[1::-1]
    sides, borders = (x1 - x0, y1 - y0), ((x0, x1, width), (y0, y1, height))
    scales = [object_scale * side / one for side, one in zip(sides, size, strict=True)]
    # A side that was cut off is shorter than it was, so the object is larger than it says.
    scale = max(scales) if all(cut) else scales[0 if cut[1] else 1]
    low, high = [], []
    for here, side, one, (first, last, end) in zip(cut, sides, size, borders, strict=True):
        whole = scale * one / object_scale
        if here and whole < side:
            return scale_box(region, object_scale)
        middle = (first + last) / 2
        if here and (first == 0) != (last == end):
            middle = last - whole / 2 if first == 0 else first + whole / 2
        length = min(max(round(scale * one), 1), end)
        start = min(max(round(middle - scale * one / 2), 0), end - length)
        low.append(start)
        high.append(start + length)
    return low[0], low[1], high[0], high[1]
