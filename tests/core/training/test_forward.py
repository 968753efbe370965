"""The training pass as a whole: per-sample regions, objects in any order, dropped conditions, the same as inference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pics_cli.core.conditioning.network_inputs import prepare_network_inputs
from pics_cli.core.images.geometry import Box, Letterbox
from pics_cli.core.model import pics_model as pipeline_module
from pics_cli.core.model.image_encoder import encode_null_reference, encode_references
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.training.networks import TrainingNetworks
from pics_cli.core.training.objective import box_masks
from pics_cli.core.training.validation import network_inputs
from trainees import CORRECTING, CPU, LAYOUTS, Recorded, batch_of, loss_of, pipeline_of, rows, small

THREE: tuple[Box, ...] = ((4, 4, 40, 44), (20, 16, 60, 60), (12, 28, 36, 62))
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def model() -> PicsModel:
    return small()


def near(one: Tensor, other: Tensor) -> None:
    """The same but for rounding."""
    assert one.shape == other.shape
    assert float((one - other).norm() / other.norm()) < 2e-6


def answers(pipeline: PicsModel, batch: dict[str, Any], **objective: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Predictions and both losses."""
    network = Recorded(TrainingNetworks(pipeline))
    with torch.no_grad():
        losses = loss_of(pipeline, network, **objective)(batch, CPU)
    return network.answer, losses.weighted, losses.region


def test_a_batch_is_its_samples_alone(model: PicsModel) -> None:
    """Overlapping, apart, nested, none dropped or one; the published code gives all the first sample's masks."""
    batch = batch_of(model, dropped=(False, False, True))
    together = answers(model, batch, region_weight=3.0, min_snr=5.0)
    for at in range(3):
        alone = answers(model, rows(batch, at), region_weight=3.0, min_snr=5.0)
        for one, several in zip(alone, together, strict=True):
            near(one[0], several[at])
    assert (together[0][0] - together[0][1]).abs().max() > 0.1


def test_a_sample_with_fewer_objects_is_not_changed_by_its_neighbours(model: PicsModel) -> None:
    """Next to a sample of three it gets an empty box and a black reference, which must reach nothing."""
    batch = batch_of(model, [LAYOUTS[0], THREE])
    batch["references"][0, 2] = 0
    two = rows(batch, 0)
    two["boxes"], two["references"] = two["boxes"][:, :2], two["references"][:, :2]
    for one, several in zip(answers(model, two), answers(model, batch), strict=True):
        near(one[0], several[0])


def test_objects_in_any_order(model: PicsModel) -> None:
    batch = batch_of(model, [THREE, (*LAYOUTS[0], (0, 0, 8, 8))])
    expected = answers(model, batch)
    for order in ([2, 0, 1], [1, 0, 2]):
        permuted = {**batch, "boxes": batch["boxes"][:, order], "references": batch["references"][:, order]}
        for one, other in zip(answers(model, permuted), expected, strict=True):
            near(one, other)
    swapped = {**batch, "references": batch["references"][:, [1, 0, 2]]}
    assert (answers(model, swapped)[0] - expected[0]).abs().max() > 1e-3


def test_a_dropped_condition_is_that_of_black_references(model: PicsModel) -> None:
    batch = batch_of(model)
    dropped = answers(model, {**batch, "dropped": torch.tensor([True] * 3)})
    black = answers(model, {**batch, "references": torch.zeros_like(batch["references"])})
    assert all(torch.equal(one, other) for one, other in zip(dropped, black, strict=True))
    assert (dropped[0] - answers(model, batch)[0]).abs().max() > 1e-3
    null = encode_null_reference(model.image_encoder, model.projector, model.config.reference_size, CPU)
    contexts = encode_references(model.image_encoder, model.projector, torch.zeros(6, 3, 28, 28))
    near(contexts, null.expand_as(contexts))


class Stopped(Exception):
    """The pipeline has got as far as its networks."""


