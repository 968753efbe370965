"""Order, gate bias and seam."""

from __future__ import annotations

import pytest

from pics_cli.core.inference.settings import ORDER_BIAS, back_to_front, gate_bias, parse_order, seam
from pics_cli.core.model.config import ModelConfig
from pics_cli.errors import BadSample, PicsError

BOXES = [(0, 0, 10, 90), (0, 0, 10, 50), (5, 5, 20, 70)]


@pytest.mark.parametrize("text", ["", "0,0", "1,2", "a", "0,2", "-1,0", "0,1,", "front"])
def test_orders_that_are_none(text: str) -> None:
    with pytest.raises(PicsError, match="expected auto, or every object once"):
        parse_order(text)


def test_the_lower_box_is_nearer() -> None:
    assert parse_order("auto") == "auto"
    assert back_to_front("auto", BOXES) == back_to_front(None, BOXES) == [1, 2, 0]
    assert back_to_front(parse_order("2,0,1"), BOXES) == [2, 0, 1]
    with pytest.raises(BadSample, match="--order lists 2 objects, the sample has 3"):
        back_to_front((0, 1), BOXES)


def test_only_an_order_that_was_asked_for_biases_the_gate() -> None:
    assert gate_bias(None, BOXES) is None
    assert gate_bias("auto", BOXES) == [2 * ORDER_BIAS, 0, ORDER_BIAS]
    assert gate_bias((2, 0, 1), BOXES) == [ORDER_BIAS, 2 * ORDER_BIAS, 0]


def test_the_seam_is_a_latent_cell_unless_asked_for() -> None:
    boxes, config = [(0, 0, 80, 80), (0, 0, 40, 120)], ModelConfig()
    assert seam(None, (0, 0, 512, 512), boxes, config) == 8
    assert seam(None, (10, 10, 2058, 1034), boxes, config) == 32
    assert seam(None, (0, 0, 20, 20), boxes, config) == 1
    assert seam(0, (0, 0, 512, 512), boxes, config) == 0
    roomy = ModelConfig(fill=0.5)
    assert seam(None, (0, 0, 512, 512), boxes, roomy) == 10  # a quarter of the shortest side
    assert seam(3, (0, 0, 512, 512), boxes, roomy) == 3
