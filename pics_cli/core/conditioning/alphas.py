"""Where objects are pasted, as alpha, by the code that pastes them.

K: objects, h, w: sides of the canvas.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from pics_cli.core.images.cutouts import WHITE, paste_object
from pics_cli.core.images.geometry import Box

Bytes = npt.NDArray[np.uint8]


def pasted_alpha(width: int, height: int, paste_boxes: Sequence[Box], cutouts: Sequence[Bytes | None]) -> Bytes:
    """Alpha of all objects together that are pasted into a canvas, one over the other.

    Args:
        width, height: of the canvas.
        paste_boxes: K boxes inside the canvas.
        cutouts: uint8 [_, _, 4], not premultiplied; None where nothing is pasted.

    Returns:
        uint8 [h, w].
    """
    canvas = np.zeros((height, width, 3), np.uint8)
    for box, cutout in zip(paste_boxes, cutouts, strict=True):
        if cutout is not None:
            white = np.full_like(cutout, WHITE)
            white[..., 3] = cutout[..., 3]
            paste_object(canvas, box, white)
    return cv2.extractChannel(canvas, 0).astype(np.uint8, copy=False)
