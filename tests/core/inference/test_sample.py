"""Options, order and gate bias."""

from __future__ import annotations

from typing import Any

import pytest

from pics_cli.core.inference.sample import ORDER_BIAS, CompositeOptions, back_to_front, gate_bias, parse_order
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


def test_what_is_left_open_is_the_models() -> None:
    config = ModelConfig(steps=7, guidance=3.0, scheduler="euler")
    assert CompositeOptions().resolve(config) == CompositeOptions(steps=7, guidance=3.0, scheduler="euler")
    asked = CompositeOptions(seed=2, steps=4, guidance=1.0, scheduler="ddim", crop="full", feather=0, mode="sequential")
    assert asked.resolve(config) == asked


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("scheduler", "scheduler: got nothing, expected one of ddim, dpm"),
        ("crop", "crop: got nothing, expected one of auto, full"),
        ("mode", "mode: got nothing, expected one of parallel, sequential"),
        ("match", "match: got nothing, expected one of auto, none"),
    ],
)
def test_options_of_unknown_values(name: str, words: str) -> None:
    options: dict[str, Any] = {name: "nothing"}
    with pytest.raises(PicsError, match=words):
        CompositeOptions(**options).resolve(ModelConfig())
