"""Metrics of shadows against closed forms, plain references, and shadows that are spoilt more and more."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest

from helpers.measured import metric_values
from pics_cli.core.evaluation import shadow_metrics
from pics_cli.core.evaluation.appearance_metrics import ReferenceGallery
from pics_cli.core.evaluation.examples import Example, region_counts
from pics_cli.core.images.image_io import RGB
from pics_cli.core.images.masks import Mask

H, W = 96, 160
NAMES = ("shadow", "lit", "shadow_rmse", "shadow_ber", "contact", "light")
NOBODY = ReferenceGallery(np.zeros((0, 1), np.float32), np.zeros(0, np.str_), 0)
GROUND: RGB = np.random.default_rng(0).integers(90, 110, (H, W, 3)).astype(np.uint8)
THINGS = [region_counts([box], H, W) > 0 for box in ((30, 30, 46, 60), (110, 30, 126, 60))]
FEET = [(38, 57), (118, 57)]
INSIDE = (4, 4, W - 4, H - 4)


def ellipse(foot: tuple[int, int], degrees: float, reach: float = 14) -> Mask:
    """A shadow from a foot in a direction of the picture; less the objects."""
    canvas = np.zeros((H, W), np.uint8)
    x, y = (foot[0] + reach * math.cos(math.radians(degrees)), foot[1] + reach * math.sin(math.radians(degrees)))
    cv2.ellipse(canvas, (round(x), round(y)), (round(reach + 6), 7), degrees, 0, 360, 1, -1)
    return (canvas > 0) & ~THINGS[0] & ~THINGS[1]


def picture(shadows: Mask, depth: float = 30) -> RGB:
    rgb = GROUND.copy()
    rgb[shadows] = np.clip(rgb[shadows] - depth, 0, 255).astype(np.uint8)
    for mask, colour in zip(THINGS, ((200, 40, 40), (40, 60, 210)), strict=True):
        rgb[mask] = colour
    return rgb


SHADOWS = [ellipse(foot, 20) for foot in FEET]
SHADE: Mask = SHADOWS[0] | SHADOWS[1]
TRUTH = picture(SHADE)
EXAMPLE = Example(
    key="a", background=GROUND, truth=TRUTH, references=(np.full((8, 8, 3), 9, np.uint8),) * 2, regions=(INSIDE,) * 2,
    paste_boxes=((30, 30, 46, 60), (110, 30, 126, 60)), visible_masks=tuple(THINGS), full_masks=tuple(THINGS),
    true_background=True, relation="apart",
)  # fmt: skip


def values(rgb: RGB, example: Example = EXAMPLE) -> dict[str, float]:
    return metric_values(rgb, example, NOBODY, NAMES)


def test_the_truth_is_right() -> None:
    assert values(TRUTH) == {"shadow": 0, "lit": 0, "shadow_rmse": 0, "shadow_ber": 0, "contact": 1, "light": 0}


def test_no_shadow_at_all() -> None:
    found = values(picture(np.zeros((H, W), np.bool_)))
    assert found["shadow"] == pytest.approx(30, abs=0.01)
    assert found["shadow_rmse"] == pytest.approx(30, abs=1e-5)
    assert (found["shadow_ber"], found["contact"], found["lit"]) == (0.5, 0, 0)
    assert math.isnan(found["light"])


def test_half_as_deep_a_shadow() -> None:
    found = values(picture(SHADE, 15))
    assert found["shadow"] == pytest.approx(15, abs=0.01)
    assert found["shadow_rmse"] == pytest.approx(15, abs=1e-5)
    assert (found["shadow_ber"], found["contact"], found["light"]) == (0, 1, pytest.approx(0, abs=0.5))


def test_shadow_is_judged_where_it_is() -> None:
    """Not on the objects, nor outside the regions."""
    deep = TRUTH.copy()
    deep[THINGS[0]] = 0
    deep[:4] = 0
    assert values(deep)["shadow_rmse"] == values(deep)["shadow_ber"] == values(deep)["lit"] == 0


def test_everything_in_shadow() -> None:
    dark = picture(np.ones((H, W), np.bool_), 20)
    assert values(dark)["lit"] == pytest.approx(20, abs=0.01)
    assert values(dark)["shadow_ber"] == 0.5


def test_by_pixel_after_pixel() -> None:
    """RMSE and BER as loops over pixels, of noise on the ground."""
    rng = np.random.default_rng(1)
    noisy = np.clip(TRUTH + rng.normal(0, 12, TRUTH.shape), 0, 255).astype(np.uint8)
    grown = cv2.dilate((THINGS[0] | THINGS[1]).astype(np.uint8), np.ones((5, 5)))
    weights, squares, counts = (0.299, 0.587, 0.114), list[float](), {"TP": 0, "P": 0, "TN": 0, "N": 0}
    for y in range(INSIDE[1], INSIDE[3]):
        for x in range(INSIDE[0], INSIDE[2]):
            if grown[y, x]:
                continue
            lightness = [sum(w * float(rgb[y, x, c]) for c, w in enumerate(weights)) for rgb in (GROUND, TRUTH, noisy)]
            expected, found = (lightness[0] - value >= 4 for value in lightness[1:])
            squares += [(float(noisy[y, x, c]) - float(TRUTH[y, x, c])) ** 2 for c in range(3)] if expected else []
            counts["P" if expected else "N"] += 1
            counts["TP" if expected else "TN"] += expected == found
    measured = values(noisy)
    assert measured["shadow_rmse"] == pytest.approx(math.sqrt(sum(squares) / len(squares)), abs=1e-5)
    error = 1 - (counts["TP"] / counts["P"] + counts["TN"] / counts["N"]) / 2
    assert measured["shadow_ber"] == pytest.approx(error, abs=1e-5)


def test_shadows_that_a_data_set_says() -> None:
    """Of pictures whose background is no true one; of these `lit` says nothing."""
    said = replace(EXAMPLE, true_background=False, full_masks=None, shadow_masks=(*SHADOWS,))
    nothing = replace(EXAMPLE, true_background=False)
    found = values(picture(SHADE, 15), said)
    assert (found["shadow_ber"], found["contact"]) == (0, 1)
    assert found["shadow_rmse"] == pytest.approx(15, abs=1e-5)
    assert found["light"] == pytest.approx(0, abs=3)
    assert math.isnan(found["lit"])
    assert all(math.isnan(value) for value in values(TRUTH, nothing).values())


def test_two_lamps() -> None:
    """One shadow turned by an angle: that is what they disagree by. Both turned: one lamp still."""
    for degrees in (40, 80):
        turned = picture(SHADOWS[0] | ellipse(FEET[1], 20 + degrees))
        assert values(turned)["light"] == pytest.approx(degrees, abs=16)
    both = picture(ellipse(FEET[0], 60) | ellipse(FEET[1], 60))
    assert values(both)["light"] == pytest.approx(0, abs=1)


def test_directions_in_closed_form() -> None:
    darker = np.zeros((H, W), np.float32)
    darker[56:61, 66:91] = 20  # centre 78, 58; deeper parts count for more
    foot = (37.5, 30 + 30 - 1 - 0.06 * 30)
    found = shadow_metrics.shadow_direction(darker, THINGS[0], np.ones((H, W), np.bool_))
    assert found is not None
    assert found.tolist() == pytest.approx([78 - foot[0], 58 - foot[1]])
    darker[56:61, 79:91] = 40
    found = shadow_metrics.shadow_direction(darker, THINGS[0], np.ones((H, W), np.bool_))
    assert found is not None
    assert found[0] + foot[0] == pytest.approx((13 * 72 * 20 + 12 * 84.5 * 40) / (13 * 20 + 12 * 40))
    assert shadow_metrics.shadow_direction(darker / np.float32(11), THINGS[0], np.ones((H, W), np.bool_)) is None
    assert shadow_metrics.light_disagreement(-170, 30) == 160
    assert shadow_metrics.light_disagreement(10, 46) is None


@pytest.mark.parametrize("name", NAMES[2:])
def test_worse_the_more_it_is_spoilt(name: str) -> None:
    """A shadow that fades, drifts away or turns."""
    spoilt = {
        "shadow_rmse": [picture(SHADE, depth) for depth in (30, 22, 12, 0)],
        "shadow_ber": [np.roll(TRUTH, shift, 1) for shift in (0, 3, 8, 16)],
        "contact": [picture(SHADE & (np.mgrid[:H, :W][0] >= row)) for row in (0, 62, 63, 66)],
        "light": [picture(SHADOWS[0] | ellipse(FEET[1], degrees)) for degrees in (20, 45, 70, 110)],
    }
    found = [values(rgb)[name] for rgb in spoilt[name]]
    assert found == sorted(found, reverse=name == "contact")
    assert len(set(found)) == 4
