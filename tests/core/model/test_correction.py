"""From the network's output to the picture, by loops; and what a finished picture is made of."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pics_cli.core.model.config import ModelConfig
from pics_cli.core.model.correction import FIRST, Correction, start_logits
from pics_cli.core.model.pixels import PixelAutoencoder
from pics_cli.errors import PicsError


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_of_one_picture_the_output_is_added() -> None:
    pictures, output = drawn(2, 1, 4, 3, 3), drawn(2, 4, 3, 3, seed=1)
    assert torch.equal(Correction(pictures, 0)(output), output + pictures[:, 0])


@pytest.mark.parametrize(("channels", "shares"), [(12, 4), (4, 1)])
def test_of_several_by_loops(channels: int, shares: int) -> None:
    pictures = drawn(2, 3, channels, 2, 2)
    output = drawn(2, channels + 3 * shares, 2, 2, seed=1)
    found = Correction(pictures, shares)(output)
    for b in range(2):
        for c in range(channels):
            for y in range(2):
                for x in range(2):
                    logits = [float(output[b, channels + i * shares + c % shares, y, x]) for i in range(3)]
                    total = sum(map(math.exp, logits))
                    value = float(output[b, c, y, x])
                    value += sum(math.exp(z) / total * float(pictures[b, i, c, y, x]) for i, z in enumerate(logits))
                    assert float(found[b, c, y, x]) == pytest.approx(value, abs=1e-5)


def test_a_pixel_has_one_share_for_all_its_colours() -> None:
    """Red, green and blue of a pixel lie g channels apart in the latent: the same as in the unshuffled picture."""
    vae = PixelAutoencoder(2)
    red, blue = torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)
    red[:, 0], blue[:, 2] = 1, 1
    pictures = torch.stack([vae.encode(each).latent_dist.mode() for each in (red, blue)], 1)
    output = torch.zeros(1, 12 + 2 * 4, 2, 2)
    output[:, 12:16] = 30 * (2 * (torch.arange(16).view(1, 4, 2, 2) % 2) - 1)
    picture = vae.decode(Correction(pictures, 4)(output)).sample
    assert torch.allclose(picture[:, 0] + picture[:, 2], torch.ones(1, 4, 4))
    assert picture.round().equal(picture) or torch.allclose(picture.round(), picture, atol=1e-6)


def test_the_first_picture_stands_out_at_the_start() -> None:
    pictures = drawn(1, 3, 12, 2, 2)
    output = start_logits(12, 3, 4)[None, :, None, None].expand(1, 24, 2, 2)
    correction = Correction(pictures, 4)
    correction(output)
    weights = correction.weights
    assert weights is not None
    share = math.exp(FIRST) / (math.exp(FIRST) + 2)
    assert torch.allclose(weights[:, 0], torch.tensor(share))
    assert share > 0.75
    assert not start_logits(12, 1, 0).any()


@pytest.mark.parametrize("pictures", [1, 3])
def test_blend_takes_a_finished_picture_apart(pictures: int) -> None:
    """Pictures in their shares, and the residual, are the picture again: at the network's own size."""
    vae = PixelAutoencoder(2)
    shown = drawn(4, pictures, 3, 6, 6)
    latents = vae.encode(shown.flatten(0, 1)).latent_dist.mode().unflatten(0, (4, pictures))
    shares = 4 if pictures > 1 else 0
    correction = Correction(latents, shares)
    latent = correction(drawn(4, 12 + pictures * shares, 3, 3, seed=1))
    blend = correction.blend(latent, vae, 1.0, 2)
    assert blend.shares.shape == (2, 2, pictures, 6, 6)
    assert torch.allclose(blend.shares.sum(2), torch.ones(2, 2, 6, 6), atol=1e-6)
    again = (shown.unflatten(0, (2, 2)) * blend.shares[:, :, :, None]).sum(2) + blend.residual / 127.5
    assert torch.allclose(again.flatten(0, 1), vae.decode(latent).sample, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "hint", "shares", "output"),
    [
        ({}, 4, 0, 4),
        ({"hint": "layers"}, 10, 1, 7),
        ({"hint": "layers", "latent_channels": 192, "downsampling": 8}, 10, 64, 384),
        ({"hint": "overlay", "latent_channels": 192, "downsampling": 8}, 4, 0, 192),
    ],
)
def test_channels(given: dict[str, object], hint: int, shares: int, output: int) -> None:
    config = ModelConfig(prediction_type="sample", correct_hint=True, **given)
    assert (config.hint_channels, config.shares, config.output_channels) == (hint, shares, output)


@pytest.mark.parametrize(
    ("change", "text"),
    [({"hint": "layers"}, "correct_hint true where hint is layers"), ({"fill": 0.3}, "fill"), ({"fill": 1.1}, "fill")],
)
def test_refused(change: dict[str, object], text: str) -> None:
    from pathlib import Path

    with pytest.raises(PicsError, match=text):
        ModelConfig.parse(change, Path("pics.json"))
