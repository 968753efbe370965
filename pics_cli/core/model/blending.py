"""From the output of a network that predicts a residual of its control image to a clean latent.

B: composites, L: layers (pictures) of the control image, c, h, w: channels and sides of the latent, S: side of the
picture, g: blend weights of a latent position across and down.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pics_cli.core.model.config import SHADOW_MAPS, ModelConfig

# Logit of the first layer's blend weight when training begins; the others have 0.
INITIAL_LOGIT = 2.0
# Factors on the outputs: an optimiser moves all outputs alike, but blend weights have to reach 0 or 1, while light
# changes by little and the residual by less.
LOGIT_SCALE, GAIN_SCALE, RESIDUAL_SCALE = 2.0, 0.5, 0.1
# Strength of each shadow map when training begins: the optical density of the ground where the map is 1.
INITIAL_STRENGTH = 0.3


class LayerBlend(NamedTuple):
    """How a composite is made of its control image's layers, at the network's size.

    x₀ = exp(f · gain − Σ_j strength_j · map_j) · Σ_l softmax_l(logits) layer_l + f · residual, black being 0. f is
    `region_fade` where the model has `shadows`, else 1; map_j are the shadow maps, blended as the layers are.

    Attributes:
        logits: float32 [B, n, L, S, S].
        gain: float32 [B, n, 3, S, S].
        residual: float32 [B, n, 3, S, S], in grey levels, not yet faded.
        strength: float32 [B, n, J, 3, S, S], 0 or more; None where the model has no shadow maps.
    """

    logits: Tensor
    gain: Tensor
    residual: Tensor
    strength: Tensor | None = None


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
        shadows: shadow maps of a model with `shadows`, [B, 2, J, S, S] in 0..1: of the objects back to front, and front
            to back.
        fade: of such a model, [B, 1, S, S] in 0..1: factor on `gain` and on the residual.

    Attributes:
        logits: of the last output, [B, L, S, S] or [B, L, h, w]; None before the first, or with one layer.
        gain: of the last output, [B, 3, S, S]; None where the latent does not hold pixels.
        strength: of the last output, [B, J, 3, S, S], 0 or more; None without shadow maps.
        residual: of the last output, before it fades, [B, c, h, w]; None without shadow maps.
        blended: of the last output, the layers before the residual is added, [B, c, h, w].
    """

    def __init__(
        self,
        layers: Tensor,
        config: ModelConfig,
        sharpness: float = 1.0,
        shadows: Tensor | None = None,
        fade: Tensor | None = None,
    ) -> None:
        if config.shadows and (shadows is None or fade is None):
            raise ValueError("a model with shadows needs shadow maps and the regions' fade")
        self._shadows, self._fade = shadows, fade
        self.config, self.layers, self._logit_scale = config, layers, LOGIT_SCALE * sharpness
        if config.gain_channels:
            self.layers = F.pixel_shuffle(layers.flatten(0, 1), config.downsampling).unflatten(0, layers.shape[:2])
        self.logits: Tensor | None = None
        self.gain: Tensor | None = None
        self.strength: Tensor | None = None
        self.residual: Tensor | None = None
        self.blended = layers[:, 0]

    def __call__(self, output: Tensor) -> Tensor:
        """Outputs [B, `output_channels`, h, w] to clean latents [B, c, h, w]."""
        config = self.config
        if not config.logit_channels:
            return output + self.blended
        residual, logits, gain, strength = output.split(
            [config.latent_channels, config.logit_channels, config.gain_channels, config.strength_channels], 1
        )
        residual = RESIDUAL_SCALE * residual
        self.logits = self._logit_scale * self._enlarge(logits)
        blend_weights = self.logits.softmax(1)
        self.blended = (self.layers * blend_weights[:, :, None]).sum(1)
        if config.gain_channels:
            self.gain = GAIN_SCALE * self._enlarge(gain)
            light = self.gain
            if self._shadows is not None and self._fade is not None:
                start = math.log(math.expm1(INITIAL_STRENGTH))
                self.strength = F.softplus(self._enlarge(strength) + start).unflatten(1, (len(SHADOW_MAPS), 3))
                maps = blend_shadows(self._shadows, blend_weights)
                light = self._fade * light - (maps[:, :, None] * self.strength).sum(1)
                self.residual = residual
                residual = residual * F.pixel_unshuffle(self._fade.repeat(1, 3, 1, 1), config.downsampling)
            lit = (self.blended + config.latent_scale) * light.exp() - config.latent_scale
            self.blended = F.pixel_unshuffle(lit, config.downsampling)
        return self.blended + residual

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
        residual = latent - self.blended if self.residual is None else self.residual
        added = vae.decode(residual / self.config.latent_scale).sample * 127.5
        logits = torch.zeros_like(added[:, :1]) if self.logits is None else self.logits
        gain = torch.zeros_like(added) if self.gain is None else self.gain
        values = [logits, gain, added] + ([] if self.strength is None else [self.strength])
        return LayerBlend(*(value.float().cpu().unflatten(0, (-1, candidates)) for value in values))


def split_control_image(pictures: Tensor, config: ModelConfig) -> tuple[Tensor, Tensor | None]:
    """A control image [B, 3 L (+ 2 J), S, S] in [-1, 1] to its layers [B, L, 3, S, S] and its shadow maps.

    The maps are [B, 2, J, S, S] in 0..1, float32; None where the model has none.
    """
    layers, shadows = pictures.split([3 * config.hint_layers, config.shadow_channels], 1)
    maps = (shadows.float() + 1).div(2).unflatten(1, (2, -1)) if config.shadows else None
    return layers.unflatten(1, (-1, 3)), maps


def blend_shadows(shadows: Tensor, blend_weights: Tensor) -> Tensor:
    """The shadow maps that belong to blended layers: of both orders by the weights of theirs, and on the background
    alone whichever is darker.

    Args:
        shadows: [B, 2, J, S, S].
        blend_weights: [B, 3, S, S].

    Returns:
        [B, J, S, S].
    """
    of_layers = torch.cat([shadows, shadows.amax(1, keepdim=True)], 1)
    return (of_layers * blend_weights[:, :, None]).sum(1)


def initial_output_bias(config: ModelConfig) -> Tensor:
    """Bias of an output convolution, float32 [`output_channels`], with which the first layer has the largest
    blend weight when training begins."""
    bias = torch.zeros(config.output_channels)
    if config.logit_channels:
        bias[config.latent_channels : config.latent_channels + config.share_grid**2] = INITIAL_LOGIT / LOGIT_SCALE
    return bias
