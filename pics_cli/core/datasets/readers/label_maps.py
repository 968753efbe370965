"""Label maps: images whose values say to which object a pixel belongs, tabulated in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pics_cli.core.datasets.readers.split_files import SplitFiles
from pics_cli.core.images.geometry import Box
from pics_cli.core.images.image_files import decoding, open_undamaged
from pics_cli.core.images.masks import BoxMask
from pics_cli.errors import BadSample

LabelMap = npt.NDArray[Any]
"""uint8 or uint16 [H, W]."""

_MAX_MAP_PIXELS = 1 << 27
# Pixels tabulated together: what is computed from them stays small, whatever the image.
_BAND_PIXELS = 1 << 20


class Region(NamedTuple):
    """The pixels of one object: how many, and their half-open box."""

    area: int
    box: Box


def check_map_size(width: int, height: int, reason: str, path: object) -> None:
    """Refuse sizes that only a damaged header gives: no camera of a labelled dataset comes near.

    Raises:
        BadSample: with that reason.
    """
    if min(width, height) < 1 or width * height > _MAX_MAP_PIXELS:
        raise BadSample(reason, f"{path}: claims {width} x {height} pixels")


def find_map(files: SplitFiles, file_name: str, suffix: str = "") -> Path:
    """The label map that an annotation names, where the patterns of `files` say; see `SplitFiles.image_paths`.

    Raises:
        BadSample: `bad_label_map` where no pattern fits; a file that does not exist is named when it is read.
    """
    paths = files.image_paths(file_name, suffix=suffix)
    if not paths:
        raise BadSample("bad_label_map", f"{file_name!r} lies outside the folder {files.root}")
    return next((path for path in paths if path.exists()), paths[0])


def decode_label_map(data: bytes, path: object, modes: Sequence[str] = ("P", "L")) -> LabelMap:
    """The values of a label map, as they are stored.

    Args:
        data: of a picture file.
        path: for messages.
        modes: Pillow's, in which it may be stored.

    Returns:
        uint8 [H, W] of a palette or grey picture, bool [H, W] of one bit, uint8 [H, W, 3] of RGB.

    Raises:
        BadSample: `bad_label_map`.
    """
    with decoding(f"{path}: ", "bad_label_map"):
        image = open_undamaged(data)
        if image.mode not in modes:
            grey = "L" in modes
            expected, why = ("palette or grey", ": ids cannot be told from colours") if grey else (modes[0], "")
            raise BadSample("bad_label_map", f"stored as {image.mode}, expected {expected}{why}")
    check_map_size(*image.size, "bad_label_map", path)
    with decoding(f"{path}: ", "bad_label_map"):
        return np.asarray(image)


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
    boxes = np.concatenate([low, high]).T.tolist()
    return {n: Region(int(area[n]), tuple(boxes[n])) for n in np.flatnonzero(area).tolist()}


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
    belongs = np.flatnonzero(number)
    y, x = np.divmod(start[belongs], width)
    return number[belongs].astype(np.int64), y, x, x + length[belongs]


def region_mask(values_HW: LabelMap, box: Box, values: Sequence[int]) -> BoxMask:
    """The mask of the pixels that hold one of the values, all of which lie inside the box."""
    x0, y0, x1, y1 = box
    inside = values_HW[y0:y1, x0:x1]
    pixels = inside == values[0] if len(values) == 1 else np.isin(inside, values)
    height, width = values_HW.shape
    return BoxMask(box, np.ascontiguousarray(pixels), height, width)
