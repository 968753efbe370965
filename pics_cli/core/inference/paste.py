"""The network's picture of a window, or of a part of it, back into the background: feathered pasting."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import numpy.typing as npt

from pics_cli.core.conditioning.placement import to_window
from pics_cli.core.images.geometry import Box, check_boxes, enclosing_box
from pics_cli.core.images.image_io import RGB
from pics_cli.core.images.masks import Mask
from pics_cli.core.images.pixels import Pixels
from pics_cli.core.model.config import ModelConfig

Alpha = npt.NDArray[np.uint8]

# Pixels that are worked on at a time.
_BLOCK = 1 << 20
# Distance from what is kept at which it weighs nothing any more, in pixels.
_KEEP_EDGE = 2


def feather_width(feather: int | None, window: Box, boxes: Sequence[Box], config: ModelConfig) -> int:
    """Width of the blend at the border of the boxes, in pixels of the background.

    Where it is not given: the room that the model leaves around objects for their shadows, which then fade out in it;
    one cell of the latent where it leaves none.

    Args:
        feather: the width where it is given, else None.
        window: what the network sees of the background.
        boxes: in the window's or the background's pixels.
        config: of the model.
    """
    if feather is not None:
        return feather
    if config.shadows:  # whatever it changes fades already
        return 0
    if config.fill < 1:
        return max(1, int((1 - config.fill) / 2 * min(min(x1 - x0, y1 - y0) for x0, y0, x1, y1 in boxes)))
    side = max(window[2] - window[0], window[3] - window[1])
    return max(1, round(config.downsampling * side / config.image_size))


def paste_back(
    background: RGB,
    picture: RGB,
    window: Box,
    boxes: Sequence[Box],
    feather: int,
    alpha: Alpha | None = None,
    keep: Mask | None = None,
) -> RGB:
    """Put the network's picture of a window into the boxes.

    Inside the union of the boxes its weight rises over `feather` pixels, as half a cosine, from the border inwards; no
    border where the picture itself ends. It is never less than the alpha of what is pasted there, so that only ground
    fades and no object. Outside the union, and where pixels are kept, nothing changes by a bit.

    Args:
        background: uint8 [H, W, 3].
        picture: uint8 [h, w, 3], of the window and in its pixels.
        window: what the picture shows of the background.
        boxes: inside the window, in the background's pixels; none: nothing changes.
        feather: of pixels with a weight below 1, at most; never more than a quarter of the shorter side of the smallest
            box, so that it keeps a middle. 0: a hard edge.
        alpha: uint8 [h, w], of all objects that the picture shows; None: it is not known.
        keep: bool [H, W], what of the background stays in front, with a soft edge outside it; see `kept_weight`.

    Returns:
        A new uint8 [H, W, 3].

    Raises:
        ValueError: a box that is empty or reaches outside the window.
    """
    out: RGB = background.copy()
    if not boxes:
        return out
    left, top, right, bottom = window
    check_boxes(to_window(boxes, window), right - left, bottom - top)
    feather = min(feather, *(min(x1 - x0, y1 - y0) // 4 for x0, y0, x1, y1 in boxes))
    x0, _, x1, _ = enclosing_box(boxes)
    for y0, y1, weight in _weights(boxes, background.shape[1], background.shape[0], feather):
        rows, columns = slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)
        under, over = out[y0:y1, x0:x1], picture[rows, columns]
        part = weight > 0
        if alpha is not None:
            np.maximum(weight, alpha[rows, columns] / np.float32(255), out=weight, where=part)
        if keep is not None:
            np.multiply(weight, 1 - kept_weight(keep, (x0, y0, x1, y1)), out=weight)
            part = weight > 0
        mixed = part & (weight < 1)
        ratio = weight[mixed][:, None]
        values = np.rint(under[mixed] * (1 - ratio) + over[mixed] * ratio).astype(np.uint8)
        cv2.copyTo(over, part.view(np.uint8), under)
        under[mixed] = values
    return out


def kept_weight(keep: Mask, box: Box) -> npt.NDArray[np.float32]:
    """Weight of what is kept, in a box: float32 [h, w], 1 where `keep`, bool [H, W], is set; it falls to 0 outside,
    as half a cosine, since a picture's edges are mixed of both sides."""
    x0, y0, x1, y1 = box
    left, top = max(x0 - _KEEP_EDGE, 0), max(y0 - _KEEP_EDGE, 0)
    others = ~keep[top : y1 + _KEEP_EDGE, left : x1 + _KEEP_EDGE]
    if others.all():
        return np.zeros((y1 - y0, x1 - x0), np.float32)
    distance = cv2.distanceTransform(others.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    near = np.clip(distance[y0 - top : y1 - top, x0 - left : x1 - left] / _KEEP_EDGE, 0, 1)
    weight = (0.5 + 0.5 * np.cos(np.pi * near)).astype(np.float32)
    weight[near >= 1] = 0
    return weight


def less_kept(alphas: Alpha, keep: Mask | None, box: Box) -> Alpha:
    """Alphas of objects in a box, uint8 [..., h, w], less what is kept in front of them; None: nothing is."""
    return alphas if keep is None else np.rint(alphas * (1 - kept_weight(keep, box))).astype(np.uint8)


def changed_outside(before: Pixels, after: Pixels, boxes: Sequence[Box], keep: Mask | None = None) -> int:
    """Number of pixels outside the boxes, or where they are kept, that differ between two pictures of one size.

    Args:
        before, after: [H, W, C].
        boxes: in which pixels may differ.
        keep: bool [H, W], where they may not, even so; None: nowhere.

    Raises:
        ValueError: the pictures differ in size.
    """
    if before.shape != after.shape:
        raise ValueError(f"pictures of different sizes: {before.shape} and {after.shape}")
    height, width = before.shape[:2]
    count = 0
    for y0, y1 in _blocks(0, height, width):
        changed = (before[y0:y1] != after[y0:y1]).reshape(-1, before.shape[2])
        pixels = np.logical_or.reduce([*changed.T]).reshape(y1 - y0, width)
        fixed = ~_union(boxes, (0, y0, width, y1))
        count += int(np.count_nonzero(pixels & (fixed if keep is None else fixed | keep[y0:y1])))
    return count


def _blocks(top: int, bottom: int, width: int) -> Iterator[tuple[int, int]]:
    step = max(_BLOCK // max(width, 1), 1)
    for y0 in range(top, bottom, step):
        yield y0, min(y0 + step, bottom)


def _union(boxes: Sequence[Box], part: Box) -> Mask:
    """bool, of the part's size: the union of the boxes there."""
    left, top, right, bottom = part
    union = np.zeros((bottom - top, right - left), np.bool_)
    for x0, y0, x1, y1 in boxes:
        union[max(y0 - top, 0) : max(y1 - top, 0), max(x0 - left, 0) : max(x1 - left, 0)] = True
    return union


def _weights(
    boxes: Sequence[Box], width: int, height: int, feather: int
) -> Iterator[tuple[int, int, npt.NDArray[np.float32]]]:
    """Weights of the pasted picture over the box around all boxes, in blocks of rows: y0, y1, float32 [rows, columns].

    The distance of a pixel is that to the nearest one outside the union; beyond the picture's edge there are none.
    """
    left, top, right, bottom = enclosing_box(boxes)
    x0, x1 = max(left - 1, 0), min(right + 1, width)
    halo = feather + 1
    for first, last in _blocks(top, bottom, right - left):
        y0, y1 = max(first - halo, top - 1, 0), min(last + halo, bottom + 1, height)
        union = _union(boxes, (x0, y0, x1, y1))
        if feather == 0 or union.all():
            weight = union.astype(np.float32)
        else:
            distance = cv2.distanceTransform(union.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
            weight = (0.5 - 0.5 * np.cos(np.pi * np.clip(distance / halo, 0, 1))).astype(np.float32)
        yield first, last, weight[first - y0 : last - y0, left - x0 : right - x0]
