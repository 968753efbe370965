"""From masks to labels, off the device's way: clean up, pack, measure against the box, flag."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from segment_anything.utils.amg import remove_small_regions

from pics_cli.core.annotate.boxes import Given
from pics_cli.core.annotate.labels import Found
from pics_cli.core.data.masks import Mask, box_mask
from pics_cli.core.geometry import box_iou
from pics_cli.core.sources import Sam

# Digits that are kept: more would be noise, and bytes.
_DIGITS = 4


class Packed(NamedTuple):
    """Masks on their way from one process to another.

    Attributes:
        bits: uint8, `np.packbits` of bool [n, H, W].
        shape: (n, H, W).
    """

    bits: npt.NDArray[np.uint8]
    shape: tuple[int, int, int]

    def masks(self) -> Mask:
        """bool [n, H, W]."""
        return np.unpackbits(self.bits, count=int(np.prod(self.shape))).reshape(self.shape).view(np.bool_)


def pack(masks: Mask) -> Packed:
    """Masks bool [n, H, W] in an eighth of their size."""
    count, height, width = masks.shape
    return Packed(np.packbits(masks), (count, height, width))


def clean(mask: Mask, holes: int, islands: int) -> Mask:
    """A mask, bool [H, W], without holes and parts of fewer pixels than these; its largest part always stays."""
    if holes:
        mask, _ = remove_small_regions(mask, holes, "holes")
    if islands and mask.any():
        mask, _ = remove_small_regions(mask, islands, "islands")
    return mask


def finish(
    packed: Packed,
    scores: Sequence[float],
    stability: Sequence[float],
    boxes: Sequence[Given],
    corners: npt.NDArray[np.float64],
    options: Sam,
) -> list[Found]:
    """Labels of a picture's boxes, in their order, for empty masks too.

    Args:
        packed: a mask for each box.
        scores, stability: of each.
        boxes: as annotated.
        corners: of each inside the picture, float64 [n, 4].
        options: of the recipe.
    """
    masks = packed.masks()
    return [
        _label(clean(mask, options.holes, options.islands), score, stable, given, cut, options)
        for mask, score, stable, given, cut in zip(masks, scores, stability, boxes, corners, strict=True)
    ]


def _label(
    mask: Mask, score: float, stable: float, given: Given, cut: npt.NDArray[np.float64], options: Sam
) -> Found:
    height, width = mask.shape
    tight = box_mask(mask)
    x0, y0, x1, y1 = tight.box
    agreement = float(box_iou(np.array([tight.box], np.float64), cut[None])[0, 0]) if tight.area else 0.0
    flags = {
        "empty": not tight.area,
        "tiny": 0 < tight.area < options.tiny,
        "border": bool(tight.area) and (x0 == 0 or y0 == 0 or x1 == width or y1 == height),
        "low_score": score < options.low_score,
        "crowd": given.crowd,
        "unknown_category": given.unknown,
    }
    return Found(
        id=given.id, category=given.category, category_id=given.category_id, box=given.box,
        counts=tight.rle()["counts"], tight=tight.box, area=tight.area, score=round(float(score), _DIGITS),
        stability=round(float(stable), _DIGITS), agreement=round(agreement, _DIGITS),
        flags=[name for name, here in flags.items() if here],
    )  # fmt: skip


def polygons(found: Found, height: int, width: int) -> dict[str, Any] | None:
    """A label as the research script's files have them; None where the mask has no outline of three points.

    The outlines of all parts (the script kept the largest alone); holes are lost in this form.
    """
    import cv2

    from pics_cli.core.data.masks import decode_segmentation

    mask = decode_segmentation({"size": [height, width], "counts": found.counts}, height, width).full()
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    parts = [outline.ravel().tolist() for outline in outlines if len(outline) >= 3]
    if not parts:
        return None
    x0, y0, x1, y1 = found.tight
    box = [x0, y0, x1 - x0, y1 - y0]
    return {"id": found.id, "segmentation": parts, "bbox": box, "area": found.area, "category_id": found.category_id}


def count(objects: Sequence[Found], bins: int) -> dict[str, Any]:
    """Boxes, flags and a histogram of scores (parts of [0, 1], those beyond in the outermost) of some labels."""
    flags = Counter(flag for each in objects for flag in each.flags)
    scores = [min(max(int(each.score * bins), 0), bins - 1) for each in objects]
    return {"boxes": len(objects), "flags": dict(sorted(flags.items())), "scores": np.bincount(scores, minlength=bins).tolist()}
