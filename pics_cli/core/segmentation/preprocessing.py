"""A picture on its way to the model: read, decoded, resized, its boxes looked at; what workers do ahead of it."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from pics_cli.core.datasets.job import Input
from pics_cli.core.images.image_io import RGB, decode_picture, first_size, read_first
from pics_cli.core.recipes.base import digest
from pics_cli.core.recipes.dataset import dataset_identity
from pics_cli.core.segmentation.boxes import BoxSource, Given, Listed, inside, open_boxes
from pics_cli.errors import BadSample


class Ready(NamedTuple):
    """A picture made ready for the model.

    Attributes:
        rgb: uint8 [h, w, 3], its longer side s.
        size: (H, W).
        boxes: float64 [n, 4], `x0, y0, x1, y1` in pixels of the picture.
    """

    rgb: RGB
    size: tuple[int, int]
    boxes: npt.NDArray[np.float64]


def make_ready(rgb: RGB, boxes: npt.NDArray[np.float64], side: int) -> Ready:
    """Resize a picture, uint8 [H, W, 3], for a model that sees a square of this side.

    As segment-anything's `ResizeLongestSide.apply_image`: bilinear by Pillow, sides to the nearest pixel.

    Raises:
        BadSample: it is so thin that nothing of it would be left.
    """
    height, width = rgb.shape[:2]
    scale = side / max(height, width)
    across, down = int(width * scale + 0.5), int(height * scale + 0.5)
    if not (across and down):
        raise BadSample("too_thin", f"picture is {width}x{height}: less than a pixel wide at {side}")
    resized = Image.fromarray(rgb).resize((across, down), Image.Resampling.BILINEAR)
    return Ready(np.array(resized), (height, width), boxes)


class Prepared(NamedTuple):
    """A picture with something to segment, or with nothing.

    Attributes:
        size: (width, height).
        boxes: those that lie in the picture.
        corners: of each inside it, float64 [n, 4].
        dropped: why each of the others is left out.
        ready: for the model; None where there are no boxes.
    """

    listed: Listed
    size: tuple[int, int]
    boxes: list[Given]
    corners: npt.NDArray[np.float64]
    dropped: list[str]
    ready: Ready | None


def prepare(source: Input, row: int, side: int) -> Prepared | BadSample:
    """The picture of a row for a model that sees a square of this side; what is wrong with it, where something is."""
    cv2.setNumThreads(1)
    try:
        listed = boxes_of(source).picture(row)
        if not listed.boxes:
            size = listed.size or first_size(listed.files)
            return Prepared(listed, size, [], np.zeros((0, 4)), [], None)
        rgb = decode_picture(read_first(listed.files), listed.size).rgb
        height, width = rgb.shape[:2]
        boxes, corners, dropped = inside(listed.boxes, width, height)
        ready = make_ready(rgb, corners, side) if boxes else None
        return Prepared(listed, (width, height), boxes, corners, dropped, ready)
    except BadSample as error:
        return error


_opened: tuple[str, BoxSource] | None = None


def boxes_of(source: Input) -> BoxSource:
    """This process's opened boxes of an input: one at a time."""
    global _opened  # noqa: PLW0603  (a cache of one)
    raw = source.raw
    place = None if raw is None else str(raw.absolute())
    key = digest({**dataset_identity(source.recipe), "split": source.split, "raw": place})
    if _opened is None or _opened[0] != key:
        _opened = key, open_boxes(source.recipe, source.split, raw)
    return _opened[1]
