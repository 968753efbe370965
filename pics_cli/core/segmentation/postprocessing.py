"""From the model's masks to labels, in worker processes: remove specks, encode, compare with the box, set flags."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pics_cli.core.datasets.labels import MaskAnnotation
from pics_cli.core.images.geometry import box_iou
from pics_cli.core.images.masks import BoxMask, Mask, box_mask, decode_segmentation
from pics_cli.core.recipes.sources import SamSettings
from pics_cli.core.segmentation.boxes import AnnotatedBox

# Decimals of scores: more would be noise.
_DIGITS = 4


@dataclass(frozen=True)
class PackedMasks:
    """Masks of one image as bits, to be sent from one process to another.

    Attributes:
        bits: `np.packbits` of the masks, uint8 [n, ceil(H W / 8)].
        size: (H, W).
    """

    bits: npt.NDArray[np.uint8]
    size: tuple[int, int]

    def __iter__(self) -> Iterator[Mask]:
        """The masks one by one, bool [H, W]."""
        height, width = self.size
        for row in self.bits:
            yield np.unpackbits(row, count=height * width).reshape(height, width).view(np.bool_)


def pack_masks(masks: Mask) -> PackedMasks:
    """Pack masks, bool [n, H, W]."""
    count, height, width = masks.shape
    return PackedMasks(np.packbits(masks.reshape(count, height * width), axis=1), (height, width))


def concatenate(parts: Sequence[PackedMasks], size: tuple[int, int]) -> PackedMasks:
    """Join parts of the masks of one image of size (H, W)."""
    empty = np.zeros((0, -(-size[0] * size[1] // 8)), np.uint8)
    return PackedMasks(np.concatenate([empty, *(part.bits for part in parts)]), size)


def clean_mask(mask: BoxMask, holes: int, islands: int) -> BoxMask:
    """Fill holes and remove parts of a mask that have fewer pixels than these; its largest part always stays.

    Pixels are neighbours across corners, too, as in segment-anything's `remove_small_regions`, which works on the whole
    image; this works inside the mask's box.
    """
    if not (mask.area and (holes or islands)):
        return mask
    pixels = cv2.copyMakeBorder(mask.pixels.view(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    if holes:
        _, labels, stats, _ = cv2.connectedComponentsWithStats(1 - pixels, connectivity=8)
        small = stats[:, cv2.CC_STAT_AREA] < holes
        small[[0, labels[0, 0]]] = False  # the mask itself, and the background around it
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


def make_labels(
    packed: PackedMasks,
    scores: Sequence[float],
    stability: Sequence[float],
    boxes: Sequence[AnnotatedBox],
    corners: npt.NDArray[np.float64],
    options: SamSettings,
) -> list[MaskAnnotation]:
    """One label for each box of an image, in their order, also where its mask is empty.

    Args:
        packed: a mask for each box.
        scores, stability: of each mask, in [0, 1].
        boxes: as annotated.
        corners: of each box clipped to the image, float64 [n, 4], `x0, y0, x1, y1`.
        options: the recipe's `source.sam`.
    """
    return [
        _label(clean_mask(box_mask(mask), options.holes, options.islands), score, stable, box, clipped, options)
        for mask, score, stable, box, clipped in zip(packed, scores, stability, boxes, corners, strict=True)
    ]


def _label(
    mask: BoxMask,
    score: float,
    stability: float,
    annotated: AnnotatedBox,
    clipped: npt.NDArray[np.float64],
    options: SamSettings,
) -> MaskAnnotation:
    x0, y0, x1, y1 = mask.box
    agreement = float(box_iou(np.array([mask.box], np.float64), clipped[None])[0, 0]) if mask.area else 0.0
    flags = {
        "empty": not mask.area,
        "tiny": 0 < mask.area < options.tiny,
        "border": bool(mask.area) and (x0 == 0 or y0 == 0 or x1 == mask.width or y1 == mask.height),
        "low_score": score < options.low_score,
        "crowd": annotated.crowd,
        "unknown_category": annotated.unknown,
        "clipped": tuple(clipped.tolist()) != annotated.box,
    }
    return MaskAnnotation(
        id=annotated.id, category=annotated.category, category_id=annotated.category_id, box=annotated.box,
        counts=mask.rle()["counts"], tight=mask.box, area=mask.area, score=round(float(score), _DIGITS),
        stability=round(float(stability), _DIGITS), agreement=round(agreement, _DIGITS),
        flags=[name for name, is_set in flags.items() if is_set],
    )  # fmt: skip


def label_as_polygons(label: MaskAnnotation, height: int, width: int) -> dict[str, Any] | None:
    """A label in the format of the research script's files; None where the mask has no outline of three points.

    It has the outlines of all parts (the script kept only the largest one); the format has no holes.
    """
    mask = decode_segmentation({"size": [height, width], "counts": label.counts}, height, width).full()
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    parts = [outline.ravel().tolist() for outline in outlines if len(outline) >= 3]
    if not parts:
        return None
    x0, y0, x1, y1 = label.tight
    box = [x0, y0, x1 - x0, y1 - y0]
    return {"id": label.id, "segmentation": parts, "bbox": box, "area": label.area, "category_id": label.category_id}


def label_statistics(objects: Sequence[MaskAnnotation], bins: int) -> dict[str, Any]:
    """Counts of boxes and flags, and a histogram of scores over [0, 1] (those beyond in the outermost bins)."""
    flags = Counter(flag for label in objects for flag in label.flags)
    scores = [min(max(int(label.score * bins), 0), bins - 1) for label in objects]
    histogram = np.bincount(np.array(scores, np.int64), minlength=bins).tolist()
    return {"boxes": len(objects), "flags": dict(sorted(flags.items())), "scores": histogram}
