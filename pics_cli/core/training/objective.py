"""From a batch of samples to a loss: the forward process, what the network is to predict, and weights.

B: samples, K: objects, L: layers of the control image, S: model size, R: reference size, [c, h, w]: a latent.
ᾱ_t: the share of signal at timestep t.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from pics_cli.core.model.blending import ResidualPrediction, split_control_image
from pics_cli.core.model.config import ModelConfig
from pics_cli.core.model.light_head import light_loss
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.model.pixel_autoencoder import PixelAutoencoder
from pics_cli.core.model.regions import Regions, cover_at
from pics_cli.core.recipes.training_sections import ObjectiveSettings
from pics_cli.errors import PicsError

# As published: this share of the samples gets a timestep of the whole schedule, the others one of its first half.
_WHOLE_SCHEDULE, _FIRST_HALF = 0.3, 0.5
# Pictures that the autoencoder takes at once: it needs more memory for one than the networks do.
_ENCODER_BATCH = 4
# Relative loss: brightness at which it is the plain one, and what keeps it finite in the dark, both in 0..1.
_MEAN_BRIGHTNESS, _DARKEST = 0.5, 0.08
# Stands for 0 in a logarithm.
_EPSILON = 1e-6


class NoiseSampler(NamedTuple):
    """Draws timestep, dropped condition and noise of a sample; called by the workers that read samples.

    Attributes:
        objective: how timesteps are sampled and conditions dropped.
        latent_shape: (c, h, w).
        timesteps: of the noise schedule.
        posterior: whether the autoencoder's latent is drawn from its distribution, too.
    """

    objective: ObjectiveSettings
    latent_shape: tuple[int, int, int]
    timesteps: int
    posterior: bool

    @classmethod
    def for_model(cls, objective: ObjectiveSettings, model: PicsModel) -> NoiseSampler:
        """What is drawn for the samples that a model is trained on."""
        config = model.config
        latent_shape = (config.latent_channels, config.latent_size, config.latent_size)
        # An autoencoder gives a distribution of latents; pixels are certain.
        posterior = not isinstance(model.vae, PixelAutoencoder)
        return cls(objective, latent_shape, len(model.scheduler.alphas_cumprod), posterior)

    def __call__(self, rng: np.random.Generator) -> dict[str, npt.NDArray[Any]]:
        """timestep int64 [], dropped bool [], noise float32 [c, h, w], and posterior like it."""
        drawn: dict[str, npt.NDArray[Any]] = {
            "timestep": np.asarray(self.timestep(rng), np.int64),
            "dropped": np.asarray(rng.random() < self.objective.dropout),
            "noise": rng.standard_normal(self.latent_shape, np.float32),
        }
        if self.posterior:
            drawn["posterior"] = rng.standard_normal(self.latent_shape, np.float32)
        return drawn

    def for_validation(self, rng: np.random.Generator, low: int, high: int) -> dict[str, npt.NDArray[Any]]:
        """The same with a timestep of [low, high) and the condition kept."""
        drawn = self(rng)
        return {**drawn, "timestep": np.asarray(rng.integers(low, high), np.int64), "dropped": np.asarray(False)}

    def timestep(self, rng: np.random.Generator) -> int:
        """A timestep of 0 to `timesteps` - 1; the larger, the noisier."""
        draw = rng.random()
        if self.objective.timesteps == "high_noise" and draw < self.objective.noisiest:
            return self.timesteps - 1
        stop = self.timesteps
        if self.objective.timesteps == "published" and draw >= _WHOLE_SCHEDULE:
            stop = int(_FIRST_HALF * self.timesteps)
        return int(rng.integers(stop))


class Losses(NamedTuple):
    """Losses of each sample, float32 [B].

    Attributes:
        weighted: with all weights of the objective: what is minimised.
        region: the mean inside the regions alone, unweighted.
    """

    weighted: Tensor
    region: Tensor


def prediction_target(prediction_type: str, clean: Tensor, noise: Tensor, signal: Tensor) -> Tensor:
    """What a network of a prediction type is to output, [B, c, h, w].

    epsilon: ε; v_prediction: √ᾱ ε − √(1 − ᾱ) x₀ (Salimans and Ho 2022); sample: x₀.

    Args:
        prediction_type: of the model.
        clean, noise: x₀ and ε, [B, c, h, w].
        signal: ᾱ of each sample, broadcast to [B, 1, 1, 1].
    """
    if prediction_type == "epsilon":
        return noise
    if prediction_type == "v_prediction":
        return signal.sqrt() * noise - (1 - signal).sqrt() * clean
    return clean


def min_snr_weight(prediction_type: str, signal: Tensor, gamma: float) -> Tensor:
    """Min-SNR-γ weights (Hang et al., ICCV 2023, eq. 8 and appendix) of a prediction type, shaped as `signal`.

    With SNR = ᾱ / (1 − ᾱ): min(SNR, γ) times 1 / SNR for epsilon, 1 / (SNR + 1) for v, 1 for sample.
    """
    snr = signal / (1 - signal)
    clipped = snr.clamp(max=gamma)
    return {"epsilon": clipped / snr, "v_prediction": clipped / (snr + 1), "sample": clipped}[prediction_type]


def box_masks(boxes: Tensor, size: int) -> Tensor:
    """Boxes int [B, K, 4] in the square of side S to bool [B, K, S, S]; empty boxes to empty masks."""
    axis = torch.arange(size)
    x0, y0, x1, y1 = boxes.long().unbind(-1)
    columns = (axis >= x0[..., None]) & (axis < x1[..., None])
    rows = (axis >= y0[..., None]) & (axis < y1[..., None])
    return rows[..., :, None] & columns[..., None, :]


def control_mask(masks: Tensor, content: Tensor) -> Tensor:
    """The hint's last channel, int8 [B, S, S]: 1 in the regions, 0 in the rest of the picture, -1 in the padding.

    Args:
        masks: bool [B, K, S, S].
        content: int [B, 4], the picture's part of the square.
    """
    inside = box_masks(content[:, None], masks.shape[-1])[:, 0]
    return torch.where(masks.any(1), 1, torch.where(inside, 0, -1)).to(torch.int8)


class DiffusionLoss:
    """The forward pass of training and its loss, on any device.

    Args:
        model: whose autoencoder, noise schedule and configuration are used.
        network: its `TrainingNetworks`, or what Accelerate made of it.
        objective: loss and weights.
        dtype: of the frozen parts.

    Raises:
        PicsError: the objective does not fit this model's predictions.
    """

    def __init__(self, model: PicsModel, network: Any, objective: ObjectiveSettings, dtype: torch.dtype) -> None:
        self.model, self.network, self.objective, self.dtype = model, network, objective, dtype
        self.config: ModelConfig = model.config
        self.alphas_cumprod: Tensor = model.scheduler.alphas_cumprod.float()
        if objective.share_weight and not self.config.logit_channels:
            raise PicsError(
                f"objective.share_weight: got {objective.share_weight}, which needs a model that mixes its hint",
                "set it to 0, or take a model with hint layers and correct_hint",
            )
        if objective.loss == "relative_l1" and not (self.config.on_pixels and self.config.prediction_type == "sample"):
            raise PicsError(
                "objective.loss: got relative_l1, which needs a model that predicts the picture's pixels",
                "take l1 or l2, or a model.shape with prediction_type sample",
            )
        if objective.light_weight and not self.config.shadows:
            raise PicsError(
                f"objective.light_weight: got {objective.light_weight}, which needs a model that casts shadows",
                "set it to 0, or model.shadows to true",
            )
        if objective.min_snr and self.config.noise_schedule != "published":
            raise PicsError(
                f"objective.min_snr: got {objective.min_snr}, which gives a last timestep without signal no weight",
                "leave it out, or take model.noise_schedule published",
            )
        if objective.gradient and not (self.config.on_pixels and self.config.prediction_type == "sample"):
            raise PicsError(
                f"objective.gradient: got {objective.gradient}, which needs a model that predicts the picture's pixels",
                "set it to 0, or take a model.shape with prediction_type sample",
            )

    def __call__(self, batch: Mapping[str, Any], device: torch.device) -> Losses:
        """Losses of a batch.

        Args:
            batch: on the CPU: control_image uint8 [B, S, S, n]; target uint8 [B, S, S, 3]; boxes int [B, K, 4];
                content int [B, 4]; references uint8 [B, K, R, R, 3]; with hint layers layer_labels uint8 [B, S, S];
                with shadows fade float32 [B, S, S] and light float32 [B, 6]; timestep int64 [B]; dropped bool [B];
                noise and, for an autoencoder that draws its latents, posterior float32 [B, c, h, w].
            device: of the networks.
        """
        masks = box_masks(batch["boxes"], self.config.image_size)
        mask = control_mask(masks, batch["content"]).to(device)[:, None].float()
        hint = torch.cat([_to_float(batch["control_image"].to(device)), mask], 1)  # [B, `hint_channels`, S, S]
        hint = hint.contiguous(memory_format=torch.channels_last)
        noise = batch["noise"].to(device)
        posterior = batch["posterior"].to(device) if "posterior" in batch else None
        clean = self._encode(_to_float(batch["target"].to(device)), posterior)
        residual = self._residual_prediction(hint[:, :-1], batch) if self.config.correct_hint else None
        signal = self.alphas_cumprod[batch["timestep"]].to(device)[:, None, None, None]
        noisy = signal.sqrt() * clean + (1 - signal).sqrt() * noise
        if self.config.input_scaling == "signal":
            noisy = noisy * signal.sqrt()
        references = batch["references"].to(device).permute(0, 1, 4, 2, 3).float() / 255
        conditioned = ~batch["dropped"].to(device)
        references = references * conditioned[:, None, None, None, None]
        regions = Regions(masks, device=device)
        prediction, light = self.network(noisy, batch["timestep"].to(device), hint, regions, references)
        prediction = prediction.float()
        if residual is not None:
            prediction = residual(prediction)
        target = prediction_target(self.config.prediction_type, clean, noise, signal)
        weighted, region = self._prediction_losses(prediction, target, signal, masks)
        if self.objective.gradient:
            weighted = weighted + self.objective.gradient * self._gradient_loss(prediction - target, masks)
        if self.objective.share_weight:
            assert residual is not None
            entropy = self._layer_loss(residual.logits, batch["layer_labels"].to(device), masks)
            weighted = weighted + self.objective.share_weight * entropy
        if self.objective.light_weight:
            values = batch["light"].to(device)
            estimate = light_loss(light, values[:, :5], values[:, 5] > 0)
            weighted = weighted + self.objective.light_weight * estimate
        return Losses(weighted, region)

    def _residual_prediction(self, control_image: Tensor, batch: Mapping[str, Any]) -> ResidualPrediction:
        """Residual to the layers of a control image, [B, n, S, S] in [-1, 1]."""
        layers, shadows = split_control_image(control_image, self.config)
        latents = self._encode(layers.flatten(0, 1)).unflatten(0, layers.shape[:2])
        fade = batch["fade"][:, None].to(latents.device) if self.config.shadows else None
        return ResidualPrediction(latents, self.config, shadows=shadows, fade=fade)

    @torch.no_grad()
    def _encode(self, pictures: Tensor, posterior: Tensor | None = None) -> Tensor:
        """Pictures [B, 3, S, S] in [-1, 1] to latents, float32 [B, c, h, w]; drawn with `posterior`, else the mode."""
        latents = []
        for start in range(0, len(pictures), _ENCODER_BATCH):
            part = slice(start, start + _ENCODER_BATCH)
            distribution = self.model.vae.encode(pictures[part].to(self.dtype).contiguous()).latent_dist
            latent = distribution.mode().float()
            if posterior is not None:
                latent = latent + distribution.std.float() * posterior[part]
            latents.append(latent)
        return torch.cat(latents) * self.config.latent_scale

    def _prediction_losses(self, prediction: Tensor, target: Tensor, signal: Tensor, masks: Tensor) -> Losses:
        difference = prediction - target
        loss = difference.square() if self.objective.loss == "l2" else difference.abs()
        loss = loss.mean(1)  # [B, h, w]
        if self.objective.loss == "relative_l1":  # sRGB levels of the latent's cell, which holds pixels in [-1, 1]
            brightness = (target / self.config.latent_scale + 1).mean(1) / 2
            loss = loss * _MEAN_BRIGHTNESS / (brightness.clamp(min=0) + _DARKEST)
        inside, weight = self._weight(masks, loss)
        weighted = _weighted_mean(loss, weight)
        if self.objective.min_snr is not None:
            snr_weight = min_snr_weight(self.config.prediction_type, signal, self.objective.min_snr)
            weighted = weighted * snr_weight.flatten()
        region = (loss.detach() * inside).sum((1, 2)) / inside.sum((1, 2)).clamp(min=1)
        return Losses(weighted, region)

    def _weight(self, masks: Tensor, loss: Tensor) -> tuple[Tensor, Tensor]:
        """1 in the regions and 0 elsewhere, and the weight of each position of a loss [B, h, w], both of that shape."""
        height, width = loss.shape[1:]
        objects = cover_at(masks, height, width).sum(2).view(-1, height, width)
        inside, overlap = (objects > 0).to(loss), (objects > 1).to(loss)
        weight = 1 + (self.objective.region_weight - 1) * inside
        return inside, weight * (1 + (self.objective.overlap_weight - 1) * overlap)

    def _layer_loss(self, logits: Tensor | None, layer_labels: Tensor, masks: Tensor) -> Tensor:
        """Weighted cross-entropy of blend weights against the layers that show what the target shows: [B].

        It is -log of the sum of these layers' weights; 0 where no layer shows what the target does.

        Args:
            logits: of the weights, [B, L, h, w].
            layer_labels: uint8 [B, S, S], bit l set where layer l shows what the target shows.
            masks: bool [B, K, S, S].
        """
        assert logits is not None
        bits = torch.arange(logits.shape[1], device=layer_labels.device)[:, None, None]
        labels = (layer_labels[:, None] >> bits & 1).float()
        labels = F.adaptive_avg_pool2d(labels, (logits.shape[-2], logits.shape[-1]))
        labelled = labels.amax(1) > 0
        entropy = logits.logsumexp(1) - (logits + labels.clamp(min=_EPSILON).log()).logsumexp(1)
        _, weight = self._weight(masks, entropy)
        return _weighted_mean(entropy * labelled, weight)

    def _gradient_loss(self, difference: Tensor, masks: Tensor) -> Tensor:
        """Mean size of the gradients of a difference of latents [B, c, h, w] that hold pixels, weighted: [B]."""
        picture = self.model.vae.decode(difference / self.config.latent_scale).sample
        total = torch.zeros(len(picture), device=picture.device)
        for axis in (-1, -2):
            gradient = picture.diff(dim=axis).abs().mean(1)
            _, weight = self._weight(masks, gradient)
            total = total + _weighted_mean(gradient, weight)
        return total


def _weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Over the positions of each sample: [B, h, w] to [B]."""
    return (values * weight).sum((1, 2)) / weight.sum((1, 2))


def _to_float(rgb: Tensor) -> Tensor:
    """uint8 [B, S, S, n] to float32 [B, n, S, S] in [-1, 1]."""
    return rgb.permute(0, 3, 1, 2).float() / 127.5 - 1
