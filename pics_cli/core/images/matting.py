"""Soft alpha at the rim of an object whose hard mask is known, and the object's own colours there.

A pixel of the rim mixes two colours, I = α F + (1 - α) B (Porter and Duff 1984). B is the background's colour, where it
is plain, else that of the nearest pixel that is surely background; F that of the nearest pixel that is surely the
object's. α is where I lies on the line from B to F. (pymatting's closed-form matting, which needs neither colour, takes
a minute of compiling when it is first imported, and two seconds later on.)

n: pixels of the rim.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from pics_cli.core.images.image_io import RGB
from pics_cli.core.images.masks import Mask

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Colours = Callable[[npt.NDArray[np.intp], npt.NDArray[np.intp]], Floats]

# Distances of F from B, in grey levels, from which on colours begin to tell alpha, and tell it alone.
_ALIKE, _UNLIKE = 15.0, 45.0
# Least part of the rim's difference from the object's colours that one background must explain to be taken out, and
# that background's least distance from them, in grey levels.
_EXPLAINED, _STRANGE = 0.5, 30.0
# That part where most soft pixels are no rim: what is left tells less.
_WELL_EXPLAINED = 0.8
# By how many grey levels a fitted background may lie outside 0 to 255, and still be taken for black or white.
_NO_COLOUR = 40.0
# Width of a rim that may hold its background's colour, in longer sides of the picture, and at least in pixels.
_RIM, _LEAST_RIM = 0.01, 6.0
# Alpha below which a pixel is noise, and above which it is solid.
_FAINT, _SOLID = 0.04, 0.97


def rgba_from_mask(rgb: RGB, mask: Mask, rim: tuple[float, float], background: Colours | None = None) -> Bytes:
    """An object's picture with soft alpha and without its background's colour in the rim.

    Args:
        rgb: uint8 [h, w, 3].
        mask: the object, bool [h, w].
        rim: width of what may be mixed, in pixels, outside the mask and inside it.
        background: from rows and columns of n pixels to its colour there, float32 [n, 3]; None: from around the rim.

    Returns:
        uint8 [h, w, 4], not premultiplied.
    """
    outer, inner = rim
    # From the middles of pixels to the mask's outline.
    depth = cv2.distanceTransform(mask.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5) - 0.5
    height = cv2.distanceTransform((~mask).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5) - 0.5
    solid = mask & (depth >= inner)
    if not solid.any():  # thinner than its rim all over
        solid = mask & (depth >= depth.max())
    clear = ~mask & (height >= outer)
    rows, columns = np.nonzero(~solid & ~clear)
    alpha = np.where(solid, np.float32(255), np.float32(0))
    colours = rgb.copy()
    if rows.size:
        behind = _nearest(rgb, clear, rows, columns) if background is None else background(rows, columns)
        own = _nearest(rgb, _purest(rgb, mask, solid, inner, background), rows, columns)
        seen = rgb[rows, columns].astype(np.float32)
        signed = np.where(mask, depth, -height)[rows, columns]  # of the mask's outline, positive inside
        part = _unmix(seen, own, behind, signed, rim)
        alpha[rows, columns] = 255 * part
        colours[rows, columns] = _without_background(seen, own, behind, part[:, None])
    return np.dstack([colours, np.rint(alpha).astype(np.uint8)])


def remove_fringe(rgba: Bytes) -> Bytes:
    """A cut-out whose soft pixels still hold the background that it was cut from, without that background's colour.

    A cut-out is such where one colour B, fitted by least squares, explains most of how I = α F + (1 - α) B differs from
    F in its rim, see `_rim`; others are returned as they are.

    Args:
        rgba: uint8 [h, w, 4], not premultiplied.

    Returns:
        uint8 [h, w, 4] with the same alpha.
    """
    solid, rim = rgba[..., 3] == 255, _rim(rgba[..., 3])
    rows, columns = np.nonzero(rim)
    if not rows.size:
        return rgba
    alpha: Floats = rgba[rows, columns, 3:].astype(np.float32) / np.float32(255)
    seen, own = rgba[rows, columns, :3].astype(np.float32), _nearest(rgba[..., :3], solid, rows, columns)
    fitted = ((1 - alpha) * (seen - alpha * own)).sum(0) / np.square(1 - alpha).sum()
    behind = np.clip(fitted, 0, 255)
    left = seen - alpha * own - (1 - alpha) * behind
    strange = np.square(seen - own).mean()
    is_most = 2 * rows.size > np.count_nonzero((rgba[..., 3] > 0) & ~solid)
    fringed = 1 - np.square(left).mean() / max(strange, 1e-6) > (_EXPLAINED if is_most else _WELL_EXPLAINED)
    if not fringed or np.abs(fitted - behind).max() > _NO_COLOUR or np.abs(own - behind).max(1).mean() < _STRANGE:
        return rgba
    cleaned: Bytes = rgba.copy()
    cleaned[rows, columns, :3] = _without_background(seen, own, behind, alpha)
    return cleaned


def _rim(alpha: Bytes) -> Mask:
    """Soft pixels that lie near solid ones, and not where softness goes on further out: that is a shadow, or glass."""
    solid = alpha == 255
    soft = (alpha > 0) & ~solid
    if not soft.any() or not solid.any():
        return np.zeros_like(soft)
    widest = max(_RIM * max(alpha.shape), _LEAST_RIM)
    distance = cv2.distanceTransform((~solid).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    far = soft & (distance > widest)
    beside_far = cv2.dilate(far.view(np.uint8), np.ones((4 * round(widest) + 1,) * 2, np.uint8)) > 0
    rim: Mask = soft & ~far & ~beside_far
    return rim


def rim_width(distance: Bytes, mask: Mask) -> float:
    """Width of an object's soft rim in pixels, from how distances from the background rise into it.

    Args:
        distance: of each pixel from the plain background's colour, uint8 [h, w].
        mask: where there is any, bool [h, w]: the outline is where the rim begins.
    """
    widest = max(round(0.012 * max(mask.shape)), 8)
    depth = cv2.distanceTransform(mask.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    shallow = (depth > 0) & (depth <= widest)
    order = np.argsort(steps := np.ceil(depth[shallow]).astype(np.int16), kind="stable")
    bands = np.split(distance[shallow][order], np.searchsorted(steps[order], np.arange(2, widest + 1)))
    levels = [float(np.median(band)) if band.size else 0.0 for band in bands]
    full = max(levels[-1], 1.0)
    risen = next(k for k, level in enumerate(levels) if level >= 0.85 * full) if max(levels) >= 0.85 * full else widest
    return float(np.clip(risen + 1.5, 2, widest))


def _unmix(seen: Floats, own: Floats, behind: Floats, signed: Floats, rim: tuple[float, float]) -> Floats:
    """Alpha of n pixels, float32 [n], from their colours, own colours and those behind them, float32 [n, 3].

    What lies deep in the mask is at least as opaque as its depth says, what lies far out of it at most so.
    """
    outer, inner = rim
    line = own - behind
    length = (line * line).sum(1)
    by_colour = ((seen - behind) * line).sum(1) / np.maximum(length, 1)
    # Where the object has the background's colour, its outline decides, smoothed over two pixels.
    by_outline = np.clip(0.5 + signed / 2, 0, 1)
    trust = np.clip((np.sqrt(length) - _ALIKE) / (_UNLIKE - _ALIKE), 0, 1)
    part = trust * np.clip(by_colour, 0, 1) + (1 - trust) * by_outline
    least = np.clip((signed - 0.5) / max(inner - 0.5, 0.5), 0, 1)
    most = np.clip(1 + (signed + 0.5) / max(outer, 0.5), 0, 1)
    part = np.clip(part, least, most)
    return np.where(part < _FAINT, 0, np.where(part > _SOLID, 1, part)).astype(np.float32)


def _without_background(seen: Floats, own: Floats, behind: Floats, alpha: Floats) -> Bytes:
    """Own colours of n mixed pixels, uint8 [n, 3]; alpha [n, 1]."""
    unmixed = behind + (seen - behind) / np.maximum(alpha, 0.1)
    # The fainter a pixel, the louder the noise of its unmixed colour.
    unmixed = own + (unmixed - own) * alpha
    colours: Bytes = np.rint(np.clip(unmixed, 0, 255)).astype(np.uint8)
    return colours


def _purest(rgb: RGB, mask: Mask, solid: Mask, inner: float, background: Colours | None) -> Mask:
    """Pixels that surely show the object's own colour: the solid ones, and the purest of thin parts that have none."""
    radius = max(round(inner), 1)
    far = mask & (cv2.dilate(solid.view(np.uint8), np.ones((4 * radius + 1,) * 2, np.uint8)) == 0)
    rows, columns = np.nonzero(far)
    if background is None or not rows.size:
        return solid
    distance = np.zeros(mask.shape, np.float32)
    distance[rows, columns] = np.abs(rgb[rows, columns] - background(rows, columns)).max(1)
    peak = cv2.dilate(distance, np.ones((2 * radius + 1,) * 2, np.uint8))
    purest: Mask = solid | (far & (distance >= 0.95 * peak))
    return purest


def _nearest(rgb: RGB, where: Mask, rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp]) -> Floats:
    """Colours of the nearest pixels that are set in `where`, averaged over such in 3x3 pixels, float32 [n, 3]."""
    if not where.any():
        return rgb[rows, columns].astype(np.float32)
    _, labels = cv2.distanceTransformWithLabels(
        (~where).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    index = np.zeros(int(labels.max()) + 1, np.intp)
    places = np.flatnonzero(where)
    index[labels.reshape(-1)[places]] = places
    targets, back = np.unique(index[labels[rows, columns]], return_inverse=True)
    y, x = np.unravel_index(targets, where.shape)
    total, count = np.zeros((targets.size, 3), np.float32), np.zeros((targets.size, 1), np.float32)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            v, u = np.clip(y + dy, 0, where.shape[0] - 1), np.clip(x + dx, 0, where.shape[1] - 1)
            weight = where[v, u].astype(np.float32)[:, None]
            total += rgb[v, u] * weight
            count += weight
    averages: Floats = total / count
    return averages[back.reshape(-1)]
