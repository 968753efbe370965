"""AdamW, its learning rate, and the moving average of the weights."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence

import torch
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from pics_cli.core.model.new_model import EXPERT
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.recipes.training_sections import EmaSettings, OptimizerSettings, TrainedParts


def make_optimizer(trained: Mapping[str, nn.Parameter], options: OptimizerSettings) -> torch.optim.AdamW:
    """AdamW over the trained parameters."""
    parameters = list(trained.values())
    # One kernel for all: the loop over tensors costs time, and `foreach` a copy of every gradient.
    fused = parameters[0].device.type == "cuda"
    return torch.optim.AdamW(
        parameters,
        lr=options.learning_rate,
        betas=options.betas,
        eps=options.epsilon,
        weight_decay=options.weight_decay,
        fused=fused,
        foreach=False,
    )


def learning_rate(options: OptimizerSettings, steps: int, step: int) -> float:
    """Share of the highest learning rate at a step, counted from 0: linear warm-up, then constant or half a cosine."""
    if step < options.warmup:
        return (step + 1) / options.warmup
    if options.schedule == "constant":
        return 1.0
    progress = (step - options.warmup) / max(1, steps - options.warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def make_schedule(optimizer: torch.optim.Optimizer, options: OptimizerSettings, steps: int, done: int) -> LambdaLR:
    """The learning rate of every step, with `done` steps behind."""
    for group in optimizer.param_groups:
        group["initial_lr"] = options.learning_rate
    return LambdaLR(optimizer, lambda step: learning_rate(options, steps, step), last_epoch=done - 1)


class Average:
    """Exponential moving average of the trained weights, θ̄ ← d θ̄ + (1 − d) θ with d = min(decay, (1 + n) / (10 + n))
    for n > 0; the first step takes the weights as they are.

    Args:
        trained: parameters by name.
        options: decay, and where the average lies.
    """

    def __init__(self, trained: Mapping[str, nn.Parameter], options: EmaSettings) -> None:
        self.trained, self.options = dict(trained), options
        self._model = EMAModel(self._here(), decay=options.decay)

    def step(self) -> None:
        """After each optimiser step."""
        self._model.step(self._here())

    def swap(self) -> None:
        """Exchange the weights with their average; a second call undoes it."""
        with torch.no_grad():
            for parameter, average in zip(self.trained.values(), self._model.shadow_params, strict=True):
                held = parameter.detach().clone()
                parameter.copy_(average)
                average.copy_(held)

    def state(self) -> tuple[dict[str, Tensor], int]:
        """The averages by name, and how many steps went in."""
        return dict(zip(self.trained, self._model.shadow_params, strict=True)), self._model.optimization_step

    def load(self, averages: Mapping[str, Tensor], steps: int) -> None:
        """Take over what `state` gave."""
        for name, average in zip(self.trained, self._model.shadow_params, strict=True):
            average.copy_(averages[name])
        self._model.optimization_step = steps

    def _here(self) -> Sequence[Tensor]:
        values = list(self.trained.values())
        if self.options.device == "same":
            return values
        return [value.detach().cpu().requires_grad_() for value in values]  # what wants no gradient is not averaged


_DECODER = re.compile(r"(up_blocks|conv_norm_out|conv_out)\.")
# Parts whose parameters may be trained; the autoencoder never is.
PARTS = ("unet", "controlnet", "projector", "image_encoder")


def named(pipeline: PicsModel) -> Iterator[tuple[str, nn.Parameter]]:
    """Every parameter that can be trained, as `part.name`."""
    for part in PARTS:
        yield from pipeline.parts[part].named_parameters(prefix=part)


def is_trained(name: str, kind: TrainedParts, encoder: bool) -> bool:
    """Whether a parameter is trained.

    Args:
        name: as `part.name`.
        kind: `published`: ControlNet and UNet decoder; `experts`: those, every new layer of the UNet's encoder and
            middle, and the projector; `full`: both networks and the projector.
        encoder: whether the encoder of the references is, too.
    """
    part, _, inside = name.partition(".")
    if part == "image_encoder":
        # Unused where whole pictures are encoded: DINOv2's token for hidden patches.
        return encoder and not inside.endswith("mask_token")
    if part == "controlnet" or kind == "full":
        return True
    if part == "projector":
        return kind == "experts"
    return bool(_DECODER.match(inside)) or (kind == "experts" and EXPERT.search(f".{inside}") is not None)


def is_new(name: str, small: bool) -> bool:
    """Whether a checkpoint needs a parameter although it is not trained: no base model has it.

    Args:
        name: as `part.name`.
        small: the whole network is new, not made from a base model.
    """
    part, _, inside = name.partition(".")
    return small or part in ("projector", "controlnet") or (part == "unet" and EXPERT.search(f".{inside}") is not None)


def set_up(pipeline: PicsModel, kind: TrainedParts, encoder: bool, half: torch.dtype) -> dict[str, nn.Parameter]:
    """Make the chosen parameters trainable, in float32; all others are frozen, in `half`.

    Returns:
        The trained parameters by name.
    """
    chosen = {}
    for name, parameter in named(pipeline):
        here = is_trained(name, kind, encoder)
        parameter.requires_grad_(here)
        parameter.data = parameter.data.to(torch.float32 if here else half)
        if here:
            chosen[name] = parameter
    for parameter in pipeline.vae.parameters():
        parameter.data = parameter.data.to(half)
    for network in (pipeline.unet, pipeline.controlnet):
        network.train()
    if encoder:
        pipeline.image_encoder.train()
    return chosen
