"""Schedulers by name; all are deterministic, so that a picture is a function of its noise.

The command line takes its choices from here, so diffusers is imported only when a scheduler is made.
"""

from __future__ import annotations

import inspect
from typing import Any, Literal, get_args

from pics_cli.errors import PicsError

SchedulerName = Literal["ddim", "dpm++", "unipc", "euler", "heun"]
# Class in diffusers, and its options.
SCHEDULERS: dict[SchedulerName, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {"set_alpha_to_one": False, "clip_sample": False}),
    "dpm++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "solver_order": 2}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
}
NOISE_KEYS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas")
_ZERO_SNR = "rescale_betas_zero_snr"
_PUBLISHED = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "timestep_spacing": "leading",
    "steps_offset": 1,
}


def published_scheduler(**noise: Any) -> Any:
    """DDIM as published: β linear in √β from √0.00085 to √0.012, leading spacing; `noise`: other values of its keys."""
    import diffusers

    return diffusers.DDIMScheduler(**{**_PUBLISHED, **SCHEDULERS["ddim"][1], **noise})


def pixel_scheduler(zero_terminal_snr: bool = False) -> Any:
    """The published noise schedule for a new network on pixels.

    Sampling starts at the noisiest timestep with any number of steps, and ends without noise, which would be visible.

    Args:
        zero_terminal_snr: rescale it so that the last timestep carries no signal.
    """
    return published_scheduler(
        timestep_spacing="trailing", set_alpha_to_one=True, rescale_betas_zero_snr=zero_terminal_snr
    )


def make_scheduler(name: str, base: Any, prediction_type: str, steps: int) -> Any:
    """A scheduler over the noise schedule of `base`, another diffusers scheduler, with its steps set.

    Raises:
        PicsError: unknown name, or more steps than the noise schedule has.
    """
    import diffusers

    if name not in get_args(SchedulerName):
        raise PicsError(f"--scheduler: got {name}, expected one of {', '.join(SCHEDULERS)}")
    class_name, options = SCHEDULERS[name]  # type: ignore[index]
    kept = {key: value for key, value in base.config.items() if key in (*_PUBLISHED, "trained_betas")}
    last = {key: base.config[key] for key in ("set_alpha_to_one",) if key in options and key in base.config}
    if base.config.get(_ZERO_SNR):
        if _ZERO_SNR not in inspect.signature(getattr(diffusers, class_name)).parameters:
            raise PicsError(
                f"--scheduler {name}: cannot start from a last timestep without signal, as this model does",
                f"take {', '.join(other for other in SCHEDULERS if other != name)}",
            )
        kept[_ZERO_SNR] = True
    try:
        scheduler = getattr(diffusers, class_name)(**{**kept, **options, **last}, prediction_type=prediction_type)
        limit = scheduler.config.num_train_timesteps
        # Leading spacing with an offset would begin beyond the last step of the noise schedule.
        if steps <= limit:
            scheduler.set_timesteps(steps)
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:  # diffusers checks no value
        raise PicsError(
            f"--scheduler {name}: cannot take the noise schedule in the model's scheduler_config.json: {error}",
            "take another, or copy or convert the model again",
        ) from None
    if steps > limit or float(scheduler.timesteps.max()) >= limit:
        raise PicsError(f"--steps {steps}: more than --scheduler {name} takes from a noise schedule of {limit}")
    return scheduler
