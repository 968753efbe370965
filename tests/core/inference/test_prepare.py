"""A sample to the network's inputs: hint kinds, paste order, windows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from helpers.composites import BOXES, scene, thing
from pics_cli.core.inference.prepare import prepare
from pics_cli.core.inference.sample import ORDER_BIAS, CompositeOptions, CompositeSample
from pics_cli.core.model.config import HintKind, ModelConfig

CONFIG = ModelConfig(image_size=64, reference_size=28)
OPTIONS = CompositeOptions()
SAMPLE = CompositeSample("a", np.asarray(scene()), BOXES, tuple(np.asarray(thing(k)) for k in range(2)))


@pytest.mark.parametrize("hint", ["background", "collage", "overlay"])
def test_the_order_of_pasting_matters_where_references_are_pasted(hint: HintKind) -> None:
    config = replace(CONFIG, hint=hint)
    first = prepare(replace(SAMPLE, order=(0, 1)), OPTIONS, config)
    second = prepare(replace(SAMPLE, order=(1, 0)), OPTIONS, config)
    without = prepare(SAMPLE, OPTIONS, config)
    assert np.array_equal(first.inputs.control_image, second.inputs.control_image) == (hint == "background")
    assert np.array_equal(first.inputs.control_image, without.inputs.control_image), "the second box reaches lower"
    assert (first.gate_bias, second.gate_bias, without.gate_bias) == ([0, ORDER_BIAS], [ORDER_BIAS, 0], None)
    assert first.inputs.references.shape == (2, 28, 28, 3)


def test_boxes_are_those_of_the_window() -> None:
    whole = prepare(SAMPLE, replace(OPTIONS, crop="full", feather=3), CONFIG)
    assert (whole.window, whole.boxes, whole.feather) == ((0, 0, 120, 96), list(BOXES), 3)
    assert whole.window_image.shape == SAMPLE.background.shape
    part = prepare(SAMPLE, OPTIONS, replace(CONFIG, image_size=16))
    x0, y0, *_ = part.window
    assert [(a + x0, b + y0, c + x0, d + y0) for a, b, c, d in part.boxes] == list(BOXES)
    assert part.feather == 60, "a cell of 8 in a square of 16 pixels for 120"
