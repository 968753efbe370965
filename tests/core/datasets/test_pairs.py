"""The choice of the group equals the oracle's, and follows the rule as it is written."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from helpers import oracle
from pics_cli.core.datasets.pairs import SKIP_REASONS, choose_group
from pics_cli.core.datasets.scene import Instance, Scene, Skip
from pics_cli.core.images.geometry import box_area, box_iou, box_relation, iou_of_two, is_contained, is_nested
from pics_cli.core.images.masks import BoxMask, box_mask
from pics_cli.core.recipes.dataset import ClassFilter, PairSettings

Box = tuple[float, float, float, float]


def no_mask() -> BoxMask:
    raise AssertionError("the choice must not decode a mask")


def scene(
    boxes: Sequence[Sequence[float]],
    areas: Sequence[float] | None = None,
    size: tuple[int, int] = (100, 100),
    changes: dict[int, dict[str, Any]] | None = None,
) -> Scene:
    """A scene of boxes with masks; `changes` sets other attributes of single instances."""
    instances = []
    for i, box in enumerate(boxes):
        x0, y0, x1, y1 = map(float, box)
        area = areas[i] if areas is not None else (x1 - x0) * (y1 - y0)
        given: dict[str, Any] = {
            "box": (x0, y0, x1, y1), "area": area, "category": "cup", "category_id": 1, "annotation_id": i,
            "ignored": False, "mask": no_mask, "mask_source": "polygon",
        } | (changes or {}).get(i, {})  # fmt: skip
        instances.append(Instance(**given))
    return Scene("key", 1, (), size[0], size[1], tuple(instances))


def chosen(boxes: Any, **rule: Any) -> tuple[int, ...] | str:
    """Indices of the group, or the reason of the skip."""
    return outcome(scene(boxes), **rule)


def outcome(picture: Scene, **rule: Any) -> tuple[int, ...] | str:
    found = choose_group(picture, PairSettings(**rule))
    if isinstance(found, Skip):
        assert found.reason in SKIP_REASONS
        return found.reason
    return found


A, B = (10, 10, 50, 50), (30, 30, 70, 70)


def test_number_of_objects() -> None:
    assert chosen([]) == "no_annotations"
    assert chosen([A]) == "too_few_objects"
    assert chosen([A, B]) == (0, 1)
    assert chosen([A, B], objects=3) == "too_few_objects"
    assert chosen([A], objects=1) == (0,)


def test_area_must_be_strictly_greater_than_the_share() -> None:
    # 0.02 of 100 x 100 is 200.
    assert outcome(scene([A, B], areas=[200.0, 201.0])) == "too_few_objects"
    assert outcome(scene([A, B], areas=[200.0001, 201.0])) == (0, 1)
    assert outcome(scene([A, B], areas=[200.0, 201.0], size=(100, 99))) == (0, 1)
    assert outcome(scene([A, B], areas=[200.0, 201.0]), min_area_ratio=0.0199) == (0, 1)
    # The annotated area counts, not that of the box.
    assert outcome(scene([A, B], areas=[-1.0, 1e6])) == "too_few_objects"


def test_boxes_that_touch_do_not_overlap() -> None:
    assert chosen([(0, 0, 40, 40), (40, 0, 80, 40)]) == "no_overlap"
    assert chosen([(0, 0, 40, 40), (0, 40, 40, 80)]) == "no_overlap"
    assert chosen([(0, 0, 40, 40), (40, 40, 80, 80)]) == "no_overlap"
    assert chosen([(0, 0, 40, 40), (39.5, 0, 80, 40)]) == (0, 1)


def test_identical_boxes_lie_one_inside_the_other() -> None:
    assert chosen([A, A]) == "only_contained"
    assert chosen([A, A], contained="keep") == (0, 1)
    assert chosen([A, A, B]) == (0, 2)


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize(
    "inner", [(15, 35, 35, 55), (55, 35, 75, 55), (35, 15, 55, 35), (35, 55, 55, 75), (40, 40, 60, 60)]
)
def test_contained_box_wherever_its_centre_lies(inner: Box, swapped: bool) -> None:
    # Left, right, above, below, middle: the research code's test sees two of the five.
    boxes = [(10, 10, 80, 80), inner]
    boxes = boxes[::-1] if swapped else boxes
    assert chosen(boxes) == "only_contained"
    assert chosen(boxes, contained="keep") == (0, 1)


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("out", [(-1, 0, 0, 0), (0, -1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)])
def test_contained_within_two_pixels(out: Box, swapped: bool) -> None:
    outer = (20.0, 20.0, 80.0, 80.0)
    # The box reaches the outer one's side where it may stand out.
    near = [20.0 if out[0] else 40.0, 20.0 if out[1] else 40.0, 80.0 if out[2] else 60.0, 80.0 if out[3] else 60.0]
    for step, expected in ((0.0, "only_contained"), (2.0, "only_contained"), (2.01, (0, 1)), (2.5, (0, 1))):
        inner = tuple(side + step * sign for side, sign in zip(near, out, strict=True))
        boxes = [inner, outer] if swapped else [outer, inner]
        assert chosen(boxes) == expected, step


def test_first_of_equal_pairs_wins() -> None:
    # Three boxes in a row, each overlapping the next alike; then two separate pairs alike.
    row = [(0, 0, 20, 20), (10, 0, 30, 20), (20, 0, 40, 20)]
    assert chosen(row) == (0, 1)
    assert chosen([row[1], row[0], row[2]]) == (0, 1)
    assert chosen([row[0], row[2], row[1]]) == (0, 2)
    # Row-major: (0, 3) stands before (1, 2).
    assert chosen([(0, 0, 20, 20), (50, 50, 70, 70), (60, 50, 80, 70), (10, 0, 30, 20)]) == (0, 3)


def test_highest_iou_wins() -> None:
    assert chosen([(0, 0, 40, 40), (30, 0, 70, 40), (35, 0, 75, 40)]) == (1, 2)


def test_boxes_without_area_are_no_candidates() -> None:
    for empty in ((30, 30, 30, 60), (30, 30, 60, 30), (60, 60, 30, 30), (60, 20, 20, 60)):
        assert outcome(scene([A, empty], areas=[1600, 1600])) == "too_few_objects"
        assert outcome(scene([A, empty, B], areas=[1600, 1600, 1600])) == (0, 2)


def test_boxes_out_of_the_frame_are_taken_as_annotated() -> None:
    assert chosen([(-30, -30, 20, 20), (10, 10, 140, 140)]) == (0, 1)
    # Inside the frame these two are alike, as annotated neither lies in the other.
    assert chosen([(-40, 10, 60, 60), (0, 10, 60, 90)]) == (0, 1)
    assert chosen([(-30, -30, -5, -5), (-20, -20, 0, 0)]) == (0, 1)


def test_crowds_classes_and_objects_without_mask() -> None:
    boxes = [A, B, (35, 35, 75, 75)]
    assert chosen(boxes) == (1, 2)
    assert outcome(scene(boxes, changes={1: {"ignored": True}})) == (0, 2)
    assert outcome(scene(boxes, changes={1: {"mask": None, "mask_source": None}})) == (0, 2)
    assert outcome(scene(boxes, changes={i: {"mask": None} for i in (0, 1)})) == "no_masks"
    assert outcome(scene(boxes, changes={i: {"ignored": True} for i in (0, 1)})) == "too_few_objects"
    mixed = scene(boxes, changes={1: {"category": "bowl"}, 2: {"category": None}})
    assert outcome(mixed, classes=ClassFilter(include=("cup", "bowl"))) == (0, 1)
    assert outcome(mixed, classes=ClassFilter(exclude=("bowl",))) == (0, 2)
    assert outcome(mixed, classes=ClassFilter(include=("cup", "bowl"), exclude=("bowl",))) == "too_few_objects"


def test_group_grows_by_the_strongest_overlap_with_any_member() -> None:
    # 0 and 1 overlap most; 3 overlaps 1 more than 2 overlaps 0; 4 hangs on 3 alone; 5 lies inside 0.
    boxes = [(0, 0, 40, 40), (10, 0, 50, 40), (0, 30, 40, 70), (30, 10, 75, 45), (70, 20, 95, 60), (2, 2, 30, 30)]
    assert chosen(boxes) == (0, 1)
    assert chosen(boxes, objects=3) == (0, 1, 3)
    assert chosen(boxes, objects=4) == (0, 1, 3, 2)
    assert chosen([*boxes[:2], *boxes[3:]], objects=4) == (0, 1, 2, 3)
    assert chosen([boxes[0], boxes[1], boxes[5]], objects=3) == "group_too_small"
    assert chosen([boxes[0], boxes[1], (80, 80, 99, 99)], objects=3) == "group_too_small"


def test_growing_looks_at_single_members_not_at_their_sum() -> None:
    # Box 2 overlaps both members by 0.19, box 3 one of them by 0.25 and the other not at all.
    boxes = [(0, 0, 40, 40), (16, 0, 56, 40), (8, 24, 48, 64), (40, 0, 80, 40)]
    pulls = [[oracle.iou(boxes[i], boxes[j]) for j in (0, 1)] for i in (2, 3)]
    assert max(pulls[0]) < sum(pulls[1]) < sum(pulls[0])
    assert chosen(boxes, objects=3) == (0, 1, 3)


def test_largest_takes_areas_not_overlap() -> None:
    boxes = [(0, 0, 20, 20), (50, 50, 90, 90), (10, 10, 30, 30), (0, 50, 30, 80)]
    assert chosen(boxes, rule="largest") == (1, 3)
    assert chosen(boxes, rule="largest", objects=4) == (1, 3, 0, 2)
    assert outcome(scene(boxes, areas=[900, 300, 800, 900]), rule="largest") == (0, 3)
    # The second largest lies inside the largest: the third takes its place.
    boxes = [(0, 0, 60, 60), (5, 5, 55, 55), (50, 50, 90, 90)]
    assert chosen(boxes, rule="largest") == (0, 2)
    assert chosen(boxes, rule="largest", contained="keep") == (0, 1)
    assert chosen(boxes[:2], rule="largest") == "only_contained"


def test_one_object_is_the_largest_whatever_the_rule() -> None:
    boxes = [A, (0, 0, 60, 60), B]
    assert chosen(boxes, objects=1) == chosen(boxes, objects=1, rule="largest") == (1,)


def test_400_objects() -> None:
    rng = np.random.default_rng(5)
    corners = rng.integers(0, 800, (400, 2))
    boxes = np.concatenate([corners, corners + rng.integers(150, 400, (400, 2))], axis=1).tolist()
    picture = scene(boxes, size=(1200, 1200))
    things = [oracle.Thing(i.box, i.area, segmentation=0) for i in picture.instances]
    for rule in ("max_iou", "largest"):
        start = time.perf_counter()
        found = outcome(picture, rule=rule, objects=4, min_area_ratio=0.001)
        assert time.perf_counter() - start < 2
        if rule == "largest":
            assert found == oracle.choose(things, 1200, 1200, oracle.Rule(4, rule, 0.001))
        else:
            pair = outcome(picture, min_area_ratio=0.001)
            assert pair == found[:2] == oracle.choose(things, 1200, 1200, oracle.Rule(ratio=0.001))


# Small numbers, so that ties, touching, nesting and empty boxes are frequent.
SIDE = st.integers(-4, 34)
OBJECT = st.tuples(
    SIDE, SIDE, st.integers(-1, 20), st.integers(-1, 20), st.sampled_from([15, 18, 19, 19, 100, 120, 120]),
    st.sampled_from(["cup", "cup", "bowl", None]), st.sampled_from([False] * 7 + [True]),
    st.sampled_from([True] * 7 + [False]),
)  # fmt: skip
RULE = st.fixed_dictionaries({
    "objects": st.integers(1, 4),
    "rule": st.sampled_from(["max_iou", "max_iou", "largest"]),
    "min_area_ratio": st.sampled_from([0.02, 0.001]),
    "contained": st.sampled_from(["drop", "keep"]),
})  # fmt: skip
CLASSES = st.sampled_from(
    [((), ()), (("cup",), ()), ((), ("cup",)), (("cup", "bowl"), ()), (("cup", "bowl"), ("bowl",))]
)


@settings(max_examples=400, deadline=None)
@given(st.lists(OBJECT, max_size=9), RULE, CLASSES)
def test_choice_equals_the_oracle(objects: list[Any], rule: dict[str, Any], classes: Any) -> None:
    instances, things = [], []
    for i, (x, y, w, h, area, category, ignored, masked) in enumerate(objects):
        box = (float(x), float(y), float(x + w), float(y + h))
        instances.append(
            Instance(box, area, category, 1, i, ignored, no_mask if masked else None, "polygon" if masked else None)
        )
        things.append(oracle.Thing(box, area, category, 1, i, ignored, 0 if masked else None))
    include, exclude = classes
    picture = Scene("key", 1, (), 30, 30, tuple(instances))
    expected = oracle.choose(
        things, 30, 30, oracle.Rule(rule["objects"], rule["rule"], rule["min_area_ratio"], rule["contained"], *classes)
    )
    assert outcome(picture, classes=ClassFilter(include=include, exclude=exclude), **rule) == expected


def spread(seed: int, count: int) -> list[oracle.FloatBox]:
    """Boxes without ties, as real ones have none."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 60, (count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(15, 45, (count, 2))], axis=1)
    return [(x0, y0, x1, y1) for x0, y0, x1, y1 in boxes.tolist()]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 12), RULE)
