"""Metrics of colours, detail and background against plain references, closed forms, and growing damage."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree
from skimage.color import rgb2lab

from helpers.measured import metric_values
from pics_cli.core.evaluation import object_metrics
from pics_cli.core.evaluation.appearance_metrics import ReferenceGallery
from pics_cli.core.evaluation.examples import Example, region_counts
from pics_cli.core.images.image_io import RGB

H, W = 90, 120
NAMES = ("psnr_object", "background_mse", "chamfer", "detail")
NOBODY = ReferenceGallery(np.zeros((0, 1), np.float32), np.zeros(0, np.str_), 0)
BOXES = ((20, 20, 60, 70), (70, 30, 100, 60))
THINGS = tuple(region_counts([box], H, W) > 0 for box in BOXES)


def letters() -> RGB:
    """Words on one object; the other and the ground are plain."""
    rgb = np.full((H, W, 3), 120, np.uint8)
    rgb[THINGS[0]], rgb[THINGS[1]] = (200, 180, 40), (40, 90, 180)
    for row, word in ((38, "ABC"), (50, "xyz"), (62, "789")):
        cv2.putText(rgb, word, (26, row), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (20, 20, 60), 1, cv2.LINE_AA)
    return rgb


TRUTH = letters()
REFERENCES = tuple(np.ascontiguousarray(TRUTH[y0:y1, x0:x1]) for x0, y0, x1, y1 in BOXES)
EXAMPLE = Example(
    key="a", background=np.full((H, W, 3), 120, np.uint8), truth=TRUTH, references=REFERENCES, paste_boxes=BOXES,
    regions=BOXES, visible_masks=THINGS, relation="apart",
)  # fmt: skip


def values(rgb: RGB, example: Example = EXAMPLE) -> dict[str, float]:
    return metric_values(rgb, example, NOBODY, NAMES)


def with_noise(rgb: RGB, size: float) -> RGB:
    noise = np.random.default_rng(2).normal(0, 1, rgb.shape)
    return np.clip(rgb + size * noise, 0, 255).astype(np.uint8)


def test_the_truth() -> None:
    found = values(TRUTH)
    assert found["psnr_object"] == 99
    assert found["background_mse"] == 0
    assert found["chamfer"] == pytest.approx(0, abs=1e-4)
    assert found["detail"] == pytest.approx(1)


def test_known_errors() -> None:
    off = TRUTH.copy()
    off[THINGS[0] | THINGS[1]] += 10
    off[0, 0] = 120 + 51  # one pixel outside, by a fifth of white
    outside = H * W - 40 * 50 - 30 * 30
    assert values(off)["psnr_object"] == pytest.approx(10 * math.log10(255**2 / 100), abs=1e-4)
    assert values(off)["background_mse"] == pytest.approx(0.04 / outside, rel=1e-5)
    everywhere = replace(EXAMPLE, regions=((0, 0, W, H),) * 2)
    assert math.isnan(values(TRUTH, everywhere)["background_mse"])


def test_chamfer_distance_of_known_colours() -> None:
    """Of 3 of 4 colours the nearest is 5 away, of one it is itself; the other way round of all but one."""
    first = np.array([[0, 0, 0], [10, 0, 0], [20, 0, 0], [60, 0, 0]], np.float32)
    second = np.array([[60, 0, 0], [0, 3, 4], [10, 3, 4], [20, 3, 4]], np.float32)
    assert object_metrics.colour_chamfer(first, second) == pytest.approx(3 * 5 / 4)
    assert object_metrics.colour_chamfer(first[:1], second[:2]) == pytest.approx((5 + (60 + 5) / 2) / 2)


def test_chamfer_by_trees_and_another_lab() -> None:
    """As scipy's tree of nearest neighbours has it, of the colours that scikit-image has."""
    noisy = with_noise(TRUTH, 12)
    expected = []
    for mask, reference in zip(THINGS, REFERENCES, strict=True):
        sets = []
        for pixels in (noisy[mask], reference.reshape(-1, 3)):
            chosen = [pixels[k * len(pixels) // 256] for k in range(256)]
            sets.append(rgb2lab(np.array(chosen)[None] / 255)[0])
        both = [cKDTree(b).query(a)[0].mean() for a, b in (sets, sets[::-1])]
        expected.append(sum(both) / 2)
    # The two conversions to Lab differ by up to 0.3.
    assert values(noisy)["chamfer"] == pytest.approx(np.mean(expected), abs=0.05)
    colours = [object_metrics.object_colours(rgb, THINGS[0]) for rgb in (noisy, TRUTH)]
    assert colours[0] is not None
    assert colours[1] is not None
    trees = [cKDTree(b).query(a)[0].mean() for a, b in (colours, colours[::-1])]
    assert object_metrics.colour_chamfer(colours[0], colours[1]) == pytest.approx(sum(trees) / 2, abs=1e-5)


def test_patches_are_where_the_words_are() -> None:
    detail = object_metrics.fine_detail(cv2.cvtColor(TRUTH, cv2.COLOR_RGB2GRAY).astype(np.float32))
    corners = object_metrics.detailed_patches(detail, THINGS[0])
    assert len(corners) >= 2
    for y, x in corners:
        assert 24 <= x <= 56 - object_metrics.PATCH
        assert 24 <= y <= 66 - object_metrics.PATCH
        assert np.ptp(TRUTH[y : y + 16, x : x + 16, 0].astype(int)) > 100
    assert len(object_metrics.detailed_patches(detail, THINGS[1])) == 0  # nothing is written there
    assert len(object_metrics.detailed_patches(detail, region_counts([(20, 20, 40, 90)], H, W) > 0)) == 0  # too narrow


def test_detail_by_loops() -> None:
    noisy = with_noise(TRUTH, 20)
    light = [rgb.astype(np.float64) @ (0.299, 0.587, 0.114) for rgb in (noisy, TRUTH)]
    found, true = (one - gaussian_filter(one, 2, mode="mirror", truncate=4) for one in light)
    corners = object_metrics.detailed_patches(true.astype(np.float32), THINGS[0])
    best = []
    for y, x in corners:
        template = true[y : y + 16, x : x + 16]
        places = [found[y + dy : y + dy + 16, x + dx : x + dx + 16] for dy in range(-2, 3) for dx in range(-2, 3)]
        best.append(max((p * template).sum() / math.sqrt((p**2).sum() * (template**2).sum()) for p in places))
    measured = object_metrics.detail_correlation(found.astype(np.float32), true.astype(np.float32), corners)
    assert measured == pytest.approx(np.mean(best), abs=1e-5)
    assert values(noisy)["detail"] == pytest.approx(np.mean(best), abs=0.01)  # windows of two libraries


def test_detail_of_words_that_moved_a_little_or_are_gone() -> None:
    assert values(np.roll(TRUTH, (1, -2), (0, 1)))["detail"] == pytest.approx(1, abs=1e-3)
    assert values(np.roll(TRUTH, 7, 1))["detail"] < 0.7
    gone = TRUTH.copy()
    gone[THINGS[0]] = (200, 180, 40)
    assert values(gone)["detail"] == pytest.approx(0, abs=1e-3)
    faint = gone + (0.3 * (TRUTH.astype(float) - gone))
    assert values(faint.round().clip(0, 255).astype(np.uint8))["detail"] > 0.95  # legible still
    plain = replace(EXAMPLE, truth=gone)
    assert math.isnan(values(gone, plain)["detail"])


@pytest.mark.parametrize("name", NAMES)
def test_worse_the_more_it_is_spoilt(name: str) -> None:
    found = [values(with_noise(TRUTH, size))[name] for size in (0, 8, 24, 70)]
    assert found == sorted(found, reverse=name in ("psnr_object", "detail"))
    assert len(set(found)) == 4
    if name == "detail":
        blurred = [values(cv2.GaussianBlur(TRUTH, (0, 0), size).astype(np.uint8))[name] for size in (0.5, 1.2, 3)]
        assert blurred == sorted(blurred, reverse=True)
