"""The loss: what is drawn for a sample, forward process, targets and weights, against NumPy in float64."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from helpers.trainees import (
    CORRECTING,
    CPU,
    LAYERS,
    LAYOUTS,
    SHADOWS,
    Recorded,
    batch_of,
    loss_of,
    pipeline_of,
    recipe_of,
    small,
)
from pics_cli.core.recipes.training_sections import ObjectiveSettings
from pics_cli.core.runtime.rng import generator
from pics_cli.core.training.objective import Losses, NoiseSampler, box_masks, min_snr_weight, prediction_target
from pics_cli.errors import PicsError

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


Array = npt.NDArray[np.float64]

# β linear in √β from √0.00085 to √0.012, 1000 of them.
SIGNAL: Array = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)


def unshuffled(pictures: Any, patch: int = 8) -> Array:
    """uint8 [B, S, S, 3] to latents float64 [B, 3 · patch², S / patch, S / patch]."""
    x = np.asarray(pictures).astype(np.float64) / 127.5 - 1
    count, size = x.shape[:2]
    x = x.reshape(count, size // patch, patch, size // patch, patch, 3)
    return x.transpose(0, 5, 2, 4, 1, 3).reshape(count, -1, size // patch, size // patch)


def inside_of(batch: dict[str, Any], size: int, latent: int) -> Array:
    """1 where a region covers the pixel that a latent position stands for, [B, h, w]."""
    found = np.zeros((len(batch["boxes"]), latent, latent))
    for b, i, j in product(*map(range, found.shape)):
        y, x = i * size // latent, j * size // latent
        found[b, i, j] = any(x0 <= x < x1 and y0 <= y < y1 for x0, y0, x1, y1 in batch["boxes"][b].tolist())
    return found


def oracle(batch: dict[str, Any], answer: Array, config: Any, **objective: Any) -> tuple[Array, Array, Array]:
    """The network's input, and both losses of each sample."""
    scale = config.latent_scale
    clean, noise = unshuffled(batch["target"]) * scale, np.asarray(batch["noise"]).astype(np.float64)
    a = SIGNAL[np.asarray(batch["timestep"])][:, None, None, None]
    noisy = np.sqrt(a) * clean + np.sqrt(1 - a) * noise
    given = noisy * np.sqrt(a) if config.input_scaling == "signal" else noisy
    wanted = {
        "epsilon": noise, "v_prediction": np.sqrt(a) * noise - np.sqrt(1 - a) * clean, "sample": clean
    }[config.prediction_type]  # fmt: skip
    output = answer + (unshuffled(batch["control_image"]) * scale if config.correct_hint else 0)
    each = np.abs(output - wanted) if objective.get("loss") == "l1" else (output - wanted) ** 2
    each = each.mean(1)
    inside = inside_of(batch, config.image_size, config.latent_size)
    weight = np.where(inside > 0, objective.get("region_weight", 1.0), 1.0)
    weighted = (each * weight).sum((1, 2)) / weight.sum((1, 2))
    if gamma := objective.get("min_snr"):
        snr = (a / (1 - a))[:, 0, 0, 0]
        least = np.minimum(snr, gamma)
        weighted = (
            weighted
            * {"epsilon": least / snr, "v_prediction": least / (snr + 1), "sample": least}[config.prediction_type]
        )
    covered = inside.sum((1, 2))
    region = np.where(covered > 0, (each * inside).sum((1, 2)) / np.maximum(covered, 1), 0)
    return given, weighted, region


MEANINGS: list[dict[str, Any]] = [
    {"prediction_type": "epsilon"},
    {"prediction_type": "v_prediction", "input_scaling": "signal", "latent_scale": 0.5},
    {"prediction_type": "sample", "input_scaling": "signal"},
    {**CORRECTING, "latent_scale": 0.3},
]
OBJECTIVES: list[dict[str, Any]] = [
    {}, {"loss": "l1", "region_weight": 4.0}, {"min_snr": 5.0}, {"loss": "l1", "min_snr": 0.5, "region_weight": 0.25}
]  # fmt: skip


@pytest.mark.parametrize("meaning", MEANINGS, ids=lambda one: "-".join(map(str, one.values())))
def test_against_the_equations(meaning: dict[str, Any]) -> None:
    pipeline = small(**meaning)
    batch = batch_of(pipeline)
    answer = torch.randn(batch["noise"].shape, generator=torch.Generator().manual_seed(1))
    for objective in OBJECTIVES:
        network = Recorded(lambda *_: (answer, None))
        losses = loss_of(pipeline, network, **objective)(batch, CPU)
        given, weighted, region = oracle(batch, answer.numpy().astype(np.float64), pipeline.config, **objective)
        np.testing.assert_allclose(network.given["latent"], given, atol=2e-6)
        np.testing.assert_allclose(losses.weighted, weighted, rtol=2e-5)
        np.testing.assert_allclose(losses.region, region, rtol=2e-5)
        assert losses.weighted.dtype == torch.float32
        assert losses.weighted.shape == losses.region.shape == (3,)


