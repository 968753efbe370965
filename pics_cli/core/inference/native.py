"""A correction of the hint, made at the network's size and carried out at the picture's own resolution.

Where the network paints a whole picture, details finer than its own pixels cannot be had. Where it says what to take
of the hint's pictures and what to add, both are smooth: enlarged and applied to pictures that were never made smaller,
they leave every detail of the background and the references as sharp as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pics_cli.core.data.pictures import RGB
from pics_cli.core.geometry import Letterbox

Floats = npt.NDArray[np.float32]


def native(picture: RGB, width: int, height: int) -> RGB:
    """The network's picture, uint8 [S, S, 3], at its window's size: [height, width, 3], without padding."""
    return Letterbox(width, height, picture.shape[0]).inverse(picture)


def corrected(seen: RGB, painters: Sequence[Callable[[RGB], None]], shares: Floats, residual: Floats) -> RGB:
    """A window with its hint's correction carried out at its own size.

    Args:
        seen: uint8 [h, w, 3], the background's part that the network saw.
        painters: what turns it into each of the hint's L pictures, in place; see `compose.painters`.
        shares: float32 [L, S, S], of those pictures, adding up to 1.
        residual: float32 [3, S, S], to be added, in grey levels.

    Returns:
        uint8 [h, w, 3].
    """
    height, width = seen.shape[:2]
    letterbox = Letterbox(width, height, shares.shape[-1])
    total = letterbox.enlarged(np.ascontiguousarray(residual.transpose(1, 2, 0)))
    for paint, share in zip(painters, shares, strict=True):
        canvas: RGB = seen.copy()
        paint(canvas)
        total += canvas * _one(letterbox, share)
    return np.rint(np.clip(total, 0, 255, out=total), out=total).astype(np.uint8)


def _one(letterbox: Letterbox, share: Floats) -> npt.NDArray[Any]:
    """[S, S] to [h, w, 1]."""
    return letterbox.enlarged(share)[..., None]
