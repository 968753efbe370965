"""The exponential moving average (EMA) of the trained weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
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
        self._averages = [value.clone() for value in self._weights()]
        self._steps = 0

    @torch.no_grad()
    def step(self) -> None:
        """Update the average, after each optimizer step."""
        decay = min(self.options.decay, (1 + self._steps) / (10 + self._steps)) if self._steps else 0.0
        for average, value in zip(self._averages, self._weights(), strict=True):
            average.sub_((1 - decay) * (average - value))
        self._steps += 1

    def swap(self) -> None:
        """Exchange the weights with their average, in place; a second call undoes it."""
        with torch.no_grad():
            for parameter, average in zip(self.trained.values(), self._averages, strict=True):
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
        return dict(zip(self.trained, self._averages, strict=True)), self._steps

    def load(self, averages: Mapping[str, Tensor], steps: int) -> None:
        """Restore what `state` returned."""
        for name, average in zip(self.trained, self._averages, strict=True):
            average.copy_(averages[name])
        self._steps = steps

    def _weights(self) -> Iterator[Tensor]:
        """The weights on the average's device."""
        for value in self.trained.values():
            yield value.detach() if self.options.device == "same" else value.detach().cpu()