def test_what_the_networks_are_given() -> None:
    pipeline = small()
    batch = batch_of(pipeline, content=(0, 6, 64, 58), dropped=(False, True, False))
    network = Recorded(lambda latent, *_: (latent, None))
    loss_of(pipeline, network)(batch, CPU)
    hint, masks = network.given["hint"].numpy(), network.given["masks"].numpy()
    np.testing.assert_allclose(hint[:, :3].transpose(0, 2, 3, 1), batch["control_image"].numpy() / 127.5 - 1, atol=1e-6)
    expected = np.full((3, 64, 64), -1.0)
    expected[:, 6:58] = 0
    for b, boxes in enumerate(LAYOUTS):
        for k, (x0, y0, x1, y1) in enumerate(boxes):
            alone = np.zeros((64, 64), bool)
            alone[y0:y1, x0:x1] = True
            np.testing.assert_array_equal(masks[b, k], alone)
            expected[b, y0:y1, x0:x1] = 1
    np.testing.assert_array_equal(hint[:, 3], expected)
    references = batch["references"].numpy().transpose(0, 1, 4, 2, 3) / 255
    references[1] = 0
    np.testing.assert_allclose(network.given["references"], references, atol=1e-6)
    assert network.given["timestep"].tolist() == [7, 480, 999]


@pytest.mark.parametrize(
    ("kind", "correct"), [("epsilon", False), ("v_prediction", False), ("sample", False), ("sample", True)]
)
def test_a_perfect_network_has_no_loss(kind: str, correct: bool) -> None:
    """It solves the forward process for what it is asked."""
    pipeline = small(prediction_type=kind, correct_hint=correct)
    batch = batch_of(pipeline, timesteps=(300, 480, 700))

    def perfect(latent: torch.Tensor, timestep: torch.Tensor, hint: torch.Tensor, *_: Any) -> Any:
        a = torch.from_numpy(SIGNAL)[timestep][:, None, None, None]
        noise = batch["noise"].double()
        clean = (latent.double() - (1 - a).sqrt() * noise) / a.sqrt()
        found = {"epsilon": (latent.double() - a.sqrt() * clean) / (1 - a).sqrt(), "sample": clean}
        found["v_prediction"] = (a.sqrt() * latent.double() - clean) / (1 - a).sqrt()
        shown = torch.nn.functional.pixel_unshuffle(hint[:, :3].double(), 8) if correct else 0
        return (found[kind] - shown).float(), None

    losses = loss_of(pipeline, perfect, loss="l1", region_weight=3.0, min_snr=5.0)(batch, CPU)
    assert losses.weighted.max() < 2e-5
    assert losses.region.max() < 2e-6


def test_min_snr_makes_the_prediction_types_one() -> None:
    """The same guess at the picture costs the same, whatever the network calls it."""
    draw = torch.Generator().manual_seed(0)
    clean, noise, guess = (torch.randn(40, 3, 4, 4, generator=draw, dtype=torch.float64) for _ in range(3))
    a = torch.from_numpy(SIGNAL[::25])[:, None, None, None]
    noisy = a.sqrt() * clean + (1 - a).sqrt() * noise
    guesses = {
        "sample": guess,
        "epsilon": (noisy - a.sqrt() * guess) / (1 - a).sqrt(),
        "v_prediction": (a.sqrt() * noisy - guess) / (1 - a).sqrt(),
    }
    costs = [
        (value - prediction_target(kind, clean, noise, a)).square().mean((1, 2, 3))
        * min_snr_weight(kind, a, 5.0).flatten()
        for kind, value in guesses.items()
    ]
    for cost in costs[1:]:
        torch.testing.assert_close(cost, costs[0], rtol=1e-9, atol=0)


def test_a_sample_without_a_region_costs_nothing_there() -> None:
    """An empty box alone cannot come from the data, but must not become 0 / 0."""
    pipeline = small()
    batch = batch_of(pipeline, [[(0, 0, 0, 0)]], timesteps=(10,))
    losses = loss_of(pipeline)(batch, CPU)
    assert losses.region.tolist() == [0.0]
    assert torch.isfinite(losses.weighted).all()


