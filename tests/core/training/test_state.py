"""A run's state through a checkpoint: bitwise what it was; what does not belong together is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor

from helpers.trainees import CPU, GIVEN, SHAPE, batch_of, loss_of, small, stir
from pics_cli.core.model.small_model import new_small_model
from pics_cli.core.recipes.training_sections import EmaSettings, ModelShape, OptimizerSettings, TrainedParts
from pics_cli.core.training import checkpoint
from pics_cli.core.training.checkpoint import EMA, OPTIMIZER, WEIGHTS
from pics_cli.core.training.ema import ModelEma
from pics_cli.core.training.networks import is_new, named_parameters, prepare_for_training
from pics_cli.core.training.optimizer import make_optimizer
from pics_cli.core.training.state import TrainingState, checkpoint_weights
from pics_cli.errors import PicsError

FACTS: dict[str, Any] = {"base": "b", "bad": [], "note": "α"}


@pytest.fixture(autouse=True)
def _plain_accelerator() -> Iterator[None]:
    """Accelerate remembers the precision of the first one in a process."""
    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)


def state_of(
    kind: TrainedParts = "full",
    *,
    seed: int = 0,
    new: bool = True,
    encoder: bool = False,
    ema: bool = True,
    **options: Any,
) -> TrainingState:
    pipeline = small(seed, **options)
    trained = prepare_for_training(pipeline, kind, encoder, torch.float32)
    optimizer = make_optimizer(trained, OptimizerSettings(learning_rate=1e-3))
    average = ModelEma(trained, EmaSettings(decay=0.9)) if ema else None
    return TrainingState(pipeline, new, "b", trained, optimizer, average, Accelerator(cpu=True))


def train(state: TrainingState, steps: int, seed: int = 0, layouts: Any = None) -> list[float]:
    """Some steps; the losses."""
    losses = []
    for step in range(steps):
        options = {} if layouts is None else {"layouts": layouts}
        batch = batch_of(state.model, seed=seed + step, timesteps=(300, 500, 900), **options)
        loss = loss_of(state.model)(batch, CPU).weighted.mean()
        loss.backward()
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
        if state.ema is not None:
            state.ema.step()
        state.step, state.position = state.step + 1, state.position + 3
        losses.append(float(loss.detach()))
    return losses


def weights(state: TrainingState) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in named_parameters(state.model)}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize(("kind", "encoder"), [("full", True), ("published", False)])
def test_goes_on_bitwise(tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: TrainedParts, encoder: bool) -> None:
    state = state_of(kind, encoder=encoder)
    train(state, 2)
    state.save(tmp_path / "a", FACTS)
    drawn = torch.randn(3)
    # Another start: all that matters comes from the checkpoint.
    resumed = state_of(kind, encoder=encoder, seed=1)
    found = checkpoint.read(tmp_path / "a")
    resumed.load(found)
    assert torch.equal(torch.randn(3), drawn)
    assert (resumed.step, resumed.position, caplog.messages) == (2, 6, [])
    assert {key: found.state[key] for key in FACTS} == FACTS
    assert same(weights(state), weights(resumed))
    assert train(state, 2, seed=9) == train(resumed, 2, seed=9)
    assert same(weights(state), weights(resumed))
    assert state.ema is not None
    assert resumed.ema is not None
    assert same(state.ema.state()[0], resumed.ema.state()[0])
    for one in (state, resumed):
        one.save(tmp_path / f"b{id(one)}", FACTS)
    for file in (WEIGHTS, OPTIMIZER, EMA):
        first, second = ((tmp_path / f"b{id(one)}" / file).read_bytes() for one in (state, resumed))
        assert first == second


def test_moments_lie_as_their_parameters_do(tmp_path: Path) -> None:
    """Convolutions lie with channels last, files do not know of it, and AdamW's fused kernels want both alike."""
    state = state_of()
    train(state, 1)
    state.save(tmp_path / "step_00000001", FACTS)
    fresh = state_of(seed=5)
    fresh.load(checkpoint.read(tmp_path / "step_00000001"))
    held = fresh.optimizer.state
    layouts = {name: (value.stride(), held[value]["exp_avg"].stride()) for name, value in fresh.trained.items()}
    assert all(own == moment for own, moment in layouts.values())
    assert any(not value.is_contiguous() for value in fresh.trained.values())


def test_of_parameters_that_had_no_gradient_yet(tmp_path: Path) -> None:
    """Without an overlap some experts have none: there is no state of theirs to save, and they begin later."""
    apart = [((0, 0, 20, 20), (40, 40, 64, 64))] * 3
    state, resumed = state_of(), state_of(seed=1)
    train(state, 1, layouts=apart)
    state.save(tmp_path / "a", FACTS)
    there = {key.partition("/")[2] for key in checkpoint.read(tmp_path / "a").tensors(OPTIMIZER)}
    assert {name for name in state.trained if "gate_q" in name} & there == set()
    assert there
    resumed.load(checkpoint.read(tmp_path / "a"))
    assert train(state, 2, seed=5) == train(resumed, 2, seed=5)
    assert same(weights(state), weights(resumed))


