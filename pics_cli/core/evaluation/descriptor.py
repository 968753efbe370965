"""Descriptor of an object's appearance without learnt weights: its colours, their layout, its edges.

Three histograms over the object's pixels, each in square roots (so that a dot product is the Bhattacharyya coefficient)
and of unit length, laid end to end with fixed weights:

- colour: in CIE Lab, fine in a and b, coarse in lightness, which a change of light moves first;
- layout: the same colours, coarser, over a grid that is laid over the object's box. Finer down than across: a view from
  another side moves what is left or right, and leaves heights as they are;
- edges: directions of the gradient of lightness, 0 to 180 degrees, over a square grid, inside of the object alone.

Every histogram is soft: a value counts for its two nearest bins along each axis. Nothing but pixels of the mask counts,
so neither the background nor what hides a part of the object is described.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from pics_cli.core.images.cutouts import OPAQUE_ALPHA, cut_out
from pics_cli.core.images.geometry import Box
from pics_cli.core.images.image_io import RGB
from pics_cli.core.images.masks import Mask, box_mask

Floats = npt.NDArray[np.float32]

# The object's longer side is resized to this before anything else: views of any size are compared at one scale.
OBJECT_SIDE = 64
# Bins along lightness, a and b, of the colours of all of it and of a cell of the layout.
COLOUR_BINS, LAYOUT_COLOUR_BINS = (5, 13, 13), (3, 9, 9)
# Cells down and across, of the layout and of the edges; directions of edges.
LAYOUT_GRID, EDGE_GRID, DIRECTIONS = (5, 3), (4, 4), 8
# Of the three parts: their shares of a similarity.
WEIGHTS = (0.3, 0.3, 0.4)
# Chroma is compressed, asinh(a / s): near grey, where most things are, differences count for more.
_CHROMA_SCALE, _CHROMA_MAX = 12.0, 100.0


def describe(rgb: RGB, mask: Mask, box: Box | None = None) -> Floats:
    """Describe an object.

    Args:
        rgb: uint8 [h, w, 3].
        mask: bool [h, w]: its pixels that can be seen.
        box: of the whole object with its hidden parts, inside the picture, over which the grids are laid; None: that of
            the mask.

    Returns:
        float32 [d] of unit length: dot products are similarities, 0 to 1 (the same).

    Raises:
        ValueError: a mask that is not of the picture's size, or empty inside the box.
    """
    if mask.shape != rgb.shape[:2]:
        raise ValueError(f"mask is {mask.shape}, expected the picture's {rgb.shape[:2]}")
    x0, y0, x1, y1 = box_mask(mask).box if box is None else box
    part = mask[y0:y1, x0:x1]
    if not part.any():
        raise ValueError("the mask is empty: there is no object to describe")
    lab, cover = _resize_to_lab(rgb[y0:y1, x0:x1], part)
    inside = cover > min(0.5, float(cover.max()) / 2)
    # Middles of rows and columns, as shares of the whole.
    cells = zip(np.nonzero(inside), inside.shape, strict=True)
    position = [((cell + 0.5) / count).astype(np.float32) for cell, count in cells]
    colours = _normalise_lab(lab[inside])
    histograms = (
        _soft_histogram(colours, COLOUR_BINS),
        _soft_histogram((*position, *colours), (*LAYOUT_GRID, *LAYOUT_COLOUR_BINS)),
        _edge_histogram(lab[..., 0], inside, position),
    )
    parts = [np.sqrt(weight) * _normalise(np.sqrt(part)) for weight, part in zip(WEIGHTS, histograms, strict=True)]
    return _normalise(np.concatenate(parts)).astype(np.float32)


def describe_references(references: Sequence[npt.NDArray[np.uint8]]) -> Floats:
    """Descriptors of pictures of single objects, uint8 [h, w, 4] with alpha or [h, w, 3] on white: float32 [K, d]."""
    cutouts = [reference if reference.shape[2] == 4 else cut_out(reference) for reference in references]
    return np.stack([describe(rgba[..., :3], rgba[..., 3] >= OPAQUE_ALPHA) for rgba in cutouts])


def _resize_to_lab(rgb: RGB, mask: Mask) -> tuple[Floats, Floats]:
    """Lab, float32 [h', w', 3], and coverage, [h', w'], at the standard scale; colours of the mask's pixels alone."""
    height, width = mask.shape
    scale = OBJECT_SIDE / max(height, width)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    weight = mask.astype(np.float32)
    cover = cv2.resize(weight, size, interpolation=interpolation).astype(np.float32)
    colour = cv2.resize(rgb * weight[..., None], size, interpolation=interpolation).astype(np.float32)
    colour /= np.maximum(cover, np.float32(1e-6))[..., None] * np.float32(255)
    lab = cv2.cvtColor(np.clip(colour, 0, 1), cv2.COLOR_RGB2Lab).astype(np.float32)
    return lab, cover


