"""Figures of interaction on constructed cases with known answers, and how they move when a composite is spoilt."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from pics_cli.core.evaluation import pixel_metrics
from pics_cli.core.evaluation.baselines import collage
from pics_cli.core.evaluation.examples import Case, make_case, other_cases, turned
from pics_cli.core.evaluation.metrics import MEASURES, OF_TWO, Sight, between, check_names, judge, missing, sight_of
from pics_cli.core.scenes.drawn.spec import SceneSettings
from pics_cli.errors import PicsError

STYLE = SceneSettings(128, 2, (("apart", 1.0), ("occluding", 2.0)), 5.0, 0.3)
SEED = 5


@pytest.fixture(scope="module")
def sight() -> Sight:
    return sight_of(other_cases(STYLE, SEED, 0.8), SEED)


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return [make_case(STYLE, SEED, number, 0.8) for number in range(8)]


def values(picture: np.ndarray, case: Case, sight: Sight) -> dict[str, float]:
    return judge(picture, case, sight, MEASURES).values


def pasted(case: Case, shift: int = 0) -> np.ndarray:
    """Both references over the background, each in its own place, or in the other's."""
    count = len(case.references)
    references = [case.references[(k + shift) % count] for k in range(count)]
    return collage(case.background, case.places, references, case.order)


def test_swapped_objects_leak(cases: list[Case], sight: Sight) -> None:
    right = [values(pasted(case), case, sight) for case in cases]
    wrong = [values(pasted(case, 1), case, sight) for case in cases]
    for name, low, high in (("assignment", 0.8, 0.2), ("identity", 0.8, 0.2)):
        assert np.nanmean([one[name] for one in right]) >= low
        assert np.nanmean([one[name] for one in wrong]) <= high
    assert np.nanmean([one["leak"] for one in wrong]) > np.nanmean([one["leak"] for one in right]) + 0.2


def test_a_missing_object(cases: list[Case], sight: Sight) -> None:
    apart = [case for case in cases if case.relation == "apart"]
    assert apart
    for case in apart:
        gone = case.truth.copy()
        x0, y0, x1, y1 = case.regions[0]
        gone[y0:y1, x0:x1] = case.background[y0:y1, x0:x1]
        assert values(gone, case, sight)["missing"] == 0.5
        assert values(case.truth, case, sight)["missing"] == 0
        assert values(case.background, case, sight)["missing"] == 1
        faint = (case.background + 0.3 * (case.truth.astype(float) - case.background)).round().astype(np.uint8)
        fainter = (case.background + 0.2 * (case.truth.astype(float) - case.background)).round().astype(np.uint8)
        assert (missing(faint, case), missing(fainter, case)) == (0, 1)


def test_the_wrong_one_in_front(cases: list[Case], sight: Sight) -> None:
    known = [case for case in cases if case.wrong]
    assert known
    for case in known:
        assert values(case.truth, case, sight)["order"] in (1, pytest.approx(1))
        assert values(case.wrong[0], case, sight)["order"] == 0


def test_one_changed_pixel_outside(cases: list[Case], sight: Sight) -> None:
    case = cases[0]
    inside = pixel_metrics.union(case.regions, 128, 128)
    kept = np.where(inside[..., None], case.truth, case.background)
    assert values(kept, case, sight)["untouched"] == 0
    y, x = np.argwhere(~inside)[0]
    kept[y, x, 1] ^= 1
    assert values(kept, case, sight)["untouched"] == 1


def test_a_visible_seam(cases: list[Case], sight: Sight) -> None:
    """Everything in the regions a little brighter: a step along their border, the more the brighter."""
    case = cases[0]
    inside = pixel_metrics.union(case.regions, 128, 128)
    steps = []
    for lift in (0, 10, 20, 40):
        brighter = np.where(inside[..., None], np.clip(case.truth.astype(int) + lift, 0, 255), case.truth)
        steps.append(values(brighter.astype(np.uint8), case, sight)["seam_box"])
    assert steps[0] == 0
    assert steps == sorted(steps)
    assert steps[1] == pytest.approx(10, abs=2)


