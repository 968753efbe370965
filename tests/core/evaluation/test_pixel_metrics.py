"""Metrics of pixels against closed forms, and the order against scenes drawn both ways."""

from __future__ import annotations

import math
from functools import cache

import cv2
import numpy as np
import pytest

from pics_cli.core.evaluation import pixel_metrics
from pics_cli.core.evaluation.baselines import paste_references
from pics_cli.core.evaluation.examples import Example, draw_example, region_counts
from pics_cli.core.images.image_io import RGB
from pics_cli.core.images.masks import Mask
from pics_cli.core.scenes.drawn.spec import SceneSettings

SIZE = 48
BOX = (10, 12, 34, 40)


def texture(seed: int = 0) -> RGB:
    """Values that leave room for adding 60."""
    return np.random.default_rng(seed).integers(60, 180, (SIZE, SIZE, 3)).astype(np.uint8)


def inside() -> np.ndarray:
    return region_counts([BOX], SIZE, SIZE) > 0


def test_psnr_of_a_constant_error() -> None:
    truth = texture()
    off = truth.copy()
    off[inside()] += 10
    off[~inside()] = 0  # nobody looks there
    assert pixel_metrics.psnr(off, truth, inside()) == pytest.approx(10 * math.log10(255**2 / 100), abs=1e-4)
    assert pixel_metrics.psnr(truth, truth, inside()) == pixel_metrics.MAX_PSNR


