"""From the network's output to the picture, by loops; and what a finished picture is made of."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pics_cli.core.model.blending import (
    GAIN_SCALE,
    INITIAL_LOGIT,
    LOGIT_SCALE,
    RESIDUAL_SCALE,
    ResidualPrediction,
    initial_output_bias,
)
from pics_cli.core.model.config import ModelConfig
from pics_cli.core.model.pixel_autoencoder import PixelAutoencoder
from pics_cli.errors import PicsError

Array = npt.NDArray[np.float64]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def config(channels: int = 12, patch: int = 2, grid: int = 1, **given: Any) -> ModelConfig:
    """Of a model with three pictures in its hint."""
    meaning = {"prediction_type": "sample", "correct_hint": True, "hint": "layers", "latent_scale": 1.0, **given}
    return ModelConfig(latent_channels=channels, downsampling=patch, share_grid=grid, image_size=6 * patch, **meaning)


def enlarged(coarse: Array, patch: int) -> Array:
    """Values [n, h g, w g] of a grid of g in a latent position at pixels [n, h p, w p]: linear between middles."""
    count, rows, columns = coarse.shape
    grid = 2 if rows % 3 == 0 and rows > 3 else 1
    found = np.empty((count, rows // grid * patch, columns // grid * patch))

    def between(at: float, last: int) -> tuple[int, int, float]:
        at = min(max(at, 0.0), last)
        return int(at), min(int(at) + 1, last), at - int(at)

    for y in range(found.shape[1]):
        top, bottom, down = between((y + 0.5) * grid / patch - 0.5, rows - 1)
        for x in range(found.shape[2]):
            left, right, across = between((x + 0.5) * grid / patch - 0.5, columns - 1)
            upper = coarse[:, top, left] * (1 - across) + coarse[:, top, right] * across
            lower = coarse[:, bottom, left] * (1 - across) + coarse[:, bottom, right] * across
            found[:, y, x] = upper * (1 - down) + lower * down
    return found


def test_of_one_picture_the_output_is_added() -> None:
    pictures, output = drawn(2, 1, 4, 3, 3), drawn(2, 4, 3, 3, seed=1)
    assert torch.equal(ResidualPrediction(pictures, config(4, hint="overlay"))(output), output + pictures[:, 0])


def test_of_several_by_loops() -> None:
    """A latent that is no picture: shares of each position."""
    pictures, output = drawn(2, 3, 4, 2, 2), drawn(2, 4 + 3, 2, 2, seed=1)
    found = ResidualPrediction(pictures, config(4))(output)
    for b, c, y, x in product(range(2), range(4), range(2), range(2)):
        powers = [math.exp(LOGIT_SCALE * float(output[b, 4 + i, y, x])) for i in range(3)]
        value = RESIDUAL_SCALE * float(output[b, c, y, x])
        value += sum(power / sum(powers) * float(pictures[b, i, c, y, x]) for i, power in enumerate(powers))
        assert float(found[b, c, y, x]) == pytest.approx(value, abs=1e-5)


@pytest.mark.parametrize("grid", [1, 2])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_on_pixels_by_loops(grid: int, scale: float) -> None:
    """Shares and light are linear between the middles of their cells; black stays black whatever the light."""
    patch, side = 4, 3
    meaning = config(48, patch, grid, latent_scale=scale)
    output = drawn(1, meaning.output_channels, side, side, seed=1)
    vae = PixelAutoencoder(patch)
    shown = drawn(3, 3, side * patch, side * patch)
    pictures = scale * vae.encode(shown).latent_dist.mode()[None]
    found = vae.decode(ResidualPrediction(pictures, meaning)(output)).sample[0] / scale
    cells = F.pixel_shuffle(output[:, 48:], grid)[0].double().numpy()
    logits, gain = enlarged(LOGIT_SCALE * cells[:3], patch), enlarged(GAIN_SCALE * cells[3:], patch)
    weights = np.exp(logits) / np.exp(logits).sum(axis=0)
    mixed = sum(weights[i] * shown[i].double().numpy() for i in range(3))
    residual = RESIDUAL_SCALE * F.pixel_shuffle(output[:, :48], patch)[0].double().numpy() / scale
    np.testing.assert_allclose(found, (mixed + 1) * np.exp(gain) - 1 + residual, atol=1e-5)


def test_sharper_shares_choose() -> None:
    """Each share to the power of the sharpness, put back to 1; nothing else changes."""
    meaning = config(grid=2)
    pictures, output = drawn(1, 3, 12, 2, 2), drawn(1, meaning.output_channels, 2, 2, seed=1)
    plain, sharp = ResidualPrediction(pictures, meaning), ResidualPrediction(pictures, meaning, 3.0)
    plain(output)
    sharp(output)
    assert plain.logits is not None
    assert sharp.logits is not None
    powers = plain.logits.softmax(1) ** 3
    assert torch.allclose(sharp.logits.softmax(1), powers / powers.sum(1, keepdim=True), atol=1e-6)
    assert plain.gain is not None
    assert torch.equal(plain.gain, sharp.gain if sharp.gain is not None else torch.zeros(1))


def test_the_first_picture_stands_out_at_the_start() -> None:
    meaning = config(grid=2)
    output = initial_output_bias(meaning)[None, :, None, None].expand(1, meaning.output_channels, 2, 2)
    correction = ResidualPrediction(drawn(1, 3, 12, 2, 2), meaning)
    correction(output)
    assert correction.logits is not None
    assert correction.gain is not None
    assert not correction.gain.any()
    share = math.exp(INITIAL_LOGIT) / (math.exp(INITIAL_LOGIT) + 2)
    assert torch.allclose(correction.logits.softmax(1)[:, 0], torch.tensor(share))
    assert share > 0.75
    assert not initial_output_bias(config(hint="overlay")).any()


@pytest.mark.parametrize("hint", ["overlay", "layers"])
def test_blend_takes_a_finished_picture_apart(hint: str) -> None:
    """Pictures in their shares and light, and the residual, are the picture again: at the network's own size."""
    meaning, vae = config(hint=hint, latent_scale=0.5), PixelAutoencoder(2)
    shown = drawn(4, meaning.hint_layers, 3, 6, 6)
    latents = 0.5 * vae.encode(shown.flatten(0, 1)).latent_dist.mode().unflatten(0, shown.shape[:2])
    correction = ResidualPrediction(latents, meaning)
    latent = correction(drawn(4, meaning.output_channels, 3, 3, seed=1))
    blend = correction.layer_blend(latent, vae, 2)
    assert blend.logits.shape == (2, 2, meaning.hint_layers, 6, 6)
    mixed = (shown.unflatten(0, (2, 2)) * blend.logits.softmax(2)[:, :, :, None]).sum(2)
    again = (mixed + 1) * blend.gain.exp() - 1 + blend.residual / 127.5
    assert torch.allclose(again.flatten(0, 1), vae.decode(latent / 0.5).sample, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "hint", "logits", "output"),
    [
        ({}, 4, 0, 4),
        ({"hint": "layers"}, 10, 3, 7),
        ({"hint": "layers", "latent_channels": 192, "downsampling": 8}, 10, 3, 198),
        ({"hint": "layers", "latent_channels": 192, "downsampling": 8, "share_grid": 2}, 10, 12, 216),
        ({"hint": "overlay", "latent_channels": 192, "downsampling": 8}, 4, 0, 192),
    ],
)
def test_channels(given: dict[str, Any], hint: int, logits: int, output: int) -> None:
    config = ModelConfig(prediction_type="sample", correct_hint=True, **given)
    assert (config.hint_channels, config.logit_channels, config.output_channels) == (hint, logits, output)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"hint": "layers"}, "correct_hint true where hint is layers"),
        ({"fill": 0.3}, "fill"),
        ({"fill": 1.1}, "fill"),
        ({"share_grid": 2}, "share_grid 1, or at most downsampling where hint is layers"),
    ],
)
def test_refused(change: dict[str, object], text: str) -> None:
    from pathlib import Path

    with pytest.raises(PicsError, match=text):
        ModelConfig.parse(change, Path("pics.json"))


