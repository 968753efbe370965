"""A composite taken apart into layers that a person edits, and put together again bit for bit; see docs/layers.md.

M: the highest value of the background's depth, 255 or 65535; all arithmetic is of whole numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from pics_cli.core.images.geometry import Box, enclosing_box
from pics_cli.core.images.image_io import RGB
from pics_cli.core.images.inpainting import fill_hole
from pics_cli.core.images.masks import Mask
from pics_cli.core.images.pixels import Pixels, row_blocks, to_8_bits
from pics_cli.core.images.stored_image import StoredImage

Bytes = npt.NDArray[np.uint8]
Values = npt.NDArray[np.int64]
Operator = Literal["src-over", "multiply", "plus"]


class Coverage(NamedTuple):
    """How much of each object is seen where: uint8 [K, h, w] in a box of the picture, nothing outside it.

    A pixel's sum over the objects is 255 at most, up to rounding; what is left is ground.
    """

    box: Box
    seen: Bytes


class Layer(NamedTuple):
    """RGBA, uint8 or uint16 [h, w, 4], alpha not premultiplied, and how it acts on what lies below it."""

    name: str
    operator: Operator
    pixels: Pixels


@dataclass(frozen=True, eq=False)
class Layers:
    """A composite's layers.

    Attributes:
        background: as its file stores it.
        box: of the picture, in which the others lie; outside it nothing changed.
        stack: what lies on the background, bottom to top: `light`, the objects from back to front, `darker`, `lighter`;
            of a background with alpha also, above `light`, `shade`.
        rest: of a background with alpha, what is added to the values of all four channels at last, and what is taken
            from them, [h, w, 4] each; else None.
    """

    background: StoredImage
    box: Box
    stack: tuple[Layer, ...]
    rest: tuple[Pixels, Pixels] | None = None

    def whole(self, pixels: Pixels) -> Pixels:
        """Pixels of the box, [h, w, 4], on a canvas of the picture's size, 0 outside."""
        x0, y0, x1, y1 = self.box
        canvas = np.zeros((*self.background.pixels.shape[:2], 4), pixels.dtype)
        canvas[y0:y1, x0:x1] = pixels
        return canvas


def separate(background: StoredImage, composite: Pixels, coverage: Coverage, order: Sequence[int]) -> Layers:
    """Take a composite apart.

    Where no object is seen, `light` is what the composite is darker by; below objects it goes on smoothly. An object is
    the composite's colour where the object is seen, without the ground that shows through its rim. Where the ground is
    transparent a factor means nothing: shadows there are dark colours in `shade`, and what is left stands in `rest`.

    Args:
        background: it was made from.
        composite: of the background's shape and dtype.
        coverage: of the objects.
        order: of the objects, back to front.

    Raises:
        ValueError: the composite is of another shape or dtype.
    """
    before = background.pixels
    if composite.shape != before.shape or composite.dtype != before.dtype:
        raise ValueError(f"a composite {composite.dtype} {composite.shape} of {before.dtype} {before.shape}")
    x, y, width, height = cv2.boundingRect((before != composite).any(axis=2).view(np.uint8))
    box = enclosing_box([coverage.box, (x, y, x + width, y + height)] if width else [coverage.box])
    x0, y0, x1, y1 = box
    left, top, right, bottom = (edge - start for edge, start in zip(coverage.box, (x0, y0, x0, y0), strict=True))
    seen = np.zeros((len(coverage.seen), y1 - y0, x1 - x0), np.uint8)
    seen[:, top:bottom, left:right] = coverage.seen
    before, after = before[y0:y1, x0:x1], composite[y0:y1, x0:x1]
    light = _light(before, after, np.asarray(seen.any(axis=0)))
    names: list[tuple[str, Operator]] = [(f"object_{k}", "src-over") for k in order]
    shade: list[tuple[str, Operator]] = [("shade", "src-over")] if background.has_alpha else []
    names = [("light", "multiply"), *shade, *names, ("darker", "multiply"), ("lighter", "plus")]
    canvases = np.empty((len(names) + 2 * background.has_alpha, *before.shape[:2], 4), before.dtype)
    for rows in row_blocks(before):
        parts = _separate_rows(before[rows], after[rows], light[rows], [seen[k, rows] for k in order])
        for canvas, part in zip(canvases, parts, strict=True):
            canvas[rows] = part
    stack = tuple(Layer(name, operator, canvas) for (name, operator), canvas in zip(names, canvases, strict=False))
    return Layers(background, box, stack, (canvases[-2], canvases[-1]) if background.has_alpha else None)


