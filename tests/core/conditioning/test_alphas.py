"""Alpha of pasted objects is that with which their colours are pasted."""

from __future__ import annotations

import numpy as np

from pics_cli.core.conditioning.alphas import joint_alpha, pasted_alphas
from pics_cli.core.conditioning.network_inputs import layer_painters
from pics_cli.core.images.cutouts import cut_out
from pics_cli.core.images.geometry import Box

BOXES: list[Box] = [(3, 5, 60, 50), (30, 20, 79, 63)]


def references() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (40, 50, 4), np.uint8), rng.integers(0, 200, (90, 60, 4), np.uint8)]
    pictures[0][:5, :, 3] = 0
    return pictures


def test_alpha_is_what_the_background_loses() -> None:
    """Pasted over white and over black, they differ by what of the background is left."""
    pictures = references()
    paste = layer_painters(np.zeros((64, 80, 3), np.uint8), BOXES, pictures, hint="overlay")[0]
    canvases = []
    for value in (0, 255):
        canvas = np.full((64, 80, 3), value, np.uint8)
        paste(canvas)
        canvases.append(canvas.astype(int))
    left = canvases[1] - canvases[0]
    first, second = pasted_alphas(80, 64, BOXES, [cut_out(picture) for picture in pictures])
    found = joint_alpha(first, second).astype(int)
    np.testing.assert_array_equal(found, joint_alpha(second, first))
    assert np.abs(left - (255 - found)[..., None]).max() <= 4  # each paste rounds
    assert (found[:5] == 0).all()
    assert found.max() > 200


def test_nothing_is_pasted_of_a_blank_reference() -> None:
    one = cut_out(references()[0])
    (alone,) = pasted_alphas(80, 64, BOXES[:1], [one])
    first, second = pasted_alphas(80, 64, BOXES, [one, None])
    np.testing.assert_array_equal(alone, first)
    assert alone.any()
    assert not second.any()
    np.testing.assert_array_equal(joint_alpha(first, second), alone)
