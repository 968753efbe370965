"""Which parameters are trained: counts at the published size, gradients for exactly these, precisions."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch
from huggingface_hub import constants

from pics_cli.core.model.base_models import DEFAULT_BASE, DEFAULT_DINOV2
from pics_cli.core.model.layers import diffusers_options
from pics_cli.core.model.new_model import blank_model
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.recipes.training_sections import ObjectiveSettings, TrainedParts
from pics_cli.core.training.networks import TrainingNetworks, is_new, is_trained, named_parameters, prepare_for_training
from pics_cli.core.training.objective import DiffusionLoss
from trainees import CPU, batch_of, loss_of, pipeline_of

KINDS: tuple[TrainedParts, ...] = ("published", "experts", "full")


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
    empty = {name for name, gradient in found.items() if not gradient.any() and not name.endswith("k_proj.bias")}
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
