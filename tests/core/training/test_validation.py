"""Validation: losses that can be compared, a probe that tells who listens to the references, and the sheet."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers.trainees import CORRECTING, CPU, LAYOUTS, batch_of, loss_of, pipeline_of, recipe_of, small
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.model.regions import Regions
from pics_cli.core.training.networks import prepare_for_training
from pics_cli.core.training.objective import DiffusionLoss, NoiseSampler
from pics_cli.core.training.validation import (
    MIN_Z,
    SampleLosses,
    ValidationSample,
    composite_samples,
    describe,
    draw_validation_sheet,
    summarise,
    validation_losses,
    validation_sample,
)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
BOXES = ((0, 0, 32, 40), (32, 16, 64, 64))


@pytest.fixture(scope="module")
def model() -> PicsModel:
    return small(prediction_type="sample")


def sample(seed: int, hint: str = "background", objects: int = 2) -> ValidationSample:
    """Objects of one colour each, which fill their boxes; a hint of kind `overlay` shows them, pale."""
    random = np.random.default_rng(seed)
    boxes, colours = BOXES[:objects], random.integers(0, 256, (objects, 3), np.uint8)

    def arrays(shown: np.ndarray) -> dict[str, Any]:
        target = np.full((64, 64, 3), 90, np.uint8)
        picture = target.copy()
        for (x0, y0, x1, y1), colour, pale in zip(boxes, colours, shown, strict=True):
            target[y0:y1, x0:x1] = colour
            picture[y0:y1, x0:x1] = 0 if hint == "background" else pale // 2
        references = np.broadcast_to(shown[:, None, None], (objects, 28, 28, 3))
        return {
            "control_image": picture, "target": target, "boxes": np.array(boxes, np.int16),
            "content": np.array([0, 0, 64, 64], np.int16), "references": np.ascontiguousarray(references),
        }  # fmt: skip

    swapped = None if objects < 2 else arrays(np.roll(colours, 1, 0))
    return validation_sample(f"Set/{seed}", arrays(colours), swapped, hint)


def by_references(weight: float) -> Any:
    """A network that fills each box with its reference's colour, as far as it listens."""

    def paint(_latent: Tensor, _t: Tensor, hint: Tensor, regions: Regions, references: Tensor) -> tuple[Tensor, None]:
        picture, masks = hint[:, :3].clone(), regions.masks
        for b, k in np.ndindex(*masks.shape[:2]):
            colour = references[b, k].mean((1, 2)) * 2 - 1
            picture[b, :, masks[b, k]] = weight * colour[:, None] + (1 - weight) * 0.1
        return torch.nn.functional.pixel_unshuffle(picture, 8), None

    return paint


def by_hint(_latent: Tensor, _t: Tensor, hint: Tensor, *_: Any) -> tuple[Tensor, None]:
    """One that looks at the hint alone."""
    return torch.nn.functional.pixel_unshuffle(hint[:, :3], 8), None


def figures(
    loss: DiffusionLoss, samples: list[ValidationSample], draws: NoiseSampler, *, batch: int = 8, seed: int = 0
) -> list[SampleLosses]:
    losses = validation_losses(loss, samples, draws, seed, bins=3, batch_size=batch, device=CPU)
    assert losses is not None
    return losses


@pytest.fixture(scope="module")
def draws(model: PicsModel) -> NoiseSampler:
    return NoiseSampler.for_model(recipe_of(objective={"dropout": 1.0}).objective, model)


def test_who_listens(model: PicsModel, draws: NoiseSampler) -> None:
    """Also a little, by a weight that a single picture would not show."""
    samples = [sample(seed) for seed in range(12)]
    found = {weight: summarise(figures(loss_of(model, by_references(weight)), samples, draws))
             for weight in (0.0, 0.3, 1.0)}  # fmt: skip
    assert (found[0.0]["probe_rise"], found[0.0]["probe_z"]) == (0.0, 0.0)
    assert found[0.3]["probe_z"] > MIN_Z
    assert found[1.0]["probe_z"] > MIN_Z
    assert found[1.0]["probe_swapped"] > found[1.0]["probe_own"]
    assert found[1.0]["probe_own"] < 1e-4
    assert "probe_encoder_z" not in found[1.0]
    assert "(clear: z" in describe(found[1.0])
    assert "(not clear: z" in describe(found[0.0])


