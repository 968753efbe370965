"""The research code's choice of a pair and its crop, with their faults, for `--compat`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pics_cli.core.images.geometry import CONTAINED_SLACK, Box
from pics_cli.core.images.masks import BoxMask

FloatBoxes = npt.NDArray[np.float32]

# Fewer set pixels, and the research code takes the whole picture for the object.
TINY = 10


def published_max_iou(boxes_N4: FloatBoxes) -> tuple[int, int] | None:
    """The pair with the highest IoU in float32, the first of equals; pairs that its nesting test finds do not count.

    Args:
        boxes_N4: float32 [N, 4], `x0, y0, x1, y1`.
    """
    low = np.maximum(boxes_N4[:, None, :2], boxes_N4[None, :, :2])
    high = np.minimum(boxes_N4[:, None, 2:], boxes_N4[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=2)
    area = np.prod(boxes_N4[:, 2:] - boxes_N4[:, :2], axis=1)
    union = area[:, None] + area[None] - shared
    iou = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    iou[_published_nested(boxes_N4)] = 0
    np.fill_diagonal(iou, -1)
    first, second = np.unravel_index(int(iou.argmax()), iou.shape)
    return (int(first), int(second)) if iou[first, second] > 0 else None


def _published_nested(boxes_N4: FloatBoxes) -> npt.NDArray[np.bool_]:
    """bool [N, N]: the published nesting test, either way round.

    It is given corners and reads them as `x, y, width, height`, so it compares x0 + x1 and y0 + y1: whether the left
    and upper side lie inside and the centre is not further right or down. Most nested pairs pass for not nested.
    """
    start, ends = boxes_N4[:, :2], boxes_N4[:, :2] + boxes_N4[:, 2:]
    inside: npt.NDArray[np.bool_] = np.all(start[:, None] >= start[None] - CONTAINED_SLACK, axis=2) & np.all(
        ends[:, None] <= ends[None] + CONTAINED_SLACK, axis=2
    )
    either: npt.NDArray[np.bool_] = inside | inside.T
    return either


def published_largest(areas_N: npt.NDArray[np.float64]) -> tuple[int, int]:
    """The two largest areas, the last of equals first."""
    order = np.argsort(areas_N, kind="stable")[::-1]
    return int(order[0]), int(order[1])


def published_box(box: Box) -> tuple[float, float, float, float]:
    """The box that the research code makes from a mask's: it ends at the last pixel instead of behind it."""
    x0, y0, x1, y1 = box
    return x0, y0, x1 - 1, y1 - 1


def published_crop(mask: BoxMask) -> Box:
    """The part of the picture that a patch shows: the mask's box without its last row and column."""
    if mask.area < TINY:
        return 0, 0, mask.width, mask.height
    x0, y0, x1, y1 = mask.box
    return x0, y0, x1 - 1, y1 - 1
