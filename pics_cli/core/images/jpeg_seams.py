"""Damage of a JPEG that its decoder does not notice.

Where bytes of a baseline JPEG are overwritten, decoders mostly find their step again a few blocks on, and where the
number of blocks happens to fit they warn of nothing. But each block's brightness is stored as its difference from the
block before: all that follow are lighter or darker by one amount. Such a picture has a step along one line between
rows of blocks from some column on, and along the next line before that column, and nowhere else on the two. Photographs
may have steps as sharp along a whole line, such as bars, but none that go over to the next line on their way.

L: lines between rows of blocks; C: columns of one or more blocks; n: channels; k: columns before a seam's first, 1 to
C - 1.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

# Grey levels: of a step that is damage, and those that are counted at most.
_STEP, _MOST = 12.0, 64.0
# The step in standard deviations along its line, and the least variance of these (what they tell: docs/reliability.md).
_CLEAR, _NOISE = 1.5, 4.0
_MIN_COLUMNS, _MAX_COLUMNS = 8, 40
_ALL = slice(None)
# Of colours red and blue are looked at: brightness is in both, and each of the two differences of colour in one.
_CHANNELS = {3: 2}
# Part of pixels equal to those above them from which on a picture is a drawing, which has whatever steps it likes.
_FLAT = 0.5


def find_seam(pixels: npt.NDArray[np.uint8], block: tuple[int, int]) -> int | None:
    """Row of pixels from which on a picture is lighter or darker than its file says; None: there is none.

    Args:
        pixels: as the file stores them, uint8 [H, W, 3], or [H, W, 4] of CMYK.
        block: width and height of what is stored at a time (a minimum coded unit), in pixels.
    """
    width, height = block
    width *= -(-pixels.shape[1] // (width * _MAX_COLUMNS))
    columns, rows = pixels.shape[1] // width, (pixels.shape[0] - 2) // height
    if columns < _MIN_COLUMNS or rows < 2:
        return None

    whole = slice(columns * width)
    if not _has_step(*(pixels[row::height, whole][:rows] for row in (height - 1, height))):  # most pictures
        return None

    def line(row: int, numbers: slice | npt.NDArray[np.intp] = _ALL) -> Floats:
        """One row of pixels of each row of blocks, as means over a column's width, [n, L, C]."""
        values = pixels[row::height, whole][:rows][numbers]
        means = cv2.resize(values, (columns, len(values)), interpolation=cv2.INTER_AREA).transpose(2, 0, 1)
        return np.asarray(means[:: _CHANNELS.get(len(means), 1)], np.float32)

    begun = np.flatnonzero((_contrast(line(height) - line(height - 1)) > _STEP).any(axis=(0, 2)))
    if not begun.size:
        return None
    both = (begun[:, None] + np.arange(2)).reshape(-1)
    begun = begun[_are_seams(*(line(row, both) for row in range(height - 2, height + 2)))]
    if not begun.size or _is_drawing(pixels[height - 2 :: height][:rows], pixels[height - 1 :: height][:rows]):
        return None
    return (int(begun[0]) + 1) * height


def _has_step(rows: npt.NDArray[np.uint8], next_rows: npt.NDArray[np.uint8]) -> bool:
    """Whether any line is lighter or darker than the one above it by what half a seam makes of it.

    One of a seam's two lines has the seam over half of its length or more, and beside it at most what `_contrast` takes
    off: this costs a fraction of looking for the place, and leaves none out.
    """
    step = cv2.subtract(next_rows, rows, dtype=cv2.CV_32F)
    means = step.reshape(len(step), -1) @ _channel_means(*step.shape[1:])
    return bool((np.abs(means) > _STEP / 2 - 1).any())  # the other means are rounded


def _is_drawing(rows: npt.NDArray[np.uint8], next_rows: npt.NDArray[np.uint8]) -> bool:
    return bool((rows == next_rows).all(axis=2).mean() > _FLAT)


def _are_seams(outer: Floats, above: Floats, below: Floats, inner: Floats) -> npt.NDArray[np.bool_]:
    """Whether there is a seam on each two lines, bool [m], from the rows of pixels around these, [n, 2 m, C]."""
    # A step counts as far as it is sharper than what is beside it.
    sharp = np.abs(below - above) - np.maximum(np.abs(above - outer), np.abs(inner - below))
    step = np.copysign(np.clip(sharp, 0, _MOST), below - above)
    before, after = _means(step.shape[2])
    share = np.arange(1, step.shape[2], dtype=np.float32) / step.shape[2]
    mean, mean_square = (
        (values[:, :-1] @ after) * (1 - share) + (values[:, 1:] @ before) * share for values in (step, step * step)
    )
    contrast, variance = _contrast(step), np.maximum(mean_square - mean * mean, 0)
    seam = (contrast > _STEP) & (contrast > _CLEAR * np.sqrt(variance + _NOISE))
    return np.asarray(seam[:, ::2].any(axis=(0, 2)))


def _contrast(step: Floats) -> Floats:
    """Of the seam that begins on each line at each k, what its steps have over those beside it, [n, L - 1, C - 1]."""
    before, after = _means(step.shape[2])
    left, right = step @ before, step @ after
    first, second = right[:, :-1], left[:, 1:]
    beside = np.maximum(np.abs(left[:, :-1]), np.abs(right[:, 1:]))
    contrast: Floats = np.maximum(np.minimum(first, second), -np.maximum(first, second)) - beside
    return contrast


@lru_cache(32)
def _channel_means(width: int, channels: int) -> Floats:
    """What rows of pixels are multiplied by for the means of the channels that `find_seam` looks at, [W n, m]."""
    return np.tile(np.eye(channels, dtype=np.float32)[:, :: _CHANNELS.get(channels, 1)] / width, (width, 1))


@lru_cache(32)
def _means(columns: int) -> tuple[Floats, Floats]:
    """What a line is multiplied by for the means of its first k columns and of the others, float32 [C, C - 1]."""
    k = np.arange(1, columns, dtype=np.float32)
    first = np.arange(columns)[:, None] < k
    return (first / k).astype(np.float32), (~first / (columns - k)).astype(np.float32)