def test_the_autoencoders_latent_is_drawn_for_the_target_only() -> None:
    """mean + std · posterior for what is to be painted, the mode for what the hint shows, both scaled."""
    pipeline = pipeline_of("tiny", prediction_type="sample", correct_hint=True)
    batch = batch_of(pipeline, timesteps=(200, 300, 400))
    five = {
        name: torch.cat([value, value.flip(0)[:2]]) for name, value in batch.items()
    }  # more than are encoded at once
    network = Recorded(lambda latent, *_: (torch.zeros_like(latent), None))
    losses: Losses = loss_of(pipeline, network)(five, CPU)
    with torch.no_grad():
        dist = pipeline.vae.encode(five["target"].permute(0, 3, 1, 2) / 127.5 - 1).latent_dist
        shown = pipeline.vae.encode(five["control_image"].permute(0, 3, 1, 2) / 127.5 - 1).latent_dist.mode() * 0.5
    clean = (dist.mean + torch.exp(0.5 * dist.logvar) * five["posterior"]) * 0.5
    a = torch.from_numpy(SIGNAL)[five["timestep"]][:, None, None, None].float()
    noisy = a.sqrt() * clean + (1 - a).sqrt() * five["noise"]
    torch.testing.assert_close(network.given["latent"], noisy, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(losses.weighted, (shown - clean).square().mean((1, 2, 3)), rtol=1e-4, atol=0)


def test_boxes_with_nothing_in_them() -> None:
    boxes = torch.tensor([[[0, 0, 0, 0], [5, 3, 5, 9], [2, 1, 4, 2]]], dtype=torch.int16)
    masks = box_masks(boxes, 8)
    assert masks.sum((2, 3)).tolist() == [[0, 0, 2]]
    assert masks[0, 2, 1, 2:4].all()


@pytest.mark.parametrize("schedule", ["published", "zero_terminal_snr"])
def test_the_last_timestep_tells_nothing_of_the_target(schedule: str) -> None:
    """With a schedule that ends without signal, what the networks are given there does not depend on the target."""
    model = small(**{**LAYERS, "noise_schedule": schedule})
    batch = batch_of(model, timesteps=(999, 999, 999))
    seen = []
    for target in (batch["target"], 255 - batch["target"]):
        network = Recorded(loss_of(model, loss="l1").network)
        loss_of(model, network, loss="l1")({**batch, "target": target}, CPU)
        seen.append(network.given)
    leaks = not torch.equal(seen[0]["latent"], seen[1]["latent"])
    assert leaks == (schedule == "published")
    if not leaks:
        assert not seen[0]["latent"].any(), "the model scales its input by the signal: it is zero"
    assert all(torch.equal(seen[0][name], seen[1][name]) for name in ("hint", "references", "timestep"))


def test_relative_loss_counts_dark_as_much_as_pale() -> None:
    """An error of a tenth of the brightness costs as much on dark ground as on pale, down to what keeps it finite."""
    model = small(**LAYERS)
    latent = model.config.latent_size
    costs = {"l1": list[float](), "relative_l1": list[float]()}
    for loss, found in costs.items():
        objective = loss_of(model, loss=loss)
        for level in (0.2, 0.4, 0.8):
            clean = torch.full((1, model.config.latent_channels, latent, latent), 2 * level - 1)
            wrong = (clean + 1) * 0.9 - 1
            masks = torch.ones(1, 1, 64, 64, dtype=torch.bool)
            found.append(float(objective._prediction_losses(wrong, clean, torch.zeros(1, 1, 1, 1), masks).weighted))
    assert costs["l1"][2] == pytest.approx(4 * costs["l1"][0], rel=1e-3)
    assert costs["relative_l1"][2] < 1.3 * costs["relative_l1"][0]


@pytest.mark.parametrize(
    ("meaning", "objective", "words"),
    [
        ({}, {"loss": "relative_l1"}, "predicts the picture's pixels"),
        (CORRECTING, {"light_weight": 0.1}, "casts shadows"),
        (SHADOWS, {"min_snr": 5.0}, "a last timestep without signal no weight"),
    ],
)
def test_terms_that_the_model_does_not_have(meaning: dict[str, Any], objective: dict[str, Any], words: str) -> None:
    with pytest.raises(PicsError, match=words):
        loss_of(small(**meaning), **objective)


def test_the_light_head_learns_from_what_is_known() -> None:
    model = small(**SHADOWS)
    batch = batch_of(model)
    plain, lit = (loss_of(model, light_weight=weight)(batch, CPU).weighted for weight in (0.0, 1.0))
    assert (lit > plain).all()
    unknown = {**batch, "light": torch.zeros_like(batch["light"])}
    torch.testing.assert_close(loss_of(model, light_weight=1.0)(unknown, CPU).weighted, plain)
