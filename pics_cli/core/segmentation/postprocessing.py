"""From masks to labels, off the device's way: clean up, pack, measure against the box, flag."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pics_cli.core.datasets.labels import Found
from pics_cli.core.images.geometry import box_iou
from pics_cli.core.images.masks import BoxMask, Mask, box_mask, decode_segmentation
from pics_cli.core.recipes.dataset import SamSettings
from pics_cli.core.segmentation.boxes import Given


@dataclass(frozen=True)
class Packed:
    """Masks on their way from one process to another.

    Attributes:
        bits: `np.packbits` of each, uint8 [n, ceil(H W / 8)].
        size: (H, W).
    """

    bits: npt.NDArray[np.uint8]
    size: tuple[int, int]

    def __iter__(self) -> Iterator[Mask]:
        """Each mask, bool [H, W]."""
        height, width = self.size
        for row in self.bits:
            yield np.unpackbits(row, count=height * width).reshape(height, width).view(np.bool_)

    def masks(self) -> Mask:
        """All of them, bool [n, H, W]."""
        return np.stack(list(self)) if len(self.bits) else np.zeros((0, *self.size), np.bool_)


def pack(masks: Mask) -> Packed:
    """Masks bool [n, H, W]."""
    count, height, width = masks.shape
    return Packed(np.packbits(masks.reshape(count, height * width), axis=1), (height, width))


def together(parts: Sequence[Packed], size: tuple[int, int]) -> Packed:
    """Masks of one picture, one part after the other."""
    empty = np.zeros((0, -(-size[0] * size[1] // 8)), np.uint8)
    return Packed(np.concatenate([empty, *(part.bits for part in parts)]), size)


# Digits that are kept: more would be noise, and bytes.
_DIGITS = 4


def clean(mask: BoxMask, holes: int, islands: int) -> BoxMask:
    """A mask without holes and parts of fewer pixels than these; its largest part always stays.

    Pixels are neighbours across corners, too, as in segment-anything's `remove_small_regions`, which looks at the whole
    picture each time; here all of it happens inside the mask's box.
    """
    if not (mask.area and (holes or islands)):
        return mask
    pixels = cv2.copyMakeBorder(mask.pixels.view(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    if holes:
        _, labels, stats, _ = cv2.connectedComponentsWithStats(1 - pixels, connectivity=8)
        small = stats[:, cv2.CC_STAT_AREA] < holes
        small[[0, labels[0, 0]]] = False  # the mask itself, and what is around it
        pixels = np.where(small[labels], 1, pixels).astype(np.uint8)
    if islands:
        _, labels, stats, _ = cv2.connectedComponentsWithStats(pixels, connectivity=8)
        kept = stats[:, cv2.CC_STAT_AREA] >= islands
        kept[1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))] = True
        kept[0] = False
        pixels = kept.astype(np.uint8)[labels]
    inner = box_mask(pixels[1:-1, 1:-1].astype(np.bool_))
    left, top = mask.box[:2]
    x0, y0, x1, y1 = inner.box
    return BoxMask((x0 + left, y0 + top, x1 + left, y1 + top), inner.pixels, mask.height, mask.width)


def finish(
    packed: Packed,
    scores: Sequence[float],
    stability: Sequence[float],
    boxes: Sequence[Given],
    corners: npt.NDArray[np.float64],
    options: SamSettings,
) -> list[Found]:
    """Labels of a picture's boxes, in their order, for empty masks too.

    Args:
        packed: a mask for each box.
        scores, stability: of each.
        boxes: as annotated.
        corners: of each inside the picture, float64 [n, 4].
        options: of the recipe.
    """
    return [
        _label(clean(box_mask(mask), options.holes, options.islands), score, stable, given, cut, options)
        for mask, score, stable, given, cut in zip(packed, scores, stability, boxes, corners, strict=True)
    ]


def _label(
    tight: BoxMask, score: float, stable: float, given: Given, cut: npt.NDArray[np.float64], options: SamSettings
) -> Found:
    x0, y0, x1, y1 = tight.box
    agreement = float(box_iou(np.array([tight.box], np.float64), cut[None])[0, 0]) if tight.area else 0.0
    flags = {
        "empty": not tight.area,
        "tiny": 0 < tight.area < options.tiny,
        "border": bool(tight.area) and (x0 == 0 or y0 == 0 or x1 == tight.width or y1 == tight.height),
        "low_score": score < options.low_score,
        "crowd": given.crowd,
        "unknown_category": given.unknown,
        "clipped": tuple(cut.tolist()) != given.box,
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
    histogram = np.bincount(np.array(scores, np.int64), minlength=bins).tolist()
    return {"boxes": len(objects), "flags": dict(sorted(flags.items())), "scores": histogram}