def test_choice_equals_the_oracle_for_boxes_like_real_ones(seed: int, count: int, rule: dict[str, Any]) -> None:
    boxes = spread(seed, count)
    things = [oracle.Thing(box, (box[2] - box[0]) * (box[3] - box[1]), segmentation=0) for box in boxes]
    plain = oracle.Rule(rule["objects"], rule["rule"], rule["min_area_ratio"], rule["contained"])
    assert chosen(boxes, **rule) == oracle.choose(things, 100, 100, plain)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6), st.permutations(range(8)), RULE)
def test_order_of_the_annotations_does_not_matter(seed: int, order: list[int], rule: dict[str, Any]) -> None:
    boxes = spread(seed, 8)
    first, second = chosen(boxes, **rule), chosen([boxes[i] for i in order], **rule)
    if isinstance(first, str) or isinstance(second, str):
        assert first == second
    else:
        assert {order[i] for i in second} == set(first)
        assert len(set(first)) == rule["objects"]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(-40, 40), st.integers(-40, 40), RULE)
def test_choice_moves_with_the_boxes(seed: int, dx: int, dy: int, rule: dict[str, Any]) -> None:
    boxes = np.round(np.array(spread(seed, 8)))
    values = [oracle.iou(a, b) for i, a in enumerate(boxes) for b in boxes[:i]]
    assume(len({v for v in values if v}) == sum(v > 0 for v in values))
    assert chosen(boxes, **rule) == chosen(np.add(boxes, [dx, dy, dx, dy]), **rule)


