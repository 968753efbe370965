"""An autoencoder without weights: the latent holds the pixels themselves, a block of them at each position."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pics_cli.core.model.saved_module import CONFIG_FILE, PartConfig, SavedModule, diffusers_json

# Factor on the latent by default: pixels in [-1, 1] are near enough to unit variance.
LATENT_SCALE = 1.0


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


class EncodedPicture(NamedTuple):
    """As diffusers' AutoencoderKLOutput."""

    latent_dist: ExactLatent


class DecodedLatent(NamedTuple):
    """As diffusers' DecoderOutput."""

    sample: Tensor


class PixelAutoencoder(SavedModule):
    """Blocks of `patch` × `patch` pixels as channels; called, saved and loaded like diffusers' AutoencoderKL.

    Nothing is lost and nothing is learnt: for networks small enough to work on pixels.

    Args:
        patch: pixels that a latent position stands for, across and down.

    Attributes:
        config: `patch`, and what follows from it, by the names of `AutoencoderKL.config`: channels and scaling factor.
    """

    def __init__(self, patch: int = 8) -> None:
        super().__init__()
        channels = {"latent_channels": 3 * patch**2, "in_channels": 3, "out_channels": 3}
        self.config = PartConfig(patch=patch, **channels, scaling_factor=LATENT_SCALE)

    def encode(self, picture: Tensor) -> EncodedPicture:
        """[B, 3, S, S] to [B, 3 · patch², S / patch, S / patch], in `latent_dist`."""
        return EncodedPicture(ExactLatent(F.pixel_unshuffle(picture, self.config.patch)))

    def decode(self, latent: Tensor) -> DecodedLatent:
        """[B, 3 · patch², h, w] to [B, 3, h · patch, w · patch], in `sample`."""
        return DecodedLatent(F.pixel_shuffle(latent, self.config.patch))

    def config_text(self) -> str:
        """The contents of `config.json`."""
        return diffusers_json(type(self).__name__, {"patch": self.config.patch})

    def save_pretrained(self, folder: str | Path, **_: Any) -> None:
        """Write `config.json`; there are no weights."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        self.save_config(folder)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        torch_dtype: torch.dtype | None = None,  # noqa: ARG003
        **_: Any,
    ) -> PixelAutoencoder:
        """Read `config.json` of a folder.

        Raises:
            OSError, ValueError: it cannot be read, or there is something else in it or beside it.
        """
        folder = Path(pretrained_model_name_or_path)
        config = cls.load_config(folder)
        keys = {key for key in config if not key.startswith("_")}
        patch = config.get("patch")
        if keys != {"patch"} or type(patch) is not int or patch < 1:
            raise ValueError(
                f"{CONFIG_FILE} of a {cls.__name__}: expected patch, a whole number above 0, and nothing else"
            )
        if weights := sorted(path.name for path in folder.glob("*.safetensors")):
            raise ValueError(f"{weights[0]}: a {cls.__name__} has no weights")
        return cls(patch)
