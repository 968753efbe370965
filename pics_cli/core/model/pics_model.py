"""The whole model, `PicsModel`: loading, saving, and compositing pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pics_cli.core.images.lighting import Lighting
from pics_cli.core.model import image_encoder, model_folder
from pics_cli.core.model.adapters import Adapter, merge_adapters
from pics_cli.core.model.blending import LayerBlend, ResidualPrediction, split_control_image
from pics_cli.core.model.config import DOWNLOAD_PATTERNS, ModelConfig
from pics_cli.core.model.controlnet import BackgroundControlNet
from pics_cli.core.model.describe_folder import describe_folder
from pics_cli.core.model.gate_trace import GateTrace
from pics_cli.core.model.hub import snapshot
from pics_cli.core.model.light_head import LightOutput, lighting_of
from pics_cli.core.model.offload import ModelOffloader, PartReader, choose_memory
from pics_cli.core.model.order_head import order_log_odds
from pics_cli.core.model.sampling import Denoiser, denoise
from pics_cli.core.model.schedulers import make_scheduler
from pics_cli.core.model.unet import InteractionUNet
from pics_cli.core.runtime.files import make_folder, write_json
from pics_cli.core.runtime.rng import generator
from pics_cli.errors import FAILED, PicsError

# Shapes of inputs for which graphs are kept; beyond torch's own limit of 8 it would silently run uncompiled.
_MAX_GRAPHS = 64


class NetworkInput(Protocol):
    """Inputs of the networks for one composite; see `pics_cli.core.conditioning.network_inputs`."""

    @property
    def control_image(self) -> npt.NDArray[np.uint8]:
        """uint8 [S, S, 3 L], and the shadow maps of a model that has them."""

    @property
    def control_mask(self) -> npt.NDArray[np.int8]:
        """int8 [S, S]: 1 in the boxes, 0 elsewhere, -1 in the padding."""

    @property
    def masks(self) -> npt.NDArray[np.bool_]:
        """bool [K, S, S]: each object's box."""

    @property
    def references(self) -> npt.NDArray[np.uint8]:
        """uint8 [K, R, R, 3] on white."""

    @property
    def fade(self) -> npt.NDArray[np.float32] | None:
        """float32 [S, S] in 0..1: factor on what the network changes; None where the model has no `shadows`."""


