"""Drawn scenes to measure on: the same whoever draws them, and judged as they should be."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from pics_cli.core.evaluation.examples import Case, make_case, other_cases
from pics_cli.core.evaluation.metrics import CHOICES, MEASURES, OF_TWO, Sight, judge, sight_of
from pics_cli.core.evaluation.pixel_metrics import MOST_PSNR
from pics_cli.core.images.geometry import Box
from pics_cli.core.scenes.drawn.plan import plan_scene
from pics_cli.core.scenes.drawn.spec import SceneSettings

STYLE = SceneSettings(128, 2, (("apart", 1.0), ("occluding", 1.0), ("containing", 1.0)), 5.0, 0.4)


@pytest.fixture(scope="module")
def others() -> Sight:
    return sight_of(other_cases(STYLE, 9, 0.8), 9)


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return [make_case(STYLE, 9, number, 0.8) for number in range(12)]


def identity(picture: np.ndarray, case: Case, others: Sight) -> float:
    return judge(picture, case, others, ["identity"]).values["identity"]


def sides(box: Box) -> tuple[int, int]:
    return box[2] - box[0], box[3] - box[1]


def test_regions_hold_the_places(cases: list[Case]) -> None:
    for case in cases:
        assert set(case.order) == {0, 1}
        for place, region, full in zip(case.places, case.regions, case.full, strict=True):
            x0, y0, x1, y1 = place
            assert full[y0:y1, x0:x1].sum() == full.sum() > 0
            assert full[y0].any() or full[y0:y1, x0].any()
            assert min(region) >= 0
            assert max(region) <= 128
            assert all(a <= b for a, b in zip(region[:2], place[:2], strict=True))
            if 0 not in region and 128 not in region:
                for inner, outer in zip(sides(place), sides(region), strict=True):
                    assert abs(inner / 0.8 - outer) <= 1.5


def test_a_function_of_seed_and_number(cases: list[Case]) -> None:
    again = make_case(STYLE, 9, 5, 0.8)
    np.testing.assert_array_equal(again.truth, cases[5].truth)
    assert again.regions == cases[5].regions
    other_seed = make_case(STYLE, 10, 5, 0.8)
    assert (other_seed.truth != again.truth).any()
    assert plan_scene(STYLE, "held_out", 9, 5) == plan_scene(STYLE, "held_out", 9, 5)


def test_the_truth_is_perfect_and_the_background_is_not(cases: list[Case], others: Sight) -> None:
    for case in cases:
        best = judge(case.truth, case, others, MEASURES).values
        assert set(best) == set(MEASURES) - set(OF_TWO)
        assert best["psnr_region"] == MOST_PSNR
        assert best["seam"] == best["seam_box"] == best["seam_object"] == 0
        assert best["sharpness"] == best["ssim"] == best["ssim_region"] == 1
        assert best["assignment"] == 1 or case.relation == "containing"  # of what lies in a bowl little may be seen
        assert best["leak"] == best["ceiling"] == best["missing"] == 0
        assert best["untouched"] > 0  # shadows reach farther than regions
        assert best["order"] == 1 or math.isnan(best["order"])
        worst = judge(case.background, case, others, MEASURES).values
        assert worst["psnr_region"] < 30
        assert worst["missing"] == 1
        assert worst["seam_object"] > 1
        assert worst["lit"] < 0.5 or math.isnan(worst["lit"])
    mean = np.mean([identity(case.truth, case, others) for case in cases])
    assert mean >= 0.95
    assert np.mean([identity(case.background, case, others) for case in cases]) < 0.35


def test_swapped_references_are_seen(cases: list[Case], others: Sight) -> None:
    swapped = [replace(case, references=case.references[::-1]) for case in cases]
    assert np.mean([identity(case.truth, case, others) for case in swapped]) <= 0.05
    assert len(others.others) >= CHOICES


def test_order_only_where_objects_overlap(cases: list[Case]) -> None:
    wrong = {case.relation: set() for case in cases}
    for case in cases:
        wrong[case.relation].add(len(case.wrong))
    assert wrong["containing"] == {2}
    assert wrong["occluding"] == {1}
    assert wrong["apart"] <= {0, 1}
