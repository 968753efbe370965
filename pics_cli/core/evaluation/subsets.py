"""Subsets of examples that metrics are reported for: by how their two objects stand to each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pics_cli.core.images.geometry import Box, box_iou, box_relation
from pics_cli.core.images.masks import Mask

# Bands of overlapping pairs: upper end in IoU of their boxes, and name.
_IOU_BANDS = ((0.1, "overlapping, IoU < 0.1"), (0.3, "overlapping, IoU 0.1 to 0.3"), (1.01, "overlapping, IoU > 0.3"))
SUBSETS = ("apart", "touching", *(name for _, name in _IOU_BANDS), "containing", "supporting")
ALL = "all"
# Relation of pictures whose objects are not known.
UNKNOWN = "unknown"
# An object rests on another if this share of the columns of its lower rim have the other at most so many pixels below;
# the rim is the lowest part of it, as a share of its height.
_SUPPORTED_SHARE, _SUPPORT_GAP, _RIM_HEIGHT = 0.6, 3, 0.15


def subset_of(relation: str, iou: float) -> str:
    """The subset of an example, one of `SUBSETS`, by its relation and the IoU of its paste boxes."""
    if relation in ("occluding", "overlapping"):
        return next(name for end, name in _IOU_BANDS if iou < end)
    return relation


def estimate_relation(paste_boxes: Sequence[Box], visible_masks: Sequence[Mask]) -> str:
    """How the two objects that overlap most stand to each other, by boxes and by visible masks, bool [H, W], of all."""
    a, b, _ = most_overlapping_pair(paste_boxes)
    if a == b:
        return "apart"
    by_boxes = box_relation(paste_boxes[a], paste_boxes[b])
    if by_boxes != "apart" and any(rests_on(visible_masks[i], visible_masks[j]) for i, j in ((a, b), (b, a))):
        return "supporting"
    return by_boxes


def most_overlapping_pair(boxes: Sequence[Box]) -> tuple[int, int, float]:
    """Indices of the two of K boxes with the highest IoU (0 and 1 if none overlap), and it; twice 0 if K < 2."""
    if len(boxes) < 2:
        return 0, 0, 0.0
    corners = np.array(boxes, np.float64)
    iou = np.triu(box_iou(corners, corners), 1)
    a, b = np.unravel_index(int(iou.argmax()), iou.shape)
    if a == b:
        return 0, 1, 0.0
    return int(a), int(b), float(iou[a, b])


def overlap_difficulty(boxes: Sequence[Box], descriptors: npt.NDArray[np.floating[Any]]) -> float | None:
    """OverLayScore of an example: the sum over pairs of K boxes of their IoU times the cosine of what they hold.

    Li et al., "OverLayBench", NeurIPS 2025, whose cosine is of the captions' text embeddings by CLIP; here it is of
    descriptors of unit length, [K, d]. None where K < 2.
    """
    if len(boxes) < 2:
        return None
    corners = np.array(boxes, np.float64)
    return float(np.triu(box_iou(corners, corners) * (descriptors @ descriptors.T), 1).sum())


def rests_on(upper: Mask, lower: Mask) -> bool:
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
    in_rim = ends >= bottom - _RIM_HEIGHT * (bottom - top + 1)
    rim = zip(columns[in_rim], ends[in_rim], strict=True)
    supported = [lower[end + 1 : end + 1 + _SUPPORT_GAP, column].any() for column, end in rim]
    return float(np.mean(supported)) >= _SUPPORTED_SHARE