@pytest.mark.parametrize("name", ["psnr", "psnr_region", "ssim", "ssim_region"])
def test_worse_the_more_it_is_spoilt(cases: list[Case], sight: Sight, name: str) -> None:
    noise = np.random.default_rng(0).normal(0, 1, (128, 128, 3))
    for case in cases[:3]:
        found = [
            values(np.clip(case.truth + size * noise, 0, 255).astype(np.uint8), case, sight)[name]
            for size in (0, 4, 12, 40)
        ]
        assert found == sorted(found, reverse=True)
        assert len(set(found)) == 4


def test_a_copy_exceeds_the_ceiling(sight: Sight) -> None:
    """What is pasted is more like its reference than another view of the object is."""
    far = SceneSettings(128, 2, (("apart", 1.0),), 60.0, 0.8)
    apart = [make_case(far, SEED, number, 0.8) for number in range(4)]
    copied = [values(pasted(case), case, sight)["ceiling"] for case in apart]
    assert np.mean(copied) > 0.02
    assert all(values(case.truth, case, sight)["ceiling"] == 0 for case in apart)


def test_ssim_is_the_reference_implementation(cases: list[Case], sight: Sight) -> None:
    for case in cases[:2]:
        spoilt = pasted(case)
        expected = structural_similarity(
            case.truth, spoilt, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
            data_range=255,
        )  # fmt: skip
        assert values(spoilt, case, sight)["ssim"] == pytest.approx(expected, abs=1e-6)


def test_ssim_by_its_formula() -> None:
    """Of one window, in float64."""
    rng = np.random.default_rng(3)
    one, other = rng.integers(0, 256, (2, 31, 31, 3)).astype(np.uint8)
    _, parts = pixel_metrics.ssim(other, one)
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


def test_turned_twice_is_the_same(cases: list[Case]) -> None:
    case = cases[1]
    again = turned(turned(case))
    assert again.regions == case.regions
    assert again.order == case.order
    assert again.front == case.front
    once = turned(case)
    assert once.places == case.places[::-1]
    assert [once.places[k] for k in once.order] == [case.places[k] for k in case.order]


def test_between() -> None:
    case = make_case(STYLE, SEED, 0, 0.8)
    assert between(case.truth, case.truth, case) == 0
    inside = pixel_metrics.union(case.regions, 128, 128)
    other = np.where(inside[..., None], 255 - case.truth, 7).astype(np.uint8)
    expected = np.abs(255 - 2 * case.truth[inside].astype(float)).mean()
    assert between(case.truth, other, case) == pytest.approx(expected, rel=1e-6)


def test_only_what_is_asked_for(cases: list[Case], sight: Sight) -> None:
    assert list(judge(cases[0].truth, cases[0], sight, ["seam", "psnr"]).values) == ["psnr", "seam"]
    assert set(judge(cases[0].truth, cases[0], sight, MEASURES).values) == set(MEASURES) - set(OF_TWO)


def test_what_nobody_knows_stays_empty(cases: list[Case], sight: Sight) -> None:
    case = replace(cases[0], full=None, clean=False, wrong=(), front=None)
    found = values(case.truth, case, sight)
    assert all(np.isnan(found[name]) for name in ("shadow", "lit", "order"))
    few = Sight(sight.others[:3], sight.owners[:3], SEED)
    assert np.isnan(values(case.truth, case, few)["identity"])


def test_other_sizes_are_refused(cases: list[Case], sight: Sight) -> None:
    with pytest.raises(PicsError, match="00000000: the picture is 128x64, the truth 128x128"):
        judge(cases[0].truth[:64], cases[0], sight, ["psnr"])


def test_unknown_names() -> None:
    with pytest.raises(PicsError, match="psnr_regoin, which is no figure") as error:
        check_names(["psnr", "psnr_regoin"])
    assert "did you mean psnr_region?" in str(error.value.hint)
