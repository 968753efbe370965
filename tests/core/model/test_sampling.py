"""Schedulers and the sampling loop, for denoisers whose answer is known.

With ᾱ_t the share of signal, x_t = √ᾱ_t x_0 + √(1 - ᾱ_t) ε. For data that are normal with mean m and deviation s the
exact prediction is E[ε | x_t] = √(1 - ᾱ_t) (x_t - √ᾱ_t m) / (ᾱ_t s² + 1 - ᾱ_t), and along the exact path the
standardised z = (x_t - √ᾱ_t m) / √(ᾱ_t s² + 1 - ᾱ_t) does not change: it ends at x_0 = m + s z.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pics_cli.core.model.sampling import denoise
from pics_cli.core.model.schedulers import SCHEDULERS, make_scheduler, published_scheduler
from pics_cli.errors import PicsError

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SHAPE = (2, 4, 6, 6)
MEAN, DEVIATION = 0.7, 0.4
# Published: β linear in √β from √0.00085 to √0.012 over 1000 steps.
SIGNAL = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)


def noise(seed: int = 0) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def scheduler(name: str, steps: int, prediction: str = "epsilon") -> Any:
    return make_scheduler(name, published_scheduler(), prediction, steps)


def signal_at(timestep: Tensor) -> float:
    return float(SIGNAL[int(timestep)])


def epsilon(latent: Tensor, timestep: Tensor, deviation: float = DEVIATION) -> Tensor:
    """The exact prediction for the normal distribution above; deviation 0: for a single picture."""
    a = signal_at(timestep)
    return (1 - a) ** 0.5 * (latent - a**0.5 * MEAN) / (a * deviation**2 + 1 - a)


def worst(ours: Tensor, theirs: Tensor | float) -> float:
    return float((ours.double() - theirs).abs().max())


@pytest.mark.parametrize("name", SCHEDULERS)
def test_reaches_a_point_mass(name: str) -> None:
    """One picture m is all there is: every scheduler ends at it, from any noise and in few steps.

    The published scheduler ends with the noise of the first timestep: √ᾱ_0 m + √(1 - ᾱ_0) ε, 0.03 of it.
    """
    found = denoise(lambda x, t: epsilon(x, t, 0.0), scheduler(name, 10), noise(), torch.float32)
    assert worst(found, MEAN) < (0.15 if name == "ddim" else 1e-3)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_reaches_the_exact_answer_for_a_normal_distribution(name: str) -> None:
    """The error halves with twice the steps, or is small already.

    All end with a jump of first order from their last timestep to clean data, Heun's from the smallest.
    """
    start = noise()

    def error(steps: int) -> float:
        made = scheduler(name, steps)
        a = signal_at(made.timesteps[0])
        z = (start.double() - a**0.5 * MEAN) / (a * DEVIATION**2 + 1 - a) ** 0.5
        return worst(denoise(epsilon, made, start, torch.float32), MEAN + DEVIATION * z)

    assert error(100) < 0.06
    assert error(200) < 0.65 * error(100) or error(200) < 0.01


def test_published_timesteps() -> None:
    assert published_scheduler().config.prediction_type == "epsilon"
    assert scheduler("ddim", 5).timesteps.tolist() == [801, 601, 401, 201, 1]
    assert scheduler("ddim", 50).timesteps.tolist() == list(range(981, 0, -20))
    np.testing.assert_allclose(published_scheduler().alphas_cumprod, SIGNAL, rtol=1e-5)


@pytest.mark.parametrize("steps", [1, 5, 50])
def test_published_scheduler_is_ddim(steps: int) -> None:
    """An independent DDIM (Song et al., eta 0) in float64: x_s = √ᾱ_s x̂_0 + √(1 - ᾱ_s) ε, at the end ᾱ_s = ᾱ_0."""

    def predict(latent: Any, timestep: int) -> Any:
        # Nothing that a sampler could expect: uneven in latent and time.
        return np.sin(3 * latent) + latent * (timestep / 1000) - 0.2

    latent = noise().double().numpy()
    timesteps = [1 + i * (1000 // steps) for i in reversed(range(steps))]
    for timestep in timesteps:
        a = SIGNAL[timestep]
        before = timestep - 1000 // steps
        b = SIGNAL[before] if before >= 0 else SIGNAL[0]
        eps = predict(latent, timestep)
        clean = (latent - (1 - a) ** 0.5 * eps) / a**0.5
        latent = b**0.5 * clean + (1 - b) ** 0.5 * eps
    made = published_scheduler()
    made.set_timesteps(steps)
    numbers = []
    found = denoise(
        lambda x, t: torch.from_numpy(predict(x.double().numpy(), int(t))),
        made,
        noise(),
        torch.float32,
        callback_on_step_end=lambda number, count, *_: numbers.append((number, count)),
    )
    np.testing.assert_allclose(found, latent, rtol=1e-4, atol=1e-4)
    assert numbers == [(i + 1, steps) for i in range(steps)]


def as_prediction(kind: str) -> Callable[[Tensor, Tensor], Tensor]:
    """The same denoiser saying something else: v = √ᾱ ε - √(1 - ᾱ) x_0, or x_0 itself."""

    def predict(latent: Tensor, timestep: Tensor) -> Tensor:
        a, latent = signal_at(timestep), latent.double()
        eps = epsilon(latent, timestep)
        clean = (latent - (1 - a) ** 0.5 * eps) / a**0.5
        return {"epsilon": eps, "v_prediction": a**0.5 * eps - (1 - a) ** 0.5 * clean, "sample": clean}[kind]

    return predict


@pytest.mark.parametrize("kind", ["v_prediction", "sample"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_prediction_types_agree(name: str, kind: str) -> None:
    expected = denoise(as_prediction("epsilon"), scheduler(name, 8), noise(), torch.float32)
    found = denoise(as_prediction(kind), scheduler(name, 8, kind), noise(), torch.float32)
    assert worst(found, expected) < 1e-4


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_correction_is_added_to_the_output(name: str) -> None:
    """A network that predicts x_0 - hint, with the hint given as what it corrects, is one that predicts x_0."""
    hint = noise(1)
    expected = denoise(as_prediction("epsilon"), scheduler(name, 8), noise(), torch.float32)
    found = denoise(
        lambda x, t: as_prediction("sample")(x, t) - hint,
        scheduler(name, 8, "sample"),
        noise(),
        torch.float32,
        to_clean_latent=lambda output: output + hint,
    )
    assert worst(found, expected) < 1e-4


@pytest.mark.parametrize("name", SCHEDULERS)
def test_signal_scaling_multiplies_the_input_alone(name: str) -> None:
    """A network that is given √ᾱ_t x_t, and takes the factor out again, is one that is given x_t."""
    predict = as_prediction("epsilon")
    expected = denoise(predict, scheduler(name, 8), noise(), torch.float32)
    found = denoise(
        lambda x, t: predict(x / signal_at(t) ** 0.5, t), scheduler(name, 8), noise(), torch.float32, scaling="signal"
    )
    assert worst(found, expected) < 1e-4


def test_the_network_alone_works_in_its_precision() -> None:
    seen = []

    def predict(latent: Tensor, timestep: Tensor) -> Tensor:
        seen.append((latent.dtype, tuple(timestep.shape)))
        return epsilon(latent, timestep)

    assert denoise(predict, scheduler("ddim", 3), noise(), torch.bfloat16).dtype == torch.float32
    assert seen == [(torch.bfloat16, (1,))] * 3


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_is_deterministic_and_takes_over_the_noise_schedule(name: str) -> None:
    base = published_scheduler().__class__(**{**published_scheduler().config, "beta_end": 0.02})
    made = make_scheduler(name, base, "epsilon", 4)
    assert (made.config.beta_start, made.config.beta_end, made.config.beta_schedule) == (0.00085, 0.02, "scaled_linear")
    first, second = (denoise(epsilon, scheduler(name, 4), noise(), torch.float32) for _ in range(2))
    assert torch.equal(first, second)


def test_unknown_scheduler() -> None:
    with pytest.raises(PicsError) as error:
        make_scheduler("plms", published_scheduler(), "epsilon", 4)
    assert str(error.value) == "--scheduler: got plms, expected one of ddim, dpm++, unipc, euler, heun"


@pytest.mark.parametrize(("name", "steps"), [*((name, 1001) for name in SCHEDULERS), ("ddim", 1000), ("euler", 1000)])
def test_steps_beyond_the_noise_schedule(name: str, steps: int) -> None:
    """Leading spacing with an offset of 1 would begin at timestep 1000 of 0 to 999."""
    with pytest.raises(
        PicsError, match=f"--steps {steps}: more than --scheduler .* takes from a noise schedule of 1000"
    ):
        make_scheduler(name, published_scheduler(), "epsilon", steps)
