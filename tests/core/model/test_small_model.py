"""Small networks from random weights: how they start, that they are saved and loaded, and shapes that cannot be."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pics_cli.core.conditioning.network_inputs import NetworkInputs, prepare_network_inputs
from pics_cli.core.model.config import ModelConfig
from pics_cli.core.model.interaction import InteractionBlock
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.model.pixel_autoencoder import PixelAutoencoder
from pics_cli.core.model.small_model import new_small_model, small_config
from pics_cli.core.recipes.training_sections import ModelShape
from pics_cli.errors import PicsError

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SHAPE = ModelShape(
    block_out_channels=(16, 32), head_width=8, norm_groups=8, context_width=24, hint_widths=(8, 8, 16),
    encoder_width=32, encoder_layers=1, encoder_heads=2, patch=4,
)  # fmt: skip
OVERRIDES = {"image_size": 32, "reference_size": 28, "guidance": 2.0, "steps": 3}
CORRECTING: dict[str, Any] = {
    **OVERRIDES, "hint": "overlay", "prediction_type": "sample", "correct_hint": True, "input_scaling": "signal",
}  # fmt: skip


@pytest.fixture(scope="module")
def correcting() -> PicsModel:
    return new_small_model(SHAPE, CORRECTING)


def sample(config: ModelConfig) -> NetworkInputs:
    random = np.random.default_rng(0)
    background = random.integers(0, 256, (30, 32, 3), np.uint8)
    references = [random.integers(0, 256, (20, 16, 3), np.uint8) for _ in range(2)]
    boxes = [(4, 4, 20, 20), (12, 10, 30, 28)]
    return prepare_network_inputs(
        background, boxes, references, size=config.image_size, reference_size=config.reference_size, hint=config.hint
    )


def picture(pipeline: PicsModel, inputs: NetworkInputs) -> np.ndarray:
    return pipeline([inputs], pipeline.noise(0, "a")[None, None])[0, 0]


def test_shape_is_that_of_the_recipe() -> None:
    default = small_config(ModelShape(), {})
    assert (default.image_size, default.latent_channels, default.downsampling) == (512, 192, 8)
    assert (default.object_tokens, default.context_width, default.latent_scale) == (257, 128, 1.0)
    assert small_config(ModelShape(), {"latent_scale": 2.0}).latent_scale == 2.0


def test_untrained_it_paints_its_hint(correcting: PicsModel) -> None:
    inputs = sample(correcting.config)
    np.testing.assert_array_equal(picture(correcting, inputs), inputs.control_image)


def test_saved_and_loaded(correcting: PicsModel, tmp_path: Path) -> None:
    """With an output convolution that is not zero, so that the weights show."""
    pipeline = new_small_model(SHAPE, CORRECTING, seed=1)
    torch.nn.init.normal_(pipeline.unet.conv_out.weight, std=0.1)
    inputs = sample(pipeline.config)
    expected = picture(pipeline, inputs)
    assert np.abs(expected.astype(int) - inputs.control_image).max() > 20
    pipeline.save_pretrained(tmp_path / "model")
    assert json.loads((tmp_path / "model" / "model_index.json").read_text())["vae"] == ["pics_cli", "PixelAutoencoder"]
    for memory in ("resident", "sequential", "offload"):
        loaded = PicsModel.from_pretrained(tmp_path / "model", memory=memory)
        assert loaded.config == pipeline.config
        assert isinstance(loaded.vae, PixelAutoencoder)
        np.testing.assert_array_equal(picture(loaded, inputs), expected)


def test_a_patch_that_does_not_fit_is_told(correcting: PicsModel, tmp_path: Path) -> None:
    correcting.save_pretrained(tmp_path / "model")
    PixelAutoencoder(2).save_pretrained(tmp_path / "model" / "vae")
    with pytest.raises(PicsError) as error:
        PicsModel.from_pretrained(tmp_path / "model")
    assert "latent_channels is 48 in pics.json, 12 in vae" in error.value.message
    assert "downsampling is 4 in pics.json, 2 in vae" in error.value.message


def test_what_starts_at_zero_effect(correcting: PicsModel) -> None:
    unet, control = correcting.unet.state_dict(), correcting.controlnet.state_dict()
    copied = [key for key in control if not key.startswith("controlnet_")]
    assert copied
    assert all(torch.equal(control[key], unet[key]) for key in copied)
    zero = {key for key in unet if "weight" in key and not unet[key].any()}
    blocks = [name for name, module in correcting.unet.named_modules() if isinstance(module, InteractionBlock)]
    assert zero == {"conv_out.weight", *(f"{name}.attn_bg.to_out.0.weight" for name in blocks)}
    new = [key for key in control if key not in copied and "weight" in key]
    assert all(control[key].any() for key in new)  # the hint is seen from the first step on
    references = torch.randint(0, 256, (1, 4, 28, 28, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    contexts, _ = correcting._encode(references.numpy(), guided=False)
    assert 0.8 < contexts.std() < 1.25


def test_seed_draws_the_weights(correcting: PicsModel) -> None:
    before = torch.get_rng_state()
    again, other = (new_small_model(SHAPE, CORRECTING, seed) for seed in (0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    for name in correcting.parts:
        ours, same, changed = (one.parts[name].state_dict() for one in (correcting, again, other))
        assert all(torch.equal(ours[key], same[key]) for key in ours), name
        assert not ours or any(not torch.equal(ours[key], changed[key]) for key in ours), name


def test_what_follows_from_the_shape_is_put_right() -> None:
    found = new_small_model(SHAPE, {"image_size": 32, "reference_size": 28, "latent_scale": 0.5}).config
    assert (found.latent_channels, found.downsampling, found.object_tokens, found.context_width) == (48, 4, 5, 24)
    assert found.latent_scale == 0.5


def test_odd_shapes_that_can_be() -> None:
    """One level; pixels themselves; a level without attention whose width no head divides."""
    for change in (
        {"block_out_channels": (16,), "attention_levels": (True,)},
        {"patch": 1, "hint_widths": (8,)},
        {"block_out_channels": (8, 32), "attention_levels": (False, True), "head_width": 16},
        {"attention_levels": (True, False), "layers_per_block": 2},
    ):
        shape = replace(SHAPE, **change)
        pipeline = new_small_model(shape, OVERRIDES)
        assert picture(pipeline, sample(pipeline.config)).shape == (32, 32, 3)


FAULTS: list[tuple[dict[str, Any], list[str]]] = [
    ({"attention_levels": (True,)}, ["model.shape.attention_levels: got 1 values, expected 2"]),
    ({"head_width": 12}, ["model.shape.head_width: got 12, expected a divisor of every width", "(16 is not"]),
    ({"norm_groups": 5, "encoder_heads": 3}, ["model.shape.norm_groups: got 5", "model.shape.encoder_heads: got 3"]),
    ({"encoder_patch": 13}, ["model.shape.encoder_patch: got 13, expected a divisor of model.reference_size (28"]),
    ({"patch": 6}, ["model.shape.patch: got 6, expected a power of 2"]),
    ({"patch": 8}, ["model.shape.hint_widths: got 3 values, expected 4"]),
    ({"patch": 32, "hint_widths": (8,) * 6}, ["model.shape.patch: model.image_size 32 is not a multiple of 64"]),
]


@pytest.mark.parametrize(("change", "expected"), FAULTS)
def test_faults_name_the_recipes_key(change: dict[str, Any], expected: list[str]) -> None:
    shape = replace(SHAPE, **change)
    for build in (small_config, new_small_model):
        with pytest.raises(PicsError) as error:
            build(shape, OVERRIDES)
        assert all(text in error.value.message for text in expected), error.value.message
        assert error.value.hint


def test_values_that_contradict_each_other() -> None:
    with pytest.raises(PicsError, match="model: expected prediction_type sample where correct_hint is true"):
        small_config(SHAPE, {**CORRECTING, "prediction_type": "epsilon"})
