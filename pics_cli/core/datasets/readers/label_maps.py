"""Label maps: pictures whose values say to which object a pixel belongs, tabulated in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pics_cli.core.images.geometry import Box
from pics_cli.core.images.masks import BoxMask

LabelMap = npt.NDArray[Any]
"""uint8 or uint16 [H, W]."""

# Larger ones are damaged headers: no camera of a labelled dataset comes near.
MAX_MAP_PIXELS = 1 << 27
# Pixels looked at together: what is made from them stays small, whatever the picture.
_BAND_PIXELS = 1 << 20


class Region(NamedTuple):
    """The pixels of one object: how many, and their half-open box."""

    area: int
    box: Box


def tabulate(values_HW: LabelMap, objects: npt.NDArray[np.integer[Any]]) -> dict[int, Region]:
    """Area and box of every object in a label map, in ascending order of the objects' numbers.

    Args:
        values_HW: uint8 or uint16 [H, W].
        objects: integers [number of values]; the object that each value belongs to, 0 for none.
    """
    height, width = values_HW.shape
    rows = max(1, _BAND_PIXELS // width)
    count = int(objects.max()) + 1
    area, low, high = np.zeros(count, np.int64), np.full((2, count), height + width), np.zeros((2, count), np.int64)
    for top in range(0, height, rows):
        number, y, start, stop = _runs(values_HW[top : top + rows], objects)
        np.add.at(area, number, stop - start)
        for axis, (first, last) in enumerate(((start, stop), (y + top, y + top + 1))):
            np.minimum.at(low[axis], number, first)
            np.maximum.at(high[axis], number, last)
    found = np.flatnonzero(area).tolist()
    return {n: Region(int(area[n]), (int(low[0, n]), int(low[1, n]), int(high[0, n]), int(high[1, n]))) for n in found}


def _runs(band_HW: LabelMap, objects: npt.NDArray[np.integer[Any]]) -> tuple[npt.NDArray[np.int64], ...]:
    """Runs of equal values along the rows that belong to an object: object, row, first column, column behind the last.

    Label maps have long runs: a few thousand numbers stand for a million pixels.
    """
    width = band_HW.shape[1]
    flat = band_HW.ravel()
    differs = np.empty(len(flat), np.bool_)
    np.not_equal(flat[1:], flat[:-1], out=differs[1:])
    differs[::width] = True
    start = np.flatnonzero(differs)
    length = np.diff(start, append=len(flat))
    number = objects[flat[start]]
    wanted = np.flatnonzero(number)
    y, x = np.divmod(start[wanted], width)
    return number[wanted].astype(np.int64), y, x, x + length[wanted]


def region_mask(values_HW: LabelMap, box: Box, values: Sequence[int]) -> BoxMask:
    """The mask of the pixels that hold one of the values, all of which lie inside the box."""
    x0, y0, x1, y1 = box
    inside = values_HW[y0:y1, x0:x1]
    pixels = inside == values[0] if len(values) == 1 else np.isin(inside, values)
    height, width = values_HW.shape
    return BoxMask(box, np.ascontiguousarray(pixels), height, width)