def merge(layers: Layers) -> Pixels:
    """Put layers together, of the background's shape and dtype: each acts on what lies below it, bottom to top.

    With x, α a pixel's value and alpha below (α = M where the background has none), c, a those of the layer, and
    ⌊p / q⌉ = ⌊(p + ⌊q / 2⌋) / q⌋:

        multiply   x ← ⌊x f / M⌉ with f = M - ⌊(M - c) a / M⌉
        src-over   x ← ⌊(c u + x v) / (u + v)⌉ with u = a M, v = α (M - a); α ← ⌊(u + v) / M⌉
        plus       x ← min(x + ⌊c a / M⌉, M)

    At last, of a background with alpha, the rest is added and taken away in all four channels, in 0 to M.
    """
    x0, y0, x1, y1 = layers.box
    out: Pixels = layers.background.pixels.copy()
    part = out[y0:y1, x0:x1]
    highest = int(np.iinfo(out.dtype).max)
    for rows in row_blocks(part):
        colour, alpha = _canvas(part[rows])
        for layer in layers.stack:
            _apply(colour, alpha, layer.operator, layer.pixels[rows], highest)
        values = np.dstack([colour, alpha])
        if layers.rest is not None:
            values = (values + layers.rest[0][rows] - layers.rest[1][rows]).clip(0, highest)
        part[rows] = values[..., : part.shape[2]]
    return out


def region_coverage(before: RGB, after: RGB, regions: Sequence[Box], order: Sequence[int]) -> Coverage:
    """The coverage of objects whose outlines are not known: what changed of their regions, nearer ones first.

    Args:
        before, after: uint8 [H, W, 3].
        regions: of the objects.
        order: back to front.
    """
    left, top, right, bottom = box = enclosing_box(regions)
    free = (before[top:bottom, left:right] != after[top:bottom, left:right]).any(axis=2)
    seen = np.zeros((len(regions), *free.shape), np.uint8)
    for k in reversed(order):
        x0, y0, x1, y1 = regions[k]
        rows, columns = slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)
        seen[k, rows, columns] = free[rows, columns] * np.uint8(255)
        free[rows, columns] = False
    return Coverage(box, seen)


def values_differing(first: Pixels, second: Pixels) -> int:
    """Number of values that differ between two pictures of one shape."""
    return int(np.count_nonzero(first != second))


def _canvas(pixels: Pixels) -> tuple[Values, Values]:
    """Colours [h, w, 3] and alpha [h, w, 1]."""
    values = pixels.astype(np.int64)
    if values.shape[2] == 4:
        return np.ascontiguousarray(values[..., :3]), np.ascontiguousarray(values[..., 3:])
    return values, np.full((*values.shape[:2], 1), np.iinfo(pixels.dtype).max, np.int64)


def _apply(colour: Values, alpha: Values, operator: Operator, layer: npt.NDArray[Any], highest: int) -> None:
    """Let a layer act on a canvas, in place."""
    acts = layer[..., 3] > 0
    if not acts.any():
        return
    values = layer[acts].astype(np.int64)
    below, own, share = colour[acts], values[:, :3], values[:, 3:]
    if operator == "multiply":
        colour[acts] = _ratio(below * (highest - _ratio((highest - own) * share, highest)), highest)
    elif operator == "plus":
        colour[acts] = np.minimum(below + _ratio(own * share, highest), highest)
    else:
        upper, lower = share * highest, alpha[acts] * (highest - share)
        colour[acts] = _ratio(own * upper + below * lower, upper + lower)
        alpha[acts] = _ratio(upper + lower, highest)