@pytest.mark.parametrize("kind", ["small", "tiny"])
@pytest.mark.parametrize("meaning", [{}, CORRECTING], ids=["epsilon", "correction"])
def test_predicts_what_inference_does(kind: str, meaning: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The pipeline's own preparation, for the latent and timestep of each sample: both branches."""
    meaning = meaning if kind == "small" else {k: v for k, v in meaning.items() if not k.endswith("_size")}
    pipeline = pipeline_of(kind, **meaning)
    size = pipeline.config.image_size
    batch = batch_of(pipeline, content=(0, size // 8, size, size - size // 8))
    network = Recorded(TrainingNetworks(pipeline))
    with torch.no_grad():
        loss_of(pipeline, network)(batch, CPU)
    trained, noisy = network.answer, network.given["latent"]
    unconditional = answers(pipeline, {**batch, "dropped": torch.tensor([True] * 3)})[0]
    found: dict[str, Any] = {}

    def denoise(predict: Any, _scheduler: Any, _noise: Tensor, _dtype: torch.dtype, **options: Any) -> Tensor:
        found.update(options)
        # One timestep for a whole batch there.
        each = [predict(noisy, timestep[None])[at] for at, timestep in enumerate(batch["timestep"])]
        found["answer"] = torch.stack(each)
        raise Stopped

    monkeypatch.setattr(pipeline_module, "denoise", denoise)
    arrays = [
        {name: batch[name][at].numpy() for name in ("control_image", "boxes", "content", "references")}
        for at in range(3)
    ]
    composites = [network_inputs(one, size) for one in arrays]
    noise = torch.zeros(3, 1, *noisy.shape[1:])
    for guidance, expected in ((1.0, trained), (3.0, unconditional + 3 * (trained - unconditional))):
        with pytest.raises(Stopped):
            pipeline(composites, noise, guidance=guidance)
        assert float((found["answer"] - expected).norm() / expected.norm()) < 1e-5
    assert (found["to_clean_latent"] is not None) == pipeline.config.correct_hint
    if pipeline.config.correct_hint:
        # Where the hint is the target, without a draw, what the correction adds is all that is wanted.
        same = {**batch, "target": batch["control_image"], "posterior": torch.zeros_like(batch["posterior"])}
        nothing = Recorded(lambda latent, *_: torch.zeros_like(latent))
        assert loss_of(pipeline, nothing)(same, CPU).weighted.max() < 1e-10
        near(nothing.given["latent"], step_input(found["to_clean_latent"].blended, batch, pipeline))


def step_input(clean: Tensor, batch: dict[str, Any], pipeline: PicsModel) -> Tensor:
    """What a network whose input is scaled by √ᾱ gets of a clean latent."""
    a = pipeline.scheduler.alphas_cumprod[batch["timestep"]][:, None, None, None]
    return a * clean + (a * (1 - a)).sqrt() * batch["noise"]


@pytest.mark.parametrize(("width", "height"), [(100, 37), (41, 90), (64, 64), (301, 200), (30, 31)])
def test_masks_are_those_of_compose(width: int, height: int) -> None:
    """Letterboxed pictures, enlarged and shrunk; boxes at the borders, and thinner than a pixel of the square."""
    random, letterbox = np.random.default_rng(width), Letterbox(width, height, 64)
    picture = random.integers(0, 256, (height, width, 3), np.uint8)
    boxes: list[Box] = [(0, 0, width, height // 2), (width // 3, height // 4, width, height), (3, 3, 4, 4)]
    for _ in range(4):
        (x0, x1), (y0, y1) = (np.sort(random.choice(side + 1, 2, replace=False)) for side in (width, height))
        boxes.append((int(x0), int(y0), int(x1), int(y1)))
    references = [picture[:20, :20]] * len(boxes)
    made = prepare_network_inputs(picture, boxes, references, size=64, reference_size=28)
    seen = torch.tensor([letterbox.forward_box(box) for box in boxes], dtype=torch.int16)
    np.testing.assert_array_equal(box_masks(seen[None], 64)[0].numpy(), made.masks)
    content = np.array(letterbox.forward_box((0, 0, width, height)), np.int16)
    arrays = {
        "control_image": made.control_image,
        "boxes": seen.numpy(),
        "content": content,
        "references": made.references,
    }
    composite = network_inputs(arrays, 64)
    np.testing.assert_array_equal(composite.masks, made.masks)
    np.testing.assert_array_equal(composite.control_mask, made.control_mask)


def test_the_hint_of_training_is_the_pipelines(model: PicsModel) -> None:
    """From `prepare_network_inputs` to the tensor, for a letterboxed picture."""
    random = np.random.default_rng(0)
    picture = random.integers(0, 256, (40, 90, 3), np.uint8)
    boxes: list[Box] = [(5, 5, 50, 30), (30, 10, 80, 40)]
    made = prepare_network_inputs(picture, boxes, [picture[:20, :20], picture[10:40, 50:]], size=64, reference_size=28)
    letterbox = Letterbox(90, 40, 64)
    batch = batch_of(model, [[letterbox.forward_box(box) for box in boxes]], timesteps=(400,),
                     content=letterbox.forward_box((0, 0, 90, 40)))  # fmt: skip
    batch["control_image"], batch["references"] = (
        torch.from_numpy(one)[None] for one in (made.control_image, made.references)
    )
    network = Recorded(TrainingNetworks(model))
    with torch.no_grad():
        loss_of(model, network)(batch, CPU)
    rgb = made.control_image.astype(np.float32).transpose(2, 0, 1) / 127.5 - 1
    np.testing.assert_allclose(network.given["hint"][0, :3], rgb, atol=1e-6)
    np.testing.assert_array_equal(network.given["hint"][0, 3], made.control_mask)
    np.testing.assert_array_equal(network.given["masks"][0], made.masks)
