"""An autoencoder without weights: the latent holds the pixels themselves, a block of them at each position."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, FrozenDict, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor

from pics_cli.core.runtime.files import load_json, read_file

_CONFIG_FILE = "config.json"
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


class PixelAutoencoder(ModelMixin, ConfigMixin):
    """Blocks of `patch` × `patch` pixels as channels; called, saved and loaded like diffusers' AutoencoderKL.

    Nothing is lost and nothing is learnt: for networks small enough to work on pixels.

    Args:
        patch: pixels that a latent position stands for, across and down.
    """

    @register_to_config
    def __init__(self, patch: int = 8) -> None:  # noqa: ARG002  # the decorator keeps it
        super().__init__()

    @property
    def config(self) -> FrozenDict:
        """`patch`, and what follows from it, by the names of `AutoencoderKL.config`: channels and scaling factor."""
        values = dict(self._internal_dict)
        derived = {"latent_channels": 3 * values["patch"] ** 2, "in_channels": 3, "out_channels": 3}
        return FrozenDict({**values, **derived, "scaling_factor": LATENT_SCALE})

    def encode(self, picture: Tensor) -> AutoencoderKLOutput:
        """[B, 3, S, S] to [B, 3 · patch², S / patch, S / patch], in `latent_dist`."""
        return AutoencoderKLOutput(latent_dist=ExactLatent(F.pixel_unshuffle(picture, self.config.patch)))

    def decode(self, latent: Tensor) -> DecoderOutput:
        """[B, 3 · patch², h, w] to [B, 3, h · patch, w · patch], in `sample`."""
        return DecoderOutput(sample=F.pixel_shuffle(latent, self.config.patch))

    def save_pretrained(self, save_directory: str | Path, **_: Any) -> None:
        """Write `config.json`; there are no weights."""
        self.save_config(save_directory)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **_: Any) -> PixelAutoencoder:
        """Read `config.json` of a folder.

        Raises:
            OSError, ValueError: it cannot be read, or there is something else in it or beside it.
        """
        folder = Path(pretrained_model_name_or_path)
        config: dict[str, Any] = load_json(read_file(folder / _CONFIG_FILE))
        keys = {key for key in config if not key.startswith("_")}
        patch = config.get("patch")
        if keys != {"patch"} or type(patch) is not int or patch < 1:
            raise ValueError(
                f"{_CONFIG_FILE} of a {cls.__name__}: expected patch, a whole number above 0, and nothing else"
            )
        if weights := sorted(path.name for path in folder.glob("*.safetensors")):
            raise ValueError(f"{weights[0]}: a {cls.__name__} has no weights")
        return cls(patch)
