"""Where in its region an object is pasted, when the rest of the region is room for its shadow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pics_cli.core.data.cutouts import cut_out, is_empty, solid_part
from pics_cli.core.geometry import Box, scaled

Bytes = npt.NDArray[np.uint8]


def places_of(regions: Sequence[Box], references: Sequence[Bytes], fill: float, width: int, height: int) -> list[Box]:
    """Where each object goes in a region that may end with the picture.

    A region is an object's box with room around it. Where it ends at the picture's border, some of that room may have
    been cut off, and its middle is not the object's: the other side and the object's own aspect then say how wide it
    was. A region that is wide enough for its object as it is counts as whole.

    Args:
        regions: K boxes inside the picture.
        references: their pictures, uint8 [h, w, 3] on white or [h, w, 4].
        fill: share of a whole region's sides that its object takes.
        width, height: of the picture.

    Returns:
        K boxes inside the picture, of the references' aspects where a region was cut.
    """
    if fill == 1:
        return list(regions)
    return [
        _place(region, reference, fill, width, height) for region, reference in zip(regions, references, strict=True)
    ]


def _place(region: Box, reference: Bytes, fill: float, width: int, height: int) -> Box:
    x0, y0, x1, y1 = region
    cut = (x0 == 0 or x1 == width, y0 == 0 or y1 == height)
    if not any(cut) or is_empty(reference):
        return scaled(region, fill)
    size = solid_part(cut_out(reference)).shape[1::-1]
    sides, borders = (x1 - x0, y1 - y0), ((x0, x1, width), (y0, y1, height))
    scales = [fill * side / one for side, one in zip(sides, size, strict=True)]
    # A side that was cut off is shorter than it was, so the object is larger than it says.
    scale = max(scales) if all(cut) else scales[0 if cut[1] else 1]
    low, high = [], []
    for here, side, one, (first, last, end) in zip(cut, sides, size, borders, strict=True):
        whole = scale * one / fill
        if here and whole < side:
            return scaled(region, fill)
        middle = (first + last) / 2
        if here and (first == 0) != (last == end):
            middle = last - whole / 2 if first == 0 else first + whole / 2
        length = min(max(round(scale * one), 1), end)
        start = min(max(round(middle - scale * one / 2), 0), end - length)
        low.append(start)
        high.append(start + length)
    return low[0], low[1], high[0], high[1]
