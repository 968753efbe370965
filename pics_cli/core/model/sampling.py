"""Guided denoising: both branches in one batch; what is constant over the steps is computed once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pics_cli.core.model import layers
from pics_cli.core.model.controlnet import BackgroundControlNet
from pics_cli.core.model.gate_trace import GateTrace
from pics_cli.core.model.interaction import ObjectContexts
from pics_cli.core.model.regions import Regions, padded_overlap_share
from pics_cli.core.model.unet import InteractionUNet


class Denoiser:
    """The guided prediction ε_u + w (ε_c − ε_u) of a batch of composites, for any latent and timestep.

    Args:
        unet, controlnet: the networks.
        hint: [B, 3 L + 1, S, S] in the networks' dtype.
        contexts: [B, K, M, D].
        null: [M, D] or like `contexts`, the unconditional context; None: no guidance, one branch.
        masks: bool [B, K, S, S].
        size: (h, w) of the latent.
        guidance: w.
        candidates: n, pictures of each composite.
        order_bias: [B, K], see `ObjectContexts`.
        cache: keep what is constant over the steps; False: compute it in every step, where weights are offloaded.
        static_shapes: shapes do not depend on the picture, for a compiled graph; see `RegionTable`.
        trace: filled with the gate's weights of the conditional branch.
    """

    def __init__(
        self,
        unet: InteractionUNet,
        controlnet: BackgroundControlNet,
        *,
        hint: Tensor,
        contexts: Tensor,
        null: Tensor | None,
        masks: Tensor,
        size: tuple[int, int],
        guidance: float = 1.0,
        candidates: int = 1,
        order_bias: Tensor | None = None,
        cache: bool = True,
        static_shapes: bool = False,
        trace: GateTrace | None = None,
    ) -> None:
        self.unet, self.controlnet, self.guidance = unet, controlnet, guidance
        self.branches, self.candidates = 1 if null is None else 2, candidates
        if null is not None:
            contexts = torch.cat([contexts, null.expand_as(contexts)])
        if order_bias is not None:
            order_bias = order_bias.repeat(self.branches, 1)
        share = padded_overlap_share(masks, layers.attention_sizes(unet, *size)) if static_shapes else None
        self.regions = Regions(masks, self.branches, candidates, share)
        self.shared_regions = self.regions.for_one_candidate()
        self.control_objects = ObjectContexts(contexts, order_bias)
        self.unet_objects = replace(self.control_objects, trace=trace)
        if cache:
            unet_caches = layers.make_caches(unet, self.unet_objects, self.regions, *size)
            control_caches = layers.make_caches(controlnet, self.control_objects, self.shared_regions, *size)
            self.unet_objects = replace(self.unet_objects, caches=unet_caches)
            self.control_objects = replace(self.control_objects, caches=control_caches)
        self.hint = controlnet.embed_hint(hint)

    def residuals(self, timestep: Tensor) -> list[Tensor]:
        """The ControlNet's residuals, each [branches · B, …], the middle's last."""
        residuals: list[Tensor] = self.controlnet(self.hint, timestep, self.control_objects, self.shared_regions)
        return residuals

    def __call__(self, latent: Tensor, timestep: Tensor) -> Tensor:
        """Latents [B · n, c, h, w] and a timestep [1] to the guided prediction [B · n, c, h, w]."""
        residuals = self.residuals(timestep)
        prediction: Tensor = self.unet(latent, timestep, self.unet_objects, self.regions, residuals)
        if self.branches == 1:
            return prediction
        conditional, unconditional = prediction.chunk(2)
        return unconditional + self.guidance * (conditional - unconditional)


def denoise(
    predict: Callable[[Tensor, Tensor], Tensor],
    scheduler: Any,
    noise: Tensor,
    dtype: torch.dtype,
    *,
    scaling: str = "none",
    to_clean_latent: Callable[[Tensor], Tensor] | None = None,
    callback_on_step_end: Callable[[int, int, Tensor, Tensor], None] | None = None,
) -> Tensor:
    """Run a scheduler from noise to a clean latent.

    Args:
        predict: latent and timestep to the network's (guided) output.
        scheduler: a diffusers scheduler with its timesteps set; its `prediction_type` says what the output means.
        noise: float32 [B · n, c, h, w], unit normal.
        dtype: of the network's input; the scheduler itself steps in float32.
        scaling: of the noisy input: "none", or "signal": times √ᾱ_t.
        to_clean_latent: applied to the output before the scheduler's step; None: the output itself.
        callback_on_step_end: called after each step with its number, from 1, the number of steps, the timestep, and
            the latent [B · n, c, h, w].

    Returns:
        float32 [B · n, c, h, w].
    """
    latent = noise * scheduler.init_noise_sigma
    for number, timestep in enumerate(scheduler.timesteps, 1):
        scaled = scheduler.scale_model_input(latent, timestep)
        if scaling == "signal":
            scaled = scaled * scheduler.alphas_cumprod[timestep.long().cpu()].sqrt().to(scaled)
        output = predict(scaled.to(dtype), timestep[None].to(latent.device)).float()
        if to_clean_latent is not None:
            output = to_clean_latent(output)
        (latent,) = scheduler.step(output, timestep, latent, return_dict=False)[:1]
        if callback_on_step_end is not None:
            callback_on_step_end(number, len(scheduler.timesteps), timestep, latent)
    return latent
