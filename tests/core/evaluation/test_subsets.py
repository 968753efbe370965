"""How objects stand to each other, by boxes and masks: against what the generator of scenes says."""

from __future__ import annotations

import numpy as np
import pytest

from pics_cli.core.evaluation.examples import draw_example
from pics_cli.core.evaluation.subsets import SUBSETS, estimate_relation, most_overlapping_pair, rests_on, subset_of
from pics_cli.core.scenes.drawn.spec import SceneSettings


def mask(*box: int) -> np.ndarray:
    found = np.zeros((60, 60), np.bool_)
    x0, y0, x1, y1 = box
    found[y0:y1, x0:x1] = True
    return found


@pytest.mark.parametrize(
    ("upper", "lower", "expected"),
    [
        ((10, 5, 30, 20), (5, 20, 40, 50), True),  # a box on a block
        ((10, 5, 30, 20), (5, 23, 40, 50), False),  # it floats
        ((10, 5, 30, 20), (24, 20, 50, 50), False),  # over the edge by more than half
        ((10, 5, 30, 50), (5, 20, 40, 50), False),  # stands beside it, on the same ground
    ],
)
def test_supports(upper: tuple[int, ...], lower: tuple[int, ...], expected: bool) -> None:
    above = mask(*upper)
    assert rests_on(above, mask(*lower) & ~above) is expected


def test_bands_and_names() -> None:
    assert [subset_of("occluding", iou) for iou in (0.0, 0.0999, 0.1, 0.3, 0.9)] == [
        "overlapping, IoU < 0.1", "overlapping, IoU < 0.1", "overlapping, IoU 0.1 to 0.3",
        *["overlapping, IoU > 0.3"] * 2,
    ]  # fmt: skip
    assert {subset_of(relation, 0.5) for relation in ("apart", "touching", "containing", "supporting")} <= set(SUBSETS)


def test_nearest() -> None:
    assert most_overlapping_pair([(0, 0, 10, 10)]) == (0, 0, 0.0)
    assert most_overlapping_pair([(0, 0, 10, 10), (20, 20, 30, 30)])[:2] == (0, 1)
    boxes = [(0, 0, 10, 10), (30, 30, 40, 40), (30, 30, 40, 45)]
    assert most_overlapping_pair(boxes) == (1, 2, pytest.approx(100 / 150))


@pytest.mark.parametrize("relation", ["apart", "supporting"])
def test_as_the_generator_says(relation: str) -> None:
    """Of drawn scenes judged by what a photograph's annotation has: boxes and visible masks."""
    style = SceneSettings(192, 2, ((relation, 1.0),), 0.0, 0.0)  # type: ignore[arg-type]
    found = []
    for number in range(12):
        example = draw_example(style, 3, number, 1.0)
        found.append(estimate_relation(example.paste_boxes, example.visible_masks))
    assert found.count(relation) >= 10, found
