"""Where things lie: the window of the picture that the network sees, and where in its region an object is pasted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from pics_cli.core.images.cutouts import Fit, crop_to_opaque, cut_out, is_blank
from pics_cli.core.images.geometry import Box, check_boxes, clip_box, enclosing_box, scale_box

Bytes = npt.NDArray[np.uint8]
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
    if kind not in get_args(CropKind):
        raise ValueError(f"crop {kind!r} is none of auto, full")
    left, top, right, bottom = enclosing_box(boxes)
    side = int(np.ceil(CONTEXT * max(right - left, bottom - top)))
    side = max(side, min(int(MIN_WINDOW * size), width, height))
    if NEARLY_SIZE * size <= side < size:
        side = size
    if kind == "full" or side >= NEARLY_WHOLE * max(width, height):
        return 0, 0, width, height
    window_width, window_height = min(side, width), min(side, height)
    x0 = min(max(left - (window_width - (right - left)) // 2, 0), width - window_width)
    y0 = min(max(top - (window_height - (bottom - top)) // 2, 0), height - window_height)
    return x0, y0, x0 + window_width, y0 + window_height


def to_window(boxes: Sequence[Box], window: Box) -> list[Box]:
    """Boxes of the picture as boxes of a window of it."""
    left, top = window[:2]
    return [(x0 - left, y0 - top, x1 - left, y1 - top) for x0, y0, x1, y1 in boxes]


def from_window(boxes: Sequence[Box], window: Box) -> list[Box]:
    """Boxes of a window as boxes of its picture."""
    left, top = window[:2]
    return [(x0 + left, y0 + top, x1 + left, y1 + top) for x0, y0, x1, y1 in boxes]


def grow_regions(boxes: Sequence[Box], room: float, width: int, height: int) -> list[Box]:
    """Regions whose sides are longer by `room` (a share of them), half at either end, as far as the picture goes."""
    return [
        clip_box((round(x0 - dx), round(y0 - dy), round(x1 + dx), round(y1 + dy)), width, height)
        for x0, y0, x1, y1 in boxes
        for dx, dy in [((x1 - x0) * room / 2, (y1 - y0) * room / 2)]
    ]


def region_fade(boxes: Sequence[Box], content: Box, height: int, width: int, room: float) -> npt.NDArray[np.float32]:
    """What keeps a region's border from being seen: 1 where objects are pasted, 0 outside the regions, smooth between.

    It rises over the room that is left around the object; a border of the region where the picture ends is none.

    Args:
        boxes: regions, in pixels of the raster; empty ones are nowhere.
        content: the picture's part of the raster.
        height, width: H, W of the raster.
        room: over which share of a region's side it rises, at either end.

    Returns:
        float32 [H, W], the largest of all regions.
    """
    fade = np.zeros((height, width), np.float32)
    for x0, y0, x1, y1 in boxes:
        if x1 > x0 and y1 > y0:
            columns = _rise(x0, x1, content[0], content[2], room)
            rows = _rise(y0, y1, content[1], content[3], room)
            part = fade[y0:y1, x0:x1]
            np.maximum(part, rows[:, None] * columns, out=part)
    return fade


def _rise(start: int, stop: int, first: int, last: int, room: float) -> npt.NDArray[np.float32]:
    """Along one axis of a region: float32 [stop - start]."""
    position = np.arange(stop - start, dtype=np.float32) + 0.5
    length = max(room * (stop - start), 1e-3)
    rise = np.ones(stop - start, np.float32)
    if start > first:
        rise = np.minimum(rise, position / length)
    if stop < last:
        rise = np.minimum(rise, (stop - start - position) / length)
    smooth: npt.NDArray[np.float32] = rise * rise * (3 - 2 * rise)
    return smooth


def fit_paste_boxes(
    regions: Sequence[Box],
    references: Sequence[Bytes],
    object_scale: float,
    width: int,
    height: int,
    fit: Fit = "contain",
) -> list[Box]:
    """Where each object is pasted in its region, when the rest of the region is room for its shadow.

    A region is an object's box with room around it. Where it ends at the picture's border, some of that room may have
    been cut off, and its middle is not the object's: the other side and the object's own aspect then say how wide it
    was. A region that is wide enough for its object as it is counts as whole, and so does every region where objects
    do not keep to their aspect within it.

    Args:
        regions: K boxes inside the picture.
        references: their pictures, uint8 [h, w, 3] on white or [h, w, 4].
        object_scale: sides of an object over those of its whole region.
        width, height: of the picture.
        fit: how an object fits a box of another aspect; see `paste_object`.

    Returns:
        K boxes inside the picture, of the references' aspects where a region was cut.
    """
    if object_scale == 1:
        return list(regions)
    if fit != "contain":
        return [scale_box(region, object_scale) for region in regions]
    return [
        _fit_paste_box(region, reference, object_scale, width, height)
        for region, reference in zip(regions, references, strict=True)
    ]


def _fit_paste_box(region: Box, reference: Bytes, object_scale: float, width: int, height: int) -> Box:
    x0, y0, x1, y1 = region
    cut = (x0 == 0 or x1 == width, y0 == 0 or y1 == height)
    if not any(cut) or is_blank(reference):
        return scale_box(region, object_scale)
    lengths = crop_to_opaque(cut_out(reference)).shape[1::-1]
    scales = [object_scale * (x1 - x0) / lengths[0], object_scale * (y1 - y0) / lengths[1]]
    # A side that was cut off is shorter than it was, so the object is larger than it says.
    scale = max(scales) if all(cut) else scales[0 if cut[1] else 1]
    starts, ends = [], []
    for axis, (first, last, limit) in enumerate(((x0, x1, width), (y0, y1, height))):
        length = scale * lengths[axis]
        whole = length / object_scale
        if cut[axis] and whole < last - first:
            return scale_box(region, object_scale)
        middle = (first + last) / 2
        if cut[axis] and (first == 0) != (last == limit):
            middle = last - whole / 2 if first == 0 else first + whole / 2
        pixels = min(max(round(length), 1), limit)
        start = min(max(round(middle - length / 2), 0), limit - pixels)
        starts.append(start)
        ends.append(start + pixels)
    return starts[0], starts[1], ends[0], ends[1]