def test_choice_does_not_decode_masks_nor_read_pictures() -> None:
    # `no_mask` raises; here one that is decoded must not change the choice either.
    mask = box_mask(np.ones((4, 4), bool))
    changed = scene([A, B], changes={0: {"mask": lambda: mask}})
    assert choose_group(changed, PairSettings()) == choose_group(scene([A, B]), PairSettings()) == (0, 1)


CORNER = st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(0, 12), st.integers(0, 12))


@settings(max_examples=60, deadline=None)
@given(st.lists(CORNER, min_size=1, max_size=4), st.lists(CORNER, min_size=1, max_size=4))
def test_iou_and_containment_equal_counting(left: list[Any], right: list[Any]) -> None:
    a, b = np.array(left, float), np.array(right, float)
    found, held = box_iou(a, b), is_contained(a, b)
    for i, first in enumerate(left):
        assert box_area(a)[i] == sum(
            first[0] <= x < first[2] and first[1] <= y < first[3] for x in range(12) for y in range(12)
        )
        for j, second in enumerate(right):
            assert found[i, j] == pytest.approx(oracle.iou_of_pixels(first, second, 12), abs=1e-12)
            assert held[i, j] == oracle.inside(first, second)
    either = is_nested(a, a)
    for i, first in enumerate(left):
        for j, second in enumerate(left):
            assert either[i, j] == (oracle.inside(first, second) or oracle.inside(second, first))


@settings(max_examples=80, deadline=None)
@given(CORNER, CORNER)
def test_relation_equals_plain_ifs(first: Any, second: Any) -> None:
    assert box_relation(first, second) == oracle.relation(first, second)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ((50, 10, 90, 50), "touching"), ((52, 10, 90, 50), "touching"), ((52.5, 10, 90, 50), "apart"),
        ((52, 52, 90, 90), "touching"), ((52, 53, 90, 90), "apart"), ((49.5, 10, 90, 50), "overlapping"),
        ((10, 10, 50, 50), "containing"), ((8, 8, 52, 52), "containing"), ((7.5, 8, 47, 52), "overlapping"),
        ((20, 20, 52, 52), "containing"), ((20, 20, 52.5, 40), "overlapping"),
    ],
)  # fmt: skip
def test_relation(other: Box, expected: str) -> None:
    box = (10, 10, 50, 50)
    assert box_relation(box, other) == box_relation(other, box) == expected


@settings(max_examples=80, deadline=None)
@given(CORNER, CORNER)
def test_iou_of_two_boxes_is_that_of_arrays(first: Any, second: Any) -> None:
    assert iou_of_two(first, second) == box_iou(np.array([first], float), np.array([second], float))[0, 0]
