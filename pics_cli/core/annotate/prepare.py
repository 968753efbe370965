"""A picture on its way to the model: read, decoded, resized, its boxes looked at; what workers do ahead of it."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from pics_cli.core.annotate.boxes import BoxSource, Given, Listed, inside, open_boxes
from pics_cli.core.annotate.ready import Ready, make_ready
from pics_cli.core.data.job import Input
from pics_cli.core.data.pictures import decode_picture, first_size, read_first
from pics_cli.core.recipe import digest, identity
from pics_cli.errors import BadSample


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
    key = digest({**identity(source.recipe), "split": source.split, "raw": place})
    if _opened is None or _opened[0] != key:
        _opened = key, open_boxes(source.recipe, source.split, raw)
    return _opened[1]