def _normalise_lab(lab: Floats) -> tuple[Floats, Floats, Floats]:
    """Lightness, a and b of pixels, [N, 3], each to 0..1."""
    chroma = np.arcsinh(lab[:, 1:] / np.float32(_CHROMA_SCALE)) / np.float32(np.arcsinh(_CHROMA_MAX / _CHROMA_SCALE))
    light: Floats = lab[:, 0] / np.float32(100)
    return light, chroma[:, 0] / 2 + 0.5, chroma[:, 1] / 2 + 0.5


def _edge_histogram(light: Floats, inside: Mask, position: Sequence[Floats]) -> Floats:
    """Histogram of gradient directions over the grid of cells, weighted by the gradient's length."""
    across = cv2.Sobel(light, cv2.CV_32F, 1, 0, scale=0.125)
    down = cv2.Sobel(light, cv2.CV_32F, 0, 1, scale=0.125)
    # Gradients at the rim are those against the background, or against what hides the object.
    inner = cv2.erode(inside.view(np.uint8), np.ones((3, 3), np.uint8), borderValue=0)[inside]
    across, down = across[inside], down[inside]
    length = np.sqrt(across**2 + down**2) * inner
    turn = np.mod(np.arctan2(down, across) / np.pi, 1)
    low = np.floor(turn * DIRECTIONS).astype(np.intp)
    part = (turn * DIRECTIONS - low).astype(np.float32)
    histogram = np.zeros((*EDGE_GRID, DIRECTIONS), np.float32)
    for bins, share in ((low, 1 - part), (low + 1, part)):
        histogram += _soft_histogram(position, EDGE_GRID, length * share, bins % DIRECTIONS).reshape(histogram.shape)
    return histogram.ravel()


def _soft_histogram(
    axes: Sequence[Floats],
    bins: Sequence[int],
    weights: Floats | None = None,
    direction: npt.NDArray[np.intp] | None = None,
) -> Floats:
    """Histogram of N points, by their values in 0..1 and the number of bins along each axis; raveled.

    `direction`: the bin of each along one more axis, of `DIRECTIONS`.
    """
    count = len(axes[0])
    flat = np.zeros((1, count), np.intp)
    share = np.ones((1, count), np.float32) if weights is None else weights[None]
    for values, size in zip(axes, bins, strict=True):
        at = np.clip(values * (size - 1), 0, size - 1)
        low = np.minimum(at.astype(np.intp), max(size - 2, 0))
        part = (at - low).astype(np.float32)
        flat = np.concatenate([flat * size + low, flat * size + np.minimum(low + 1, size - 1)])
        share = np.concatenate([share * (1 - part), share * part])
    if direction is not None:
        flat, bins = flat * DIRECTIONS + direction, (*bins, DIRECTIONS)
    return np.bincount(flat.ravel(), share.ravel(), int(np.prod(bins))).astype(np.float32)


def _normalise(values: Floats) -> Floats:
    return values / max(float(np.linalg.norm(values)), 1e-12)
