"""What is drawn for a sample: distributions against their closed form, and nothing but the generator decides."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pics_cli.core.recipes.training_sections import ObjectiveSettings
from pics_cli.core.runtime.rng import generator
from pics_cli.core.training.objective import NoiseSampler
from trainees import pipeline_of, recipe_of

MANY = 40_000
# Of χ² with nine degrees of freedom, one in 10 000 is larger.
LIMIT = 33.7


def timesteps(count: int = MANY, of: int = 1000, **objective: Any) -> np.ndarray:
    draws = NoiseSampler(ObjectiveSettings(**objective), (1, 1, 1), of, False)
    rng = np.random.default_rng(0)
    return np.array([draws.timestep(rng) for _ in range(count)])


def chi_square(found: np.ndarray, shares: list[float]) -> float:
    counts, expected = np.histogram(found, 10, (0, 1000))[0], np.array(shares) * len(found)
    return float(((counts - expected) ** 2 / expected).sum())


def test_published() -> None:
    """30 % of [0, 1000) and 70 % of [0, 500)."""
    found = timesteps(timesteps="published")
    assert chi_square(found, [0.17] * 5 + [0.03] * 5) < LIMIT
    assert (found.min(), found.max()) == (0, 999)


def test_uniform() -> None:
    found = timesteps(timesteps="uniform")
    assert chi_square(found, [0.1] * 10) < LIMIT
    assert (found.min(), found.max()) == (0, 999)


@pytest.mark.parametrize("noisiest", [0.0, 0.7, 1.0])
def test_high_noise(noisiest: float) -> None:
    """The noisiest timestep with a share of its own, the others uniform over all."""
    found = timesteps(timesteps="high_noise", noisiest=noisiest)
    last = found == 999
    share = noisiest + (1 - noisiest) / 1000
    assert abs(last.mean() - share) < 4 * np.sqrt(share * (1 - share) / MANY) + 1e-9
    others = found[~last]
    if len(others):
        assert chi_square(others, [100 / 999] * 9 + [99 / 999]) < LIMIT


def test_a_shorter_schedule() -> None:
    found = timesteps(4000, 10, timesteps="published")
    counts = np.bincount(found, minlength=10) / 4000
    np.testing.assert_allclose(counts, [0.17] * 5 + [0.03] * 5, atol=0.03)
    assert set(timesteps(50, 10, timesteps="high_noise", noisiest=1.0)) == {9}


@pytest.mark.parametrize("dropout", [0.0, 0.1, 1.0])
def test_dropout(dropout: float) -> None:
    """Its share, and that it has nothing to do with the timestep."""
    draws = NoiseSampler(ObjectiveSettings(dropout=dropout), (1, 1, 1), 1000, False)
    rng = np.random.default_rng(0)
    found = [draws(rng) for _ in range(10_000)]
    dropped = np.array([one["dropped"] for one in found])
    assert abs(dropped.mean() - dropout) <= 4 * np.sqrt(dropout * (1 - dropout) / 10_000)
    if dropout == 0.1:
        low = np.array([one["timestep"] < 500 for one in found])
        assert abs(dropped[low].mean() - dropped[~low].mean()) < 0.035


@pytest.mark.parametrize("posterior", [False, True])
def test_a_function_of_the_generator(posterior: bool) -> None:
    draws = NoiseSampler(ObjectiveSettings(), (4, 8, 6), 1000, posterior)
    one, same, other = (draws(generator(seed, "draw", "set", "key")) for seed in (1, 1, 2))
    names = {"timestep", "dropped", "noise"} | ({"posterior"} if posterior else set())
    assert one.keys() == names
    assert {name: (value.dtype, value.shape) for name, value in one.items()} == {
        "timestep": (np.int64, ()), "dropped": (np.bool_, ()),
        **{name: (np.float32, (4, 8, 6)) for name in names & {"noise", "posterior"}},
    }  # fmt: skip
    assert all(np.array_equal(one[name], same[name]) for name in names)
    assert not np.array_equal(one["noise"], other["noise"])
    if posterior:
        assert abs(np.corrcoef(one["noise"].ravel(), one["posterior"].ravel())[0, 1]) < 0.3


def test_noise_is_unit_normal() -> None:
    noise = NoiseSampler(ObjectiveSettings(), (4, 64, 64), 1000, False)(np.random.default_rng(0))["noise"]
    assert abs(noise.mean()) < 0.03
    assert abs(noise.std() - 1) < 0.03
    assert abs((np.abs(noise) < 1).mean() - 0.6827) < 0.015


def test_fixed_for_validation() -> None:
    draws = NoiseSampler(ObjectiveSettings(dropout=1.0), (1, 2, 2), 1000, True)
    found = [draws.for_validation(np.random.default_rng(seed), 200, 400) for seed in range(400)]
    timesteps = np.array([one["timestep"] for one in found])
    assert not any(one["dropped"] for one in found)
    assert 200 <= timesteps.min() < 210
    assert 390 < timesteps.max() < 400
    assert found[0].keys() == draws(np.random.default_rng(0)).keys()
    assert {name: value.dtype for name, value in found[0].items()}["timestep"] == np.int64


@pytest.mark.parametrize(("kind", "drawn"), [("small", False), ("tiny", True)])
def test_of_a_model(kind: str, drawn: bool) -> None:
    """Pixels are what they are: only an autoencoder's latent is drawn."""
    pipeline = pipeline_of(kind)
    draws = NoiseSampler.for_model(recipe_of().objective, pipeline)
    assert (draws.timesteps, draws.posterior) == (1000, drawn)
    assert draws.latent_shape == ((192, 8, 8) if kind == "small" else (4, 16, 16))