def test_who_listens_to_the_hint_alone(model: PicsModel, draws: NoiseSampler) -> None:
    """Where the hint shows the references, one probe swaps both, the other what the encoder sees alone."""
    samples = [sample(seed, "overlay") for seed in range(8)]
    found = summarise(figures(loss_of(model, by_hint), samples, draws))
    assert found["probe_z"] > MIN_Z
    assert (found["probe_encoder_rise"], found["probe_encoder_z"]) == (0.0, 0.0)
    both = summarise(figures(loss_of(model, by_references(0.9)), samples, draws))
    assert both["probe_encoder_z"] > MIN_Z
    assert both["probe_encoder"] == pytest.approx(both["probe_swapped"])
    assert "in the encoder alone" in describe(both)


def test_a_new_network_does_not_listen_and_a_stirred_one_is_told_apart() -> None:
    """Real networks: one whose output is zero, and one whose every layer lets the references through."""
    samples = [sample(seed) for seed in range(3)]
    for stirred in (False, True):
        pipeline = small(stirred=stirred, prediction_type="sample", correct_hint=True)
        found = summarise(figures(loss_of(pipeline), samples, NoiseSampler.for_model(recipe_of().objective, pipeline)))
        assert (found["probe_own"] != found["probe_swapped"]) == stirred


@pytest.mark.parametrize("batch", [1, 4, 100])
def test_fixed_whatever_the_batch(model: PicsModel, draws: NoiseSampler, batch: int) -> None:
    """A real network, samples of one and of two objects; conditions are kept although training drops them all."""
    samples = [sample(0), sample(1, objects=1), sample(2)]
    step = loss_of(model, region_weight=2.0)
    expected = figures(step, samples, draws)
    for one, other in zip(figures(step, samples, draws, batch=batch), expected, strict=True):
        assert one.bins == pytest.approx(other.bins, rel=1e-5)
        assert one.regions == pytest.approx(other.regions, rel=1e-5)
    assert [sorted(one.regions) for one in expected] == [["own", "swapped"], ["own"], ["own", "swapped"]]
    assert len({value for one in expected for value in one.bins}) == 9
    of_another_seed = figures(step, samples, draws, seed=1)
    assert all(one.bins != other.bins for one, other in zip(of_another_seed, expected, strict=True))
    # A share of the samples, as another process has, is looked at alike.
    (last,) = figures(step, samples[2:], draws)
    assert last.bins == pytest.approx(expected[2].bins, rel=1e-5)


def test_no_gradient_and_no_dropped_condition(model: PicsModel, draws: NoiseSampler) -> None:
    seen: list[Tensor] = []

    def network(latent: Tensor, timestep: Tensor, _hint: Tensor, _regions: Regions, references: Tensor) -> Any:
        assert not torch.is_grad_enabled()
        assert references.flatten(1).any(1).all()
        seen.append(timestep)
        return torch.zeros_like(latent), None

    figures(loss_of(model, network), [sample(0), sample(1)], draws)
    timesteps = torch.cat(seen).view(2, 3, 2)  # sample, part, way
    assert (timesteps[..., 0] == timesteps[..., 1]).all()
    for part, (low, high) in enumerate([(0, 333), (333, 666), (666, 1000)]):
        assert ((timesteps[:, part] >= low) & (timesteps[:, part] < high)).all()


