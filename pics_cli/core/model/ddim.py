"""DDIM (Song et al., ICLR 2021) without added noise: the numbers and files of diffusers' `DDIMScheduler`.

The other schedulers are diffusers' own, which to import takes seconds; see `schedulers`.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pics_cli.core.model.saved_module import PartConfig, diffusers_json
from pics_cli.core.runtime.files import load_json, read_file

SCHEDULER_FILE = "scheduler_config.json"
# The arguments of diffusers' class, and their defaults.
_DEFAULTS: dict[str, Any] = {
    "num_train_timesteps": 1000, "beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear",
    "trained_betas": None, "clip_sample": True, "set_alpha_to_one": True, "steps_offset": 0,
    "prediction_type": "epsilon", "thresholding": False, "dynamic_thresholding_ratio": 0.995, "clip_sample_range": 1.0,
    "sample_max_value": 1.0, "timestep_spacing": "leading", "rescale_betas_zero_snr": False,
}  # fmt: skip


class DDIMScheduler:
    """A noise schedule, and its sampler. With ᾱ_t the share of signal at timestep t, and s the timestep after it:

        x_s = √ᾱ_s x̂_0 + √(1 − ᾱ_s) ε̂,    x_t = √ᾱ_t x̂_0 + √(1 − ᾱ_t) ε̂

    Args:
        values: of diffusers' `DDIMScheduler`, by name: `num_train_timesteps`, `beta_schedule` from `beta_start` to
            `beta_end` or `trained_betas`, `rescale_betas_zero_snr`: the noise schedule; `timestep_spacing`,
            `steps_offset`, `set_alpha_to_one` (no noise is left at the end), `prediction_type`: the sampler.

    Attributes:
        config: all of them.
        betas, alphas_cumprod: β and ᾱ of all timesteps, float32.
        timesteps: of the sampler, from noise to picture; see `set_timesteps`.
        init_noise_sigma: deviation of the latent at the first of them.

    Raises:
        TypeError, ValueError: a name or a value that is not known.
    """

    init_noise_sigma = 1.0

    def __init__(self, **values: Any) -> None:
        if unknown := sorted(values.keys() - _DEFAULTS.keys()):
            raise TypeError(f"{type(self).__name__} does not take {', '.join(unknown)}")
        self.config = PartConfig({**_DEFAULTS, **values})
        self.betas = _betas(self.config)
        self.alphas_cumprod = torch.cumprod(1.0 - self.betas, dim=0)
        self._last_alpha = torch.tensor(1.0) if self.config.set_alpha_to_one else self.alphas_cumprod[0]
        self._gap = 0
        self.timesteps = torch.arange(self.config.num_train_timesteps - 1, -1, -1)

    def set_timesteps(self, steps: int, device: str | torch.device | None = None) -> None:
        """Choose the timesteps of a number of steps.

        Raises:
            ValueError: more than the noise schedule has, or an unknown spacing.
        """
        total, spacing = self.config.num_train_timesteps, self.config.timestep_spacing
        if steps > total:
            raise ValueError(f"{steps} steps, but the noise schedule has {total}")
        if spacing == "linspace":
            timesteps = np.linspace(0, total - 1, steps).round()[::-1]
        elif spacing == "leading":
            timesteps = np.arange(steps)[::-1] * (total // steps) + self.config.steps_offset
        elif spacing == "trailing":
            timesteps = np.round(np.arange(total, 0, -total / steps)) - 1
        else:
            raise ValueError(f"timestep_spacing: got {spacing}, expected linspace, leading or trailing")
        self._gap = total // steps
        self.timesteps = torch.from_numpy(np.ascontiguousarray(timesteps, np.int64)).to(device)

    def scale_model_input(self, latent: Tensor, timestep: Tensor) -> Tensor:  # noqa: ARG002  # as diffusers'
        """The latent itself."""
        return latent

    def step(self, output: Tensor, timestep: Tensor, latent: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        """From one timestep to the next.

        Args:
            output: of the network; `prediction_type` says what it means.
            timestep: one of `timesteps`.
            latent: x_t.
            return_dict: as diffusers' schedulers take it; False.

        Returns:
            x_s.

        Raises:
            ValueError: a kind of prediction, or clipping, that is not known here.
        """
        if return_dict or self.config.clip_sample or self.config.thresholding:
            raise ValueError("return_dict, clip_sample and thresholding are not supported")
        following = int(timestep) - self._gap
        alpha = self.alphas_cumprod[int(timestep)]
        next_alpha = self.alphas_cumprod[following] if following >= 0 else self._last_alpha
        signal, noise = alpha**0.5, (1 - alpha) ** 0.5
        kind = self.config.prediction_type
        if kind == "epsilon":
            clean, epsilon = (latent - noise * output) / signal, output
        elif kind == "sample":
            clean, epsilon = output, (latent - signal * output) / noise
        elif kind == "v_prediction":
            clean, epsilon = signal * latent - noise * output, signal * output + noise * latent
        else:
            raise ValueError(f"prediction_type: got {kind}, expected epsilon, sample or v_prediction")
        return (next_alpha**0.5 * clean + (1 - next_alpha) ** 0.5 * epsilon,)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `scheduler_config.json` into a folder, which is made."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / SCHEDULER_FILE).write_text(
            diffusers_json(type(self).__name__, self.config), encoding="utf-8", newline="\n"
        )


def load_scheduler_config(folder: Path) -> dict[str, Any]:
    """The contents of a folder's `scheduler_config.json`.

    Raises:
        OSError, ValueError: it cannot be read.
    """
    config = load_json(read_file(folder / SCHEDULER_FILE))
    if not isinstance(config, dict):
        raise ValueError(f"{SCHEDULER_FILE}: expected an object")
    return config


def load_ddim(folder: Path) -> DDIMScheduler:
    """The scheduler of a folder; what its file says that is not DDIM's is left out.

    Raises:
        OSError, TypeError, ValueError: it cannot be read, or a value is not known.
    """
    values = load_scheduler_config(folder)
    return DDIMScheduler(**{name: value for name, value in values.items() if name in _DEFAULTS})


def _betas(config: PartConfig) -> Tensor:
    count, start, end = config.num_train_timesteps, config.beta_start, config.beta_end
    if config.trained_betas is not None:
        betas = torch.tensor(config.trained_betas, dtype=torch.float32)
    elif config.beta_schedule == "linear":
        betas = torch.linspace(start, end, count, dtype=torch.float32)
    elif config.beta_schedule == "scaled_linear":
        betas = torch.linspace(start**0.5, end**0.5, count, dtype=torch.float32) ** 2
    elif config.beta_schedule == "squaredcos_cap_v2":  # Nichol and Dhariwal, ICML 2021
        signal = [math.cos((step / count + 0.008) / 1.008 * math.pi / 2) ** 2 for step in range(count + 1)]
        ratios = [min(1 - after / before, 0.999) for before, after in itertools.pairwise(signal)]
        betas = torch.tensor(ratios, dtype=torch.float32)
    else:
        raise ValueError(
            f"beta_schedule: got {config.beta_schedule}, expected linear, scaled_linear or squaredcos_cap_v2"
        )
    return _without_last_signal(betas) if config.rescale_betas_zero_snr else betas


def _without_last_signal(betas: Tensor) -> Tensor:
    """Shift and scale √ᾱ so that its last value is 0 and its first stays (Lin et al., WACV 2024, algorithm 1)."""
    roots = torch.cumprod(1.0 - betas, dim=0).sqrt()
    first, last = roots[0].clone(), roots[-1].clone()
    alphas_cumprod = ((roots - last) * (first / (first - last))) ** 2
    alphas = torch.cat([alphas_cumprod[:1], alphas_cumprod[1:] / alphas_cumprod[:-1]])
    return 1 - alphas