def test_shadows_by_the_equation() -> None:
    """exp(f gain − Σ strength map) on the blended layers, and f on the residual, in NumPy."""
    meaning = config(12, 2, 1, shadows=True)
    pictures, output = drawn(1, 3, 12, 6, 6), drawn(1, meaning.output_channels, 6, 6, seed=1)
    shadows, fade = torch.rand(1, 2, 3, 12, 12), torch.rand(1, 1, 12, 12)
    prediction = ResidualPrediction(pictures, meaning, 1.0, shadows, fade)
    found = F.pixel_shuffle(prediction(output), 2)[0].numpy()
    plain = config(12, 2, 1)
    reference = ResidualPrediction(pictures, plain)
    reference(output[:, : plain.output_channels])
    assert reference.logits is not None
    assert reference.gain is not None
    assert prediction.strength is not None
    weights = reference.logits.softmax(1)[0].numpy()
    layers = F.pixel_shuffle(pictures[0], 2).numpy()
    strength = prediction.strength[0].numpy()
    assert (strength > 0).all()
    both = shadows[0].numpy()
    maps = weights[0] * both[0] + weights[1] * both[1] + weights[2] * np.maximum(both[0], both[1])
    light = fade[0].numpy() * reference.gain[0].numpy() - (strength * maps[:, None]).sum(0)
    residual = RESIDUAL_SCALE * F.pixel_shuffle(output[:, :12], 2)[0].numpy() * fade[0].numpy()
    expected = ((layers * weights[:, None]).sum(0) + 1) * np.exp(light) - 1 + residual
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_where_regions_fade_and_no_shadow_falls_the_layers_are_kept() -> None:
    meaning = config(12, 2, 1, shadows=True)
    pictures = drawn(1, 1, 12, 6, 6).repeat(
        1, 3, 1, 1, 1
    )  # as outside the regions, where all layers are the background
    nothing = torch.zeros(1, 2, 3, 12, 12), torch.zeros(1, 1, 12, 12)
    found = ResidualPrediction(pictures, meaning, 1.0, *nothing)(drawn(1, meaning.output_channels, 6, 6, seed=1))
    torch.testing.assert_close(found, pictures[:, 0], atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="needs shadow maps"):
        ResidualPrediction(pictures, meaning)
