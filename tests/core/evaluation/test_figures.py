"""Figures against closed forms, and the order against scenes drawn both ways."""

from __future__ import annotations

import math
from functools import cache

import cv2
import numpy as np
import pytest

from pics_cli.core.evaluation import pixel_metrics
from pics_cli.core.evaluation.baselines import collage
from pics_cli.core.evaluation.examples import Case, make_case
from pics_cli.core.images.image_io import RGB
from pics_cli.core.scenes.drawn.spec import SceneSettings

SIZE = 48
BOX = (10, 12, 34, 40)


def texture(seed: int = 0) -> RGB:
    """Values that leave room for adding 60."""
    return np.random.default_rng(seed).integers(60, 180, (SIZE, SIZE, 3)).astype(np.uint8)


def inside() -> np.ndarray:
    return pixel_metrics.union([BOX], SIZE, SIZE)


def test_psnr_of_a_constant_error() -> None:
    truth = texture()
    off = truth.copy()
    off[inside()] += 10
    off[~inside()] = 0  # nobody looks there
    assert pixel_metrics.region_psnr(off, truth, inside()) == pytest.approx(10 * math.log10(255**2 / 100), abs=1e-4)
    assert pixel_metrics.region_psnr(truth, truth, inside()) == pixel_metrics.MOST_PSNR


def test_seam_is_the_step_that_truth_does_not_have() -> None:
    truth = texture()
    step = truth.copy()
    step[inside()] += 14
    assert pixel_metrics.seam(step, truth, inside()).mean == pytest.approx(14)
    assert pixel_metrics.seam(truth + np.uint8(14), truth, inside()).mean == 0
    assert pixel_metrics.seam(truth, truth, inside()) == (0, 2 * (24 + 28))
    # The same change over many pixels is no seam.
    distance = cv2.distanceTransform(inside().view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    ramp = truth + (np.minimum(distance / 12, 1) * 14).astype(np.uint8)[..., None]
    assert (pixel_metrics.seam(ramp, truth, inside()).mean or 14) < 3


def test_seam_where_a_region_ends_with_the_picture() -> None:
    truth, mask = texture(), pixel_metrics.union([(0, 0, SIZE, 20)], SIZE, SIZE)
    step = truth.copy()
    step[mask] += 9
    found = pixel_metrics.seam(step, truth, mask)
    assert found.pairs == SIZE  # the lower edge alone
    assert found.mean == pytest.approx(9)
    assert pixel_metrics.seam(step, truth, np.ones_like(mask)).mean is None


def test_seams_of_objects_are_pooled() -> None:
    truth = texture()
    step = truth.copy()
    step[inside()] += 12
    other = pixel_metrics.union([(2, 2, 6, 6)], SIZE, SIZE)
    found = pixel_metrics.object_seam(step, truth, [inside(), other])
    assert found.mean == pytest.approx(12 * 104 / (104 + 16))


def shadowed() -> tuple[RGB, RGB, np.ndarray, np.ndarray]:
    """Truth, the same without the object and its shadow, the object's mask, and where the shadow is."""
    clean, thing = texture(), pixel_metrics.union([(14, 16, 24, 28)], SIZE, SIZE)
    shade = pixel_metrics.union([(24, 20, 32, 30)], SIZE, SIZE) & ~thing
    truth = clean.copy()
    truth[shade] -= 30
    truth[thing] = 200
    return truth, clean, thing, shade


def test_shadow_is_judged_where_it_is() -> None:
    truth, clean, thing, shade = shadowed()

    def error(result: RGB) -> float | None:
        return pixel_metrics.shadow_error(result, truth, clean, [thing], inside())

    assert error(clean) == pytest.approx(30, abs=0.01)
    assert error(truth) == 0
    half = clean.copy()
    half[shade] -= 15
    assert error(half) == pytest.approx(15, abs=0.01)
    deep = truth.copy()
    deep[thing] = 0  # the object itself is another figure's
    deep[~inside()] = 0
    assert error(deep) == 0
    assert pixel_metrics.shadow_error(clean, clean, clean, [thing], inside()) is None


def test_shadow_where_there_is_none() -> None:
    truth, clean, thing, _ = shadowed()
    dark = truth.copy()
    dark[inside()] -= 20
    assert pixel_metrics.lit_error(dark, truth, clean, [thing], inside()) == pytest.approx(20, abs=0.01)
    assert pixel_metrics.lit_error(clean, truth, clean, [thing], inside()) == 0
    assert pixel_metrics.lit_error(truth, truth, clean, [inside()], inside()) is None


def test_sharpness() -> None:
    truth = texture()
    assert pixel_metrics.sharpness(truth, truth, inside()) == 1
    soft = cv2.GaussianBlur(truth, (0, 0), 1.0)
    assert pixel_metrics.sharpness(soft, truth, inside()) < 0.4
    flat = np.full_like(truth, 100)
    assert pixel_metrics.sharpness(flat, truth, inside()) == 0
    double = (100 + 2 * (truth.astype(int) - 120)).clip(0, 255).astype(np.uint8)
    halved = (100 + (truth.astype(int) - 120)).astype(np.uint8)
    assert pixel_metrics.sharpness(double, halved, inside()) == pytest.approx(4, rel=0.15)  # but for what is clipped


@cache
def case(relation: str, number: int) -> Case:
    return make_case(SceneSettings(192, 2, ((relation, 1.0),), 5.0, 0.4), 3, number, 0.8)  # type: ignore[arg-type]


def order(one: Case, result: RGB) -> bool | None:
    both = one.full[0] & one.full[1]
    return pixel_metrics.right_order(result, one.truth, one.wrong, both)


@pytest.mark.parametrize("relation", ["occluding", "supporting", "containing"])
def test_order_of_scenes_drawn_either_way(relation: str) -> None:
    told = [number for number in range(8) if order(case(relation, number), case(relation, number).truth)]
    assert len(told) >= 4
    for number in told:
        one = case(relation, number)
        seen = [order(one, wrong) for wrong in one.wrong]
        assert False in seen
        assert True not in [found for found, wrong in zip(seen, one.wrong, strict=True) if differs(one, wrong)]


def differs(one: Case, wrong: RGB) -> bool:
    """Whether it can be told from the truth."""
    both = one.full[0] & one.full[1]
    return pixel_metrics.right_order(wrong, one.truth, [wrong], both) is not None


@pytest.mark.parametrize("relation", ["occluding", "supporting"])
def test_order_of_references_pasted_either_way(relation: str) -> None:
    found = []
    for number in range(10):
        one = case(relation, number)
        for turned in (False, True):
            front = one.front[::-1] if turned else one.front
            judged = order(one, collage(one.background, one.places, one.references, front[::-1]))
            if judged is not None:
                found.append(judged is not turned)
    assert len(found) >= 10
    assert np.mean(found) >= 0.95


def test_pasting_never_gets_a_vessel_right() -> None:
    found = []
    for number in range(10):
        one = case("containing", number)
        if not all(differs(one, wrong) for wrong in one.wrong):
            continue
        for turned in (one.front, one.front[::-1]):
            found.append(order(one, collage(one.background, one.places, one.references, turned)))
    assert len(found) >= 6
    assert set(found) == {False}


def test_order_of_what_does_not_overlap() -> None:
    one = case("apart", 0)
    assert one.wrong == ()
    assert order(one, one.truth) is None
