"""A window's layers blended at its own resolution, where its regions are.

L: layers, S: model size, h, w: sides of a part of the window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from pics_cli.core.images.geometry import Box, Letterbox, enclosing_box
from pics_cli.core.images.image_io import RGB
from pics_cli.core.inference.part_shadows import PartShadows

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Painters = Sequence[Callable[[RGB], None]]

# Pixels that are worked on at a time: their numbers then stay in a processor's cache.
_BLOCK = 1 << 16


def blend_layers(
    window_image: RGB,
    part: Box,
    painters: Painters,
    logits: Floats,
    gain: Floats,
    residual: Floats,
    boxes: Sequence[Box] | None = None,
    strength: Floats | None = None,
    shadows: PartShadows | None = None,
) -> RGB:
    """A part of a window, its layers blended at its own size: exp(gain) · Σ_l softmax_l(logits) layer_l + residual.

    Time and memory are those of the part, not of the window; a pixel comes out the same in any part.

    Args:
        window_image: uint8, the background's part that the network saw.
        part: of the window, in its pixels.
        painters: what paints each of the control image's L layers over the part, in place; see `window_painters`.
        logits, gain, residual: float32 [L or 3, S, S], of one picture of a `LayerBlend`, of the whole window.
        strength: float32 [J, 3, S, S], with `shadows`: of a `LayerBlend` of a model that casts shadows.
        shadows: of the part.
        boxes: in the window's pixels; what lies between them may be left as it is. None: all of the part is blended.

    Returns:
        uint8 [h, w, 3], of the part.
    """
    left, top, right, bottom = part
    letterbox = Letterbox(window_image.shape[1], window_image.shape[0], logits.shape[-1])
    out: RGB = window_image[top:bottom, left:right].copy()
    layers = [out.copy() for _ in painters]
    for layer, paint in zip(layers, painters, strict=True):
        paint(layer)
    for block in _blocks([part] if boxes is None else boxes, part):
        x0, y0, x1, y1 = block
        rows, columns = slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)
        weights = _blend_weights(logits, letterbox, block)
        darkness = () if shadows is None else shadows.blended((x0 - left, y0 - top, x1 - left, y1 - top), weights)
        for channel in range(3):
            total = np.zeros(weights.shape[1:], np.float32)
            for layer, weight in zip(layers, weights, strict=True):
                total += layer[rows, columns, channel] * weight
            light = letterbox.inverse_map(gain[channel], block)
            if shadows is not None and strength is not None:
                light *= shadows.fade[rows, columns]
                for j, shadow in enumerate(darkness):
                    light -= letterbox.inverse_map(strength[j, channel], block) * shadow
            total *= np.exp(light)
            added = letterbox.inverse_map(residual[channel], block)
            total += added if shadows is None else added * shadows.fade[rows, columns]
            out[rows, columns, channel] = np.rint(np.clip(total, 0, 255, out=total), out=total)
    return out


def seen_alphas(
    size: tuple[int, int],
    part: Box,
    alphas: Iterable[Bytes],
    orders: Sequence[Sequence[int]],
    logits: Floats | None,
) -> Bytes:
    """How much of each object is seen in a part of a window, where objects cover each other as layers are blended.

    Args:
        size: width and height of the window.
        part: of the window, in its pixels.
        alphas: K times uint8 [h, w], of each object as it is pasted into the part.
        orders: of the objects, back to front, in the first two layers.
        logits: float32 [3, S, S], as `blend_layers` takes them; None: all is as in the first layer.

    Returns:
        uint8 [K, h, w].
    """
    left, top, _, _ = part
    given = np.stack(list(alphas))
    out = np.empty_like(given)
    for block in _blocks([part], part):
        x0, y0, x1, y1 = block
        rows, columns = slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)
        opaque = given[:, rows, columns] / np.float32(255)
        seen = np.zeros_like(opaque)
        shares: Sequence[Floats] = [np.ones(opaque.shape[1:], np.float32)]
        if logits is not None:
            shares = list(_blend_weights(logits, Letterbox(*size, logits.shape[-1]), block))[:2]
        for share, order in zip(shares, orders, strict=False):
            for k in reversed(order):
                seen[k] += share * opaque[k]
                np.multiply(share, 1 - opaque[k], out=share)
        out[:, rows, columns] = np.rint(seen * 255)
    return out


def _blend_weights(logits: Floats, letterbox: Letterbox, block: Box) -> Floats:
    """Weights of the layers in a block of the letterbox's picture, float32 [L, h, w], their sum 1."""
    weights = np.stack([letterbox.inverse_map(plane, block) for plane in logits])
    np.exp(weights - weights.max(axis=0), out=weights)
    weights /= weights.sum(axis=0)
    return weights


def _blocks(boxes: Sequence[Box], part: Box) -> Iterator[Box]:
    """Blocks of rows in which all boxes lie: of each the columns around those boxes that meet it."""
    left, top, right, bottom = part
    first, last = (int(edge) for edge in enclosing_box(boxes)[1::2])
    step = max(_BLOCK // max(right - left, 1), 1)
    for y0 in range(max(first, top), min(last, bottom), step):
        y1 = min(y0 + step, last, bottom)
        meeting = [box for box in boxes if box[1] < y1 and box[3] > y0]
        if meeting:
            x0, _, x1, _ = enclosing_box(meeting)
            yield max(x0, left), y0, min(x1, right), y1
