"""The exponential moving average (EMA) of the trained weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import torch
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from pics_cli.core.recipes.training_sections import EmaSettings


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
        """Exchange the weights with their average, in place; a second call undoes it."""
        with torch.no_grad():
            for parameter, average in zip(self.trained.values(), self._ema.shadow_params, strict=True):
                weights = parameter.detach().clone()
                parameter.copy_(average)
                average.copy_(weights)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Let the model hold the average instead of the weights while the block runs."""
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
