"""The networks in training: which parameters are trained, and a forward pass that is the same as at inference."""

from __future__ import annotations

from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from huggingface_hub import constants
from torch import Tensor

from helpers.diffusers_networks import diffusers_options
from helpers.trainees import CORRECTING, CPU, LAYOUTS, Recorded, batch_of, loss_of, pipeline_of, rows, small
from pics_cli.core.conditioning.network_inputs import prepare_network_inputs
from pics_cli.core.images.geometry import Box, Letterbox
from pics_cli.core.model import pics_model as pipeline_module
from pics_cli.core.model.base_models import DEFAULT_BASE, DEFAULT_DINOV2
from pics_cli.core.model.image_encoder import encode_null_reference, encode_references
from pics_cli.core.model.new_model import blank_model
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.recipes.training_sections import ObjectiveSettings, TrainedParts
from pics_cli.core.training.networks import TrainingNetworks, is_new, is_trained, named_parameters, prepare_for_training
from pics_cli.core.training.objective import DiffusionLoss, box_masks
from pics_cli.core.training.validation import network_inputs

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
KINDS: tuple[TrainedParts, ...] = ("published", "experts", "full")
THREE: tuple[Box, ...] = ((4, 4, 40, 44), (20, 16, 60, 60), (12, 28, 36, 62))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> PicsModel:
    """At the published size, without memory; nothing on this machine may change that."""
    empty = tmp_path_factory.mktemp("empty")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_CACHE", str(empty / "hub"))
        patch.chdir(empty)
        return blank_model(DEFAULT_BASE, DEFAULT_DINOV2, {})[0]


def counts(pipeline: PicsModel, kind: TrainedParts, encoder: bool = False) -> dict[str, float]:
    """Millions of trained parameters by part."""
    found = dict.fromkeys(pipeline.parts, 0)
    for name, parameter in named_parameters(pipeline):
        found[name.partition(".")[0]] += parameter.numel() * is_trained(name, kind, encoder)
    return {part: count / 1e6 for part, count in found.items()}


def test_counts_at_the_published_size(published: PicsModel) -> None:
    """Where gradients arrived in the research code: 408.6 and 565.9 million, 974.5 together (reference, point 16)."""
    found = counts(published, "published")
    assert found["controlnet"] == pytest.approx(408.6, abs=0.05)
    assert found["unet"] == pytest.approx(565.9, abs=0.05)
    assert sum(found.values()) == pytest.approx(974.5, abs=0.1)
    assert found["projector"] == found["image_encoder"] == found["vae"] == 0


def test_experts_adds_every_new_layer_and_the_projector(published: PicsModel) -> None:
    """67.6 million new ones in the UNet's encoder and middle there, of which 23.2 million are an unused layer."""
    before, found = counts(published, "published"), counts(published, "experts")
    assert found["unet"] - before["unet"] == pytest.approx(67.6 - 23.2, abs=0.1)
    assert found["projector"] == pytest.approx((1536 + 1) * 1024 / 1e6, abs=1e-6)
    assert (found["controlnet"], found["image_encoder"]) == (before["controlnet"], 0)


def test_full_is_everything_but_autoencoder_and_encoder(published: PicsModel) -> None:
    whole = {name: sum(p.numel() for p in part.parameters()) / 1e6 for name, part in published.parts.items()}
    assert counts(published, "full") == {**whole, "vae": 0, "image_encoder": 0}
    token = 1536 / 1e6
    with_encoder = counts(published, "published", encoder=True)
    assert with_encoder["image_encoder"] == pytest.approx(whole["image_encoder"] - token, abs=1e-9)
    assert counts(published, "experts", encoder=True)["unet"] == counts(published, "experts")["unet"]


def test_what_only_a_checkpoint_holds(published: PicsModel) -> None:
    """Layers of the UNet that Stable Diffusion's has not, and all of ControlNet and projector; else everything."""
    with torch.device("meta"):
        stock = diffusers.UNet2DConditionModel(
            **diffusers_options((320, 640, 1280, 1280), 2, (True, True, True, False), 64, 1024, 32)
        )
    base = {f"unet.{name}" for name, _ in stock.named_parameters()}
    old = {name for name, _ in named_parameters(published) if not is_new(name, False)}
    assert {name for name in old if name.startswith("unet.")} == base
    encoder = {name for name, _ in published.image_encoder.named_parameters(prefix="image_encoder")}
    assert old == base | encoder
    assert all(is_new(name, True) for name, _ in named_parameters(published))


