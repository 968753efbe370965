"""What masks stand for: a region, or things that stay in front; and what of a mask does not look like that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from pics_cli.core.images.geometry import Box
from pics_cli.core.images.masks import Mask
from pics_cli.errors import BadSample

RegionRule = Literal["box", "component"]

# The value above which a mask's pixel is set, by the mask's type.
HALF = {np.dtype(np.bool_): 0, np.dtype(np.uint8): 127, np.dtype(np.uint16): 32767, np.dtype(np.int32): 32767}
# A box that is so many times the box of the largest part, or of which so little is set, is told.
_STRAY, _SPARSE = 1.5, 0.2
# Of a region; where more of it is kept, that is told.
_MOSTLY = 0.8


class MaskRegion(NamedTuple):
    """A region, half-open in pixels, and what the user should know of its mask, None where there is nothing."""

    box: Box
    note: str | None = None


def set_pixels(values: npt.NDArray[Any]) -> Mask:
    """Pixels of a mask above half of what their type can hold; where the highest value is 1, those that are 1."""
    return np.asarray(values > (0 if int(values.max()) == 1 else HALF[values.dtype]))


def varies(values: npt.NDArray[Any]) -> bool:
    """Whether some pixels of a mask are set and others are not."""
    mask = set_pixels(values)
    return bool(mask.any() and not mask.all())


def find_region(values: npt.NDArray[Any], name: str, rule: RegionRule = "box") -> MaskRegion:
    """The region of a mask: the box of all set pixels, or (`component`) of the largest of its connected parts.

    Args:
        values: [H, W], as `decoding.mask_values` gives them.
        name: of the mask, for messages.
        rule: which of the two.

    Raises:
        BadSample: `empty_mask`.
    """
    mask = _some_set(values, name)
    whole = _bounding_box(mask)
    x0, y0, x1, y1 = whole
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask[y0:y1, x0:x1].view(np.uint8), connectivity=8)
    left, top, width, height, pixels = map(int, stats[1 + np.argmax(stats[1:, cv2.CC_STAT_AREA])])
    largest = (x0 + left, y0 + top, x0 + left + width, y0 + top + height)
    total, parts = int(np.count_nonzero(mask)), count - 1
    box = largest if rule == "component" else whole
    share = (pixels if rule == "component" else total) / _area(box)
    frame = box == (0, 0, mask.shape[1], mask.shape[0])
    stray = parts > 1 and _area(whole) > _STRAY * _area(largest)
    if not (frame or stray or share < _SPARSE):
        return MaskRegion(box)
    words = f"{name}: its region is {_shown(box)}{', the whole picture' * frame}, of which {share:.1%} is set"
    if stray and rule == "box":
        words += f", in {parts:,} parts; the largest, {_shown(largest)}, has {pixels / total:.1%} of the set pixels"
        words += " (region: component takes it alone)"
    elif stray:
        words += f"; other parts, with {1 - pixels / total:.1%} of the set pixels, are left out"
    if frame and _area(unset := _bounding_box(~mask)) not in (0, _area(box)):
        words += f"; what is not set is {_shown(unset)}: is the mask inverted?"
    return MaskRegion(box, words)


def find_kept(values: npt.NDArray[Any], name: str, boxes: Sequence[Box]) -> tuple[Mask, str | None]:
    """The pixels of a background that a mask keeps, and what the user should know of it.

    Args:
        values: [H, W], as `decoding.mask_values` gives them.
        name: of the mask, for messages.
        boxes: the regions, inside the picture.

    Returns:
        bool [H, W], and a note or None.

    Raises:
        BadSample: `empty_mask`, or `full_mask` where it leaves nothing of any region.
    """
    mask = _some_set(values, name)
    shares = [float(mask[y0:y1, x0:x1].mean()) for x0, y0, x1, y1 in boxes]
    if min(shares) == 1:
        whole = "the whole picture" if mask.all() else "all of every region"
        raise BadSample("full_mask", f"{name}: keeps {whole}, so that nothing can be put in: is the mask inverted?")
    if not max(shares):
        return mask, f"{name}: keeps nothing of any region: the picture is as it would be without it"
    mostly = [f"{share:.0%} of the region of object {k}" for k, share in enumerate(shares) if share > _MOSTLY]
    return mask, f"{name}: keeps {', '.join(mostly)}: is the mask inverted?" if mostly else None


def _some_set(values: npt.NDArray[Any], name: str) -> Mask:
    """`set_pixels`, of which there must be some."""
    mask = set_pixels(values)
    if not mask.any():
        detail = f"the highest value is {int(values.max())}, set is above {HALF[values.dtype]}"
        raise BadSample("empty_mask", f"{name}: no pixel is set ({detail})")
    return mask


def _bounding_box(mask: Mask) -> Box:
    x, y, width, height = map(int, cv2.boundingRect(mask.view(np.uint8)))
    return (x, y, x + width, y + height)


def _shown(box: Box) -> str:
    return f"{box[2] - box[0]}x{box[3] - box[1]} at {box[0]},{box[1]}"


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])
