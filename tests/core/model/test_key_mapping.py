"""Names and shapes of research checkpoints, for networks of any shape, without allocating them."""

from __future__ import annotations

from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from helpers import research
from pics_cli.core.model.controlnet import BackgroundControlNet
from pics_cli.core.model.dinov2 import Dinov2Encoder
from pics_cli.core.model.key_mapping import map_dinov2_keys, map_unet_keys, map_vae_keys, resample_positions
from pics_cli.core.model.load_weights import (
    CheckpointPart,
    build_on_meta,
    dinov2_options,
    mapping_errors,
    network_options,
    vae_options,
)
from pics_cli.core.model.unet import InteractionUNet
from pics_cli.core.model.weight_files import Checkpoint


def shapes_of(maker: research.Maker) -> CheckpointPart:
    return CheckpointPart(
        Checkpoint(Path("any.ckpt"), {k: tuple(v.shape) for k, v in maker.state.items()}, maker.state.__getitem__)
    )


@pytest.mark.parametrize(
    ("widths", "blocks", "attention"),
    [
        ((32,), 1, (True,)),
        ((32, 64, 64), 2, (False, True, True)),
        ((64, 32, 96, 32), 1, (True, False, True, False)),
        ((32, 64), 3, (False, False)),
    ],
)
def test_any_shape(widths: tuple[int, ...], blocks: int, attention: tuple[bool, ...]) -> None:
    for control in (False, True):
        maker = research.Maker(device="meta")
        research.network(maker, "", widths, blocks, attention, control=control)
        part = shapes_of(maker)
        options = network_options(part, research.HEAD_WIDTH)
        assert options["block_out_channels"] == widths
        assert options["layers_per_block"] == blocks
        assert options["attention_levels"] == attention
        kind = BackgroundControlNet if control else InteractionUNet
        module = build_on_meta(lambda kind=kind, options=options: kind(**options), "")  # type: ignore[misc]
        assert mapping_errors("network", module, map_unet_keys(part), part) == []


def test_published_shape() -> None:
    """Parameters of the whole published network, without allocating them; counts as noted of the research code."""
    counts = {}
    for name, control in (("unet", False), ("controlnet", True)):
        maker = research.Maker(device="meta", context=1024)
        research.network(maker, "", (320, 640, 1280, 1280), 2, (True, True, True, False), control=control)
        part = shapes_of(maker)
        options = network_options(part, 64)
        module = build_on_meta(lambda: BackgroundControlNet(**options) if control else InteractionUNet(**options), "")  # noqa: B023
        assert mapping_errors(name, module, map_unet_keys(part), part) == []
        counts[name] = sum(value.numel() for value in module.parameters())
        counts[f"{name} as published"] = sum(value.numel() for value in maker.state.values())
    millions = {name: round(count / 1e6, 1) for name, count in counts.items()}
    assert millions == {
        "unet": 961.9,
        "unet as published": 1010.3,
        "controlnet": 408.6,
        "controlnet as published": 431.8,
    }
    assert round(2e-9 * (counts["unet"] + counts["controlnet"]), 2) == 2.74  # GB in bf16

    maker = research.Maker(device="meta")
    research.autoencoder(maker, "", (128, 256, 512, 512), 2)
    part = shapes_of(maker)
    vae = build_on_meta(lambda: diffusers.AutoencoderKL(**vae_options(part)), "")
    assert mapping_errors("vae", vae, map_vae_keys(part), part) == []
    assert round(sum(value.numel() for value in vae.parameters()) / 1e6, 1) == 83.7

    maker = research.Maker(device="meta")
    research.dinov2(maker, "", 1536, 40)
    part = shapes_of(maker)
    options = dinov2_options(part, 64, 224)
    assert options["num_attention_heads"] == 24
    encoder = build_on_meta(lambda: Dinov2Encoder(**options), "")
    plan = map_dinov2_keys(part, 16)
    assert mapping_errors("image_encoder", encoder, plan, part) == []
    dinov2 = sum(value.numel() for value in maker.state.values())
    assert round(dinov2 / 1e6, 1) == 1136.5
    whole = dinov2 + sum(value.numel() for value in vae.parameters()) + 1536 * 1024 + 1024
    whole += counts["unet as published"] + counts["controlnet as published"]
    assert round(whole / 1e6, 1) == 2663.8  # 10.655 GB of the 18.45 GB that the published file has


@pytest.mark.parametrize("gated", [True, False])
def test_dinov2_tensors_are_named_as_in_the_files_of_transformers(gated: bool) -> None:
    maker = research.Maker(device="meta")
    research.dinov2(maker, "", 48, 1, gated=gated)
    plan = map_dinov2_keys(shapes_of(maker), 16)
    assert plan.unknown == []
    key = plan.sources["encoder.layer.0.attention.attention.key.weight"]
    assert (key.key, key.part, key.parts) == ("blocks.0.attn.qkv.weight", 1, 3)
    assert plan.sources["encoder.layer.0.attention.output.dense.bias"].key == "blocks.0.attn.proj.bias"
    if gated:
        assert plan.sources["encoder.layer.0.mlp.weights_in.weight"].parts == 1
        assert "encoder.layer.0.mlp.weights_out.weight" in plan.sources
    else:
        assert "encoder.layer.0.mlp.fc1.weight" in plan.sources


def test_research_names_are_the_golden_ones(shared_data: Path) -> None:
    """The helper that the tests above stand on writes the names and shapes of a real research network."""
    golden = load_file(shared_data.parent / "golden" / "net.safetensors")
    maker = research.Maker(device="meta")
    for prefix, control in (("model.diffusion_model.", False), ("control_model.", True)):
        research.network(maker, prefix, (32, 64), 1, (True, True), control=control)
    theirs = {key: value.shape for key, value in golden.items() if key.startswith("weights.")}
    assert {f"weights.{key}": value.shape for key, value in maker.state.items()} == theirs


def cubic(distance: np.ndarray) -> np.ndarray:
    """Keys' kernel with a = -3/4, which torch's bicubic resampling uses."""
    x, a = np.abs(distance), -0.75
    inner = (a + 2) * x**3 - (a + 3) * x**2 + 1
    outer = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, inner, np.where(x < 2, outer, 0))


@pytest.mark.parametrize(("side", "grid"), [(37, 16), (37, 4), (10, 16)])
def test_positions_are_resampled_by_scale_factor(side: int, grid: int) -> None:
    table = torch.randn(1, 1 + side**2, 5, generator=torch.Generator().manual_seed(0))
    places = (np.arange(grid) + 0.5) * side / (grid + 0.1) - 0.5
    resample = np.zeros((grid, side))
    for row, place in enumerate(places):
        for neighbour in range(int(np.floor(place)) - 1, int(np.floor(place)) + 3):
            resample[row, np.clip(neighbour, 0, side - 1)] += cubic(np.array(place - neighbour))
    patches = table[0, 1:].double().numpy().reshape(side, side, 5)
    expected = np.einsum("is,jt,stc->ijc", resample, resample, patches).reshape(grid**2, 5)
    ours = resample_positions(table, grid)
    assert torch.equal(ours[:, 0], table[:, 0])
    np.testing.assert_allclose(ours[0, 1:].numpy(), expected, atol=2e-5)


def test_positions_of_the_right_size_stay() -> None:
    table = torch.randn(1, 257, 5)
    assert resample_positions(table, 16) is table
