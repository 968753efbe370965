"""The estimate of a picture's light: what it is trained towards, and that it says when it does not know."""

from __future__ import annotations

import pytest
import torch

from pics_cli.core.images.lighting import Lighting
from pics_cli.core.model.light_head import (
    AZIMUTH_BINS,
    SURE,
    LightHead,
    LightOutput,
    bin_azimuths,
    light_loss,
    light_values,
    lighting_of,
)

LAMP = Lighting(azimuth=-75, elevation=40, radius=9, strength=0.8, pitch=30)


def said(lamp: Lighting, sharpness: float) -> LightOutput:
    """What a head would answer that is as sure as `sharpness` says."""
    azimuth, *values = light_values(lamp)
    return LightOutput(sharpness * torch.cos(bin_azimuths() - azimuth)[None], torch.tensor([values]))


def test_a_sure_answer_is_the_lamp() -> None:
    lighting, sure = lighting_of(said(LAMP, 20))
    assert sure > SURE
    for name in ("azimuth", "elevation", "radius", "strength", "pitch"):
        assert getattr(lighting, name) == pytest.approx(getattr(LAMP, name), abs=0.01)


def test_an_unsure_answer_casts_no_shadow() -> None:
    strengths = [lighting_of(said(LAMP, sharpness))[0].strength for sharpness in (0, 0.3, 1, 2, 20)]
    assert strengths == sorted(strengths)
    assert strengths[:2] == [0, 0]
    assert strengths[-1] == pytest.approx(0.8, abs=1e-5)
    # Two lamps face to face: sure of the line, and not of the side.
    both = LightOutput(torch.logaddexp(said(LAMP, 20).azimuth, -said(LAMP, 20).azimuth), said(LAMP, 1).values)
    assert lighting_of(both)[0].strength == 0


def test_the_right_answer_costs_least() -> None:
    values, known = torch.tensor([light_values(LAMP)]), torch.tensor([True])
    other = Lighting(azimuth=105, elevation=70, radius=1, strength=0.2, pitch=60)
    costs = [float(light_loss(said(lamp, 4), values, known)) for lamp in (LAMP, other)]
    assert costs[0] < costs[1] - 1
    assert not light_loss(said(other, 4), values, torch.tensor([False])).any()


def test_of_an_overcast_picture_no_direction_is_right() -> None:
    values, known = torch.tensor([light_values(Lighting(60, 50, 40, 0, 20))]), torch.tensor([True])
    flat = said(LAMP, 0)
    flat = flat._replace(values=values[:, 1:])
    assert float(light_loss(flat, values, known)) == pytest.approx(
        torch.log(torch.tensor(AZIMUTH_BINS)).item(), abs=1e-4
    )
    assert float(light_loss(said(LAMP, 4)._replace(values=values[:, 1:]), values, known)) > float(
        light_loss(flat, values, known)
    )


def test_learns_the_side_of_a_gradient() -> None:
    """Pictures that are lighter on the lamp's side: a minute's training tells left from right."""
    torch.manual_seed(0)
    head = LightHead()
    optimizer = torch.optim.AdamW(head.parameters(), 2e-3)
    side = torch.tensor([-1.0, 1.0] * 4)
    ramp = torch.linspace(-0.6, 0.6, 32).expand(8, 3, 32, 32) * side[:, None, None, None]
    values = torch.tensor([light_values(Lighting(90 * float(s), 45, 4, 1, 20)) for s in side])
    for _ in range(12):
        pictures = ramp + 0.1 * torch.randn(8, 3, 32, 32)
        light_loss(head(pictures), values, torch.ones(8, dtype=torch.bool)).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        answers = [lighting_of(head(ramp[k : k + 1]))[0].azimuth for k in range(2)]
    assert answers[0] < -45
    assert answers[1] > 45
