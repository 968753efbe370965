"""How near a composite is to the truth: pure functions of pictures, uint8 [H, W, 3], and masks, bool [H, W].

X: the composite, T: the truth, C: the background without objects, D = X - T. Y: luminance, 0.299 R + 0.587 G + 0.114 B.
U: union of the regions. A figure is None where the scene has nothing to judge it by.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from skimage.metrics import structural_similarity

from pics_cli.core.images.geometry import Box
from pics_cli.core.images.image_io import RGB
from pics_cli.core.images.masks import Mask

Floats = npt.NDArray[np.float32]

# Side of the window that structural similarity looks through.
WINDOW = 11
# What two equal pictures get, in dB.
MOST_PSNR = 99.0
# A pixel is in shadow where the truth is darker than the empty scene by this many 8-bit steps, and free of it where the
# two differ by no more than one: grain is the same in both.
SHADOW, LIT = 4.0, 1.0
# Pixels around the objects that are not asked for shadow: their edges are mixed with the ground.
RIM = 2
# Two renderings differ in a pixel where their colours are this far apart, and no fewer pixels tell them apart. Colours
# are compared in Lab, lightness with this weight: the other light on a reference, and the shadow of what stands before
# it, change how light a thing is far more than its hue.
DIFFERS, ENOUGH, LIGHTNESS = 4.0, 60, 0.1
# Pixels of shadow, or of lit ground, below which they are not judged.
SOME = 16


class Seam(NamedTuple):
    """Sum of the seam errors of pairs of pixels, and how many pairs there are."""

    total: float
    pairs: int

    @property
    def mean(self) -> float | None:
        """In 8-bit steps; None without pairs."""
        return self.total / self.pairs if self.pairs else None


def pooled(seams: Sequence[Seam]) -> Seam:
    """All of their pairs together."""
    return Seam(sum(each.total for each in seams), sum(each.pairs for each in seams))


def union(boxes: Sequence[Box], height: int, width: int) -> Mask:
    """bool [H, W], set in every box."""
    inside = np.zeros((height, width), np.bool_)
    for x0, y0, x1, y1 in boxes:
        inside[y0:y1, x0:x1] = True
    return inside


def luminance(rgb: RGB) -> Floats:
    """Y, float32 [H, W] in 0..255."""
    return cv2.cvtColor(rgb.astype(np.float32), cv2.COLOR_RGB2GRAY).astype(np.float32, copy=False)


def region_psnr(result: RGB, truth: RGB, inside: Mask) -> float:
    """10 log10(255² / mean of D² over the pixels of U and the three channels), dB; at most 99."""
    error = float(np.mean((result[inside].astype(np.float32) - truth[inside]) ** 2))
    return min(10 * float(np.log10(255**2 / max(error, 1e-12))), MOST_PSNR)


def ssim(result: RGB, truth: RGB) -> tuple[float, Floats] | None:
    """Structural similarity of the three channels, and its map [H, W], their mean; None of less than a window.

    Wang, Bovik, Sheikh, Simoncelli, IEEE TIP 2004, as scikit-image does it: Gaussian windows of deviation 1.5, weights
    that sum to 1, borders of 5 pixels left out of the mean.
    """
    if min(truth.shape[:2]) < WINDOW:
        return None
    mean, parts = structural_similarity(
        truth, result, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255,
        full=True,
    )  # fmt: skip
    return float(mean), parts.mean(axis=2).astype(np.float32)


def seam(result: RGB, truth: RGB, inside: Mask) -> Seam:
    """How much sharper or softer the border of a mask is than in the truth.

    For each pair of neighbours p inside and q outside of the mask, and p', q' one pixel farther from the border on the
    line through both, the step across the border is J(I) = (I(p) + I(p')) / 2 - (I(q) + I(q')) / 2. The error of the
    pair is the mean over channels of |J(X) - J(T)| = |J(D)|. Pairs whose four pixels are not all in the picture do not
    count: where a region ends with the picture there is no border.
    """
    off = result.astype(np.float32) - truth
    total, pairs = 0.0, 0
    for flip in (False, True):
        error, mask = (off.transpose(1, 0, 2), inside.T) if flip else (off, inside)
        crossing = mask[:, 1:-2] != mask[:, 2:-1]
        step = (error[:, :-3] + error[:, 1:-2] - error[:, 2:-1] - error[:, 3:])[crossing] / 2
        total += float(np.abs(step).mean(axis=1).sum())
        pairs += len(step)
    return Seam(total, pairs)


def object_seam(result: RGB, truth: RGB, visible: Sequence[Mask]) -> Seam:
    """Along the outlines of what is seen of each object in truth."""
    return pooled([seam(result, truth, mask) for mask in visible])


def ground(full: Sequence[Mask], inside: Mask) -> Mask:
    """Pixels of U that are 2 pixels or more away from every object: bool [H, W]."""
    solid = np.any(np.stack(full), axis=0).astype(np.uint8)
    grown = cv2.dilate(solid, np.ones((2 * RIM + 1,) * 2, np.uint8))
    free: Mask = inside & (grown == 0)
    return free


def shadow_error(result: RGB, truth: RGB, clean: RGB, full: Sequence[Mask], inside: Mask) -> float | None:
    """Mean of |Y(X) - Y(T)| over the ground in the regions that really is in shadow: Y(C) - Y(T) >= 4."""
    shown = luminance(truth)
    shaded = ground(full, inside) & (luminance(clean) - shown >= SHADOW)
    return _mean_off(luminance(result), shown, shaded)


def lit_error(result: RGB, truth: RGB, clean: RGB, full: Sequence[Mask], inside: Mask) -> float | None:
    """Mean of |Y(X) - Y(T)| over the ground in the regions that no shadow falls on: |Y(C) - Y(T)| <= 1."""
    shown = luminance(truth)
    lit = ground(full, inside) & (np.abs(luminance(clean) - shown) <= LIT)
    return _mean_off(luminance(result), shown, lit)


def _mean_off(values: Floats, expected: Floats, where: Mask) -> float | None:
    if np.count_nonzero(where) < SOME:
        return None
    return float(np.abs(values[where] - expected[where]).mean())


def right_order(result: RGB, truth: RGB, others: Sequence[RGB], both: Mask) -> bool | None:
    """Whether the right object is in front where two overlap.

    `others` are the scene with one and with the other object wholly in front. The truth is one of them, unless one
    object holds the other: then neither is right, for the content is behind the front wall and before the back wall.
    Two pictures are d = 0.1 |ΔL| + |Δa| + |Δb| apart in a pixel. A rendering W is judged on the pixels P of the overlap
    where d(T, W) >= 4; one with fewer than 60 of them cannot be told from the truth and does not count. The order is
    right if, for every W that counts, the mean of d(X, T) over P is below that of d(X, W). For a vessel that asks for
    both: the content is seen above the rim, and the front wall hides the rest of it.

    Of references pasted in both orders into 320 scenes of the training side this named the right one in 380 of 384
    cases, and neither in all of 200 where one object holds the other. (By colours in RGB: in 90 %.)

    Args:
        result, truth: X, T.
        others: renderings of other orders, uint8 [H, W, 3].
        both: the overlap of the two objects' full masks.

    Returns:
        None where no other order can be told from the truth.
    """
    known = None
    shown, expected = _weighted(result), _weighted(truth)
    for other in others:
        wrong = _weighted(other)
        at = both & (np.abs(expected - wrong).sum(axis=2) >= DIFFERS)
        if np.count_nonzero(at) < ENOUGH:
            continue
        nearer = np.abs(shown - expected)[at].sum() < np.abs(shown - wrong)[at].sum()
        known = bool(nearer) and known is not False
    return known


def _weighted(rgb: RGB) -> Floats:
    """Lab with its lightness weighted, float32 [H, W, 3]."""
    lab = cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2Lab).astype(np.float32, copy=False)
    lab[..., 0] *= LIGHTNESS
    return lab


def sharpness(result: RGB, truth: RGB, inside: Mask) -> float:
    """Gradient energy of X over that of T: sums of (Y(p) - Y(q))² over neighbours p, q that both lie in U."""
    return _energy(luminance(result), inside) / max(_energy(luminance(truth), inside), 1e-6)


def _energy(values: Floats, inside: Mask) -> float:
    across = np.diff(values, axis=1)[inside[:, 1:] & inside[:, :-1]]
    down = np.diff(values, axis=0)[inside[1:] & inside[:-1]]
    return float((across.astype(np.float64) ** 2).sum() + (down.astype(np.float64) ** 2).sum())
