"""Drawn scenes to measure on: the same whoever draws them, and judged as they should be."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from helpers.measured import OF_A_PICTURE, distractors, metric_values
from pics_cli.core.evaluation.appearance_metrics import CHOICES, ReferenceGallery, build_reference_gallery
from pics_cli.core.evaluation.example_sources import DrawnExamples
from pics_cli.core.evaluation.examples import Example, draw_example, reverse_objects
from pics_cli.core.evaluation.pixel_metrics import MAX_PSNR, is_order_right
from pics_cli.core.images.geometry import Box
from pics_cli.core.recipes.evaluation import DrawnScenes
from pics_cli.core.scenes.drawn.plan import plan_scene
from pics_cli.core.scenes.drawn.spec import SceneSettings

SETTINGS = SceneSettings(128, 2, (("apart", 1.0), ("occluding", 1.0), ("containing", 1.0)), 5.0, 0.4)


@pytest.fixture(scope="module")
def gallery() -> ReferenceGallery:
    return build_reference_gallery(distractors(SETTINGS, 9, 0.8), 9)


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    return [draw_example(SETTINGS, 9, number, 0.8) for number in range(12)]


def identity(picture: np.ndarray, example: Example, gallery: ReferenceGallery) -> float:
    return metric_values(picture, example, gallery, ["identity"])["identity"]


def sides(box: Box) -> tuple[int, int]:
    return box[2] - box[0], box[3] - box[1]


def test_regions_hold_the_places(examples: list[Example]) -> None:
    for example in examples:
        assert set(example.order) == {0, 1}
        assert example.full_masks
        for place, region, full in zip(example.paste_boxes, example.regions, example.full_masks, strict=True):
            x0, y0, x1, y1 = place
            assert full[y0:y1, x0:x1].sum() == full.sum() > 0
            assert full[y0].any() or full[y0:y1, x0].any()
            assert min(region) >= 0
            assert max(region) <= 128
            assert all(a <= b for a, b in zip(region[:2], place[:2], strict=True))
            if 0 not in region and 128 not in region:
                for inner, outer in zip(sides(place), sides(region), strict=True):
                    assert abs(inner / 0.8 - outer) <= 1.5


def test_a_function_of_seed_and_number(examples: list[Example]) -> None:
    again = draw_example(SETTINGS, 9, 5, 0.8)
    np.testing.assert_array_equal(again.truth, examples[5].truth)
    assert again.regions == examples[5].regions
    other_seed = draw_example(SETTINGS, 10, 5, 0.8)
    assert (other_seed.truth != again.truth).any()
    assert plan_scene(SETTINGS, "held_out", 9, 5) == plan_scene(SETTINGS, "held_out", 9, 5)


def test_the_truth_is_perfect_and_the_background_is_not(examples: list[Example], gallery: ReferenceGallery) -> None:
    for example in examples:
        best = metric_values(example.truth, example, gallery)
        assert set(best) == set(OF_A_PICTURE)
        assert best["psnr_region"] == MAX_PSNR
        assert best["seam"] == best["seam_box"] == best["seam_object"] == 0
        assert best["sharpness"] == best["ssim"] == best["ssim_region"] == 1
        assert best["assignment"] == 1 or example.relation == "containing"  # of what lies in a bowl little may be seen
        assert best["leak"] == best["ceiling"] == best["missing"] == 0
        assert best["untouched"] > 0  # shadows reach farther than regions
        assert best["order"] == 1 or math.isnan(best["order"])
        worst = metric_values(example.background, example, gallery)
        assert worst["psnr_region"] < 30
        assert worst["missing"] == 1
        assert worst["seam_object"] > 1
        assert worst["lit"] < 0.5 or math.isnan(worst["lit"])
    mean = np.mean([identity(example.truth, example, gallery) for example in examples])
    assert mean >= 0.95
    assert np.mean([identity(example.background, example, gallery) for example in examples]) < 0.35


def test_swapped_references_are_seen(examples: list[Example], gallery: ReferenceGallery) -> None:
    swapped = [replace(example, references=example.references[::-1]) for example in examples]
    assert np.mean([identity(example.truth, example, gallery) for example in swapped]) <= 0.05
    assert len(gallery.descriptors) >= CHOICES


def test_order_only_where_objects_overlap(examples: list[Example]) -> None:
    wrong: dict[str, set[int]] = {str(example.relation): set() for example in examples}
    for example in examples:
        wrong[str(example.relation)].add(len(example.wrong_orders))
    assert wrong["containing"] == {2}
    assert wrong["occluding"] == {1}
    assert wrong["apart"] <= {0, 1}


def test_reversed_twice_is_the_same(examples: list[Example]) -> None:
    example = replace(examples[1], shadow_masks=examples[2].visible_masks)
    once = reverse_objects(example)
    assert example.shadow_masks is not None
    assert once.shadow_masks == example.shadow_masks[::-1]
    twice = reverse_objects(once)
    assert twice.regions == example.regions
    assert twice.order == example.order
    assert twice.front_to_back == example.front_to_back
    assert once.paste_boxes == example.paste_boxes[::-1]
    assert [once.paste_boxes[k] for k in once.order] == [example.paste_boxes[k] for k in example.order]


def test_every_overlap_of_many_objects_is_judged(gallery: ReferenceGallery) -> None:
    """Of the truth all are right; with two objects in another order theirs is not."""
    settings = replace(SETTINGS, num_objects=5)
    example = draw_example(settings, 9, 3, 0.8)
    assert len(example.references) == len(example.regions) == 5
    assert example.full_masks
    pairs = [a & b for a, b in combinations(example.full_masks, 2)]
    assert len(example.overlaps) == sum(map(np.any, pairs)) >= 3
    told = [
        overlap
        for overlap in example.overlaps
        if is_order_right(example.truth, [example.truth], overlap.wrong_orders, overlap.where) is not None
    ]
    assert len(told) >= 2
    assert metric_values(example.truth, example, gallery, ["order"]) == {"order": 1}
    for overlap in told:
        wrong = example.truth.copy()
        wrong[overlap.where] = overlap.wrong_orders[0][overlap.where]
        assert metric_values(wrong, example, gallery, ["order"])["order"] <= 1 - 1 / len(told)


def test_numbers_of_objects_take_turns() -> None:
    scenes = DrawnScenes(count=6, size=128, objects=(2, 3, 6), relations={"apart": 1.0})
    source = DrawnExamples(scenes, 9, 0.8)
    assert [len(source[number].references) for number in range(6)] == [2, 3, 6] * 2
    assert source.provenance["objects"] == (2, 3, 6)
    assert "objects" not in DrawnExamples(replace(scenes, objects=(2,)), 9, 0.8).provenance
