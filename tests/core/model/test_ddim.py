"""Our DDIM against diffusers' own, to the bit, and files that both read."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from pics_cli.core.model.ddim import DDIMScheduler, load_ddim

NOISE: list[dict[str, Any]] = [
    {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    {"beta_schedule": "linear", "rescale_betas_zero_snr": True},
    {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 100},
    {"trained_betas": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8], "num_train_timesteps": 8},
]
SAMPLING: list[dict[str, Any]] = [
    {"timestep_spacing": "leading", "steps_offset": 1, "set_alpha_to_one": False},
    {"timestep_spacing": "trailing", "set_alpha_to_one": True},
    {"timestep_spacing": "linspace", "set_alpha_to_one": False},
]


@pytest.mark.parametrize(("noise", "sampling"), list(product(NOISE, SAMPLING)))
@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_every_step_is_diffusers(noise: dict[str, Any], sampling: dict[str, Any], kind: str) -> None:
    options = {**noise, **sampling, "prediction_type": kind, "clip_sample": False}
    ours, theirs = DDIMScheduler(**options), diffusers.DDIMScheduler(**options)
    assert torch.equal(ours.alphas_cumprod, theirs.alphas_cumprod)
    assert torch.equal(ours.betas, theirs.betas)
    random = torch.Generator().manual_seed(0)
    for steps in (1, 3, 7):
        for scheduler in (ours, theirs):
            scheduler.set_timesteps(steps)
        assert torch.equal(ours.timesteps, theirs.timesteps)
        latent = torch.randn(2, 3, 4, 4, generator=random)
        for timestep in theirs.timesteps:
            output = torch.randn(2, 3, 4, 4, generator=random)
            expected = theirs.step(output, timestep, latent, return_dict=False)[0]
            (found,) = ours.step(output, timestep, latent)
            torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
            latent = expected.nan_to_num()


def test_files_are_diffusers(tmp_path: Path) -> None:
    options = {**NOISE[0], **SAMPLING[0], "clip_sample": False}
    DDIMScheduler(**options).save_pretrained(tmp_path / "ours")
    diffusers.DDIMScheduler(**options).save_pretrained(tmp_path / "theirs")
    written = [(tmp_path / name / "scheduler_config.json").read_text() for name in ("ours", "theirs")]
    assert written[0] == written[1]
    assert load_ddim(tmp_path / "theirs").config == DDIMScheduler(**options).config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"beta_schedule": "cubic"}, "beta_schedule: got cubic, expected linear, scaled_linear or squaredcos"),
        ({"sigma": 1}, "does not take sigma"),
    ],
)
def test_faults(values: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        DDIMScheduler(**values)


def test_what_it_does_not_compute_is_refused() -> None:
    scheduler = DDIMScheduler(clip_sample=True)
    scheduler.set_timesteps(1)
    with pytest.raises(ValueError, match="clip_sample"):
        scheduler.step(torch.zeros(1), scheduler.timesteps[0], torch.zeros(1))
