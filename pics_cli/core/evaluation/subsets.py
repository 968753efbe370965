"""How the objects of a case stand to each other: the groups that figures are told for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pics_cli.core.images.geometry import Box, box_iou, box_relation
from pics_cli.core.images.masks import Mask

# Upper ends of the bands that overlapping pairs are told apart by, in IoU of their boxes, and their names.
BANDS = ((0.1, "overlapping, IoU < 0.1"), (0.3, "overlapping, IoU 0.1 to 0.3"), (1.01, "overlapping, IoU > 0.3"))
STRATA = ("apart", "touching", *(name for _, name in BANDS), "containing", "supporting")
ALL = "all"
# Of pictures whose objects nobody knows.
UNKNOWN = "unknown"
# What rests on something has most of its lower rim right above it.
_RESTS, _NEAR, _RIM = 0.6, 3, 0.15


def stratum(relation: str, iou: float) -> str:
    """The group of a case, of `STRATA`, by its relation and the IoU of its boxes."""
    if relation in ("occluding", "overlapping"):
        return next(name for end, name in BANDS if iou < end)
    return relation


def judged_relation(places: Sequence[Box], visible: Sequence[Mask]) -> str:
    """How the two objects that overlap most stand to each other, by their boxes and by what is seen of them.

    Args:
        places: box of each object.
        visible: bool [H, W] of each.
    """
    a, b, _ = nearest(places)
    if a == b:
        return "apart"
    found = box_relation(np.array(places[a], np.float64), np.array(places[b], np.float64))
    rests = found != "apart" and any(supports(visible[i], visible[j]) for i, j in ((a, b), (b, a)))
    return "supporting" if rests else found


def nearest(places: Sequence[Box]) -> tuple[int, int, float]:
    """The two of K boxes that overlap most (of those that do not, the first two), and their IoU; twice 0 for one."""
    if len(places) < 2:
        return 0, 0, 0.0
    boxes = np.array(places, np.float64)
    iou = np.triu(box_iou(boxes, boxes), 1)
    a, b = np.unravel_index(int(iou.argmax()), iou.shape)
    if a == b:
        return 0, 1, 0.0
    return int(a), int(b), float(iou[a, b])


def supports(upper: Mask, lower: Mask) -> bool:
    """Whether one object rests on another by their masks, bool [H, W].

    Of the columns in which the upper mask ends within 15 % of its height from its lowest row, 60 % have a pixel of the
    lower one at most 3 pixels below; and the lower one reaches farther down.
    """
    if not (upper.any() and lower.any()):
        return False
    rows = np.flatnonzero(upper.any(axis=1))
    top, bottom = int(rows[0]), int(rows[-1])
    if np.flatnonzero(lower.any(axis=1))[-1] <= bottom:
        return False
    columns = np.flatnonzero(upper.any(axis=0))
    ends = upper.shape[0] - 1 - upper[::-1, columns].argmax(axis=0)
    rim = ends >= bottom - _RIM * (bottom - top + 1)
    below = [
        lower[end + 1 : end + 1 + _NEAR, column].any() for column, end in zip(columns[rim], ends[rim], strict=True)
    ]
    return float(np.mean(below)) >= _RESTS
