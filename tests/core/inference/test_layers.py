"""Composites taken apart and put together: whatever their depth, alpha and objects, no value differs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pics_cli.core.images.stored_image import StoredImage
from pics_cli.core.inference.layers import Coverage, Layers, _factor, _ratio, merge, separate, values_differing

KINDS = [(np.uint8, 3), (np.uint8, 4), (np.uint16, 3), (np.uint16, 4)]


def picture(rng: np.random.Generator, height: int, width: int, dtype: type, channels: int) -> np.ndarray:
    """Any values, the extremes and, where there is alpha, clear and opaque pixels being frequent."""
    highest = np.iinfo(dtype).max
    values = rng.integers(0, highest, (height, width, channels), dtype, endpoint=True)
    values[rng.random((height, width)) < 0.2, :3] = rng.choice([0, 1, highest])
    if channels == 4:
        values[..., 3] = np.where(
            rng.random((height, width)) < 0.6, rng.choice([0, highest], (height, width)), values[..., 3]
        )
    return values


def case(seed: int, dtype: type, channels: int) -> tuple[StoredImage, np.ndarray, Coverage, list[int]]:
    """A background, a composite that has nothing to do with it in a part, and any coverage."""
    rng = np.random.default_rng(seed)
    height, width, count = (int(n) for n in rng.integers((1, 1, 1), (24, 24, 5)))
    before = picture(rng, height, width, dtype, channels)
    after = np.where(rng.random((height, width, 1)) < 0.7, picture(rng, height, width, dtype, channels), before)
    x0, y0 = int(rng.integers(width)), int(rng.integers(height))
    box = (x0, y0, int(rng.integers(x0, width)) + 1, int(rng.integers(y0, height)) + 1)
    shares = rng.dirichlet([0.3] * (count + 1), (box[3] - box[1], box[2] - box[0]))[..., :count]
    return (
        StoredImage(before),
        after,
        Coverage(box, np.rint(shares * 255).astype(np.uint8).transpose(2, 0, 1)),
        [*map(int, rng.permutation(count))],
    )


@pytest.mark.parametrize(("dtype", "channels"), KINDS)
@given(seed=st.integers(0, 1 << 32))
@settings(max_examples=60, deadline=None)
def test_they_recombine(dtype: type, channels: int, seed: int) -> None:
    background, after, coverage, order = case(seed, dtype, channels)
    kept = background.pixels.copy()
    layers = separate(background, after, coverage, order)
    assert values_differing(merge(layers), after) == 0
    np.testing.assert_array_equal(background.pixels, kept)
    names = [*["shade"] * (channels == 4), *(f"object_{k}" for k in order)]
    assert [layer.name for layer in layers.stack] == ["light", *names, "darker", "lighter"]
    assert (layers.rest is None) == (channels == 3)
    for layer in layers.stack:
        assert (layer.pixels.dtype, layer.pixels.shape[2]) == (dtype, 4)


def plain_merge(layers: Layers) -> np.ndarray:
    """The formulas of the docstring, pixel by pixel in Python's own numbers."""
    out = layers.background.pixels.copy()
    m, has_alpha = int(np.iinfo(out.dtype).max), out.shape[2] == 4

    def nearest(p: int, q: int) -> int:
        return (p + q // 2) // q

    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            *values, alpha = [*map(int, out[y, x]), m][:4]
            for layer in layers.stack:
                *own, a = map(int, layers.whole(layer.pixels)[y, x])
                u, v = a * m, alpha * (m - a)
                for i, c in enumerate(own):
                    if layer.operator == "multiply":
                        values[i] = nearest(values[i] * (m - nearest((m - c) * a, m)), m)
                    elif layer.operator == "plus":
                        values[i] = min(values[i] + nearest(c * a, m), m)
                    elif u + v:
                        values[i] = nearest(c * u + values[i] * v, u + v)
                if layer.operator == "src-over":
                    alpha = nearest(u + v, m)
            for sign, pixels in zip((1, -1), layers.rest or (), strict=False):
                rest = [sign * int(value) for value in layers.whole(pixels)[y, x]]
                values, alpha = [c + r for c, r in zip(values, rest[:3], strict=True)], alpha + rest[3]
            values, alpha = [min(max(c, 0), m) for c in values], min(max(alpha, 0), m)
            out[y, x] = (*values, alpha) if has_alpha else values
    return out


@pytest.mark.parametrize(("dtype", "channels"), KINDS)
def test_merging_is_what_the_formulas_say(dtype: type, channels: int) -> None:
    """Of edited layers, too, whose values are any."""
    rng = np.random.default_rng(3)
    layers = separate(*case(12, dtype, channels))
    edited = tuple(
        layer._replace(pixels=picture(rng, len(layer.pixels), layer.pixels.shape[1], dtype, 4))
        for layer in layers.stack
    )
    layers = Layers(layers.background, layers.box, edited, layers.rest)
    np.testing.assert_array_equal(merge(layers), plain_merge(layers))


def test_every_darker_value_has_a_factor() -> None:
    below, above = np.meshgrid(np.arange(256), np.arange(256), indexing="ij")
    factor = _factor(below, above, 255)
    assert (factor <= 255).all()
    np.testing.assert_array_equal(_ratio(below * factor, 255), np.minimum(below, above))


def test_what_each_layer_holds() -> None:
    """A shadow on the ground is light alone, an object keeps its own colours at its rim, and nothing is left."""
    ground = np.full((40, 60, 3), 200, np.uint8)
    ground[:, ::2] = 120
    shade = np.linspace(1, 0.5, 60)[None, :, None]
    after = np.rint(ground * shade).astype(np.uint8)
    alpha = np.zeros((40, 60), np.uint8)
    alpha[10:30, 20:30] = 255
    alpha[9:31, 19] = alpha[9:31, 30] = 128
    share = alpha[..., None] / 255
    after = np.rint(after * (1 - share) + np.array([250, 10, 30]) * share).astype(np.uint8)
    layers = separate(StoredImage(ground), after, Coverage((0, 0, 60, 40), alpha[None]), [0])
    light, thing, darker, lighter = (layers.whole(layer.pixels) for layer in layers.stack)
    x0 = layers.box[0]
    assert (layers.box[2] - x0, layers.box[3]) == (60, 40)
    factors = np.where(light[..., 3:] > 0, light[..., :3], 255) / 255
    assert np.abs(factors - shade).max() < 0.06, "below the object as well"
    np.testing.assert_array_equal(thing[..., 3], alpha)
    assert np.abs(thing[alpha > 0, :3].astype(int) - (250, 10, 30)).max() <= 6
    assert not light[alpha == 0].any() or not (darker[alpha == 0, 3].any() or lighter[alpha == 0, 3].any())
    assert lighter[..., :3].max() <= 2
    assert darker[darker[..., 3] > 0, :3].min(initial=255) >= 250


def test_a_shadow_on_nothing_is_a_dark_colour() -> None:
    """Where the ground is transparent: what other programs make of the layers that they show is the composite, too."""
    ground = np.zeros((20, 30, 4), np.uint8)
    ground[:, :10] = (200, 180, 160, 255)
    after, seen = ground.copy(), np.zeros((1, 20, 30), np.uint8)
    after[12:] = (0, 0, 0, 90)
    after[12:, :10] = (100, 90, 80, 255)
    after[5:15, 8:25], seen[0, 5:15, 8:25] = (250, 10, 30, 255), 255
    layers = separate(StoredImage(ground), after, Coverage((0, 0, 30, 20), seen), [0])
    assert values_differing(merge(layers), after) == 0
    light, shade, thing, darker, lighter = (layers.whole(layer.pixels) for layer in layers.stack)
    assert (light[15:, :8] == (128, 128, 128, 255)).all()
    assert (shade[15:, 10:] == (0, 0, 0, 90)).all()
    for clear in (light[:, 10:], shade[:, :10], darker, lighter):
        assert not clear[..., 3].any()
    np.testing.assert_array_equal(thing, np.where(seen[0, ..., None] > 0, after, 0))
    assert layers.rest is not None
    assert not any(pixels.any() for pixels in layers.rest)
