"""AdamW, its learning rate, and the moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from pics_cli.core.training_sections import Ema, Optimizer


def make_optimizer(trained: Mapping[str, nn.Parameter], options: Optimizer) -> torch.optim.AdamW:
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


def learning_rate(options: Optimizer, steps: int, step: int) -> float:
    """Share of the highest learning rate at a step, counted from 0: linear warm-up, then constant or half a cosine."""
    if step < options.warmup:
        return (step + 1) / options.warmup
    if options.schedule == "constant":
        return 1.0
    progress = (step - options.warmup) / max(1, steps - options.warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def make_schedule(optimizer: torch.optim.Optimizer, options: Optimizer, steps: int, done: int) -> LambdaLR:
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

    def __init__(self, trained: Mapping[str, nn.Parameter], options: Ema) -> None:
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
