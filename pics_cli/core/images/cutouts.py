"""Cutouts: an object taken out of its picture, and pasted over another.

h, w: sides of an object's picture. Colours are not multiplied by alpha unless stated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from pics_cli.core.images.geometry import Box, Letterbox
from pics_cli.core.images.image_io import RGB
from pics_cli.core.images.masks import BoxMask
from pics_cli.core.runtime.rng import generator

PATCH_SIZE = 224


@dataclass(frozen=True, slots=True)
class Patch:
    """A reference patch and how it was cut.

    Attributes:
        rgb: uint8 [224, 224, 3], white outside the mask.
        crop: box of the picture that it shows, half-open: that of the mask, unless given.
        padding: ratio by which the crop was widened with white before it was made square.
    """

    rgb: RGB
    crop: Box
    padding: float


def padding_ratios(choices: Sequence[float], seed: int, key: str, count: int) -> list[float]:
    """The padding ratio of each object of a sample: a function of the seed and the sample's key."""
    draws = generator(seed, "padding", key).integers(len(choices), size=count)
    return [choices[i] for i in draws]


def cut_patch(rgb: RGB, mask: BoxMask, padding: float, crop: Box | None = None) -> Patch:
    """Cut an object out of a picture.

    The box of the mask (or another crop) is cropped, whitened outside the mask, padded with white to
    `int(side * padding)` on both sides (the smaller half first), padded to a square likewise and resized bilinearly,
    as the published shards were.

    Args:
        rgb: uint8 [H, W, 3].
        mask: non-empty, of the same picture.
        padding: at least 1.
        crop: inside the picture; None: the box of the mask.
    """
    crop = crop or mask.box
    x0, y0, x1, y1 = crop
    height, width = int((y1 - y0) * padding), int((x1 - x0) * padding)
    side = max(height, width)
    top = (height - (y1 - y0)) // 2 + (side - height) // 2
    left = (width - (x1 - x0)) // 2 + (side - width) // 2
    square = np.full((side, side, 3), 255, np.uint8)
    inside = square[top : top + y1 - y0, left : left + x1 - x0]
    if inside.size:  # the published crop of a mask one pixel wide is empty, and its patch white
        cv2.copyTo(rgb[y0:y1, x0:x1], mask.window(crop).view(np.uint8), inside)
    resized = cv2.resize(square, (PATCH_SIZE, PATCH_SIZE), interpolation=cv2.INTER_LINEAR)
    return Patch(resized.astype(np.uint8, copy=False), crop, padding)


Bytes = npt.NDArray[np.uint8]
# How an object fits a box of another aspect: wholly inside it, all over it and cut off outside, or distorted to it.
Fit = Literal["contain", "cover", "stretch"]

WHITE = 255
# From this value on, in all three channels, a pixel is the white around an object: the published threshold.
NEARLY_WHITE = 250
# Alpha from which on a pixel is rather the object's than what is behind it.
OPAQUE_ALPHA = 128


def pad_to_square(rgb: RGB) -> RGB:
    """A picture, uint8 [h, w, 3], in the middle of a white square."""
    height, width = rgb.shape[:2]
    return Letterbox(width, height, max(height, width)).pad(rgb, WHITE)


def is_blank(reference: Bytes) -> bool:
    """Whether a picture without alpha, uint8 [h, w, 3], is white all over: it shows no object."""
    return reference.shape[2] == 3 and bool((reference >= NEARLY_WHITE).all())


def cut_out(reference: Bytes) -> Bytes:
    """An object's picture with alpha, cropped to the object.

    With alpha, the object is where it is above 0. Without, the crop is the box of all pixels that are not nearly white,
    and transparent there is only the nearly white that reaches the border of the crop: white inside an object stays.
    A picture that is white all over, see `is_blank`, counts as object as a whole.

    Args:
        reference: uint8 [h, w, 3] on white or [h, w, 4].

    Returns:
        uint8 [h', w', 4], not premultiplied.
    """
    if reference.shape[2] == 4:
        x, y, w, h = cv2.boundingRect((reference[..., 3] > 0).view(np.uint8))
        return reference[y : y + h, x : x + w]
    white = cv2.inRange(reference, (NEARLY_WHITE,) * 3, (WHITE,) * 3)
    x, y, w, h = cv2.boundingRect(255 - white)
    if not w:
        return np.dstack([reference, np.full_like(reference[..., 0], 255)])
    rgb, white = reference[y : y + h, x : x + w], white[y : y + h, x : x + w]
    _, labels = cv2.connectedComponents(
        cv2.copyMakeBorder(white, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=255), connectivity=4
    )
    outside = labels[1:-1, 1:-1] == labels[0, 0]
    return np.dstack([rgb, np.where(outside, 0, 255).astype(np.uint8)])


