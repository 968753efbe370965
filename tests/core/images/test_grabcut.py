"""Objects cut out of drawn photographs whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.photographs import photograph
from pics_cli.core.images.grabcut import grab_cut
from pics_cli.core.images.matting import rgba_from_mask


@pytest.mark.parametrize(("side", "shadow", "least"), [(200, 0.0, 0.88), (200, 0.55, 0.92), (560, 0.55, 0.95)])
def test_the_object_is_found_without_its_shadow(side: int, shadow: float, least: float) -> None:
    rgb, alpha = photograph(side, shadow=shadow)
    mask, exactness = grab_cut(rgb)
    assert exactness == max(side / 512, 1)
    true = alpha >= 0.5
    assert (mask & true).sum() / (mask | true).sum() > least
    rgba = rgba_from_mask(rgb, mask, (1.5 * exactness, 1.5 * exactness))
    assert np.abs(rgba[..., 3] / 255 - alpha).mean() < 0.015
    again, _ = grab_cut(rgb)
    np.testing.assert_array_equal(mask, again)


def test_noise_and_one_colour_give_next_to_nothing_or_everything() -> None:
    flat = np.full((80, 80, 3), 90, np.uint8)
    assert not 0.01 < grab_cut(flat)[0].mean() < 0.8
    assert grab_cut(np.zeros((9, 3, 3), np.uint8))[0].shape == (9, 3)


def test_alpha_of_a_soft_rim_between_two_colours() -> None:
    """Against the closed form: a ramp between two colours, whose outline is known to two pixels."""
    ramp = np.clip((np.arange(60, dtype=np.float32) - 26) / 8, 0, 1)
    alpha = np.tile(ramp, (40, 1))
    rgb = alpha[..., None] * np.array((200, 90, 40), np.float32) + (1 - alpha[..., None]) * np.array(
        (40, 80, 160), np.float32
    )
    rgba = rgba_from_mask(np.rint(rgb).astype(np.uint8), alpha > 0.5, (5, 5))
    assert np.abs(rgba[..., 3] / 255 - alpha).max() < 0.13
    assert np.abs(rgba[..., 3] / 255 - alpha).mean() < 0.01
    seen = rgba[..., 3] > 60
    assert np.abs(rgba[..., :3][seen] - np.array((200, 90, 40), np.float32)).max() < 12
