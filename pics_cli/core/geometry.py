"""Boxes: `x0, y0, x1, y1`, half-open, in pixels. N, M: number of boxes."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating[Any]]
Box = tuple[int, int, int, int]
Relation = Literal["apart", "touching", "overlapping", "containing"]

# How far a side of the inner box may stand out (DESIGN §2): annotated boxes are seldom tighter than that.
CONTAINED_SLACK = 2.0


def xywh_to_xyxy(boxes_N4: FloatArray) -> FloatArray:
    """COCO's `x, y, width, height` to corners. float [N, 4] to float [N, 4]."""
    return np.concatenate([boxes_N4[:, :2], boxes_N4[:, :2] + boxes_N4[:, 2:]], axis=1)


def box_iou(a_N4: FloatArray, b_M4: FloatArray) -> FloatArray:
    """Intersection over union of every box of a with every box of b: float [N, M] in [0, 1]; 0 for empty boxes."""
    low = np.maximum(a_N4[:, None, :2], b_M4[None, :, :2])
    high = np.minimum(a_N4[:, None, 2:], b_M4[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=2)
    union = box_area(a_N4)[:, None] + box_area(b_M4)[None] - shared
    iou: FloatArray = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return iou


def box_area(boxes_N4: FloatArray) -> FloatArray:
    """Areas, float [N]; 0 where a box is empty or turned inside out."""
    area: FloatArray = np.prod(np.clip(boxes_N4[:, 2:] - boxes_N4[:, :2], 0, None), axis=1)
    return area


def contained(inner_N4: FloatArray, outer_M4: FloatArray, slack: float = CONTAINED_SLACK) -> npt.NDArray[np.bool_]:
    """bool [N, M]: whether each side of box n lies inside box m or within `slack` pixels of it."""
    a, b = inner_N4[:, None], outer_M4[None]
    inside: npt.NDArray[np.bool_] = np.all(a[..., :2] >= b[..., :2] - slack, axis=2) & np.all(
        a[..., 2:] <= b[..., 2:] + slack, axis=2
    )
    return inside


def nested(boxes_N4: FloatArray) -> npt.NDArray[np.bool_]:
    """bool [N, N], symmetric: whether one of the two boxes lies inside the other."""
    inside = contained(boxes_N4, boxes_N4)
    either: npt.NDArray[np.bool_] = inside | inside.T
    return either


def relation(a: FloatArray, b: FloatArray) -> Relation:
    """How two boxes (float [4] each) stand to each other, the first that holds.

    containing: one inside the other (within 2 px); overlapping: they share area; touching: the gap between them is at
    most 2 px in both directions; apart: none of these.
    """
    pair = np.stack([a, b]).astype(np.float64)
    if nested(pair)[0, 1]:
        return "containing"
    gap = np.maximum(pair[0, :2], pair[1, :2]) - np.minimum(pair[0, 2:], pair[1, 2:])
    if np.all(gap < 0):
        return "overlapping"
    return "touching" if np.all(gap <= CONTAINED_SLACK) else "apart"