def gradients(pipeline: PicsModel, kind: TrainedParts, encoder: bool = False) -> dict[str, torch.Tensor]:
    """Of a batch with overlaps and single regions, by name; every layer set to random values before."""
    trained = prepare_for_training(pipeline, kind, encoder, torch.float32)
    loss_of(pipeline)(batch_of(pipeline), CPU).weighted.mean().backward()
    found = {name: parameter.grad for name, parameter in named_parameters(pipeline) if parameter.grad is not None}
    assert found.keys() == trained.keys()
    assert all(parameter.grad is None for parameter in pipeline.vae.parameters())
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("encoder", [False, True])
def test_every_trained_parameter_gets_a_gradient_and_no_other(kind: TrainedParts, encoder: bool) -> None:
    found = gradients(pipeline_of("small"), kind, encoder)
    # A bias of all keys alike changes no attention.
    empty = {name for name, gradient in found.items() if not gradient.any() and not name.endswith(".key.bias")}
    assert not empty
    assert any(name.startswith("image_encoder.") for name in found) == encoder
    assert ("projector.weight" in found) == (kind != "published")
    assert any("unet.down_blocks" in name and "attn_bg" in name for name in found) == (kind != "published")
    assert ("unet.conv_in.weight" in found) == (kind == "full")


def test_a_real_autoencoder_stays_as_it_is() -> None:
    found = gradients(pipeline_of("tiny"), "full")
    assert not any(name.startswith(("vae", "image_encoder")) for name in found)


def test_a_new_network_begins_to_learn() -> None:
    """Nothing is stirred: what is zero at the start gets a gradient, or lets one through after a step."""
    pipeline = pipeline_of("small", stirred=False, prediction_type="sample", correct_hint=True)
    trained = prepare_for_training(pipeline, "full", False, torch.float32)
    optimizer = torch.optim.SGD(trained.values(), lr=0.5)
    batch, moved = batch_of(pipeline), set()
    for _ in range(4):
        loss_of(pipeline)(batch, CPU).weighted.mean().backward()
        moved |= {name for name, parameter in trained.items() if parameter.grad is not None and parameter.grad.any()}
        optimizer.step()
        optimizer.zero_grad()
    assert trained.keys() - moved == set()


@pytest.mark.parametrize("kind", ["small", "tiny"])
@pytest.mark.parametrize("encoder", [False, True])
def test_frozen_parts_in_bf16_under_autocast(kind: str, encoder: bool) -> None:
    """TrainedParts weights and their gradients stay in float32; the loss is that of float32, but for rounding."""
    options: dict[str, Any] = {"timesteps": (100, 400, 800)}
    whole, half = pipeline_of(kind), pipeline_of(kind)
    expected = loss_of(whole)(batch_of(whole, **options), CPU).weighted
    trained = prepare_for_training(half, "experts", encoder, torch.bfloat16)
    for name, parameter in named_parameters(half):
        assert parameter.dtype == (torch.float32 if name in trained else torch.bfloat16), name
        assert parameter.requires_grad == (name in trained), name
    assert all(parameter.dtype == torch.bfloat16 for parameter in half.vae.parameters())
    loss = DiffusionLoss(half, TrainingNetworks(half), ObjectiveSettings(), torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        losses = loss(batch_of(half, **options), CPU)
    losses.weighted.mean().backward()
    assert losses.weighted.dtype == torch.float32
    torch.testing.assert_close(losses.weighted, expected, rtol=0.03, atol=0)
    for name, parameter in trained.items():
        assert parameter.grad is not None, name
        assert parameter.grad.dtype == torch.float32, name
        assert torch.isfinite(parameter.grad).all(), name


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
        nothing = Recorded(lambda latent, *_: (torch.zeros_like(latent), None))
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