def test_seam_is_the_step_that_truth_does_not_have() -> None:
    truth = texture()
    step = truth.copy()
    step[inside()] += 14
    assert pixel_metrics.seam_error(step, truth, inside()).mean == pytest.approx(14)
    assert pixel_metrics.seam_error(truth + np.uint8(14), truth, inside()).mean == 0
    assert pixel_metrics.seam_error(truth, truth, inside()) == (0, 2 * (24 + 28))
    # The same change over many pixels is no seam.
    distance = cv2.distanceTransform(inside().view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    ramp = truth + (np.minimum(distance / 12, 1) * 14).astype(np.uint8)[..., None]
    assert (pixel_metrics.seam_error(ramp, truth, inside()).mean or 14) < 3


def test_seam_where_a_region_ends_with_the_picture() -> None:
    truth, mask = texture(), region_counts([(0, 0, SIZE, 20)], SIZE, SIZE) > 0
    step = truth.copy()
    step[mask] += 9
    found = pixel_metrics.seam_error(step, truth, mask)
    assert found.pairs == SIZE  # the lower edge alone
    assert found.mean == pytest.approx(9)
    assert pixel_metrics.seam_error(step, truth, np.ones_like(mask)).mean is None


def test_seams_of_objects_are_pooled() -> None:
    truth = texture()
    step = truth.copy()
    step[inside()] += 12
    other = region_counts([(2, 2, 6, 6)], SIZE, SIZE) > 0
    found = pixel_metrics.pool_seams([pixel_metrics.seam_error(step, truth, mask) for mask in (inside(), other)])
    assert found.mean == pytest.approx(12 * 104 / (104 + 16))


def test_sharpness() -> None:
    truth = texture()
    assert pixel_metrics.sharpness(truth, truth, inside()) == 1
    soft = cv2.GaussianBlur(truth, (0, 0), 1.0).astype(np.uint8)
    assert pixel_metrics.sharpness(soft, truth, inside()) < 0.4
    flat = np.full_like(truth, 100)
    assert pixel_metrics.sharpness(flat, truth, inside()) == 0
    double = (100 + 2 * (truth.astype(int) - 120)).clip(0, 255).astype(np.uint8)
    halved = (100 + (truth.astype(int) - 120)).astype(np.uint8)
    assert pixel_metrics.sharpness(double, halved, inside()) == pytest.approx(4, rel=0.15)  # but for what is clipped


@cache
def example(relation: str, number: int) -> Example:
    return draw_example(SceneSettings(192, 2, ((relation, 1.0),), 5.0, 0.4), 3, number, 0.8)  # type: ignore[arg-type]


def shared(one: Example) -> Mask:
    """Where both objects reach, visible or not."""
    assert one.full_masks
    return one.full_masks[0] & one.full_masks[1]


def order(one: Example, result: RGB) -> bool | None:
    return pixel_metrics.is_order_right(result, (one.truth, *one.pasted_orders), one.wrong_orders, shared(one))


@pytest.mark.parametrize("relation", ["occluding", "supporting", "containing"])
def test_order_of_scenes_drawn_either_way(relation: str) -> None:
    told = [number for number in range(8) if order(example(relation, number), example(relation, number).truth)]
    assert len(told) >= 4
    for number in told:
        one = example(relation, number)
        verdicts = [order(one, wrong) for wrong in one.wrong_orders]
        assert False in verdicts
        assert True not in [
            right for right, wrong in zip(verdicts, one.wrong_orders, strict=True) if differs(one, wrong)
        ]


def differs(one: Example, wrong: RGB) -> bool:
    """Whether it can be told from the truth."""
    return pixel_metrics.is_order_right(wrong, [one.truth], [wrong], shared(one)) is not None


@pytest.mark.parametrize("relation", ["occluding", "supporting"])
def test_order_of_references_pasted_either_way(relation: str) -> None:
    found = []
    for number in range(10):
        one = example(relation, number)
        assert one.front_to_back
        for swapped in (False, True):
            front = one.front_to_back[::-1] if swapped else one.front_to_back
            judged = order(one, paste_references(one.background, one.paste_boxes, one.references, front[::-1]))
            if judged is not None:
                found.append(judged is not swapped)
    assert len(found) >= 10
    assert np.mean(found) >= 0.95


def test_pasting_never_gets_a_vessel_right() -> None:
    found = []
    for number in range(10):
        one = example("containing", number)
        if not all(differs(one, wrong) for wrong in one.wrong_orders):
            continue
        assert one.front_to_back
        for front in (one.front_to_back, one.front_to_back[::-1]):
            found.append(order(one, paste_references(one.background, one.paste_boxes, one.references, front)))
    assert len(found) >= 6
    assert set(found) == {False}


def test_order_of_what_does_not_overlap() -> None:
    one = example("apart", 0)
    assert one.wrong_orders == ()
    assert order(one, one.truth) is None


def test_ssim_by_its_formula() -> None:
    """Of one window, in float64."""
    rng = np.random.default_rng(3)
    one, other = rng.integers(0, 256, (2, 31, 31, 3)).astype(np.uint8)
    found_ssim = pixel_metrics.ssim(other, one)
    assert found_ssim
    _, parts = found_ssim
    at = np.arange(-5, 6)
    kernel = np.exp(-(at[:, None] ** 2 + at[None] ** 2) / (2 * 1.5**2))
    kernel /= kernel.sum()
    found = []
    for c in range(3):
        x, y = (each[10:21, 10:21, c].astype(np.float64) for each in (one, other))
        mx, my = (kernel * x).sum(), (kernel * y).sum()
        vx, vy = (kernel * x * x).sum() - mx**2, (kernel * y * y).sum() - my**2
        covariance = (kernel * x * y).sum() - mx * my
        c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        found.append((2 * mx * my + c1) * (2 * covariance + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    assert parts[15, 15] == pytest.approx(np.mean(found), abs=1e-5)


def test_mean_difference() -> None:
    assert pixel_metrics.mean_difference(texture(), texture(), inside()) == 0
    truth = texture()
    other = np.where(inside()[..., None], 255 - truth, 7).astype(np.uint8)
    expected = np.abs(255 - 2 * truth[inside()].astype(float)).mean()
    assert pixel_metrics.mean_difference(truth, other, inside()) == pytest.approx(expected, rel=1e-6)
