"""Which pictures of the hint show what the target shows: by rectangles, and from the samples that training sees."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from helpers.training_shards import STILL, members
from pics_cli.core.conditioning.layer_labels import compute_layer_labels
from pics_cli.core.conditioning.network_inputs import prepare_control_image
from pics_cli.core.images.geometry import Box, Letterbox
from pics_cli.core.loading.training_sample import prepare_training_sample

# From back to front by their lower edges; bit 0: so pasted, 1: the other way round, 2: nothing pasted.
BOXES: list[Box] = [(4, 4, 40, 40), (20, 20, 60, 56), (30, 30, 64, 64), (2, 50, 34, 66)]
SIDE = 68


def box_of(*boxes: Box) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), np.bool_)
    for x0, y0, x1, y1 in boxes:
        mask[y0:y1, x0:x1] = True
    return mask


def solid(k: int) -> np.ndarray:
    x0, y0, x1, y1 = BOXES[k]
    return np.full((y1 - y0, x1 - x0, 4), (50 * k, 9, 200, 255), np.uint8)


def found(seen: list[np.ndarray], references: list[np.ndarray]) -> np.ndarray:
    boxes = BOXES[: len(seen)]
    compose = partial(prepare_control_image, boxes=boxes, size=SIDE, hint="layers")
    letterbox = Letterbox(SIDE, SIDE, SIDE)
    return compute_layer_labels(
        references, seen, lambda canvas, some: compose(canvas, references=some), letterbox.forward
    )


def test_the_picture_in_the_right_order_agrees() -> None:
    first, second = box_of(BOXES[0]), box_of(BOXES[1])
    both, corner = first & second, box_of((4, 4, 9, 9))
    # The first is in front, and lacks a corner of what its reference shows.
    bits = found([first & ~corner, second & ~first], [solid(0), solid(1)])
    expected = np.full((SIDE, SIDE), 0b111)
    expected[(first | second) & ~both] = 0b011
    expected[both] = 0b010
    expected[corner] = 0b100
    np.testing.assert_array_equal(bits, expected)
    bits = found([first & ~second, second], [solid(0), solid(1)])
    expected[both], expected[corner] = 0b001, 0b011
    np.testing.assert_array_equal(bits, expected)


def test_what_no_picture_shows() -> None:
    """Where the target shows an object beyond its reference, or one whose reference is empty, none agrees."""
    first = box_of(BOXES[0])
    beyond = box_of((44, 4, 50, 10))
    bits = found([first | beyond], [solid(0)])
    assert set(bits[beyond]) == {0}
    assert set(bits[first]) == {0b011}
    empty = np.full((9, 9, 3), 255, np.uint8)
    bits = found([first], [empty])
    assert set(bits[first]) == {0}
    assert set(bits[~first]) == {0b111}


def test_four_objects() -> None:
    """More than a picture has colours."""
    whole = [box_of(box) for box in BOXES]
    seen = [mask & ~np.any(np.stack([*whole[k + 1 :], np.zeros_like(mask)]), 0) for k, mask in enumerate(whole)]
    bits = found(seen, [solid(k) for k in range(4)])
    cover = np.stack(whole).sum(0)
    assert (bits & 1).all()
    np.testing.assert_array_equal(bits[cover == 0], 0b111)
    np.testing.assert_array_equal(bits[cover == 1], 0b011)
    np.testing.assert_array_equal(bits[cover > 1], 0b001)


@pytest.mark.parametrize("absent", [0.0, 1.0])
def test_of_a_sample(absent: float) -> None:
    """Nothing is pasted, nothing is seen: all pictures agree everywhere; else the objects are found in their boxes."""
    sample = {**members(1), "clean.jpg": members(1)["bg.jpg"]}
    options: dict[str, Any] = {"set_name": "S", "key": "k", "rng_keys": (0,), "seed": 0, "size": 64}
    augment = replace(STILL, absent=absent, alternate=0.0)
    made = prepare_training_sample(sample, augment=augment, reference_size=56, hint="layers", **options)
    bits = made["layer_labels"]
    assert bits.shape == (64, 64)
    assert bits.dtype == np.uint8
    if absent:
        assert (bits == 0b111).all()
        return
    for x0, y0, x1, y1 in made["boxes"]:
        inner = bits[y0:y1, x0:x1]
        assert np.isin(inner & 0b011, (1, 2, 3)).mean() > 0.3
    outside = np.ones((64, 64), np.bool_)
    for x0, y0, x1, y1 in made["boxes"]:
        outside[max(y0 - 1, 0) : y1 + 1, max(x0 - 1, 0) : x1 + 1] = False  # a pixel may show some of each
    assert (bits[outside] == 0b111).all()
    assert "layer_labels" not in prepare_training_sample(
        sample, augment=augment, reference_size=56, hint="overlay", **options
    )
