"""What an object looks like, in a few hundred numbers, without any weights: its colours, where they lie, its edges.

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

from pics_cli.core.images.geometry import Box
from pics_cli.core.images.image_io import RGB
from pics_cli.core.images.masks import Mask

Descriptor = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float32]

# The object's longer side is resized to this before anything else: views of any size are compared at one scale.
SIDE = 64
# Bins along lightness, a and b, of the colours of all of it and of a cell of the layout.
COLOURS, CELL_COLOURS = (5, 13, 13), (3, 9, 9)
# Cells down and across, of the layout and of the edges; directions of edges.
LAYOUT, EDGES, DIRECTIONS = (5, 3), (4, 4), 8
# Of the three parts: their shares of a similarity.
WEIGHTS = (0.3, 0.3, 0.4)
# Chroma is compressed, asinh(a / s): near grey, where most things are, differences count for more.
_CHROMA, _MOST = 12.0, 100.0


def describe(rgb: RGB, mask: Mask, box: Box | None = None) -> Descriptor:
    """Describe an object.

    Args:
        rgb: uint8 [h, w, 3].
        mask: bool [h, w]: its pixels that can be seen.
        box: of the whole object with its hidden parts, inside the picture, over which the grids are laid; None: that of
            the mask.

    Returns:
        float32 [d] of unit length.

    Raises:
        ValueError: a mask that is not of the picture's size, or empty inside the box.
    """
    if mask.shape != rgb.shape[:2]:
        raise ValueError(f"mask is {mask.shape}, expected the picture's {rgb.shape[:2]}")
    x, y, w, h = cv2.boundingRect(mask.view(np.uint8))
    x0, y0, x1, y1 = (x, y, x + w, y + h) if box is None else box
    part = mask[y0:y1, x0:x1]
    if not part.any():
        raise ValueError("the mask is empty: there is no object to describe")
    lab, cover = _fitted(rgb[y0:y1, x0:x1], part)
    inside = cover > min(0.5, float(cover.max()) / 2)
    rows, columns = np.nonzero(inside)
    places = (_middles(rows, inside.shape[0]), _middles(columns, inside.shape[1]))
    colours = _scaled(lab[inside])
    whole = _histogram([(v, n) for v, n in zip(colours, COLOURS, strict=True)], None)
    grid = [(v, n) for v, n in zip((*places, *colours), (*LAYOUT, *CELL_COLOURS), strict=True)]
    layout = _histogram(grid, None)
    edges = _edges(lab[..., 0], inside, places)
    parts = [
        np.sqrt(weight) * _unit(np.sqrt(each)) for weight, each in zip(WEIGHTS, (whole, layout, edges), strict=True)
    ]
    return _unit(np.concatenate(parts)).astype(np.float32)


def similarity(one: Descriptor, other: Descriptor) -> npt.NDArray[np.float32]:
    """How alike objects look, 0 to 1 (the same): dot products of descriptors, [..., d] and [d] to [...]."""
    found: npt.NDArray[np.float32] = one @ other
    return found


def _fitted(rgb: RGB, mask: Mask) -> tuple[Floats, Floats]:
    """Lab, float32 [h', w', 3], and coverage, [h', w'], at the standard scale; colours of the mask's pixels alone."""
    height, width = mask.shape
    scale = SIDE / max(height, width)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    weight = mask.astype(np.float32)
    cover = cv2.resize(weight, size, interpolation=how).astype(np.float32)
    colour = cv2.resize(rgb * weight[..., None], size, interpolation=how).astype(np.float32)
    colour /= np.maximum(cover, np.float32(1e-6))[..., None] * np.float32(255)
    lab = cv2.cvtColor(np.clip(colour, 0, 1), cv2.COLOR_RGB2Lab).astype(np.float32)
    return lab, cover


def _middles(cells: npt.NDArray[np.intp], count: int) -> Floats:
    """Middles of rows or columns, as shares of the whole."""
    return ((cells + 0.5) / count).astype(np.float32)


def _scaled(lab: Floats) -> tuple[Floats, Floats, Floats]:
    """Lightness, a and b of pixels, [N, 3], each to 0..1."""
    chroma = np.arcsinh(lab[:, 1:] / np.float32(_CHROMA)) / np.float32(np.arcsinh(_MOST / _CHROMA))
    light: Floats = lab[:, 0] / np.float32(100)
    return light, chroma[:, 0] / 2 + 0.5, chroma[:, 1] / 2 + 0.5


def _edges(light: Floats, inside: Mask, places: tuple[Floats, Floats]) -> Floats:
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
    found = np.zeros((*EDGES, DIRECTIONS), np.float32)
    for bins, share in ((low, 1 - part), (low + 1, part)):
        for k in range(DIRECTIONS):
            weight = length * share * (bins % DIRECTIONS == k)
            found[..., k] += _histogram([(v, n) for v, n in zip(places, EDGES, strict=True)], weight).reshape(EDGES)
    return found.ravel()


def _histogram(axes: Sequence[tuple[Floats, int]], weights: Floats | None) -> Floats:
    """Soft histogram of N points: values in 0..1 and the number of bins of each axis; raveled."""
    count = len(axes[0][0])
    flat = np.zeros((1, count), np.intp)
    share = np.ones((1, count), np.float32) if weights is None else weights[None]
    for values, bins in axes:
        at = np.clip(values * (bins - 1), 0, bins - 1)
        low = np.minimum(at.astype(np.intp), max(bins - 2, 0))
        part = (at - low).astype(np.float32)
        flat = np.concatenate([flat * bins + low, flat * bins + np.minimum(low + 1, bins - 1)])
        share = np.concatenate([share * (1 - part), share * part])
    size = int(np.prod([bins for _, bins in axes]))
    return np.bincount(flat.ravel(), share.ravel(), size).astype(np.float32)


def _unit(values: Floats) -> Floats:
    return values / max(float(np.linalg.norm(values)), 1e-12)
