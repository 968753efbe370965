"""Which part of a picture the network sees: the same for training and inference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from pics_cli.core.geometry import Box, check_boxes

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


def window(boxes: Sequence[Box], width: int, height: int, kind: CropKind, size: int) -> Box:
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
    left, top, right, bottom = around(boxes)
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


def inside(boxes: Sequence[Box], part: Box) -> list[Box]:
    """Boxes of the picture as boxes of a window of it."""
    left, top = part[:2]
    return [(x0 - left, y0 - top, x1 - left, y1 - top) for x0, y0, x1, y1 in boxes]


def around(boxes: Sequence[Box]) -> Box:
    """The box around them all."""
    left, top, right, bottom = zip(*boxes, strict=True)
    return int(min(left)), int(min(top)), int(max(right)), int(max(bottom))
