"""Samples of the pixels on edges. E: number of those pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pics_cli.core.data.synth.camera import Array
from pics_cli.core.data.synth.solids import Faces

# Where in a pixel an edge is sampled: no two samples share a row or a column. The thin rims of hollow things need more.
FEW, MANY = (
    np.asarray([(i + 0.5, j + 0.5) for i, j in enumerate(columns)], np.float32) / len(columns)
    for columns in ((1, 3, 0, 2), (1, 4, 7, 2, 5, 0, 3, 6))
)


def patches(keys: Faces) -> tuple[npt.NDArray[np.intp], Array]:
    """One sample of each patch that each edge pixel shows, and the part of the pixel that the patch covers.

    Args:
        keys: patch of each sample, 0 for none, int16 [E, samples].

    Returns:
        Indices into all samples, by pixels, and float32 of their number.
    """
    # Key and number of each sample in one integer: sorted, the samples of a patch stand together.
    count = keys.shape[1]
    ranked = keys * np.int16(count)
    ranked += np.arange(count, dtype=np.int16)
    ranked.sort(axis=1)
    order = (ranked & (count - 1)).ravel()
    ranked //= np.int16(count)
    starts = np.ones(keys.shape, np.bool_)
    np.not_equal(ranked[:, 1:], ranked[:, :-1], out=starts[:, 1:])
    first = starts.ravel().nonzero()[0]
    counts = np.empty_like(first)
    np.subtract(first[1:], first[:-1], out=counts[:-1])
    counts[-1:] = keys.size - first[-1:]
    hit = ranked.ravel().take(first).nonzero()[0]
    first, counts = first.take(hit), counts.take(hit)
    # The middle one of its samples stands for a patch.
    some = first - first % count + order.take(first + counts // 2)
    return some, counts.astype(np.float32) * np.float32(1 / count)