class PicsModel:
    """All parts of a model, with diffusers' methods `from_pretrained` and `save_pretrained`; calling it composites.

    Args:
        config: shape and meaning of the model.
        unet, controlnet: the networks.
        image_encoder: a `Dinov2Encoder`, or transformers' Dinov2Model.
        projector: from its width to D.
        vae: diffusers' AutoencoderKL, or a `PixelAutoencoder`.
        scheduler: a `DDIMScheduler`, or one of diffusers; the noise schedule is taken of it.
        device, memory: where the parts run, and their memory mode; see `ModelOffloader`.
        read_part: gives a part by name, with its weights, for as long as it is used; the parts given here are on the
            meta device then. None: they have their weights.
    """

    def __init__(
        self,
        config: ModelConfig,
        unet: InteractionUNet,
        controlnet: BackgroundControlNet,
        image_encoder: Any,
        projector: image_encoder.Projector,
        vae: Any,
        scheduler: Any,
        *,
        device: str | torch.device = "cpu",
        memory: str = "resident",
        read_part: Callable[[str], nn.Module] | None = None,
    ) -> None:
        self.config, self.scheduler = config, scheduler
        self.unet, self.controlnet, self.vae = unet, controlnet, vae
        self.image_encoder, self.projector = image_encoder, projector
        self.device = torch.device(device)
        self.dtype: torch.dtype = next(unet.parameters()).dtype
        # Half precision has fewer digits than a pixel's value; an autoencoder without weights needs none of it.
        self._pixels = torch.float32 if config.on_pixels else self.dtype
        for name, part in self.parts.items():
            _prepare(name, part, self.device)
        self.memory = choose_memory(memory, self.device, self.parts)
        self._offloader: ModelOffloader | PartReader = (
            ModelOffloader(self.parts, self.device, self.memory) if read_part is None else PartReader(self, read_part)
        )
        self._null: Tensor | None = None
        self._graph: Callable[[Denoiser, Tensor, Tensor], Tensor] | None = None

    @property
    def parts(self) -> dict[str, nn.Module]:
        """The modules by their names in the model folder."""
        return {name: getattr(self, name) for name in model_folder.PARTS}

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        memory: str = "resident",
        flag: str = "--model",
        weights: bool = True,
        adapters: Sequence[Adapter] = (),
    ) -> PicsModel:
        """Load a model.

        Args:
            name: model folder, or repository on the hub (`owner/name`, `owner/name@revision`).
            dtype: of all parts.
            device, memory: see the class; on a CPU, `sequential` and `offload` read a part from disk when it is used,
                and `auto` does so where the model is of full size.
            flag: command-line flag of the name, for messages.
            weights: False: on the meta device, from configuration files alone.
            adapters: added to the weights.

        Raises:
            PicsError: no such folder or repository, no model in it, one of a newer version, a part that is missing or
                does not fit; an adapter that does not.
        """
        folder = snapshot(str(name), flag, DOWNLOAD_PATTERNS)
        config = ModelConfig.load(folder)
        modes = ("sequential", "offload", "auto") if config.full_size else ("sequential", "offload")
        from_disk = weights and memory in modes and torch.device(device).type == "cpu"
        loaded = model_folder.load_parts(folder, config, dtype, weights and not from_disk)
        merge_adapters(loaded, adapters)
        if not from_disk:
            return cls(config, **loaded, device=device if weights else "meta", memory=memory)
        width = loaded["projector"].in_features

        def read_part(name: str) -> nn.Module:
            part: nn.Module = model_folder.load_part(name, folder, config, dtype, encoder_width=width)
            merge_adapters({name: part}, adapters)
            return _prepare(name, part, torch.device(device))

        for part_name in model_folder.PARTS:
            nn.Module.to(loaded[part_name], dtype)  # diffusers' own warns of nothing
        kept = "sequential" if memory == "auto" else memory
        return cls(config, **loaded, device=device, memory=kept, read_part=read_part)

    def save_pretrained(self, folder: str | Path, training: Mapping[str, Any] | None = None) -> None:
        """Write the model folder: diffusers' layout, safetensors, and a model card where there is none.

        Args:
            folder: new or empty.
            training: contents of `training.json`, on how it was trained; see `training.export.training_record`.

        Raises:
            ValueError: the weights are offloaded.
        """
        if self.memory == "offload" or isinstance(self._offloader, PartReader):
            raise ValueError(f"a model with memory={self.memory!r} cannot be saved: load it with memory='resident'")
        from pics_cli.core.model.model_card import TRAINING_FILE, write_card

        folder = Path(folder)
        make_folder(folder)
        for name, part in self.parts.items():
            model_folder.save_part(name, part, folder)
        self.scheduler.save_pretrained(folder / "scheduler")
        names = type(self.scheduler).__name__, type(self.vae).__name__
        describe_folder(folder, replace(self.config, links={}), *names)
        if training is not None:
            write_json(folder / TRAINING_FILE, training)
        write_card(folder)

    def compile(self) -> None:
        """Compile the denoising step: CUDA graphs on a GPU.

        A graph is made for each batch size, number of objects and candidates, and for each of four shares that overlaps
        can have of the picture: the first picture of such a kind takes minutes, the others run it.

        Raises:
            PicsError: not all parts are resident.
        """
        if self.memory != "resident":
            raise PicsError(
                f"--compile: graphs need weights that stay in place, but memory is {self.memory}",
                "take --memory resident, or leave out --compile",
            )
        mode = "reduce-overhead" if self.device.type == "cuda" else None
        limits = torch._dynamo.config
        of_torch_2_6 = "cache_size_limit"
        setattr(limits, "recompile_limit" if hasattr(limits, "recompile_limit") else of_torch_2_6, _MAX_GRAPHS)
        self._graph = torch.compile(Denoiser.__call__, mode=mode, dynamic=False)

    def load_adapters(self, adapters: Sequence[Adapter]) -> None:
        """Add adapters to the weights, which cannot be undone but by loading the model anew.

        Raises:
            PicsError: one does not fit.
            ValueError: the weights are offloaded.
        """
        if self.memory != "resident":
            raise ValueError(f"a model with memory={self.memory!r} takes no adapters: load it with memory='resident'")
        merge_adapters(self.parts, adapters)

    def clear_cache(self) -> None:
        """Drop what was derived from the weights, after they have changed."""
        self._null = None

    def noise(self, seed: int, key: str, candidate: int = 0, step: int = 0) -> Tensor:
        """float32 [c, h, w], unit normal: a function of seed, sample, candidate and insertion step alone."""
        shape = (self.config.latent_channels, self.config.latent_size, self.config.latent_size)
        drawn = generator(seed, "noise", key, candidate, step).standard_normal(shape, dtype=np.float32)
        return torch.from_numpy(drawn)

    @torch.inference_mode()
    def estimate_lighting(self, background: npt.NDArray[np.uint8]) -> Lighting:
        """The light of a background, uint8 [S, S, 3], as a model with `shadows` sees it; see `lighting_of`."""
        picture = torch.from_numpy(background).to(self.device).permute(2, 0, 1)[None].to(self.dtype) / 127.5 - 1
        with self._offloader.use("controlnet"):
            azimuth, values = self.controlnet.light_head(picture)
        return lighting_of(LightOutput(azimuth.float().cpu(), values.float().cpu()))[0]

    @torch.inference_mode()
    def estimate_order(self, boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32] | None:
        """Log-odds that object i is before object j, float32 [K, K]; None of a model without an order head.

        Args:
            boxes: float32 [K, 4], tight around each object; see `OrderHead`.
        """
        if not self.controlnet.config.get("estimates_order"):
            return None
        with self._offloader.use("controlnet"):
            logits = self.controlnet.order_head(torch.from_numpy(boxes).to(self.device)[None])
        return order_log_odds(logits)[0].float().cpu().numpy()

    @torch.inference_mode()
    def __call__(
        self,
        samples: Sequence[NetworkInput],
        noise: Tensor,
        *,
        steps: int | None = None,
        guidance: float | None = None,
        scheduler: str | None = None,
        order_bias: Tensor | None = None,
        callback_on_step_end: Callable[[int, int, Tensor, Tensor], None] | None = None,
        trace: GateTrace | None = None,
        layer_blends: list[LayerBlend] | None = None,
    ) -> npt.NDArray[np.uint8]:
        """Composite.

        Args:
            samples: B composites with the same number of objects.
            noise: float32 [B, n, c, h, w]: n candidates of each.
            steps, guidance, scheduler: None: what the model's own configuration says.
            order_bias: [B, K], added to the gate's logits; see `ObjectContexts`.
            callback_on_step_end: called after each denoising step; see `denoise`.
            trace: filled with what `--explain` draws.
            layer_blends: the layer blend of a model with `correct_hint` that works on pixels is appended.

        Returns:
            uint8 [B, n, S, S, 3].
        """
        hint_u8 = torch.from_numpy(np.stack([sample.control_image for sample in samples])).to(self.device)
        control_mask = torch.from_numpy(np.stack([sample.control_mask for sample in samples])).to(self.device)
        masks = torch.from_numpy(np.stack([sample.masks for sample in samples]))
        picture = hint_u8.permute(0, 3, 1, 2).to(self._pixels) / 127.5 - 1
        hint = (
            torch.cat([picture, control_mask[:, None]], 1).to(self.dtype).contiguous(memory_format=torch.channels_last)
        )
        guidance = self.config.guidance if guidance is None else guidance
        contexts, null = self._encode(np.stack([sample.references for sample in samples]), guidance != 1)
        count, candidates = noise.shape[:2]
        prediction = None
        if self.config.correct_hint:
            with self._offloader.use("vae"):
                layers, shadows = split_control_image(picture, self.config)
                pictures = layers.flatten(0, 1).contiguous()
                latents = self.vae.encode(pictures).latent_dist.mode() * self.config.latent_scale
                latents = latents.unflatten(0, (count, -1)).float().repeat_interleave(candidates, 0)
                fade = None
                if shadows is not None:
                    shadows = shadows.repeat_interleave(candidates, 0)
                    fade = torch.from_numpy(np.stack([_fade(sample) for sample in samples]))[:, None].to(self.device)
                    fade = fade.repeat_interleave(candidates, 0)
                prediction = ResidualPrediction(latents, self.config, self.config.share_sharpness, shadows, fade)
        with self._offloader.use("unet", "controlnet"):
            denoiser = Denoiser(
                self.unet,
                self.controlnet,
                hint=hint,
                contexts=contexts,
                null=null,
                masks=masks.to(self.device),
                size=(self.config.latent_size, self.config.latent_size),
                guidance=guidance,
                candidates=candidates,
                order_bias=None if order_bias is None else order_bias.to(self.device),
                cache=self.memory != "offload" or isinstance(self._offloader, PartReader),
                static_shapes=self._graph is not None,
                trace=trace,
            )
            name, steps = scheduler or self.config.scheduler, steps or self.config.steps
            stepper = make_scheduler(name, self.scheduler, self.config.prediction_type, steps)
            latent = denoise(
                self._graphed(denoiser),
                stepper,
                noise.flatten(0, 1).to(self.device),
                self.dtype,
                scaling=self.config.input_scaling,
                to_clean_latent=prediction,
                callback_on_step_end=callback_on_step_end,
            )
        with self._offloader.use("vae"):
            if layer_blends is not None and prediction is not None:
                layer_blends.append(prediction.layer_blend(latent, self.vae, candidates))
            pictures = torch.cat([self._picture(_finite(row[None])) for row in latent])
        return pictures.unflatten(0, (count, candidates)).cpu().numpy()

    def _graphed(self, denoiser: Denoiser) -> Callable[[Tensor, Tensor], Tensor]:
        if self._graph is None:
            return denoiser
        graph = self._graph
        # A graph's output lies in memory that its next run overwrites.
        return lambda latent, timestep: graph(denoiser, latent, timestep).clone()

    def _encode(self, references: npt.NDArray[np.uint8], guided: bool) -> tuple[Tensor, Tensor | None]:
        """Contexts [B, K, M, D] and, for guidance, the unconditional one [M, D], which is cached."""
        with self._offloader.use("image_encoder", "projector"):
            pixels = torch.from_numpy(references).to(self.device).flatten(0, 1).permute(0, 3, 1, 2).float() / 255
            contexts = image_encoder.encode_references(self.image_encoder, self.projector, pixels)
            if guided and self._null is None:
                self._null = image_encoder.encode_null_reference(
                    self.image_encoder, self.projector, self.config.reference_size, self.device
                )
        return contexts.unflatten(0, references.shape[:2]), self._null if guided else None

    def _picture(self, latent: Tensor) -> Tensor:
        """Latents [B, c, h, w] to uint8 [B, S, S, 3]."""
        decoded = self.vae.decode((latent / self.config.latent_scale).to(self._pixels).contiguous()).sample
        return ((_finite(decoded).float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def _prepare(name: str, part: nn.Module, device: torch.device) -> nn.Module:
    """A part for inference, in the layout that is fastest for it."""
    part.eval().requires_grad_(False)
    # The autoencoder has torch's group norms, which lose digits in this layout on a CPU; see `ExactGroupNorm`.
    if name in (("unet", "controlnet") if device.type == "cpu" else ("unet", "controlnet", "vae")):
        part.to(memory_format=torch.channels_last)
    return part


def _fade(sample: NetworkInput) -> npt.NDArray[np.float32]:
    if sample.fade is None:
        raise ValueError("the model has shadows, but its inputs were made without")
    return sample.fade


def _finite(values: Tensor) -> Tensor:
    """The values, checked: a picture of values that are no numbers would be black, and pass for a result."""
    if not torch.isfinite(values).all():
        raise PicsError(
            "the network gave values that are no numbers (nan or inf)",
            "try --dtype bf16 or fp32 and a smaller --guidance; if it persists, copy or convert the model again",
            FAILED,
        )
    return values