def crop_to_opaque(rgba: Bytes) -> Bytes:
    """A cutout, uint8 [h, w, 4], cropped to where it is at least half opaque, if it is anywhere.

    Fitted into a box with its soft rim, the object would be smaller than the box.
    """
    x, y, width, height = cv2.boundingRect((rgba[..., 3] >= OPAQUE_ALPHA).view(np.uint8))
    return rgba[y : y + height, x : x + width] if width else rgba


def fitted_size(box: Box, size: tuple[int, int], fit: Fit = "contain") -> tuple[int, int]:
    """Width and height, each at least 1, that something of a (width, height) has once it fits a box."""
    width, height = box[2] - box[0], box[3] - box[1]
    if fit == "stretch":
        return width, height
    scale = (min if fit == "contain" else max)(width / size[0], height / size[1])
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)


def paste_object(canvas: RGB, box: Box, rgba: Bytes, fit: Fit = "contain", region: Box | None = None) -> None:
    """Paste a cutout into the middle of a box of the canvas, in place.

    Args:
        canvas: uint8 [H, W, 3].
        box: inside the canvas.
        rgba: uint8 [h, w, 4]; its opaque part is what fits the box.
        fit: `contain`: as large as it fits with its aspect kept; `cover`: as small as it fills the box with its aspect
            kept; `stretch`: distorted to the box.
        region: box of the canvas outside which nothing is painted; None: `box`.
    """
    left, top, fitted = fit_object(box, rgba, fit, region)
    under = canvas[top : top + fitted.shape[0], left : left + fitted.shape[1]]
    under[:] = _over(under, fitted)


def fit_object(box: Box, rgba: Bytes, fit: Fit = "contain", region: Box | None = None) -> tuple[int, int, Bytes]:
    """A cutout as large as `paste_object` pastes it; arguments as there.

    Returns:
        left and top of its pixels, and these: uint8 [h', w', 4], premultiplied.
    """
    x0, y0, x1, y1 = box
    rgba = crop_to_opaque(rgba)
    width, height = fitted_size(box, (rgba.shape[1], rgba.shape[0]), fit)
    shrunk = width * height < rgba.shape[0] * rgba.shape[1]
    # Premultiplied, so that colours hidden behind alpha 0 do not bleed into the rim.
    fitted = cv2.resize(
        premultiply(rgba), (width, height), interpolation=cv2.INTER_AREA if shrunk else cv2.INTER_LINEAR
    ).astype(np.uint8, copy=False)
    left, top = x0 + (x1 - x0 - width) // 2, y0 + (y1 - y0 - height) // 2
    if fit == "cover":
        x0, y0, x1, y1 = region or box
        fitted = fitted[max(y0 - top, 0) : y1 - top, max(x0 - left, 0) : x1 - left]
        left, top = max(left, x0), max(top, y0)
    return left, top, fitted


def premultiply(rgba: Bytes) -> Bytes:
    """uint8 [h, w, 4], colour times alpha."""
    alpha = cv2.cvtColor(cv2.extractChannel(rgba, 3), cv2.COLOR_GRAY2RGBA)  # and 255 as its own alpha
    return cv2.multiply(rgba, alpha, scale=1 / 255).astype(np.uint8, copy=False)


def over_white(upper: Bytes) -> RGB:
    """Premultiplied colour, uint8 [h, w, 4], over white: uint8 [h, w, 3]."""
    light = cv2.cvtColor(cv2.bitwise_not(cv2.extractChannel(upper, 3)), cv2.COLOR_GRAY2RGB)
    return cv2.add(cv2.cvtColor(upper, cv2.COLOR_RGBA2RGB), light).astype(np.uint8, copy=False)


def _over(under: RGB, upper: Bytes) -> RGB:
    """Premultiplied colour over colour, uint8 [h, w, 3]; exact where alpha is 0 or 255."""
    light = cv2.cvtColor(cv2.bitwise_not(cv2.extractChannel(upper, 3)), cv2.COLOR_GRAY2RGB)
    behind = cv2.multiply(np.ascontiguousarray(under), light, scale=1 / 255)
    return cv2.add(cv2.cvtColor(upper, cv2.COLOR_RGBA2RGB), behind).astype(np.uint8, copy=False)
