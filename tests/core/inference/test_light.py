"""The lamp of a composite: what a user may say, what candidates get, and what is left alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from helpers.trainees import LAYERS, SHADOWS, small
from pics_cli.core.images.lighting import Lighting
from pics_cli.core.inference.composite import CompositeResult, composite
from pics_cli.core.inference.sample import CompositeOptions, CompositeSample, candidate_lighting, parse_light
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.errors import PicsError

LAMP = Lighting(azimuth=-50, elevation=35, radius=6, strength=0.6, pitch=20)


def test_what_a_user_may_say() -> None:
    assert parse_light("auto") == "auto"
    assert parse_light("none") == "none"
    assert parse_light("90") == (90, 45, 5)
    assert parse_light("-120,30") == (-120, 30, 5)
    assert parse_light("0,60,12.5") == (0, 60, 12.5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("left", "left"),
        ("", "is no number"),
        ("1,2,3,4", "4 numbers"),
        ("0,100", "elevation is 100.0"),
        ("400", "azimuth is 400.0"),
        ("nan", "azimuth is nan"),
        ("0,40,-1", "radius is -1.0"),
    ],
)
def test_what_is_no_lamp(text: str, words: str) -> None:
    with pytest.raises(PicsError, match=words) as caught:
        parse_light(text)
    assert "AZIMUTH[,ELEVATION[,SOFTNESS]]" in str(caught.value.hint)


def test_the_first_candidate_has_the_lamp_that_was_asked_for() -> None:
    assert candidate_lighting("auto", LAMP, 0, 0, "a") == LAMP
    assert candidate_lighting("none", LAMP, 0, 0, "a") == replace(LAMP, strength=0)
    given = candidate_lighting((90, 30, 2), LAMP, 0, 0, "a")
    assert (given.azimuth, given.elevation, given.radius, given.pitch) == (90, 30, 2, LAMP.pitch)
    assert given.strength > 0


@pytest.mark.parametrize("strength", [0.0, 0.6])
def test_further_candidates_take_lamps_from_other_sides(strength: float) -> None:
    lamps = [candidate_lighting("auto", replace(LAMP, strength=strength), n, 3, "a") for n in range(5)]
    sides = np.array([lamp.azimuth for lamp in lamps[1:]] + [LAMP.azimuth] * (strength > 0))
    apart = np.abs((sides[:, None] - sides + 180) % 360 - 180)[~np.eye(len(sides), dtype=bool)]
    assert apart.min() > 25
    assert all(lamp.strength > 0 for lamp in lamps[1:])
    assert lamps == [candidate_lighting("auto", replace(LAMP, strength=strength), n, 3, "a") for n in range(5)]
    assert lamps[1] != candidate_lighting("auto", replace(LAMP, strength=strength), 1, 4, "a")


def scene(name: str = "a", candidates: tuple[int, ...] = (0,)) -> CompositeSample:
    noise = np.random.default_rng(1).integers(60, 200, (90, 120, 3), np.uint8)
    background = cv2.GaussianBlur(noise, (0, 0), 3).astype(np.uint8)
    references = []
    for seed in range(2):
        rgba = np.random.default_rng(seed).integers(0, 256, (24, 16, 4), np.uint8)
        rgba[..., 3] = 255
        rgba[:4, :4, 3] = 0
        references.append(rgba)
    boxes = ((10, 20, 50, 75), (60, 25, 100, 85))
    return CompositeSample(name, background, boxes, tuple(references), candidates=candidates)


@pytest.fixture(scope="module")
def model() -> PicsModel:
    return small(**SHADOWS, steps=1, guidance=1.0, scheduler="ddim")


def made(model: PicsModel, samples: list[CompositeSample], batch: int = 1, **options: Any) -> list[CompositeResult]:
    return list(composite(model, samples, CompositeOptions(**options), batch_size=batch))


def test_nothing_changes_outside_and_no_border_is_seen(model: PicsModel) -> None:
    (result,) = made(model, [scene()], light=(90.0, 40.0, 4.0))
    assert result.changed_outside == 0
    assert result.feather == 0, "it fades by itself"
    assert result.lighting is not None
    change = np.abs(result.image.astype(int) - result.sample.background).max(2)
    assert change.max() > 10
    for x0, y0, x1, y1 in result.sample.boxes:
        border = np.concatenate([change[[y0, y1 - 1], x0:x1].ravel(), change[y0:y1, [x0, x1 - 1]].ravel()])
        assert border.max() <= 0.05 * change.max(), "of an untrained network, whose changes are large"


def test_candidates_differ_by_their_lamps_alone(model: PicsModel) -> None:
    results = made(model, [scene(candidates=(0, 1, 2))])
    assert len({result.image.tobytes() for result in results}) == 3
    lamps = [result.lighting for result in results]
    again = made(model, [replace(scene(), candidates=(2,))])[0]
    np.testing.assert_array_equal(again.image, results[2].image)
    assert again.lighting == lamps[2]


def test_neither_batches_nor_neighbours_change_a_picture(model: PicsModel) -> None:
    samples = [scene("a", (0, 1)), scene("b"), scene("c", (1,))]
    alone = [result.image for sample in samples for result in made(model, [sample])]
    together = [result.image for result in made(model, samples, batch=3)]
    assert len(together) == 4
    for one, other in zip(alone, together, strict=True):
        assert np.abs(one.astype(int) - other).max() <= 1


def test_room_for_shadows_is_for_shadows_alone(model: PicsModel) -> None:
    plain, wide = (made(model, [scene()], light=(90.0, 30.0, 4.0), shadow_room=room)[0] for room in (0.0, 0.5))
    assert wide.regions != plain.regions
    assert wide.changed_outside == 0
    beyond = np.abs(wide.image.astype(int) - wide.sample.background).max(2)
    for x0, y0, x1, y1 in plain.regions:
        beyond[y0:y1, x0:x1] = 0
    assert beyond.any(), "the shadow goes on outside the boxes"


def test_one_after_the_other(model: PicsModel) -> None:
    (result,) = made(model, [scene()], mode="sequential", light=(90.0, 30.0, 4.0))
    assert result.changed_outside == 0
    assert (result.image != result.sample.background).any()


@pytest.mark.parametrize("options", [{"light": "none"}, {"shadow_room": 0.5}])
def test_a_model_without_shadows_refuses_a_light(options: dict[str, Any]) -> None:
    with pytest.raises(PicsError, match="casts no shadows"):
        made(small(**LAYERS), [scene()], **options)
