"""What the denoising figures run: networks with random weights, none of them zero, and the two standard cases."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import diffusers
import numpy as np
import torch
from torch import Tensor, nn

from pics_cli.core.conditioning.network_inputs import NetworkInputs
from pics_cli.core.model.config import ModelConfig
from pics_cli.core.model.controlnet import BackgroundControlNet
from pics_cli.core.model.dinov2 import Dinov2Encoder
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.model.sampling import Denoiser
from pics_cli.core.model.schedulers import published_scheduler
from pics_cli.core.model.tiny_model import TINY_CONFIG, tiny_model
from pics_cli.core.model.unet import InteractionUNet
from reference_block import ReferenceDenoiser

# Share of the picture that two boxes cover, a fifth of it both; half-open x0, y0, x1, y1 at 512×512.
CASES = {
    "30%": ((147, 75, 364, 292), (147, 219, 364, 436)),
    "80%": ((6, 47, 506, 298), (6, 214, 506, 465)),
}
# One level: figures of small shapes say nothing.
_TINY_SHAPE: dict[str, Any] = {
    "block_out_channels": (32,), "layers_per_block": 1, "attention_levels": (True,), "head_width": 16,
    "context_width": TINY_CONFIG.context_width,
}  # fmt: skip
GUIDANCE = 5.0
TIMESTEP = 601

Step = Callable[[], Tensor]


class Run(NamedTuple):
    """What the command line says: small shapes, for trying the script out; rounds of figures that take time."""

    tiny: bool
    rounds: int


class Networks:
    """UNet and ControlNet in float32 on the CPU, and the inputs of one composite.

    Args:
        tiny: small shapes, for trying the script out.
    """

    def __init__(self, tiny: bool) -> None:
        self.config = TINY_CONFIG if tiny else ModelConfig()
        shape, hint = (_TINY_SHAPE, {"hint_widths": (8, 8, 16, 16)}) if tiny else ({}, {})
        self.unet = random(partial(InteractionUNet, **shape))
        self.controlnet = random(partial(BackgroundControlNet, **shape, **hint))
        config, drawn = self.config, torch.Generator().manual_seed(1)
        side, tokens = config.image_size, (config.object_tokens, config.context_width)
        self.hint = torch.rand(1, 4, side, side, generator=drawn) * 2 - 1
        self.contexts = torch.randn(1, 2, *tokens, generator=drawn)
        self.null = torch.randn(tokens, generator=drawn)
        self.latents = torch.randn(8, config.latent_channels, *[config.latent_size] * 2, generator=drawn)
        self.timestep = torch.tensor([TIMESTEP])

    def layout(self, fast: bool) -> None:
        """Lay the weights as our pipeline does, or as the research code does: both sides share them."""
        for network in (self.unet, self.controlnet):
            network.to(memory_format=torch.channels_last if fast else torch.contiguous_format)

    def fast_step(self, case: str, candidates: int = 1) -> Step:
        """A guided step of `Denoiser`; what is constant over the steps is computed here."""
        denoiser = self._denoiser(case, Denoiser, candidates=candidates)
        latents = self.latents[:candidates]
        return lambda: denoiser(latents, self.timestep)

    def baseline_step(self, case: str) -> Step:
        """The same step as the research code computes it: a pass for each branch, the hint embedded in each."""

        return lambda: self._denoiser(case, ReferenceDenoiser)(self.latents[:1], self.timestep)

    def predictions(self, step: Step) -> tuple[Tensor, Tensor]:
        """What both branches predict in a step, [2, c, h, w], and the guided prediction [1, c, h, w]."""
        branches: list[Tensor] = []
        hook = self.unet.conv_out.register_forward_hook(lambda *call: branches.append(call[-1]))
        guided = step()
        hook.remove()
        return torch.cat(branches), guided

    def _denoiser(self, case: str, kind: type[Any], **options: Any) -> Any:
        latent = (self.config.latent_size,) * 2
        inputs = {
            "hint": self.hint,
            "contexts": self.contexts,
            "null": self.null,
            "masks": masks(case, self.config)[None],
        }
        return kind(self.unet, self.controlnet, **inputs, size=latent, guidance=GUIDANCE, **options)


def masks(case: str, config: ModelConfig) -> Tensor:
    """bool [2, S, S]: the boxes of a case."""
    cover = torch.zeros(2, config.image_size, config.image_size, dtype=torch.bool)
    for mask, box in zip(cover, CASES[case], strict=True):
        x0, y0, x1, y1 = (value * config.image_size // 512 for value in box)
        mask[y0:y1, x0:x1] = True
    return cover


def composite(case: str, config: ModelConfig) -> NetworkInputs:
    """A composite of noise with the boxes of a case."""
    drawn, boxes = np.random.default_rng(1), masks(case, config).numpy()
    size, reference = config.image_size, config.reference_size
    return NetworkInputs(
        control_image=drawn.integers(0, 256, (size, size, 3), np.uint8),
        control_mask=np.any(boxes, axis=0).astype(np.int8),
        masks=boxes,
        references=drawn.integers(0, 256, (2, reference, reference, 3), np.uint8),
    )


def full_pipeline(tiny: bool, device: torch.device, memory: str) -> PicsModel:
    """The whole compositor of the published shape in bf16, made without any file."""
    if tiny:
        return tiny_model(device=str(device), memory=memory)
    config, place = ModelConfig(), device if memory == "resident" else torch.device("cpu")
    giant: dict[str, Any] = dict(
        hidden_size=1536,
        num_hidden_layers=40,
        num_attention_heads=24,
        use_swiglu_ffn=True,
        image_size=config.reference_size,
        patch_size=14,
    )
    kinds: list[Callable[[], nn.Module]] = [
        InteractionUNet,
        BackgroundControlNet,
        lambda: Dinov2Encoder(**giant),
        lambda: nn.Linear(giant["hidden_size"], config.context_width),
        lambda: diffusers.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            latent_channels=config.latent_channels,
            sample_size=config.image_size,
        ),
    ]
    parts: list[Any] = [random(kind, place, torch.bfloat16) for kind in kinds]
    unet, controlnet, encoder, projector, vae = parts
    scheduler = published_scheduler()
    return PicsModel(config, unet, controlnet, encoder, projector, vae, scheduler, device=device, memory=memory)


def random(
    kind: Callable[[], nn.Module], device: torch.device | None = None, dtype: torch.dtype = torch.float32
) -> Any:
    """A module with weights of the usual scale, also where training starts from zero; libraries take minutes for it."""
    with torch.device("meta"):
        module = nn.Module.to(kind(), dtype)  # diffusers' own warns
    if list(module.buffers()):
        raise ValueError(f"{type(module).__name__} has buffers, which would stay empty")
    module.to_empty(device=device or torch.device("cpu")).requires_grad_(False)
    torch.manual_seed(0)
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1:
            bound = parameter[0].numel() ** -0.5
            parameter.uniform_(-bound, bound)
        else:
            parameter.normal_(1.0 if name.endswith("weight") else 0.0, 0.1)
    return module.eval()
