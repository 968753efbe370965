"""Where objects are pasted, as alpha, by the code that pastes them.

K: objects, h, w: sides of the canvas.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import numpy.typing as npt

from pics_cli.core.conditioning.shadow_inputs import place_alphas
from pics_cli.core.images.cutouts import WHITE, Fit
from pics_cli.core.images.geometry import Box

Bytes = npt.NDArray[np.uint8]


def pasted_alphas(
    width: int,
    height: int,
    paste_boxes: Sequence[Box],
    cutouts: Sequence[Bytes | None],
    fit: Fit = "contain",
    regions: Sequence[Box] | None = None,
) -> Iterator[Bytes]:
    """Alpha of each object that is pasted into a canvas.

    Args:
        width, height: of the canvas.
        paste_boxes: K boxes inside the canvas.
        cutouts: uint8 [_, _, 4], not premultiplied; None where nothing is pasted.
        fit: how they fit their boxes; see `paste_object`.
        regions: K boxes outside which nothing of each is painted; None: the paste boxes.

    Yields:
        K times uint8 [h, w].
    """
    for left, top, alpha in place_alphas(paste_boxes, cutouts, fit, regions):
        canvas = np.zeros((height, width), np.uint8)
        canvas[int(top) : int(top) + len(alpha), int(left) : int(left) + alpha.shape[1]] = alpha
        yield canvas


def joint_alpha(first: Bytes, second: Bytes) -> Bytes:
    """Alpha of one object over another, whichever is before, uint8 [h, w] each."""
    behind = cv2.multiply(cv2.bitwise_not(first), cv2.bitwise_not(second), scale=1 / WHITE)
    return cv2.bitwise_not(behind).astype(np.uint8, copy=False)
