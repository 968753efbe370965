"""From the output of a network that predicts a residual of its control image to a clean latent.

B: composites, L: layers (pictures) of the control image, c, h, w: channels and sides of the latent, S: side of the
picture, g: blend weights of a latent position across and down.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pics_cli.core.model.config import ModelConfig

# Logit of the first layer's blend weight when training begins; the others have 0.
INITIAL_LOGIT = 2.0
# Factors on the outputs: an optimiser moves all outputs alike, but blend weights have to reach 0 or 1, while light
# changes by little and the residual by less.
LOGIT_SCALE, GAIN_SCALE, RESIDUAL_SCALE = 2.0, 0.5, 0.1


class LayerBlend(NamedTuple):
    """How a composite is made of its control image's layers, at the network's size.

    x₀ = exp(gain) · Σ_l softmax_l(logits) layer_l + residual, black being 0.

    Attributes:
        logits: float32 [B, n, L, S, S].
        gain: float32 [B, n, 3, S, S].
        residual: float32 [B, n, 3, S, S], in grey levels.
    """

    logits: Tensor
    gain: Tensor
    residual: Tensor


class ResidualPrediction:
    """Clean latents from outputs of the network and the latents of the control image's layers.

    Of one layer: x₀ = layer + output. Of several, the output's further channels are the logits of the layers' blend
    weights, so that the order of objects can be chosen pixel by pixel without repainting any; and where the latent
    holds pixels, the logarithm of a factor on each colour: light and shadow, which keep what they fall on. Both are
    given g × g times for each latent position and enlarged bilinearly first: where two logits cross there is an edge,
    sharp at any resolution.

    Args:
        layers: [B, L, c, h, w].
        config: of the model.
        sharpness: factor on the logits of blend weights.

    Attributes:
        logits: of the last output, [B, L, S, S] or [B, L, h, w]; None before the first, or with one layer.
        gain: of the last output, [B, 3, S, S]; None where the latent does not hold pixels.
        blended: of the last output, the layers before the residual is added, [B, c, h, w].
    """

    def __init__(self, layers: Tensor, config: ModelConfig, sharpness: float = 1.0) -> None:
        self.config, self.layers, self._logit_scale = config, layers, LOGIT_SCALE * sharpness
        if config.gain_channels:
            self.layers = F.pixel_shuffle(layers.flatten(0, 1), config.downsampling).unflatten(0, layers.shape[:2])
        self.logits: Tensor | None = None
        self.gain: Tensor | None = None
        self.blended = layers[:, 0]

    def __call__(self, output: Tensor) -> Tensor:
        """Outputs [B, `output_channels`, h, w] to clean latents [B, c, h, w]."""
        config = self.config
        if not config.logit_channels:
            return output + self.blended
        residual, logits, gain = output.split([config.latent_channels, config.logit_channels, config.gain_channels], 1)
        self.logits = self._logit_scale * self._enlarge(logits)
        blend_weights = self.logits.softmax(1)
        self.blended = (self.layers * blend_weights[:, :, None]).sum(1)
        if config.gain_channels:
            self.gain = GAIN_SCALE * self._enlarge(gain)
            lit = (self.blended + config.latent_scale) * self.gain.exp() - config.latent_scale
            self.blended = F.pixel_unshuffle(lit, config.downsampling)
        return self.blended + RESIDUAL_SCALE * residual

    def _enlarge(self, values: Tensor) -> Tensor:
        """[B, n g², h, w] to [B, n, S, S] where the latent holds pixels, else [B, n, h, w]."""
        fine = F.pixel_shuffle(values, self.config.share_grid)
        if not self.config.gain_channels:
            return fine
        size = (values.shape[-2] * self.config.downsampling, values.shape[-1] * self.config.downsampling)
        return F.interpolate(fine, size, mode="bilinear", align_corners=False)

    def layer_blend(self, latent: Tensor, vae: Any, candidates: int) -> LayerBlend:
        """The layer blend of a finished latent [B · n, c, h, w].

        Args:
            latent: denoised with this prediction.
            vae: a `PixelAutoencoder`.
            candidates: n.
        """
        added = vae.decode((latent - self.blended) / self.config.latent_scale).sample * 127.5
        logits = torch.zeros_like(added[:, :1]) if self.logits is None else self.logits
        gain = torch.zeros_like(added) if self.gain is None else self.gain
        return LayerBlend(*(values.float().cpu().unflatten(0, (-1, candidates)) for values in (logits, gain, added)))


def initial_output_bias(config: ModelConfig) -> Tensor:
    """Bias of an output convolution, float32 [`output_channels`], with which the first layer has the largest
    blend weight when training begins."""
    bias = torch.zeros(config.output_channels)
    if config.logit_channels:
        bias[config.latent_channels : config.latent_channels + config.share_grid**2] = INITIAL_LOGIT / LOGIT_SCALE
    return bias
