"""Which of the hint's pictures show what the target shows: what the shares of them are taught by.

K: objects, L: pictures of the hint, S: model size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from pics_cli.core.images.cutouts import cut_out, is_blank
from pics_cli.core.images.masks import Mask

Bytes = npt.NDArray[np.uint8]

# Objects that a picture tells apart, one in each of its colours.
_COLOURS = 3


def compute_layer_labels(
    references: Sequence[Bytes],
    seen: Sequence[Mask],
    compose: Callable[[Bytes, Sequence[Bytes]], Bytes],
    resize: Callable[[Bytes], Bytes],
) -> Bytes:
    """Where each of the hint's pictures shows the same object as the target does, or none where it shows none.

    A pixel shows what covers most of it.

    Args:
        references: K pictures as `compose_hint` takes them.
        seen: what of each object the target shows, bool [h, w] of the window's size.
        compose: a background uint8 [h, w, 3] and references to a hint [S, S, 3 L].
        resize: a picture of the window's size to uint8 [S, S, 3], as the target is.

    Returns:
        uint8 [S, S], bit l set where picture l agrees.
    """
    height, width = seen[0].shape
    hints, targets = list[Bytes](), list[Bytes]()
    for first in range(0, len(seen), _COLOURS):
        flat = np.zeros((height, width, 3), np.uint8)
        for k, mask in enumerate(seen[first : first + _COLOURS]):
            flat[mask, k] = 255
        targets.append(resize(flat))
        painted = compose(np.zeros_like(flat), [_flat(each, k - first) for k, each in enumerate(references)])
        hints.append(painted.reshape(*painted.shape[:2], -1, 3))
    target = _shown(np.concatenate(targets, 2))
    shown = _shown(np.concatenate(hints, 3))  # [S, S, L]
    agreeing = (shown == target[..., None]) << np.arange(shown.shape[-1])
    bits: Bytes = agreeing.sum(-1).astype(np.uint8)
    return bits


def _flat(reference: Bytes, channel: int) -> Bytes:
    """The reference with one channel white and the others black; all black where the channel is none of the three."""
    if is_blank(reference):
        return reference
    flat: Bytes = cut_out(reference).copy()
    flat[..., :3] = 0
    if 0 <= channel < _COLOURS:
        flat[..., channel] = 255
    return flat


def _shown(cover: Bytes) -> npt.NDArray[np.intp]:
    """Covers [..., K], 255 being whole, to the object that covers most, from 1 on; 0: more of it is free."""
    covers = cover.astype(np.int32)
    free = 255 - covers.sum(-1, keepdims=True)
    found: npt.NDArray[np.intp] = np.concatenate([free, covers], -1).argmax(-1)
    return found