def _ratio(numerator: Values, denominator: Any) -> Values:
    """Quotients of numbers from 0, rounded to the nearest whole number, halves up."""
    quotient: Values = (numerator + denominator // 2) // denominator
    return quotient


def _light(before: Pixels, after: Pixels, hidden: Mask) -> Pixels:
    """What the ground is multiplied by, [h, w, 3]: known where it is seen and opaque, filled in smoothly below."""
    highest = int(np.iinfo(before.dtype).max)
    light = np.full((*before.shape[:2], 3), highest, before.dtype)
    for rows in row_blocks(before):
        x, alpha = _canvas(before[rows])
        light[rows] = _factor(x, after[rows, :, :3].astype(np.int64), highest)
        light[rows][(alpha[..., 0] < highest) | hidden[rows]] = highest
    if hidden.any() and not hidden.all():
        opaque = hidden if before.shape[2] == 3 else hidden & (before[..., 3] == highest)
        filled = fill_hole(to_8_bits(light), hidden)[opaque].astype(before.dtype)
        light[opaque] = filled * before.dtype.type(highest // 255)
    return light


def _factor(below: Values, above: Values, highest: int) -> Values:
    """f, with which ⌊below f / M⌉ is `above` where that is not brighter; M elsewhere.

    It exists: f = ⌊above M / below⌉ is off by 1/2 at most, and so the product by below / 2 M, which is less than 1/2,
    or nothing where below = M.
    """
    darker = above < below
    factor = np.full_like(below, highest)
    factor[darker] = _ratio(above[darker] * highest, below[darker])
    return factor


def _separate_rows(before: Pixels, after: Pixels, light: Pixels, seen: Sequence[Bytes]) -> list[Values]:
    """The layers of some rows, bottom to top, and the rest, [h, w, 4] each; `seen` of the objects, back to front."""
    highest = int(np.iinfo(before.dtype).max)
    (colour, alpha), (target, opacity) = _canvas(before), _canvas(after)
    solid = alpha == highest
    layers = [_layer(light, highest)]
    _apply(colour, alpha, "multiply", layers[0], highest)
    shares = [share.astype(np.int64)[..., None] * (highest // 255) for share in seen]
    total = np.minimum(sum(shares), highest)
    if before.shape[2] == 4:
        # Opacity that is wanted below the objects, and of what brings the background to it.
        below = _quotient((opacity - total) * highest, highest - total, highest)
        own = _quotient((below - alpha) * highest, highest - alpha, highest)
        own[(before == after).all(axis=2)] = 0
        layers.append(np.dstack([_own_colour(target, colour, alpha, own, highest) * (total == 0), own]))
        _apply(colour, alpha, "src-over", layers[-1], highest)
    # The one colour that, seen as much as all objects together, makes the composite of the ground.
    own = _own_colour(target, colour, alpha, total, highest)
    objects = []
    room = np.full_like(total, highest)  # what objects in front leave to be seen
    for share in reversed(shares):
        part = _quotient(share * highest, room, highest)
        objects.append(np.dstack([own * (part > 0), part]))
        room = np.maximum(room - share, 0)
    for each in reversed(objects):
        _apply(colour, alpha, "src-over", each, highest)
        layers.append(each)
    layers.append(_layer(np.where(solid, _factor(colour, target, highest), highest), highest))
    _apply(colour, alpha, "multiply", layers[-1], highest)
    lighter = np.maximum(target - colour, 0) * solid
    layers.append(np.dstack([lighter, (lighter > 0).any(axis=2) * highest]))
    if before.shape[2] == 4:
        left = np.dstack([target - colour - lighter, opacity - alpha])
        layers += [np.maximum(left, 0), np.maximum(-left, 0)]
    return layers


def _own_colour(target: Values, below: Values, alpha: Values, share: Values, highest: int) -> Values:
    """The colour that, laid over what is below, makes the target, as nearly as there is one; 0 where its share is."""
    upper, lower = share * highest, alpha * (highest - share)
    return _quotient(target * (upper + lower) - below * lower, upper, highest)


def _quotient(numerator: Values, denominator: Values, highest: int) -> Values:
    """Nearest whole numbers in 0 to M; 0 where the denominator is."""
    values: Values = np.rint(numerator / np.maximum(denominator, 1)).clip(0, highest).astype(np.int64)
    return values * (denominator > 0)


def _layer(factor: npt.NDArray[Any], highest: int) -> Values:
    """A layer to multiply by, clear where it changes nothing."""
    return np.dstack([factor, (factor < highest).any(axis=2) * highest]).astype(np.int64)
