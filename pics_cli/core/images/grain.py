"""Grain: noise of a photograph, measured in its flat parts, and drawn anew.

h, w: sides of a picture, t: tiles, n: a tile's side.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from pics_cli.core.images.masks import Mask

Floats = npt.NDArray[np.float32]
Crops = Sequence[tuple[npt.NDArray[Any], Mask | None]]

# Grain is what a Gaussian of this deviation, in pixels, smooths away.
_SCALE = 2.0
# Tiles that are needed, and their darkest level: noise of darker pixels, and of as bright ones, is cut off.
_MIN_TILES, _DARKEST = 6, 8
# A tile is flat where what the Gaussian leaves, without its slope, varies by less than this share of what it takes:
# white noise leaves an eighth, noise of neighbouring pixels a third, textures as much as it takes.
_FLAT, _QUANTISATION = 0.4, 0.3
# Least strength of the cleanest twentieth of flat tiles, compared with the cleanest quarter, if it is noise.
_FLOOR = 0.75


class Grain(NamedTuple):
    """Noise of a picture.

    Attributes:
        covariance: of the colours, float64 [3, 3], in squared grey levels.
        blur: deviation of the Gaussian that gives white noise the same correlation of neighbours, in pixels.
    """

    covariance: npt.NDArray[np.float64]
    blur: float

    @property
    def deviation(self) -> float:
        """Of the colours' mean square, in grey levels."""
        return float(np.sqrt(np.trace(self.covariance) / 3))


def draw_grain(grain: Grain, height: int, width: int, rng: np.random.Generator) -> Floats:
    """Noise of this covariance and correlation, float32 [h, w, 3]."""
    values, vectors = np.linalg.eigh(grain.covariance)
    mix = (vectors * np.sqrt(values.clip(0))).astype(np.float32)
    noise = rng.standard_normal((height, width, 3), np.float32)
    if grain.blur:
        kernel = _gaussian(grain.blur)
        noise = cv2.filter2D(noise, -1, (kernel / np.linalg.norm(kernel)).astype(np.float32)).astype(np.float32)
    grainy: Floats = noise @ mix.T
    return grainy


def measure_grain(crops: Crops, tile: int, textured: bool = False) -> Grain | None:
    """Measure the noise in the cleanest flat tiles of pictures.

    Texture is told from noise by its unevenness, and by the lack of a floor: noise is as strong in all clean tiles.

    Args:
        crops: pictures, uint8 or float [h, w, 3], and where each may be looked at, bool [h, w]; None: everywhere.
        tile: side of the tiles, in pixels.
        textured: measure without a floor as well: what is found is then the most that the noise can be.

    Returns:
        Medians over the cleanest tiles; None where there are too few, or no floor.
    """
    tiles = [_Tiles.of(*crop, tile) for crop in crops]
    rough, deviation = (
        np.concatenate([each.rough for each in tiles]),
        np.concatenate([each.deviation for each in tiles]),
    )
    if len(deviation) < _MIN_TILES:
        return None
    cleanest, quarter = np.quantile(deviation, (0.05, 0.25))
    if cleanest < _FLOOR * quarter and not textured:
        return None
    rough = rough[deviation <= cleanest / _FLOOR]
    pixels = rough.reshape(len(rough), -1, 3).astype(np.float64)
    covariances = np.einsum("tpc,tpd->tcd", pixels, pixels) / pixels.shape[1]
    grey = rough.mean(axis=3)
    neighbours = (grey[:, 1:] * grey[:, :-1]).mean(axis=(1, 2)) + (grey[:, :, 1:] * grey[:, :, :-1]).mean(axis=(1, 2))
    correlations = neighbours / (2 * np.maximum((grey**2).mean(axis=(1, 2)), 1e-6))
    blur, kept = _blur_of_correlation(float(np.median(correlations)))
    return Grain(positive_covariance(np.median(covariances, axis=0)) / kept, blur)