def test_untrained_new_layers_come_back(tmp_path: Path) -> None:
    """TrainedParts as published, the encoder's experts stay random: no base model has them, so the checkpoint does."""
    state = state_of("published", new=False)
    train(state, 1)
    state.save(tmp_path / "a", FACTS)
    kept = checkpoint.read(tmp_path / "a").tensors(WEIGHTS)
    frozen = {name for name, _ in named_parameters(state.model)} - kept.keys()
    assert frozen
    assert not any(is_new(name, False) or name in state.trained for name in frozen)
    assert "unet.conv_in.weight" in frozen
    assert any("image_encoder" in name for name in frozen)
    assert {"unet.mid_block.attentions.0.transformer_blocks.0.attn_bg.to_out.0.weight", "projector.bias"} <= kept.keys()
    resumed = state_of("published", new=False)
    with torch.no_grad():  # the same base, other new layers
        for name, value in named_parameters(resumed.model):
            if is_new(name, False) or name in resumed.trained:
                value.zero_()
    stir(resumed.model, seed=5)
    assert not same(weights(state), weights(resumed))
    resumed.load(checkpoint.read(tmp_path / "a"))
    assert same(weights(state), weights(resumed))


def test_frozen_new_layers_of_lower_precision_come_back(tmp_path: Path) -> None:
    state = state_of("published")
    prepare_for_training(state.model, "published", False, torch.bfloat16)
    state.save(tmp_path / "a", FACTS)
    resumed = state_of("published", seed=1)
    prepare_for_training(resumed.model, "published", False, torch.bfloat16)
    resumed.load(checkpoint.read(tmp_path / "a"))
    assert same(weights(state), weights(resumed))
    assert weights(resumed)["unet.conv_in.weight"].dtype == torch.bfloat16


def test_without_a_moving_average_it_begins_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state, resumed = state_of(ema=False), state_of(seed=1)
    train(state, 1)
    state.save(tmp_path / "a", FACTS)
    assert not (tmp_path / "a" / EMA).exists()
    resumed.load(checkpoint.read(tmp_path / "a"))
    (message,) = caplog.messages
    assert "moving average" in message
    assert resumed.ema is not None
    averages, steps = resumed.ema.state()
    assert steps == 0
    assert all(torch.equal(value, state.trained[name]) for name, value in averages.items())
    # And one that is no longer wanted is left.
    train(resumed, 1)
    resumed.save(tmp_path / "b", FACTS)
    state.load(checkpoint.read(tmp_path / "b"))
    assert same(weights(state), weights(resumed))


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    state = state_of()
    train(state, 1)
    state.save(tmp_path / "a", FACTS)
    found = checkpoint.read(tmp_path / "a")
    pieces = found.tensors(WEIGHTS)
    some = "unet.conv_in.weight"
    for change, words in (
        ({**pieces, "unet.extra": torch.zeros(1)}, "this model has no unet.extra"),
        ({**pieces, some: torch.zeros(2, 2)}, f"{some} is [2, 2] in it, [16, 192, 3, 3] in this model"),
        ({name: value for name, value in pieces.items() if name != some}, f"it holds no {some}"),
    ):
        folder = tmp_path / str(abs(hash(words)))
        files = {file: found.tensors(file) for file in found.state["sha256"]}
        checkpoint.save(folder, {**files, WEIGHTS: change}, found.state)
        resumed = state_of(seed=1)
        before = weights(resumed)
        with pytest.raises(PicsError) as caught:
            resumed.load(checkpoint.read(folder))
        assert f"{folder}: a checkpoint of another architecture: {words}" in caught.value.message
        assert caught.value.hint
        assert same(before, weights(resumed))  # nothing is taken over by half


def test_other_widths_are_another_architecture(tmp_path: Path) -> None:
    """Not other trained parts: the message says what to take again."""
    state_of().save(tmp_path / "a", FACTS)
    wider = ModelShape(**{**SHAPE, "context_width": 48})
    pipeline = new_small_model(wider, GIVEN)
    trained = prepare_for_training(pipeline, "full", False, torch.float32)
    other = TrainingState(
        pipeline, True, "b", trained, make_optimizer(trained, OptimizerSettings()), None, Accelerator(cpu=True)
    )
    with pytest.raises(
        PicsError, match=r"checkpoint of another architecture: .* is \[.*\] in it, \[.*\] in this model"
    ):
        other.load(checkpoint.read(tmp_path / "a"))


@pytest.mark.parametrize(("first", "then"), [("full", "published"), ("published", "full")])
def test_other_trained_parameters_are_refused(tmp_path: Path, first: TrainedParts, then: TrainedParts) -> None:
    """In both directions, in words."""
    state = state_of(first)
    train(state, 1)
    state.save(tmp_path / "a", FACTS)
    with pytest.raises(PicsError, match="of a run that trained other parameters"):
        state_of(then, seed=1).load(checkpoint.read(tmp_path / "a"))


def test_what_is_kept_of_a_base_model_is_little() -> None:
    state = state_of("experts", new=False)
    kept = checkpoint_weights(state.model, state.new_network, state.trained)
    assert state.trained.keys() <= kept.keys()
    assert not any(name.startswith(("image_encoder.", "vae.")) for name in kept)
    assert not any("unet.down_blocks" in name and ".attn1." in name for name in kept)
