"""AdamW, its learning rate, and the moving average (EMA) of the weights."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from pics_cli.core.recipes.training_sections import EmaSettings, OptimizerSettings


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


def learning_rate_factor(options: OptimizerSettings, steps: int, step: int) -> float:
    """Factor on the learning rate at a step, counted from 0: linear warm-up, then constant or half a cosine."""
    if step < options.warmup:
        return (step + 1) / options.warmup
    if options.schedule == "constant":
        return 1.0
    progress = (step - options.warmup) / max(1, steps - options.warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def make_schedule(
    optimizer: torch.optim.Optimizer, options: OptimizerSettings, steps: int, steps_done: int
) -> LambdaLR:
    """The learning rate of every step of a run, which has made `steps_done` of its `steps`."""
    for group in optimizer.param_groups:
        group["initial_lr"] = options.learning_rate
    return LambdaLR(optimizer, lambda step: learning_rate_factor(options, steps, step), last_epoch=steps_done - 1)


class ModelEma:
    """Exponential moving average of the trained weights, θ̄ ← d θ̄ + (1 − d) θ with d = min(decay, (1 + n) / (10 + n))
    for n > 0; the first step takes the weights as they are.

    Args:
        trained: parameters by name.
        options: decay, and the device of the average.
    """

    def __init__(self, trained: Mapping[str, nn.Parameter], options: EmaSettings) -> None:
        self.trained, self.options = dict(trained), options
        self._ema = EMAModel(self._weights(), decay=options.decay)

    def step(self) -> None:
        """Update the average, after each optimizer step."""
        self._ema.step(self._weights())

    def swap(self) -> None:
        """Exchange the weights with their average; a second call undoes it."""
        with torch.no_grad():
            for parameter, average in zip(self.trained.values(), self._ema.shadow_params, strict=True):
                weights = parameter.detach().clone()
                parameter.copy_(average)
                average.copy_(weights)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The average in place of the weights while the block runs."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    def state(self) -> tuple[dict[str, Tensor], int]:
        """The averages by parameter name, and how many steps they include."""
        return dict(zip(self.trained, self._ema.shadow_params, strict=True)), self._ema.optimization_step

    def load(self, averages: Mapping[str, Tensor], steps: int) -> None:
        """Restore what `state` returned."""
        for name, average in zip(self.trained, self._ema.shadow_params, strict=True):
            average.copy_(averages[name])
        self._ema.optimization_step = steps

    def _weights(self) -> Sequence[Tensor]:
        """The weights on the average's device."""
        weights = list(self.trained.values())
        if self.options.device == "same":
            return weights
        return [value.detach().cpu().requires_grad_() for value in weights]  # EMAModel skips what needs no gradient
