"""A hint of three pictures and the loss of gradients: in the picture's pixels, by NumPy, and as inference has them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F

from helpers.trainees import CPU, LAYERS, Recorded, batch_of, loss_of, pipeline_of, recipe_of, rows, small
from pics_cli.core.model.blending import GAIN_SCALE, LOGIT_SCALE, RESIDUAL_SCALE
from pics_cli.core.training.initial_model import load_initial_model
from pics_cli.core.training.networks import TrainingNetworks
from pics_cli.core.training.validation import network_inputs
from pics_cli.errors import PicsError

Array = npt.NDArray[np.float64]


def painted(batch: dict[str, Any], answer: torch.Tensor) -> Array:
    """What the network's answer makes of the hint, float64 [B, 3, S, S] in [-1, 1]."""
    residual = RESIDUAL_SCALE * F.pixel_shuffle(answer[:, :192].double(), 8).numpy()
    cells = F.pixel_shuffle(answer[:, 192:].double(), 2)  # 3 logits and 3 colours, of 2 · 2 cells
    fine = F.interpolate(cells, scale_factor=4, mode="bilinear").numpy()
    logits, gain = LOGIT_SCALE * fine[:, :3], GAIN_SCALE * fine[:, 3:]
    shown = batch["control_image"].numpy().astype(np.float64).transpose(0, 3, 1, 2) / 127.5
    weights = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    mixed = sum(weights[:, i : i + 1] * shown[:, 3 * i : 3 * i + 3] for i in range(3))
    return mixed * np.exp(gain) - 1 + residual


def weights_of(batch: dict[str, Any], weight: float, shared: float) -> Array:
    """Of each latent position by how many regions cover its first pixel, spread over its pixels: [B, S, S]."""
    found = np.ones((len(batch["boxes"]), 64, 64))
    for row, boxes in zip(found, batch["boxes"].tolist(), strict=True):
        count = np.zeros((64, 64), np.int64)
        for x0, y0, x1, y1 in boxes:
            count[y0:y1, x0:x1] += 1
        row[count > 0] = weight
        row[count > 1] = weight * shared
    return found


