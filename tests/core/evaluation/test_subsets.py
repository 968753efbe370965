"""How objects stand to each other, by boxes and masks: against what the generator of scenes says."""

from __future__ import annotations

import numpy as np
import pytest

from pics_cli.core.evaluation.examples import draw_example
from pics_cli.core.evaluation.records import ExampleRecord
from pics_cli.core.evaluation.strata import THIRDS, split_records
from pics_cli.core.evaluation.subsets import (
    SUBSETS,
    estimate_relation,
    most_overlapping_pair,
    overlap_difficulty,
    rests_on,
    subset_of,
)
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


def test_difficulty_of_overlaps() -> None:
    """Two pairs overlap, by 1/3 and 1/7 in IoU; what they hold is alike by 1/2 and 1."""
    boxes = [(0, 0, 10, 10), (5, 0, 15, 10), (0, 7, 8, 17), (40, 40, 50, 50)]
    looks = np.array([[1, 0], [0.5, 0.75**0.5], [1, 0], [1, 0]])
    pairs = [(i, j) for i in range(4) for j in range(i)]
    expected = 0.0
    for i, j in pairs:
        cells = [{(x, y) for x in range(b[0], b[2]) for y in range(b[1], b[3])} for b in (boxes[i], boxes[j])]
        expected += len(cells[0] & cells[1]) / len(cells[0] | cells[1]) * float(looks[i] @ looks[j])
    assert overlap_difficulty(boxes, looks) == pytest.approx(expected, abs=1e-5)
    assert overlap_difficulty(boxes[:2], looks[:2]) == pytest.approx(1 / 6)
    assert overlap_difficulty([boxes[0], boxes[3]], looks[:2]) == 0
    assert overlap_difficulty(boxes[:1], looks[:1]) is None
    closer = [overlap_difficulty([boxes[0], (x, 0, x + 10, 10)], looks[:2]) or 0 for x in (10, 7, 4, 0)]
    assert closer == sorted(closer)


def test_groups_of_records() -> None:
    """Thirds by difficulty, ties together; by number of objects where that varies."""

    def records(difficulties: list[float | None], objects: int = 2) -> list[ExampleRecord]:
        return [ExampleRecord(k, str(k), "apart", "apart", 0, objects, one) for k, one in enumerate(difficulties)]

    groups = split_records(records([0.3, 0.1, 0.6, 0.2, 0.5, 0.4]))
    assert [[record.difficulty for record in groups[name]] for name in THIRDS] == [[0.1, 0.2], [0.3, 0.4], [0.6, 0.5]]
    assert [*groups] == ["all", "apart", *THIRDS]
    tied = split_records(records([0.0, 0.0, 0.0, 0.2, 0.1, None]))
    assert [len(tied.get(name, ())) for name in THIRDS] == [3, 1, 1]
    assert [*split_records(records([0.0, 0.0, None]))] == ["all", "apart"]
    several = split_records([*records([0.0]), *records([0.0], 5)])
    assert [len(several[name]) for name in ("2 objects", "5 objects")] == [1, 1]


@pytest.mark.parametrize("relation", ["apart", "supporting"])
def test_as_the_generator_says(relation: str) -> None:
    """Of drawn scenes judged by what a photograph's annotation has: boxes and visible masks."""
    style = SceneSettings(192, 2, ((relation, 1.0),), 0.0, 0.0)  # type: ignore[arg-type]
    found = []
    for number in range(12):
        example = draw_example(style, 3, number, 1.0)
        found.append(estimate_relation(example.paste_boxes, example.visible_masks))
    assert found.count(relation) >= 10, found
