"""Pictures with very many objects: pairs are chosen in blocks, in time and memory that a laptop has."""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

import numpy as np
import pytest

from pics_cli.core.datasets.compat import choose_compat_group
from pics_cli.core.datasets.pairs import choose_group
from pics_cli.core.datasets.scene import Instance, Scene, Skip
from pics_cli.core.images.geometry import box_iou, is_nested
from pics_cli.core.recipes.dataset import PairSettings


def scene(count: int, seed: int, side: int = 40) -> Scene:
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 1000, (count, 2)).astype(float)
    boxes = np.concatenate([corners, corners + rng.integers(1, side, (count, 2))], axis=1)

    def mask() -> Any:
        raise AssertionError("not decoded here")

    instances = tuple(
        Instance(
            box=tuple(box), area=float((box[2] - box[0]) * (box[3] - box[1])), category="cup", category_id=1,
            annotation_id=i, ignored=False, mask=mask, mask_source="polygon",
        )
        for i, box in enumerate(boxes.tolist())
    )  # fmt: skip
    return Scene("key", 1, (), 1000, 1000, instances)


@pytest.mark.parametrize("contained", ["drop", "keep"])
@pytest.mark.parametrize("seed", range(4))
def test_blocks_give_what_the_whole_square_gives(seed: int, contained: Any) -> None:
    picture = scene(700, seed)  # three blocks
    boxes = np.array([instance.box for instance in picture.instances])
    iou = np.triu(box_iou(boxes, boxes), 1)
    if contained == "drop":
        iou[is_nested(boxes, boxes)] = 0
    best = np.unravel_index(int(iou.argmax()), iou.shape)
    assert choose_group(picture, PairSettings(contained=contained, min_area_ratio=1e-9)) == tuple(best)


@pytest.mark.parametrize("seed", range(4))
def test_the_largest_that_are_not_nested(seed: int) -> None:
    picture = scene(300, seed, side=900)
    boxes = np.array([instance.box for instance in picture.instances])
    nested = is_nested(boxes, boxes)
    order = sorted(range(300), key=lambda i: -picture.instances[i].area)
    pair = next((a, b) for k, a in enumerate(order) for b in order[k + 1 :] if not nested[a, b])
    expected = list(pair)
    for i in order:
        if len(expected) < 4 and not nested[i, expected].any():
            expected.append(i)
    found = choose_group(picture, PairSettings(rule="largest", objects=4, min_area_ratio=1e-9))
    assert found == (tuple(expected) if len(expected) == 4 else Skip("group_too_small"))


@pytest.mark.parametrize("choose", [choose_group, choose_compat_group])
@pytest.mark.parametrize("rule", ["max_iou", "largest"])
def test_memory_is_linear(choose: Any, rule: Any) -> None:
    picture = scene(4000, 0)  # whose square alone has 128 MB
    tracemalloc.start()
    start = time.monotonic()
    assert isinstance(choose(picture, PairSettings(rule=rule, min_area_ratio=1e-9)), tuple)
    assert tracemalloc.get_traced_memory()[1] < 150e6
    tracemalloc.stop()
    assert time.monotonic() - start < 60
