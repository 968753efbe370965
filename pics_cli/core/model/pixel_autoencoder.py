"""An autoencoder without weights: the latent holds the pixels themselves, a block of them at each position."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.vae import DecoderOutput
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from torch import Tensor, nn

from pics_cli.core.runtime.files import write_json

_CONFIG_FILE = "config.json"
# Factor on the latent by default: pixels in [-1, 1] are near enough to unit variance.
LATENT_SCALE = 1.0


class PixelConfig(NamedTuple):
    """The values of diffusers' `AutoencoderKL.config` that apply."""

    patch: int
    latent_channels: int
    """Colours times pixels of a block."""
    in_channels: int = 3
    out_channels: int = 3
    scaling_factor: float = LATENT_SCALE


class ExactLatent:
    """A latent with the methods of diffusers' DiagonalGaussianDistribution: the deviation is 0."""

    def __init__(self, latent: Tensor) -> None:
        self.mean = latent

    @property
    def std(self) -> Tensor:
        """0 everywhere."""
        return torch.zeros_like(self.mean)

    def mode(self) -> Tensor:
        """The latent."""
        return self.mean

    def sample(self, generator: torch.Generator | None = None) -> Tensor:  # noqa: ARG002  # as AutoencoderKL's
        """The latent, whatever the generator."""
        return self.mean


class PixelAutoencoder(nn.Module):
    """Blocks of `patch` × `patch` pixels as channels; called, saved and loaded like diffusers' AutoencoderKL.

    Nothing is lost and nothing is learnt: for networks small enough to work on pixels.

    Args:
        patch: pixels that a latent position stands for, across and down.
    """

    def __init__(self, patch: int = 8) -> None:
        super().__init__()
        self.config = PixelConfig(patch, 3 * patch**2)

    def encode(self, picture: Tensor) -> AutoencoderKLOutput:
        """[B, 3, S, S] to [B, 3 · patch², S / patch, S / patch], in `latent_dist`."""
        return AutoencoderKLOutput(latent_dist=ExactLatent(F.pixel_unshuffle(picture, self.config.patch)))

    def decode(self, latent: Tensor) -> DecoderOutput:
        """[B, 3 · patch², h, w] to [B, 3, h · patch, w · patch], in `sample`."""
        return DecoderOutput(sample=F.pixel_shuffle(latent, self.config.patch))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json`; there are no weights."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / _CONFIG_FILE, {"_class_name": type(self).__name__, "patch": self.config.patch})

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> PixelAutoencoder:
        """Read `config.json`.

        Raises:
            OSError, ValueError: it cannot be read, or there is something else in it or beside it.
        """
        config: dict[str, Any] = json.loads((Path(folder) / _CONFIG_FILE).read_text())
        keys = {key for key in config if not key.startswith("_")}
        patch = config.get("patch")
        if keys != {"patch"} or type(patch) is not int or patch < 1:
            raise ValueError(
                f"{_CONFIG_FILE} of a {cls.__name__}: expected patch, a whole number above 0, and nothing else"
            )
        if weights := sorted(path.name for path in Path(folder).glob("*.safetensors")):
            raise ValueError(f"{weights[0]}: a {cls.__name__} has no weights")
        return cls(patch)
