"""Layer labels: which layers of the control image show what the target shows, from which blend weights are learnt.

K: objects, L: layers of the control image, S: model size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from pics_cli.core.images.cutouts import cut_out, is_blank
from pics_cli.core.images.masks import Mask

Bytes = npt.NDArray[np.uint8]

# Objects that a picture tells apart, one in each of its channels.
_CHANNELS = 3


def compute_layer_labels(
    references: Sequence[Bytes],
    visible: Sequence[Mask],
    compose: Callable[[Bytes, Sequence[Bytes]], Bytes],
    resize: Callable[[Bytes], Bytes],
) -> Bytes:
    """Where each layer of the control image shows the same object as the target does, or none where it shows none.

    A pixel shows what covers most of it.

    Args:
        references: K pictures as `prepare_control_image` takes them.
        visible: what of each object the target shows, bool [h, w] of the window's size.
        compose: a background uint8 [h, w, 3] and references to a control image [S, S, 3 L].
        resize: a picture of the window's size to uint8 [S, S, 3], as the target is.

    Returns:
        uint8 [S, S], bit l set where layer l agrees.
    """
    height, width = visible[0].shape
    controls, targets = list[Bytes](), list[Bytes]()
    for first in range(0, len(visible), _CHANNELS):
        flat = np.zeros((height, width, 3), np.uint8)
        for channel, mask in enumerate(visible[first : first + _CHANNELS]):
            flat[mask, channel] = 255
        targets.append(resize(flat))
        pictures = [_paint_channel(reference, k - first) for k, reference in enumerate(references)]
        painted = compose(np.zeros_like(flat), pictures)
        controls.append(painted.reshape(*painted.shape[:2], -1, 3))
    target = _top_object(np.concatenate(targets, 2))
    layers = _top_object(np.concatenate(controls, 3))  # [S, S, L]
    agreeing = (layers == target[..., None]) << np.arange(layers.shape[-1])
    labels: Bytes = agreeing.sum(-1).astype(np.uint8)
    return labels


def _paint_channel(reference: Bytes, channel: int) -> Bytes:
    """The reference with one channel 255 and the others 0; all of them 0 where `channel` is none of the three."""
    if is_blank(reference):
        return reference
    flat: Bytes = cut_out(reference).copy()
    flat[..., :3] = 0
    if 0 <= channel < _CHANNELS:
        flat[..., channel] = 255
    return flat


def _top_object(cover: Bytes) -> npt.NDArray[np.intp]:
    """The object that covers most of each pixel, from 1 on; 0 where more of the pixel is free.

    `cover`: uint8 [..., K], 255 for a whole pixel.
    """
    covers = cover.astype(np.int32)
    free = 255 - covers.sum(-1, keepdims=True)
    top: npt.NDArray[np.intp] = np.concatenate([free, covers], -1).argmax(-1)
    return top