def test_summary() -> None:
    random = np.random.default_rng(0)
    bins, regions = random.random((7, 4)), random.random((7, 3)) + np.array([0, 0.3, 0.1])
    names = ("own", "swapped", "encoder")
    some = [
        SampleLosses(list(b), dict(zip(names, r, strict=True))) for b, r in zip(bins.tolist(), regions, strict=True)
    ]
    found = summarise([*some, SampleLosses([1.0] * 4, {"own": 50.0})])  # a sample of one object
    whole = np.vstack([bins, np.ones(4)])
    expected = {"loss": whole.mean(), **{f"loss_{part}": whole[:, part].mean() for part in range(4)}}
    expected |= {"probe_own": regions[:, 0].mean(), "probe_swapped": regions[:, 1].mean(),
                 "probe_encoder": regions[:, 2].mean()}  # fmt: skip
    for column, name in ((1, "probe"), (2, "probe_encoder")):
        rise = regions[:, column] - regions[:, 0]
        expected[f"{name}_rise"] = rise.sum() / regions[:, 0].sum()
        expected[f"{name}_z"] = rise.mean() / math.sqrt(((rise - rise.mean()) ** 2).sum() / 6 / 7)
    assert found == pytest.approx(expected)
    assert all(type(value) is float for value in found.values())


def test_too_few_for_a_probe() -> None:
    for some in ([SampleLosses([1.0], {"own": 1.0, "swapped": 2.0})], [SampleLosses([1.0], {"own": 1.0})] * 3):
        assert summarise(some) == {"loss": 1.0, "loss_0": 1.0}
    assert describe(summarise(some)) == "validation loss 1.0000"
    zero = summarise([SampleLosses([0.0], {"own": 0.0, "swapped": 0.0})] * 2)
    assert (zero["probe_rise"], zero["probe_z"]) == (0.0, 0.0)


def samples(pipeline: PicsModel, count: int = 2) -> list[ValidationSample]:
    batch = batch_of(pipeline, LAYOUTS[:count])
    names = ("control_image", "target", "boxes", "content", "references")
    rows = ({name: batch[name][at].numpy() for name in names} for at in range(count))
    return [validation_sample(f"Set/{at}", row, None, "background") for at, row in enumerate(rows)]


def test_a_new_network_that_corrects_its_hint_paints_it() -> None:
    pipeline = small(stirred=False, **CORRECTING)
    some = samples(pipeline)
    for made, one in zip(composite_samples(pipeline, some, 0, 2), some, strict=True):
        np.testing.assert_array_equal(made, one.own["control_image"])


@pytest.mark.parametrize("kind", ["small", "tiny"])
def test_with_frozen_parts_in_bf16(kind: str) -> None:
    """As training leaves the model: in parts of two precisions, ready for the next step afterwards."""
    meaning: dict[str, Any] = {"prediction_type": "sample", "correct_hint": True}
    whole, half = pipeline_of(kind, **meaning), pipeline_of(kind, **meaning)
    trained = prepare_for_training(half, "experts", False, torch.bfloat16)
    expected = composite_samples(whole, samples(whole), 0, 2)
    with torch.autocast("cpu", torch.bfloat16):
        made = composite_samples(half, samples(half), 0, 2)
    for one, other in zip(made, expected, strict=True):
        assert one.dtype == np.uint8
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.95
    half.clear_cache()
    assert all(value.requires_grad and value.dtype == torch.float32 for value in trained.values())


def test_results_are_a_function_of_seed_and_key() -> None:
    pipeline = pipeline_of("small", prediction_type="sample")
    some = samples(pipeline)
    first, again, other = (composite_samples(pipeline, some, seed, 1) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert any((one != two).any() for one, two in zip(first, other, strict=True))
    np.testing.assert_array_equal(composite_samples(pipeline, some[1:], 0, 1)[0], first[1])


def test_drawn() -> None:
    """A row for each sample, wider than its four pictures; the arrays are left as they are."""
    pipeline = pipeline_of("small")
    some = samples(pipeline, 3)
    before = [one.own["control_image"].copy() for one in some]
    one, three = (
        draw_validation_sheet("mine, step 3", some[:n], [held.own["target"] for held in some[:n]]) for n in (1, 3)
    )
    assert one.dtype == np.uint8
    assert three.shape[1] >= one.shape[1] > 64 * 3
    assert three.shape[0] > 2.5 * one.shape[0] - 100
    assert all((held.own["control_image"] == kept).all() for held, kept in zip(some, before, strict=True))
