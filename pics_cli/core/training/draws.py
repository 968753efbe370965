"""What is drawn for a sample besides its augmentation: timestep, noise, and whether its condition is dropped."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pics_cli.core.training_sections import Objective

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

    objective: Objective
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
