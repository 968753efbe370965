"""Masks of a picture in an eighth of their size, one by one.

n: masks, H, W: height and width of the picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pics_cli.core.data.masks import Mask


@dataclass(frozen=True)
class Packed:
    """Masks on their way from one process to another.

    Attributes:
        bits: `np.packbits` of each, uint8 [n, ceil(H W / 8)].
        size: (H, W).
    """

    bits: npt.NDArray[np.uint8]
    size: tuple[int, int]

    def __iter__(self) -> Iterator[Mask]:
        """Each mask, bool [H, W]."""
        height, width = self.size
        for row in self.bits:
            yield np.unpackbits(row, count=height * width).reshape(height, width).view(np.bool_)

    def masks(self) -> Mask:
        """All of them, bool [n, H, W]."""
        return np.stack(list(self)) if len(self.bits) else np.zeros((0, *self.size), np.bool_)


def pack(masks: Mask) -> Packed:
    """Masks bool [n, H, W]."""
    count, height, width = masks.shape
    return Packed(np.packbits(masks.reshape(count, height * width), axis=1), (height, width))


def together(parts: Sequence[Packed], size: tuple[int, int]) -> Packed:
    """Masks of one picture, one part after the other."""
    empty = np.zeros((0, -(-size[0] * size[1] // 8)), np.uint8)
    return Packed(np.concatenate([empty, *(part.bits for part in parts)]), size)
