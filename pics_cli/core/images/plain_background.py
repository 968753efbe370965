"""The plain background of an object's picture: found at the border, followed into the picture and into enclosed holes.

h, w: sides of the picture. Distances are the largest difference over the three channels, in grey levels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from pics_cli.core.images.holes import detail_radius, disc, find_holes
from pics_cli.core.images.image_io import RGB
from pics_cli.core.images.masks import Mask

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.floating]

# A border counts as plain where this part of it has one smoothly varying colour, and no more than this scatter.
PLAIN_SHARE = 0.6
MAX_SPREAD = 6.0
# Of a border that is nearly white, the documented background, less is enough: the picture may be cropped closely.
WHITE_SHARE, NEARLY_WHITE = 0.25, 250
# Distances from the background's colour that still count as background: at least, at most.
_TOLERANCE = (4.0, 20.0)
# A shadow on it is at most so much darker, and changes by so many grey levels a pixel of a picture of some 700.
_MAX_SHADOW, _MAX_SLOPE = 90, 2.0
# Traces of JPEG reach so many pixels from an edge: a block; twice as many where colours are subsampled.
_RINGING = 8
# Pixels that a colour is fitted to, at most.
_FITTED = 20_000
# Pixels of the picture that are worked on at a time.
_BLOCK = 1 << 20


@dataclass(frozen=True, eq=False)
class PlainBackground:
    """Colour of a plain background as a function of the place.

    Attributes:
        coefficients: float64 [6, 3], of 1, x, y, x², xy, y² with x and y in -1..1 over the picture, for each channel.
        spread: standard deviation of a pixel's colour around it, in grey levels.
        size: (h, w) of the picture.
    """

    coefficients: npt.NDArray[np.float64]
    spread: float
    size: tuple[int, int]

    @property
    def tolerance(self) -> float:
        """Distance up to which a pixel counts as background."""
        return float(np.clip(4 * self.spread + 2, *_TOLERANCE))

    def colours(self, rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        """Its colour at n pixels, float32 [n, 3]."""
        colours = np.clip(_terms(rows, columns, self.size) @ self.coefficients, 0, 255)
        return colours.astype(np.float32)

    def distance(self, rgb: RGB) -> Bytes:
        """Distance of each pixel of the picture, uint8 [h, w, 3], from it: uint8 [h, w], rounded."""
        height, width = self.size
        out = np.empty((height, width), np.uint8)
        x = np.linspace(-1, 1, width, dtype=np.float32)[None, :, None]
        c = self.coefficients.astype(np.float32)
        along = c[0] + c[1] * x + c[3] * x * x
        for first, last in _blocks(height, width):
            y = np.linspace(-1, 1, height, dtype=np.float32)[first:last, None, None]
            field = along + c[4] * x * y + (c[2] * y + c[5] * y * y)
            red, green, blue = np.moveaxis(np.abs(rgb[first:last] - np.clip(field, 0, 255, out=field)), 2, 0)
            out[first:last] = np.rint(np.maximum(np.maximum(red, green), blue))
        return out


def find_plain_background(rgb: RGB) -> PlainBackground | None:
    """The plain background that surrounds an object; None where the border of the picture is not plain.

    The most frequent colour of the border grows, step by step, to a surface of second order, so that light may fall off
    towards a side or the corners. What is left of the scatter, JPEG's for example, becomes the tolerance.

    Args:
        rgb: uint8 [h, w, 3].
    """
    height, width = rgb.shape[:2]
    rows, columns = _border(height, width)
    values = rgb[rows, columns].astype(np.float64)
    fit = _fit(_terms(rows, columns, (height, width)), values)
    if fit is None:
        return None
    background = PlainBackground(*fit, (height, width))
    inside = np.abs(values - background.colours(rows, columns)).max(1) <= background.tolerance
    white = bool((background.colours(rows[inside], columns[inside]).mean(0) >= NEARLY_WHITE).all())
    if inside.mean() < (WHITE_SHARE if white else PLAIN_SHARE) or not _on_all_sides(
        rows, columns, inside, rgb.shape[:2]
    ):
        return None
    # The same surface once more, through all of the background that can be seen: the middle may be lit otherwise.
    clear = _connected(background.distance(rgb) <= background.tolerance, 1)
    seen = np.flatnonzero(clear)
    rows, columns = np.unravel_index(seen[:: max(seen.size // _FITTED, 1)], (height, width))
    refit = _fit(_terms(rows, columns, (height, width)), rgb[rows, columns].astype(np.float64))
    return background if refit is None else PlainBackground(*refit, (height, width))


def background_mask(rgb: RGB, background: PlainBackground) -> Mask:
    """What of a picture is plain background, bool [h, w]: what the border reaches, and holes in the object.

    Nothing leaks into the object through gaps of its outline that are thinner than a few pixels. Near the object the
    tolerance is what JPEG needs there. A soft shadow on the background is background, see `_cast_shadow`, and an
    enclosed area where it can only be a hole, see `find_holes`.
    """
    distance = background.distance(rgb)
    radius = detail_radius(distance.shape)
    tolerance = background.tolerance
    strong = distance > max(3 * tolerance, _TOLERANCE[1])
    away = cv2.distanceTransform((~strong).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    near = (away >= 3) & (away <= _RINGING)
    rough = cv2.absdiff(rgb, cv2.medianBlur(rgb, 5))[near].max(1, initial=0)
    ringing = float(np.quantile(rough, 0.75)) if rough.size else 0.0
    candidate = distance <= np.where(away <= 2 * _RINGING, min(tolerance + 4 * ringing, _TOLERANCE[1]), tolerance)
    clear = _connected(candidate, radius)
    clear = _without_specks(clear, distance, 4 * tolerance, 1)
    shadow = _cast_shadow(rgb, background, clear, distance, radius)
    if shadow.any():
        clear = _without_specks(clear | shadow, distance, _MAX_SHADOW, radius + 2)
    return clear | find_holes(candidate & ~clear, clear, near, rgb, distance, background.colours, background.spread)


def _without_specks(clear: Mask, distance: Bytes, strong: float, radius: int) -> Mask:
    """The background with what is too small, or thin and faint, to be an object: dust, the ringing of JPEG at edges.

    Nothing is faint from the distance `strong` on, or thin that a disc of this radius fits into.
    """
    thick = cv2.morphologyEx((~clear).view(np.uint8), cv2.MORPH_OPEN, disc(radius)) > 0
    solid = thick | ((distance > strong) & ~clear)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(solid.view(np.uint8), connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA]
    kept = np.flatnonzero(areas >= 0.002 * areas[1:].max(initial=0))
    return ~np.isin(labels, kept[kept > 0])


def _cast_shadow(rgb: RGB, background: PlainBackground, clear: Mask, distance: Bytes, radius: int) -> Mask:
    """A soft shadow on the background, bool [h, w]: its colour darkened, and joined to it without an edge."""
    rows, columns = np.nonzero(~clear & (distance <= _MAX_SHADOW))
    shadow = np.zeros(clear.shape, np.bool_)
    if not rows.size:
        return shadow
    ratio = rgb[rows, columns] / np.maximum(background.colours(rows, columns), 1)
    shadow[rows, columns] = (ratio.max(1) <= 1.01) & (np.ptp(ratio, axis=1) <= 0.06)
    smooth = cv2.GaussianBlur(distance.astype(np.float32), (0, 0), 1.0 * radius)
    slope = np.hypot(cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=0.125), cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=0.125))
    gentle = (shadow | clear) & (slope * radius <= _MAX_SLOPE)
    return _connected(gentle, radius + 1) & ~clear


def _border(height: int, width: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Rows and columns of pixels of the border, of all of them or of so many that it can be fitted."""
    depth = max(min(height, width) // 100, 1)
    ring = np.ones((height, width), np.bool_)
    ring[depth : height - depth, depth : width - depth] = False
    places = np.flatnonzero(ring)
    rows, columns = np.unravel_index(places[:: max(places.size // _FITTED, 1)], (height, width))
    return rows, columns


def _terms(rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp], size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """float64 [n, 6]: 1, x, y, x², xy, y² of pixels."""
    y, x = (2 * values / max(length - 1, 1) - 1 for values, length in zip((rows, columns), size, strict=True))
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], 1)


def _fit(terms: Floats, values: Floats) -> tuple[npt.NDArray[np.float64], float] | None:
    """Coefficients [6, 3] and spread of the surface that most of the values [n, 3] lie on; None where they scatter."""
    cells = (values // 16).astype(np.int64) @ np.array([1, 16, 256])
    common = np.bincount(cells, minlength=4096).argmax()
    colour = np.median(values[cells == common], axis=0)
    inside = np.abs(values - colour).max(1) <= _TOLERANCE[1]
    for order in (1, 3, 3, 6, 6, 6, 6):
        if np.count_nonzero(inside) < 12:
            return None
        found, *_ = np.linalg.lstsq(terms[inside, :order], values[inside], rcond=None)
        rest = values - terms[:, :order] @ found
        spread = float(np.median(np.abs(rest[inside]), axis=0).max() * 1.4826)
        spread = max(spread, 0.5 * float(rest[inside].std(0).max()))
        inside = np.abs(rest).max(1) <= np.clip(4 * spread + 2, *_TOLERANCE)
    if spread > MAX_SPREAD:
        return None
    return np.vstack([found, np.zeros((6 - found.shape[0], 3))]), spread


def _on_all_sides(
    rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp], inside: Mask, size: tuple[int, ...]
) -> bool:
    """Whether each side of the border shows some background, be it at the corners alone.

    A sky ends above the ground, which takes all of the lower side.
    """
    height, width = size[:2]
    sides = (rows < height * 0.02, rows >= height * 0.98, columns < width * 0.02, columns >= width * 0.98)
    return all(bool(inside[side].mean() >= 0.02) for side in sides if side.any())


def _connected(candidate: Mask, radius: int) -> Mask:
    """The candidates that the border reaches through passages wider than 2 radius, bool [h, w]."""
    wide = cv2.erode(candidate.view(np.uint8), disc(radius), borderType=cv2.BORDER_CONSTANT, borderValue=1)
    framed = cv2.copyMakeBorder(wide, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
    _, labels = cv2.connectedComponents(framed, connectivity=4)
    outside = (labels[1:-1, 1:-1] == labels[0, 0]).view(np.uint8)
    grown = cv2.dilate(outside, disc(radius + 1), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return (grown > 0) & candidate


def _blocks(height: int, width: int) -> Iterator[tuple[int, int]]:
    step = max(_BLOCK // max(width, 1), 1)
    for first in range(0, height, step):
        yield first, min(first + step, height)
