"""From the network's output to a clean latent, where it corrects its hint.

B: composites, L: pictures of the hint, c, h, w: channels and sides of the latent, S: side of the picture, g: shares of
a latent position across and down.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pics_cli.core.model.config import ModelConfig

# Logit of the first picture's share when training begins; the others have 0.
FIRST = 2.0
# What an output of 1 means: an optimiser moves all outputs alike, but a share is to be taken or left altogether, while
# light changes by little and what has to be painted anew by less.
LOGIT, GAIN, RESIDUAL = 2.0, 0.5, 0.1


class Blend(NamedTuple):
    """What a composite takes of its hint's pictures and how it changes them, at the network's size.

    x₀ = exp(gain) · Σ_l softmax_l(logits) picture_l + residual, black being 0.

    Attributes:
        logits: float32 [B, n, L, S, S].
        gain: float32 [B, n, 3, S, S].
        residual: float32 [B, n, 3, S, S], in grey levels.
    """

    logits: Tensor
    gain: Tensor
    residual: Tensor


class Correction:
    """What an output makes of the latents of the hint's pictures.

    Of one picture: x₀ = picture + output. Of several, the output's further channels are the logits of each one's share,
    so that the order of objects can be chosen pixel by pixel without repainting any; and where the latent holds pixels,
    the logarithm of a factor on each colour: light and shadow, which keep what they fall on. Both are given g × g times
    for each latent position and enlarged bilinearly before anything is made of them: where two logits cross there is an
    edge, sharp at any resolution.

    Args:
        pictures: [B, L, c, h, w].
        config: of the model.
        sharpness: factor on the logits of shares.
    """

    def __init__(self, pictures: Tensor, config: ModelConfig, sharpness: float = 1.0) -> None:
        self.config, self.shown, self._logit = config, pictures, LOGIT * sharpness
        if config.gains:
            self.shown = F.pixel_shuffle(pictures.flatten(0, 1), config.downsampling).unflatten(0, pictures.shape[:2])
        self.logits: Tensor | None = None  # of the last output, [B, L, S, S] or [B, L, h, w]
        self.gain: Tensor | None = None
        self.mixed = pictures[:, 0]  # what it made of the pictures before the residual, [B, c, h, w]

    def __call__(self, output: Tensor) -> Tensor:
        """Outputs [B, `output_channels`, h, w] to clean latents [B, c, h, w]."""
        config = self.config
        if not config.shares:
            return output + self.mixed
        count = config.hint_pictures * config.shares
        residual, logits, gain = output.split([config.latent_channels, count, config.gains], 1)
        self.logits = self._logit * self._enlarged(logits)
        shares = self.logits.softmax(1)
        self.mixed = (self.shown * shares[:, :, None]).sum(1)
        if config.gains:
            self.gain = GAIN * self._enlarged(gain)
            lit = (self.mixed + config.latent_scale) * self.gain.exp() - config.latent_scale
            self.mixed = F.pixel_unshuffle(lit, config.downsampling)
        return self.mixed + RESIDUAL * residual

    def _enlarged(self, values: Tensor) -> Tensor:
        """[B, n g², h, w] to [B, n, S, S] where the latent holds pixels, else [B, n, h, w]."""
        fine = F.pixel_shuffle(values, self.config.share_grid)
        if not self.config.gains:
            return fine
        size = (values.shape[-2] * self.config.downsampling, values.shape[-1] * self.config.downsampling)
        return F.interpolate(fine, size, mode="bilinear", align_corners=False)

    def blend(self, latent: Tensor, vae: Any, candidates: int) -> Blend:
        """What a finished latent [B · n, c, h, w] is made of.

        Args:
            latent: sampled with this.
            vae: a `PixelAutoencoder`.
            candidates: n.
        """
        added = vae.decode((latent - self.mixed) / self.config.latent_scale).sample * 127.5
        logits = torch.zeros_like(added[:, :1]) if self.logits is None else self.logits
        gain = torch.zeros_like(added) if self.gain is None else self.gain
        return Blend(*(each.float().cpu().unflatten(0, (-1, candidates)) for each in (logits, gain, added)))


def start_bias(config: ModelConfig) -> Tensor:
    """Bias of an output convolution, float32 [`output_channels`], with which the first picture stands out when training
    begins."""
    bias = torch.zeros(config.output_channels)
    bias[config.latent_channels : config.latent_channels + config.shares] = FIRST / LOGIT
    return bias
