"""Schedulers by name; all are deterministic, so that a picture is a function of its noise.

The command line takes its choices from here, so torch is imported only when a scheduler is made, and diffusers when it
is another than DDIM.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from pics_cli.errors import PicsError

if TYPE_CHECKING:
    from pics_cli.core.model.ddim import DDIMScheduler

SchedulerName = Literal["ddim", "dpm++", "unipc", "euler", "heun"]
# Class in diffusers (of DDIM there is one in `ddim`, too), and its options.
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


def published_scheduler(**noise: Any) -> DDIMScheduler:
    """DDIM as published: β linear in √β from √0.00085 to √0.012, leading spacing; `noise`: other values of its keys."""
    from pics_cli.core.model.ddim import DDIMScheduler

    return DDIMScheduler(**{**_PUBLISHED, **SCHEDULERS["ddim"][1], **noise})


def pixel_scheduler(zero_terminal_snr: bool = False) -> DDIMScheduler:
    """The published noise schedule for a new network on pixels.

    Sampling starts at the noisiest timestep with any number of steps, and ends without noise, which would be visible.

    Args:
        zero_terminal_snr: rescale it so that the last timestep carries no signal.
    """
    return published_scheduler(
        timestep_spacing="trailing", set_alpha_to_one=True, rescale_betas_zero_snr=zero_terminal_snr
    )


def scheduler_class(name: str) -> Any:
    """A scheduler's class by its name in diffusers."""
    if name == SCHEDULERS["ddim"][0]:
        from pics_cli.core.model.ddim import DDIMScheduler

        return DDIMScheduler
    import diffusers

    return getattr(diffusers, name)


def load_scheduler(folder: Path) -> Any:
    """The scheduler that a folder's `scheduler_config.json` describes.

    Raises:
        OSError, ValueError, TypeError: it cannot be read, or names another class than those of `SCHEDULERS`.
    """
    from pics_cli.core.model.ddim import load_ddim, load_scheduler_config

    name = load_scheduler_config(folder).get("_class_name")
    if name not in {kind for kind, _ in SCHEDULERS.values()}:
        raise ValueError(f"scheduler_config.json names the class {name}, which is none of those known")
    return load_ddim(folder) if name == SCHEDULERS["ddim"][0] else scheduler_class(name).from_pretrained(folder)


def make_scheduler(name: str, base: Any, prediction_type: str, steps: int) -> Any:
    """A scheduler over the noise schedule of `base`, another scheduler, with its steps set.

    Raises:
        PicsError: unknown name, or more steps than the noise schedule has.
    """
    if name not in get_args(SchedulerName):
        raise PicsError(f"--scheduler: got {name}, expected one of {', '.join(SCHEDULERS)}")
    class_name, options = SCHEDULERS[name]  # type: ignore[index]
    kind = scheduler_class(class_name)
    kept = {key: value for key, value in base.config.items() if key in (*_PUBLISHED, "trained_betas")}
    last = {key: base.config[key] for key in ("set_alpha_to_one",) if key in options and key in base.config}
    if base.config.get(_ZERO_SNR):
        if name != "ddim" and _ZERO_SNR not in inspect.signature(kind).parameters:
            raise PicsError(
                f"--scheduler {name}: cannot start from a last timestep without signal, as this model does",
                f"take {', '.join(other for other in SCHEDULERS if other != name)}",
            )
        kept[_ZERO_SNR] = True
    try:
        scheduler = kind(**{**kept, **options, **last}, prediction_type=prediction_type)
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