def positive_covariance(covariance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The nearest covariance: none in a direction where it would be negative."""
    values, vectors = np.linalg.eigh(covariance)
    positive: npt.NDArray[np.float64] = (vectors * values.clip(0)) @ vectors.T
    return positive


class _Tiles(NamedTuple):
    """Flat tiles of a picture: what is above `_SCALE` in them, [t, n, n, 3], and its deviation, [t]."""

    rough: Floats
    deviation: Floats

    @classmethod
    def of(cls, picture: npt.NDArray[Any], mask: Mask | None, side: int) -> _Tiles:
        values = picture.astype(np.float32)
        smooth = cv2.GaussianBlur(values, (0, 0), _SCALE).astype(np.float32)
        rough, smooth = _cut(values - smooth, side), _cut(smooth, side)
        level = smooth.mean(axis=(1, 2, 3))
        usable = (level > _DARKEST) & (level < 255 - _DARKEST)
        if mask is not None:
            usable &= _cut(mask[..., None], side).all(axis=(1, 2, 3))
        rough, smooth = rough[usable], smooth[usable]
        rough = rough - rough.mean(axis=(1, 2), keepdims=True)
        deviation = np.sqrt((rough**2).mean(axis=(1, 2, 3)))
        grey = smooth.mean(axis=3).reshape(len(smooth), side**2)
        unevenness = (grey - (grey @ _plane(side)) @ _plane(side).T).std(axis=1)
        flat = unevenness < _FLAT * deviation + _QUANTISATION
        return cls(rough[flat], deviation[flat])


def _cut(values: npt.NDArray[Any], side: int) -> npt.NDArray[Any]:
    """[h, w, c] to tiles, [t, n, n, c]; what is left over at the right and below is dropped."""
    rows, columns, channels = values.shape[0] // side, values.shape[1] // side, values.shape[2]
    tiles = values[: rows * side, : columns * side].reshape(rows, side, columns, side, channels)
    cut: npt.NDArray[Any] = tiles.swapaxes(1, 2).reshape(-1, side, side, channels)
    return cut


@lru_cache(maxsize=2)
def _plane(side: int) -> Floats:
    """Orthonormal base of the planes over a tile, float32 [n², 3]."""
    y, x = np.mgrid[:side, :side].reshape(2, -1)
    return np.linalg.qr(np.stack([np.ones_like(x), x, y], axis=1).astype(np.float32))[0].astype(np.float32)


def _gaussian(deviation: float) -> npt.NDArray[np.float64]:
    """A Gaussian's kernel in two dimensions, of sum 1."""
    row = cv2.getGaussianKernel(2 * int(np.ceil(4 * deviation)) + 1, deviation)
    return np.asarray(row @ row.T, np.float64)


@lru_cache(maxsize=1)
def _correlations() -> tuple[list[float], list[float], list[float]]:
    """For blurs of white noise: what is left of it above `_SCALE` (share of its variance), and the correlation
    of neighbours there."""
    blurs, correlations, kept = [0.0, *np.arange(0.3, 1.6, 0.1).tolist()], [], []
    low = _gaussian(_SCALE)
    for blur in blurs:
        kernel = np.zeros((41, 41))
        kernel[20, 20] = 1
        if blur:
            kernel = cv2.filter2D(kernel, -1, _gaussian(blur)).astype(np.float64)
        variance = (kernel**2).sum()
        kernel -= cv2.filter2D(kernel, -1, low)
        correlations.append(float((kernel[1:] * kernel[:-1]).sum() / (kernel**2).sum()))
        kept.append(float((kernel**2).sum() / variance))
    return blurs, correlations, kept


def _blur_of_correlation(correlation: float) -> tuple[float, float]:
    """The blur of white noise with this correlation of neighbours, and the share of its variance that is measured."""
    blurs, correlations, kept = _correlations()
    blur = float(np.interp(correlation, correlations, blurs))
    return (blur if blur >= 0.3 else 0.0), float(np.interp(blur, blurs, kept))
