"""A correction of the hint, made at the network's size and carried out at the picture's own resolution.

Where the network paints a whole picture, details finer than its own pixels cannot be had. Where it says what to take
of the hint's pictures, how to light it and what to add, all of these are smooth: enlarged and applied to pictures that
were never made smaller, they leave every detail of the background and the references as sharp as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from pics_cli.core.data.pictures import RGB
from pics_cli.core.geometry import Letterbox

Floats = npt.NDArray[np.float32]


def native(picture: RGB, width: int, height: int) -> RGB:
    """The network's picture, uint8 [S, S, 3], at its window's size: [height, width, 3], without padding."""
    return Letterbox(width, height, picture.shape[0]).inverse(picture)


def corrected(
    seen: RGB, painters: Sequence[Callable[[RGB], None]], logits: Floats, gain: Floats, residual: Floats
) -> RGB:
    """A window with its hint's correction carried out at its own size.

    Args:
        seen: uint8 [h, w, 3], the background's part that the network saw.
        painters: what turns it into each of the hint's L pictures, in place; see `compose.painters`.
        logits, gain, residual: float32 [L or 3, S, S], of one composite of a `Blend`.

    Returns:
        uint8 [h, w, 3].
    """
    height, width = seen.shape[:2]
    letterbox = Letterbox(width, height, logits.shape[-1])
    shares = _enlarged(letterbox, logits)
    np.exp(shares - shares.max(axis=2, keepdims=True), out=shares)
    shares /= shares.sum(axis=2, keepdims=True)
    total = np.zeros((height, width, 3), np.float32)
    for paint, share in zip(painters, np.moveaxis(shares, 2, 0), strict=True):
        canvas: RGB = seen.copy()
        paint(canvas)
        total += canvas * share[..., None]
    total *= np.exp(_enlarged(letterbox, gain))
    total += _enlarged(letterbox, residual)
    return np.rint(np.clip(total, 0, 255, out=total), out=total).astype(np.uint8)


def _enlarged(letterbox: Letterbox, values: Floats) -> Floats:
    """[n, S, S] to [h, w, n]."""
    found = letterbox.enlarged(np.ascontiguousarray(values.transpose(1, 2, 0)))
    return found if found.ndim == 3 else found[..., None]
