"""The autoencoder of pixels: nothing is lost, and it is a part of a model folder like any other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pics_cli.core.model import model_folder
from pics_cli.core.model.part_checks import vae_downsampling
from pics_cli.core.model.pixel_autoencoder import PixelAutoencoder


@pytest.mark.parametrize("patch", [1, 2, 8])
def test_pictures_come_back_as_they_were(patch: int) -> None:
    vae = PixelAutoencoder(patch)
    pictures = torch.rand(2, 3, 16, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    encoded = vae.encode(pictures).latent_dist
    latent = encoded.mode()
    assert latent.shape == (2, vae.config.latent_channels, 16 // patch, 32 // patch)
    assert torch.equal(vae.decode(latent).sample, pictures)
    assert torch.equal(encoded.sample(), latent)
    assert torch.equal(encoded.mean + encoded.std, latent)


def test_a_position_holds_its_own_block() -> None:
    pictures = torch.zeros(1, 3, 16, 16)
    pictures[0, :, 4:8, 12:16] = 1
    latent = PixelAutoencoder(4).encode(pictures).latent_dist.mode()
    assert latent[0, :, 1, 3].eq(1).all()
    assert latent.sum() == latent[0, :, 1, 3].sum() == 48


def test_saved_and_loaded(tmp_path: Path) -> None:
    model_folder.save_part("vae", PixelAutoencoder(4), tmp_path)
    place = tmp_path / "vae"
    assert [path.name for path in place.iterdir()] == ["config.json"]
    loaded = model_folder.load_module(model_folder.autoencoder_class(place), place, torch.bfloat16)
    assert isinstance(loaded, PixelAutoencoder)
    assert loaded.config == PixelAutoencoder(4).config
    assert vae_downsampling(loaded) == 4


@pytest.mark.parametrize(
    "values", [{}, {"patch": 0}, {"patch": "4"}, {"patch": True}, {"patch": 4, "latent_channels": 4}]
)
def test_faults_of_its_configuration(tmp_path: Path, values: dict[str, object]) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "PixelAutoencoder", **values}))
    with pytest.raises(ValueError, match="expected patch, a whole number above 0, and nothing else"):
        PixelAutoencoder.from_pretrained(tmp_path)


def test_weights_are_refused(tmp_path: Path) -> None:
    PixelAutoencoder(4).save_pretrained(tmp_path)
    save_file({"bias": torch.zeros(3)}, tmp_path / "diffusion_pytorch_model.safetensors")
    with pytest.raises(ValueError, match=r"diffusion_pytorch_model.safetensors: a PixelAutoencoder has no weights"):
        PixelAutoencoder.from_pretrained(tmp_path)


def test_other_classes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"_class_name": "AutoencoderTiny"}')
    with pytest.raises(ValueError, match=r"names the class AutoencoderTiny, expected one of AutoencoderKL, Pixel"):
        model_folder.autoencoder_class(tmp_path)
