"""Schedulers by name; all deterministic, so that a picture is a function of its noise."""

from __future__ import annotations

from typing import Any

import diffusers

from pics_cli.errors import PicsError

SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {"set_alpha_to_one": False, "clip_sample": False}),
    "dpm++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "solver_order": 2}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
}
PUBLISHED = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "timestep_spacing": "leading",
    "steps_offset": 1,
}


def published_scheduler() -> Any:
    """DDIM as published: β linear in √β from √0.00085 to √0.012, leading spacing."""
    return diffusers.DDIMScheduler(**PUBLISHED, **SCHEDULERS["ddim"][1])


def small_scheduler() -> Any:
    """The same noise for a new small network: sampling starts at the noisiest timestep however few the steps, and ends
    without any noise, which on pixels would be seen."""
    options = {**SCHEDULERS["ddim"][1], "set_alpha_to_one": True}
    return diffusers.DDIMScheduler(**{**PUBLISHED, "timestep_spacing": "trailing"}, **options)


def make_scheduler(name: str, base: Any, prediction_type: str, steps: int) -> Any:
    """The scheduler of that name over the noise schedule of `base`, another diffusers scheduler, with its steps set.

    Raises:
        PicsError: unknown name, or more steps than the noise schedule has.
    """
    if name not in SCHEDULERS:
        raise PicsError(f"--scheduler: got {name}, expected one of {', '.join(SCHEDULERS)}")
    kind, options = SCHEDULERS[name]
    kept = {key: value for key, value in base.config.items() if key in (*PUBLISHED, "trained_betas")}
    last = {key: base.config[key] for key in ("set_alpha_to_one",) if key in options and key in base.config}
    scheduler = getattr(diffusers, kind)(**{**kept, **options, **last}, prediction_type=prediction_type)
    limit = scheduler.config.num_train_timesteps
    # Leading spacing with an offset would begin beyond the last step of the noise schedule.
    if steps <= limit:
        scheduler.set_timesteps(steps)
    if steps > limit or float(scheduler.timesteps.max()) >= limit:
        raise PicsError(f"--steps {steps}: more than --scheduler {name} takes from a noise schedule of {limit}")
    return scheduler
