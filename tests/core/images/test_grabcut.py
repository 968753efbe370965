"""Objects cut out of drawn photographs whose truth is known."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from pics_cli.core.images.grabcut import grab_cut
from pics_cli.core.images.matting import rgba_from_mask

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


def photograph(side: int, seed: int = 0, shadow: float = 0.0) -> tuple[Bytes, Floats]:
    """A toy of two colours on grass of many greens, with the shadow that it casts: uint8 RGB, and alpha in 0..1."""
    rng = np.random.default_rng(seed)
    grass = np.array((90, 130, 60), np.float32) + rng.normal(0, 22, (side, side, 1)).astype(np.float32)
    slow = rng.normal(0, 10, (5, 5)).astype(np.float32)
    grass += cv2.resize(slow, (side, side), interpolation=cv2.INTER_CUBIC)[..., None]
    ground = cv2.GaussianBlur(grass, (0, 0), 0.8)
    big = np.zeros((side * 4, side * 4), np.float32)
    cv2.ellipse(big, (side * 2, side * 2), (side * 4 // 4, side * 4 // 6), 20, 0, 360, 1, -1)
    cv2.circle(big, (side * 27 // 10, side * 12 // 10), side * 4 // 9, 1, -1)
    alpha = cv2.GaussianBlur(cv2.resize(big, (side, side), interpolation=cv2.INTER_AREA), (0, 0), 0.7)
    dark = cv2.GaussianBlur(np.roll(alpha, (side // 12, -side // 8), (0, 1)), (0, 0), side / 60)
    ground = ground * (1 - shadow * dark[..., None])
    own = np.where(
        np.arange(side)[:, None, None] < side * 0.4,
        np.array((190, 60, 40), np.float32),
        np.array((225, 190, 70), np.float32),
    )
    own = own + rng.normal(0, 8, (side, side, 3))
    mixed = alpha[..., None] * own + (1 - alpha[..., None]) * ground
    return np.clip(mixed, 0, 255).astype(np.uint8), alpha.astype(np.float32)


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
