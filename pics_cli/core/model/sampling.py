"""Guided denoising: both branches in one batch, everything that does not change over the steps made once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pics_cli.core.model import layers
from pics_cli.core.model.controlnet import BackgroundControlNet
from pics_cli.core.model.objects import Objects
from pics_cli.core.model.regions import Regions, overlap_share
from pics_cli.core.model.tracing import Trace
from pics_cli.core.model.unet import InteractionUNet


class Denoiser:
    """The guided prediction ε_u + w (ε_c − ε_u) of a batch of composites, for any latent and timestep.

    Args:
        unet, controlnet: the networks.
        hint: [B, 3 L + 1, S, S] in the networks' dtype.
        contexts: [B, K, M, D].
        null: [M, D], the unconditional context; None: no guidance, one branch.
        masks: bool [B, K, S, S].
        size: (h, w) of the latent.
        guidance: w.
        candidates: n, pictures made of each composite at once.
        bias: [B, K], see `Objects`.
        hold: keep what is constant over the steps, else make it in every step (parts that are not in memory).
        plain: the equations as they stand, one pass for each branch.
        uniform: shapes do not change from picture to picture, for a compiled graph; see `RegionTable`.
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
        bias: Tensor | None = None,
        hold: bool = True,
        plain: bool = False,
        uniform: bool = False,
        trace: Trace | None = None,
    ) -> None:
        self.unet, self.controlnet, self.guidance = unet, controlnet, guidance
        self.branches = 1 if null is None else 2
        self.candidates = candidates
        branches = [contexts] if null is None else [contexts, null.expand_as(contexts)]
        together = [branches] if not plain else [[branch] for branch in branches]
        share = overlap_share(masks, layers.sizes(unet, *size)) if uniform else None
        self._passes = []
        for part in together:
            repeated = None if bias is None else bias.repeat(len(part), 1)
            objects = Objects(torch.cat(part), repeated, plain=plain, trace=trace)
            regions = Regions(masks, len(part), candidates, share)
            self._passes.append(_Pass(unet, controlnet, objects, regions, size, hold and not plain))
        self.hint = controlnet.embed_hint(hint)

    def residuals(self, timestep: Tensor) -> list[Tensor]:
        """The ControlNet's residuals, each [branches · B, …], the middle's last."""
        parts = [one.control(self.hint, timestep) for one in self._passes]
        return parts[0] if len(parts) == 1 else [torch.cat(both) for both in zip(*parts, strict=True)]

    def __call__(self, latent: Tensor, timestep: Tensor) -> Tensor:
        """Latents [B · n, c, h, w] and a timestep [1] to the guided prediction [B · n, c, h, w]."""
        predictions = torch.cat([one(latent, self.hint, timestep) for one in self._passes])
        if self.branches == 1:
            return predictions
        conditional, unconditional = predictions.chunk(2)
        return unconditional + self.guidance * (conditional - unconditional)


class _Pass:
    """One evaluation of both networks, of one branch or of both."""

    def __init__(
        self,
        unet: InteractionUNet,
        controlnet: BackgroundControlNet,
        objects: Objects,
        regions: Regions,
        size: tuple[int, int],
        hold: bool,
    ) -> None:
        self.unet, self.controlnet = unet, controlnet
        self.regions, self.shared = regions, regions.for_one_candidate()
        self.unet_objects, self.control_objects = objects, replace(objects, trace=None)
        if hold:
            unet_statics = layers.prepare(unet, objects, self.regions, *size)
            control_statics = layers.prepare(controlnet, objects, self.shared, *size)
            self.unet_objects = replace(self.unet_objects, prepared=unet_statics)
            self.control_objects = replace(self.control_objects, prepared=control_statics)

    def control(self, hint: Tensor, timestep: Tensor) -> list[Tensor]:
        residuals: list[Tensor] = self.controlnet(hint, timestep, self.control_objects, self.shared)
        return residuals

    def __call__(self, latent: Tensor, hint: Tensor, timestep: Tensor) -> Tensor:
        residuals = self.control(hint, timestep)
        prediction: Tensor = self.unet(latent, timestep, self.unet_objects, self.regions, residuals)
        return prediction


def sample(
    predict: Callable[[Tensor, Tensor], Tensor],
    scheduler: Any,
    noise: Tensor,
    dtype: torch.dtype,
    *,
    scaling: str = "none",
    correction: Callable[[Tensor], Tensor] | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Run a scheduler from noise to a clean latent.

    Args:
        predict: latent and timestep to the network's (guided) output.
        scheduler: a diffusers scheduler with its timesteps set; its `prediction_type` says what the output means.
        noise: float32 [B · n, c, h, w], unit normal.
        dtype: of the network's input; the scheduler itself steps in float32.
        scaling: of the noisy input: "none", or "signal": times √ᾱ_t.
        correction: from the output to what the scheduler is to take for it; None: the output stands for itself.
        on_step: called after each step with its number, from 1, and the number of steps.
    """
    latent = noise * scheduler.init_noise_sigma
    for number, timestep in enumerate(scheduler.timesteps, 1):
        scaled = scheduler.scale_model_input(latent, timestep)
        if scaling == "signal":
            scaled = scaled * scheduler.alphas_cumprod[timestep.long().cpu()].sqrt().to(scaled)
        output = predict(scaled.to(dtype), timestep[None].to(latent.device)).float()
        if correction is not None:
            output = correction(output)
        (latent,) = scheduler.step(output, timestep, latent, return_dict=False)[:1]
        if on_step is not None:
            on_step(number, len(scheduler.timesteps))
    return latent
