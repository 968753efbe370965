"""From the network's output to a clean latent, where it corrects its hint.

B: composites, L: pictures of the hint, c, h, w: channels and sides of the latent, g: shares of a latent position.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

# Logit of the first picture's share when training begins; the others have 0.
FIRST = 2.0


class Blend(NamedTuple):
    """What a composite takes of its hint's pictures and what is added to them, at the network's size.

    Attributes:
        shares: float32 [B, n, L, S, S], adding up to 1 over L.
        residual: float32 [B, n, 3, S, S], in grey levels.
    """

    shares: Tensor
    residual: Tensor


class Correction:
    """What an output adds to the latents of the hint's pictures.

    Of one picture: x₀ = picture + output. Of several, the output's last L · g channels are logits: x₀ = Σ_l softmax_l
    (logits) picture_l + residual, so that the order of objects can be chosen pixel by pixel without repainting any.

    Args:
        pictures: [B, L, c, h, w].
        shares: g, which divides c: the channels of a colour, where the latent holds pixels; 0 where L is 1.
    """

    def __init__(self, pictures: Tensor, shares: int) -> None:
        self.pictures, self.shares = pictures, shares
        self.weights: Tensor | None = None  # of the last output

    def __call__(self, output: Tensor) -> Tensor:
        """Outputs [B, c + L g, h, w] to clean latents [B, c, h, w]."""
        if not self.shares:
            return output + self.pictures[:, 0]
        count = self.pictures.shape[1]
        residual, logits = output.split([output.shape[1] - count * self.shares, count * self.shares], 1)
        self.weights = logits.unflatten(1, (count, self.shares)).softmax(1)
        return residual + self.mixed()

    def mixed(self) -> Tensor:
        """The pictures in the shares that the last output gave them, [B, c, h, w]."""
        if self.weights is None:
            return self.pictures[:, 0]
        colours = self.pictures.unflatten(2, (-1, self.shares))
        return (colours * self.weights[:, :, None]).sum(1).flatten(1, 2)

    def blend(self, latent: Tensor, vae: Any, scale: float, candidates: int) -> Blend:
        """What a finished latent [B · n, c, h, w] is made of.

        Args:
            latent: sampled with this.
            vae: a `PixelAutoencoder`.
            scale: factor on the latent.
            candidates: n.
        """
        added = vae.decode((latent - self.mixed()) / scale).sample * 127.5
        shares = torch.ones_like(added[:, None, 0])
        if self.weights is not None:
            shares = torch.stack(
                [vae.decode(one).sample[:, 0] for one in self.weights.repeat(1, 1, 3, 1, 1).unbind(1)], 1
            )
        return Blend(*(each.float().cpu().unflatten(0, (-1, candidates)) for each in (shares, added)))


def start_logits(channels: int, pictures: int, shares: int) -> Tensor:
    """Bias of an output convolution, float32 [c + L g], with which the first picture stands out when training begins.

    Args:
        channels: c.
        pictures: L.
        shares: g.
    """
    bias = torch.zeros(channels + pictures * shares)
    bias[channels : channels + shares] = FIRST
    return bias