@pytest.mark.parametrize(("gradient", "shared"), [(0.0, 1.0), (0.5, 1.0), (0.5, 3.0)])
def test_against_the_pixels(gradient: float, shared: float) -> None:
    pipeline = small(**LAYERS)
    batch = batch_of(pipeline)
    network = Recorded(TrainingNetworks(pipeline))
    with torch.no_grad():
        losses = loss_of(pipeline, network, loss="l1", region_weight=4.0, overlap_weight=shared, gradient=gradient)(
            batch, CPU
        )
    assert network.given["hint"].shape == (3, 10, 64, 64)
    assert network.answer.shape == (3, 216, 8, 8)
    wanted = batch["target"].numpy().astype(np.float64).transpose(0, 3, 1, 2) / 127.5 - 1
    error = painted(batch, network.answer) - wanted
    coarse = weights_of(batch, 4.0, shared)[:, ::8, ::8]  # regions as the latent's positions see them
    each = np.abs(error).mean(1).reshape(3, 8, 8, 8, 8).mean((2, 4))
    expected = (each * coarse).sum((1, 2)) / coarse.sum((1, 2))
    for axis in (2, 3):
        rough = np.abs(np.diff(error, axis=axis)).mean(1)
        height, width = rough.shape[1:]
        weight = weights_of(batch, 4.0, shared)
        rows_seen, columns_seen = (np.arange(n) * 64 // n for n in (height, width))
        weight = weight[:, rows_seen][:, :, columns_seen]
        expected = expected + gradient * (rough * weight).sum((1, 2)) / weight.sum((1, 2))
    np.testing.assert_allclose(losses.weighted, expected, rtol=1e-4)


@pytest.mark.parametrize("shared", [1.0, 3.0])
def test_shares_are_taught_by_the_pictures_that_agree(shared: float) -> None:
    """-log of the sum of their shares, weighted as the loss is; nothing where none agrees."""
    pipeline = small(**LAYERS)
    batch = batch_of(pipeline)
    batch["layer_labels"] = torch.randint(
        0, 8, (3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(5)
    )
    network = Recorded(TrainingNetworks(pipeline))
    options = {"loss": "l1", "region_weight": 4.0, "overlap_weight": shared}
    with torch.no_grad():
        plain = loss_of(pipeline, network, **options)(batch, CPU)
        taught = loss_of(pipeline, network, share_weight=0.5, **options)(batch, CPU)
    cells = F.pixel_shuffle(network.answer[:, 192:].double(), 2)
    logits = LOGIT_SCALE * F.interpolate(cells, scale_factor=4, mode="bilinear").numpy()[:, :3]
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    bits = batch["layer_labels"].numpy()
    agrees = np.stack([bits & 1, bits >> 1 & 1, bits >> 2], 1)
    right = (shares * agrees).sum(1)
    missed = np.where(bits > 0, -np.log(np.where(bits > 0, right, 1)), 0)
    weight = weights_of(batch, 4.0, shared)
    expected = (missed * weight).sum((1, 2)) / weight.sum((1, 2))
    np.testing.assert_allclose(taught.weighted - plain.weighted, 0.5 * expected, rtol=1e-4)
    np.testing.assert_array_equal(taught.region, plain.region)


def test_shares_are_taught_where_the_latent_is_coarser() -> None:
    """A latent position is taught by its pixels' mean."""
    pipeline = small(**LAYERS)
    step = loss_of(pipeline, share_weight=1.0)
    logits = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    layer_labels = torch.full((1, 64, 64), 0b100, dtype=torch.uint8)
    layer_labels[:, :, 32:] = 0b001
    layer_labels[:, :32, 32:] = 0b000
    layer_labels[:, :8, :4] = 0b001  # half of the first position
    shares = logits.double().softmax(1)
    expected = -shares[:, 2].log()
    expected[:, :, 4:] = -shares[:, 0, :, 4:].log()
    expected[:, :4, 4:] = 0
    expected[:, 0, 0] = -(0.5 * shares[:, 0, 0, 0] + 0.5 * shares[:, 2, 0, 0]).log()
    missed = step._layer_loss(logits, layer_labels, torch.ones(1, 1, 64, 64, dtype=torch.bool))
    np.testing.assert_allclose(missed, expected.mean((1, 2)), rtol=1e-4)


def test_shares_need_a_hint_of_layers() -> None:
    with pytest.raises(PicsError, match=r"objective\.share_weight: got 0\.5, which needs a model that mixes its hint"):
        loss_of(small(), share_weight=0.5)


def test_a_network_can_choose_a_picture() -> None:
    """Where the target is the reversed paste in one half and the background in the other, shares alone reach it."""
    pipeline = small(**LAYERS)
    batch = batch_of(pipeline)
    hint = batch["control_image"]
    batch["target"] = torch.cat([hint[:, :, :24, 3:6], hint[:, :, 24:, 6:]], 2)
    answer = torch.zeros(3, 216, 8, 8)
    answer[:, 192 + 4 : 192 + 8, :, :3] = 40
    answer[:, 192 + 8 : 192 + 12, :, 3:] = 40
    losses = loss_of(pipeline, lambda *_: (answer, None), loss="l1", gradient=1.0)(batch, CPU)
    assert losses.weighted.max() < 1e-5
    batch["target"] = 255 - batch["target"]
    assert loss_of(pipeline, lambda *_: (answer, None), loss="l1")(batch, CPU).weighted.min() > 0.1


def test_training_sees_what_inference_makes() -> None:
    """One step from the noisiest level: the picture of the pipeline is what the training step's network answers."""
    pipeline = small(**{**LAYERS, "scheduler": "ddim", "steps": 1, "guidance": 1.0})
    batch = rows(batch_of(pipeline), 0)
    last = pipeline.scheduler.config.num_train_timesteps - 1
    noise = batch["noise"][None]
    made = pipeline([network_inputs({name: value[0].numpy() for name, value in batch.items()}, 64)], noise)[0, 0]
    # At the last timestep the noisy latent that training makes has a little of the target in it; inference has none.
    batch["timestep"] = torch.tensor([last])
    signal = float(pipeline.scheduler.alphas_cumprod[last])
    clean = F.pixel_unshuffle(batch["target"].permute(0, 3, 1, 2).float() / 127.5 - 1, 8)
    batch["noise"] = (batch["noise"] - signal**0.5 * clean) / (1 - signal) ** 0.5
    network = Recorded(TrainingNetworks(pipeline))
    with torch.no_grad():
        loss_of(pipeline, network)(batch, CPU)
    expected = (painted(batch, network.answer)[0].transpose(1, 2, 0) + 1) * 127.5
    np.testing.assert_allclose(made, np.clip(expected, 0, 255), atol=0.51)


@pytest.mark.parametrize(
    ("kind", "meaning"),
    [("small", {"prediction_type": "epsilon"}), ("tiny", {"prediction_type": "sample"})],
)
def test_gradients_are_of_pixels(kind: str, meaning: dict[str, Any]) -> None:
    with pytest.raises(PicsError, match=r"objective\.gradient: got 1\.0, which needs a model that predicts"):
        loss_of(pipeline_of(kind, **meaning), gradient=1.0)


def test_a_base_model_has_no_inputs_for_layers() -> None:
    model: dict[str, Any] = {
        "hint": "layers",
        "prediction_type": "sample",
        "correct_hint": True,
        "shape": None,
        "base": "nowhere/none",
    }
    recipe = recipe_of()
    from dataclasses import replace

    changed = replace(recipe, model=replace(recipe.model, **model))
    with pytest.raises(PicsError):
        load_initial_model(changed)


def test_going_on_from_another_hint_is_refused(tmp_path: Any) -> None:
    from dataclasses import replace

    small(**LAYERS).save_pretrained(tmp_path / "model")
    recipe = recipe_of()
    model = replace(recipe.model, shape=None, image_size=None, reference_size=None, base=str(tmp_path / "model"))
    going_on = load_initial_model(replace(recipe, model=model))
    assert going_on.model.config.hint == "layers"
    with pytest.raises(PicsError, match=r"model\.hint: got overlay, but the network of .* has the inputs of layers"):
        load_initial_model(replace(recipe, model=replace(model, hint="overlay")))
