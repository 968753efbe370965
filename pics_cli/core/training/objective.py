"""From a batch of samples to a loss: the forward process, what the network is to predict, and weights.

B: samples, K: objects, S: model size, [c, h, w]: a latent. ᾱ_t: the share of signal at timestep t.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from pics_cli.core.model.blending import Correction
from pics_cli.core.model.config import ModelConfig
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.model.regions import Regions, cover_at
from pics_cli.core.recipes.training_sections import ObjectiveSettings
from pics_cli.core.training.networks import Compositor
from pics_cli.errors import PicsError

# Published: this share of the samples gets a timestep of the whole schedule, the others one of its first half.
_WHOLE, _HALF = 0.3, 0.5


class Draws(NamedTuple):
    """Draws of a sample as functions of its generator; called by the workers that read samples.

    Attributes:
        objective: how timesteps are sampled and conditions dropped.
        latent: its shape, (c, h, w).
        timesteps: of the noise schedule.
        posterior: whether the autoencoder's latent is drawn, too.
    """

    objective: ObjectiveSettings
    latent: tuple[int, int, int]
    timesteps: int
    posterior: bool

    def __call__(self, rng: np.random.Generator) -> dict[str, npt.NDArray[Any]]:
        """timestep int64 [], dropped bool [], noise float32 [c, h, w], and posterior like it."""
        found: dict[str, npt.NDArray[Any]] = {
            "timestep": np.asarray(self.timestep(rng), np.int64),
            "dropped": np.asarray(rng.random() < self.objective.dropout),
            "noise": rng.standard_normal(self.latent, np.float32),
        }
        if self.posterior:
            found["posterior"] = rng.standard_normal(self.latent, np.float32)
        return found

    def timestep(self, rng: np.random.Generator) -> int:
        """One of 0 to `timesteps` - 1; the larger, the noisier."""
        share = rng.random()
        if self.objective.timesteps == "high_noise" and share < self.objective.noisiest:
            return self.timesteps - 1
        first = self.timesteps
        if self.objective.timesteps == "published" and share >= _WHOLE:
            first = int(_HALF * self.timesteps)
        return int(rng.integers(first))


def fixed_draws(draws: Draws, rng: np.random.Generator, low: int, high: int) -> dict[str, npt.NDArray[Any]]:
    """Draws for validation: a timestep of [low, high), the condition kept."""
    found = draws(rng)
    found["timestep"] = np.asarray(rng.integers(low, high), np.int64)
    found["dropped"] = np.asarray(False)
    return found


# Pictures that the autoencoder takes at once: it needs more memory for one than the networks do.
_ENCODED = 4
# What stands for no agreement in a logarithm.
_NONE = 1e-6


class Losses(NamedTuple):
    """Losses of each sample, float32 [B]: with all weights, and the mean inside the regions alone, unweighted."""

    weighted: Tensor
    region: Tensor


def target_of(kind: str, clean: Tensor, noise: Tensor, signal: Tensor) -> Tensor:
    """What a network of a prediction type is to output, [B, c, h, w].

    epsilon: ε; v_prediction: √ᾱ ε − √(1 − ᾱ) x₀ (Salimans and Ho 2022); sample: x₀.

    Args:
        kind: the prediction type.
        clean, noise: x₀ and ε, [B, c, h, w].
        signal: ᾱ of each sample, broadcast to [B, 1, 1, 1].
    """
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        return signal.sqrt() * noise - (1 - signal).sqrt() * clean
    return clean


def snr_weight(kind: str, signal: Tensor, gamma: float) -> Tensor:
    """Min-SNR-γ weights (Hang et al., ICCV 2023, eq. 8 and appendix) of a prediction type, shaped as `signal`.

    With SNR = ᾱ / (1 − ᾱ): min(SNR, γ) times 1 / SNR for epsilon, 1 / (SNR + 1) for v, 1 for sample.
    """
    snr = signal / (1 - signal)
    clipped = snr.clamp(max=gamma)
    return {"epsilon": clipped / snr, "v_prediction": clipped / (snr + 1), "sample": clipped}[kind]


def box_masks(boxes: Tensor, size: int) -> Tensor:
    """Boxes int [B, K, 4] in the square of side S to bool [B, K, S, S]; empty boxes to empty masks."""
    along = torch.arange(size)
    x0, y0, x1, y1 = boxes.long().unbind(-1)
    across = (along >= x0[..., None]) & (along < x1[..., None])
    down = (along >= y0[..., None]) & (along < y1[..., None])
    return down[..., :, None] & across[..., None, :]


def hint_kinds(masks: Tensor, content: Tensor) -> Tensor:
    """The hint's fourth channel, int8 [B, S, S]: 1 in the regions, 0 in the rest of the picture, -1 in the padding.

    Args:
        masks: bool [B, K, S, S].
        content: int [B, 4], the picture's part of the square.
    """
    inside = box_masks(content[:, None], masks.shape[-1])[:, 0]
    return torch.where(masks.any(1), 1, torch.where(inside, 0, -1)).to(torch.int8)


class Step:
    """What one forward pass of training computes, on any device.

    Args:
        pipeline: the model.
        network: its `Compositor`, or what Accelerate made of it.
        objective: loss and weights.
        half: precision of the parts that are not trained.

    Raises:
        PicsError: a loss that this model's predictions do not have.
    """

    def __init__(self, pipeline: PicsModel, network: Any, objective: ObjectiveSettings, half: torch.dtype) -> None:
        self.pipeline, self.network, self.objective, self.half = pipeline, network, objective, half
        self.config: ModelConfig = pipeline.config
        self.signal: Tensor = pipeline.scheduler.alphas_cumprod.float()
        if objective.share_weight and not self.config.shares:
            raise PicsError(
                f"objective.share_weight: got {objective.share_weight}, which needs a model that mixes its hint",
                "set it to 0, or take a model with hint layers and correct_hint",
            )
        if objective.gradient and not (self.config.on_pixels and self.config.prediction_type == "sample"):
            raise PicsError(
                f"objective.gradient: got {objective.gradient}, which needs a model that predicts the picture's pixels",
                "set it to 0, or take a model.shape with prediction_type sample",
            )

    def __call__(self, batch: Mapping[str, Any], device: torch.device) -> Losses:
        """Losses of a batch.

        Args:
            batch: hint uint8 [B, S, S, 3 L]; target uint8 [B, S, S, 3]; boxes int [B, K, 4]; content int [B, 4];
                references uint8 [B, K, R, R, 3]; with hint layers layer_labels uint8 [B, S, S]; timestep int64 [B];
                dropped bool [B]; noise and, for an autoencoder that draws its latents, posterior float32 [B, c, h, w];
                on the CPU.
            device: where the networks are.
        """
        masks = box_masks(batch["boxes"], self.config.image_size)
        hint = self._hint(batch["control_image"], batch["content"], masks, device)
        noise = batch["noise"].to(device)
        posterior = batch["posterior"].to(device) if "posterior" in batch else None
        clean = self._latents(_picture(batch["target"].to(device)), posterior)
        correction = self._correction(hint[:, :-1]) if self.config.correct_hint else None
        signal = self.signal[batch["timestep"]].to(device)[:, None, None, None]
        noisy = signal.sqrt() * clean + (1 - signal).sqrt() * noise
        if self.config.input_scaling == "signal":
            noisy = noisy * signal.sqrt()
        references = batch["references"].to(device).permute(0, 1, 4, 2, 3).float() / 255
        kept = ~batch["dropped"].to(device)
        references = references * kept[:, None, None, None, None]
        regions = Regions(masks, device=device)
        prediction = self.network(noisy, batch["timestep"].to(device), hint, regions, references).float()
        if correction is not None:
            prediction = correction(prediction)
        wanted = target_of(self.config.prediction_type, clean, noise, signal)
        losses = self._losses(prediction, wanted, signal, masks)
        if self.objective.gradient:
            rough = self._rough(prediction - wanted, masks)
            losses = losses._replace(weighted=losses.weighted + self.objective.gradient * rough)
        if self.objective.share_weight:
            assert correction is not None
            missed = self._missed(correction.logits, batch["layer_labels"].to(device), masks)
            losses = losses._replace(weighted=losses.weighted + self.objective.share_weight * missed)
        return losses

    def _hint(self, rgb: Tensor, content: Tensor, masks: Tensor, device: torch.device) -> Tensor:
        """float32 [B, 3 L + 1, S, S]."""
        kind = hint_kinds(masks, content)
        hint = torch.cat([_picture(rgb.to(device)), kind.to(device)[:, None].float()], 1)
        return hint.contiguous(memory_format=torch.channels_last)

    def _correction(self, pictures: Tensor) -> Correction:
        """Of the hint's pictures, [B, 3 L, S, S] in [-1, 1]."""
        latents = self._latents(pictures.unflatten(1, (-1, 3)).flatten(0, 1))
        return Correction(latents.unflatten(0, (len(pictures), -1)), self.config)

    @torch.no_grad()
    def _latents(self, pictures: Tensor, posterior: Tensor | None = None) -> Tensor:
        """Pictures [B, 3, S, S] in [-1, 1] to latents, float32 [B, c, h, w]; drawn with `posterior`, else the mode."""
        found = []
        for at in range(0, len(pictures), _ENCODED):
            dist = self.pipeline.vae.encode(pictures[at : at + _ENCODED].to(self.half).contiguous()).latent_dist
            latent = dist.mode().float()
            if posterior is not None:
                latent = latent + dist.std.float() * posterior[at : at + _ENCODED]
            found.append(latent)
        return torch.cat(found) * self.config.latent_scale

    def _losses(self, prediction: Tensor, wanted: Tensor, signal: Tensor, masks: Tensor) -> Losses:
        difference = prediction - wanted
        each = difference.square() if self.objective.loss == "l2" else difference.abs()
        each = each.mean(1)  # [B, h, w]
        inside, weight = self._weight(masks, each)
        weighted = (each * weight).sum((1, 2)) / weight.sum((1, 2))
        if self.objective.min_snr is not None:
            weighted = weighted * snr_weight(self.config.prediction_type, signal, self.objective.min_snr).flatten()
        region = (each.detach() * inside).sum((1, 2)) / inside.sum((1, 2)).clamp(min=1)
        return Losses(weighted, region)

    def _weight(self, masks: Tensor, each: Tensor) -> tuple[Tensor, Tensor]:
        """1 in the regions and 0 elsewhere, and each position's weight, [B, h, w]; each: the loss, of that shape."""
        height, width = each.shape[1:]
        objects = cover_at(masks, height, width).sum(2).view(-1, height, width)
        inside, shared = (objects > 0).to(each), (objects > 1).to(each)
        weight = 1 + (self.objective.region_weight - 1) * inside
        return inside, weight * (1 + (self.objective.overlap_weight - 1) * shared)

    def _missed(self, logits: Tensor | None, agreement: Tensor, masks: Tensor) -> Tensor:
        """Cross-entropy of shares [B, L, h, w] against the pictures that agree with the target, weighted: [B].

        -log of the sum of their shares; nothing where none agrees: the object is seen where no picture shows it.
        """
        assert logits is not None
        bits = torch.arange(logits.shape[1], device=agreement.device)[:, None, None]
        agrees = (agreement[:, None] >> bits & 1).float()
        agrees = F.adaptive_avg_pool2d(agrees, (logits.shape[-2], logits.shape[-1]))
        known = agrees.amax(1) > 0
        missed = logits.logsumexp(1) - (logits + agrees.clamp(min=_NONE).log()).logsumexp(1)
        _, weight = self._weight(masks, missed)
        return (missed * known * weight).sum((1, 2)) / weight.sum((1, 2))

    def _rough(self, difference: Tensor, masks: Tensor) -> Tensor:
        """Mean size of the gradients of a difference of latents [B, c, h, w] that hold pixels, weighted: [B]."""
        picture = self.pipeline.vae.decode(difference / self.config.latent_scale).sample
        total = torch.zeros(len(picture), device=picture.device)
        for along in (-1, -2):
            each = picture.diff(dim=along).abs().mean(1)
            _, weight = self._weight(masks, each)
            total = total + (each * weight).sum((1, 2)) / weight.sum((1, 2))
        return total


def new_step(pipeline: PicsModel, objective: ObjectiveSettings, half: torch.dtype) -> Step:
    """A step over the pipeline's own modules."""
    return Step(pipeline, Compositor(pipeline), objective, half)


def _picture(rgb: Tensor) -> Tensor:
    """uint8 [B, S, S, n] to float32 [B, n, S, S] in [-1, 1]."""
    return rgb.permute(0, 3, 1, 2).float() / 127.5 - 1
