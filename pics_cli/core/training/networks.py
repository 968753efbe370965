"""The networks as one module, as data-parallel training wants them. B: samples, K: objects, S: model size."""

from __future__ import annotations

from torch import Tensor, nn

from pics_cli.core.model.image_encoder import encode
from pics_cli.core.model.objects import Objects
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.model.regions import Regions


class Compositor(nn.Module):
    """Encoder, ControlNet and UNet: from what is known of a composite and a noisy latent to the prediction.

    Args:
        pipeline: whose parts these are.
    """

    def __init__(self, pipeline: PicsModel) -> None:
        super().__init__()
        self.unet, self.controlnet = pipeline.unet, pipeline.controlnet
        self.image_encoder, self.projector = pipeline.image_encoder, pipeline.projector

    def forward(self, latent: Tensor, timestep: Tensor, hint: Tensor, regions: Regions, references: Tensor) -> Tensor:
        """The prediction, one branch.

        Args:
            latent: [B, c, h, w], noisy and scaled.
            timestep: int64 [B].
            hint: [B, 3 L + 1, S, S].
            regions: of the B composites. Not their masks, which data-parallel training would bring to the GPU, while
                routing tables are made on the CPU.
            references: [B, K, 3, R, R] in [0, 1]; black for a dropped condition.

        Returns:
            [B, c, h, w].
        """
        objects = Objects(self.contexts(references))
        embedded = self.controlnet.embed_hint(hint)
        residuals = self.controlnet(embedded, timestep, objects, regions)
        prediction: Tensor = self.unet(latent, timestep, objects, regions, residuals)
        return prediction

    def contexts(self, references: Tensor) -> Tensor:
        """References [B, K, 3, R, R] to contexts [B, K, M, D]."""
        tokens = encode(self.image_encoder, self.projector, references.flatten(0, 1))
        return tokens.unflatten(0, references.shape[:2])
