"""An adapter in training: where it acts, that it learns, what it holds, and that a run goes on bit by bit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor

from helpers.trainees import CPU, batch_of, loss_of, recipe_of, small
from pics_cli.core.model.adapters import Adapter, AdapterConfig, merge_adapters
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.recipes.training_sections import EmaSettings, LoraSettings, OptimizerSettings
from pics_cli.core.training import checkpoint
from pics_cli.core.training.adapters import adapter_tensors, add_adapters, target_modules
from pics_cli.core.training.checkpoint import EMA, OPTIMIZER, WEIGHTS
from pics_cli.core.training.ema import ModelEma
from pics_cli.core.training.export import export
from pics_cli.core.training.initial_model import load_initial_model
from pics_cli.core.training.memory_estimate import estimate_memory, standard_batch
from pics_cli.core.training.networks import named_parameters, on_device, prepare_for_training
from pics_cli.core.training.optimizer import make_optimizer
from pics_cli.core.training.state import TrainingState
from pics_cli.errors import PicsError

SETTINGS = LoraSettings(rank=4, alpha=8.0)
META = torch.device("meta")


@pytest.fixture(autouse=True)
def _plain_accelerator() -> Iterator[None]:
    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)


def adapted(settings: LoraSettings = SETTINGS, seed: int = 0, dtype: torch.dtype = torch.float32) -> TrainingState:
    model = small(3)
    add_adapters(model, settings, seed)
    trained = prepare_for_training(model, "lora", False, dtype)
    optimizer = make_optimizer(trained, OptimizerSettings(learning_rate=1e-2))
    return TrainingState(
        model, False, "b", trained, optimizer, ModelEma(trained, EmaSettings(decay=0.5)), Accelerator(cpu=True)
    )


def train(state: TrainingState, steps: int, seed: int | None = None) -> list[float]:
    """Some steps, on one batch or on others each time; the losses."""
    losses = []
    for step in range(steps):
        batch = batch_of(state.model, seed=0 if seed is None else seed + step, timesteps=(300, 500, 900))
        loss = loss_of(state.model)(batch, CPU).weighted.mean()
        loss.backward()
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
        assert state.ema is not None
        state.ema.step()
        state.step += 1
        losses.append(float(loss.detach()))
    return losses


def randomised(state: TrainingState, scale: float = 0.2) -> TrainingState:
    """B that are not zero any more."""
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in state.trained.items():
            if ".lora_B." in name:
                value.copy_(torch.randn(value.shape, generator=draw) * scale)
    return state


def as_adapter(state: TrainingState, settings: LoraSettings = SETTINGS) -> Adapter:
    config = AdapterConfig(settings.rank, settings.scale, target_modules(settings), "", "", 0, "", "")
    return Adapter("mine", 1.0, config, adapter_tensors(dict(state.trained)))


def losses_of(model: PicsModel) -> Tensor:
    with torch.no_grad():
        return loss_of(model)(batch_of(model), CPU).weighted


def test_is_on_the_attentions_and_nothing_else() -> None:
    before = {name for name, _ in named_parameters(small(3))}
    state = adapted()
    blocks = 4 + 2  # of the UNet: one of the encoder, the middle, two of the decoder
    assert len(state.trained) == 2 * 12 * blocks
    assert {name.split(".")[-6 if "to_out" in name else -5] for name in state.trained} == {"attn1", "attn2", "attn_bg"}
    assert all(value.dtype == torch.float32 for value in state.trained.values())
    frozen = dict(named_parameters(state.model)).keys() - state.trained.keys()
    assert {name.replace(".base_layer.", ".") for name in frozen} == before
    only = adapted(LoraSettings(rank=2, attentions=("attn2",)))
    assert {name.split(".")[-6 if "to_out" in name else -5] for name in only.trained} == {"attn2"}


def test_new_it_changes_nothing_and_its_seed_decides() -> None:
    torch.manual_seed(77)
    first = adapted(seed=5)
    assert torch.equal(losses_of(first.model), losses_of(small(3)))
    torch.manual_seed(78)
    again, other = adapted(seed=5), adapted(seed=6)
    assert all(torch.equal(value, again.trained[name]) for name, value in first.trained.items())
    assert any(not torch.equal(value, other.trained[name]) for name, value in first.trained.items())


@pytest.mark.parametrize("attention", ["attn1", "attn2", "attn_bg"])
def test_acts_as_the_merged_model_does(attention: Any) -> None:
    """PEFT's forward pass against weights with the product added: overlaps too, whose blocks read weights directly."""
    settings = LoraSettings(rank=4, alpha=8.0, attentions=(attention,))
    state = randomised(adapted(settings))
    merged = small(3)
    merge_adapters(merged.parts, [as_adapter(state, settings)])
    ours, theirs, base = losses_of(state.model), losses_of(merged), losses_of(small(3))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert ((ours - base).abs() > 1e-4).any()


def test_every_matrix_gets_its_gradient() -> None:
    """That of the weights it stands for: dL/dB = s · dL/dW Aᵀ and dL/dA = s · Bᵀ dL/dW, all experts in use."""
    state = randomised(adapted(), 0.05)
    loss_of(state.model)(batch_of(state.model), CPU).weighted.mean().backward()
    merged = small(3)
    merge_adapters(merged.parts, [as_adapter(state)])
    prepare_for_training(merged, "full", False, torch.float32)
    loss_of(merged)(batch_of(merged), CPU).weighted.mean().backward()
    gradients = {name: value.grad for name, value in named_parameters(merged)}
    scale = SETTINGS.scale / SETTINGS.rank
    for name, value in state.trained.items():
        gradient = gradients[name.partition(".lora_")[0] + ".weight"]
        assert gradient is not None, name
        if ".lora_A." in name:
            expected = scale * state.trained[name.replace("lora_A", "lora_B")].T @ gradient
        else:
            expected = scale * gradient @ state.trained[name.replace("lora_B", "lora_A")].T
        torch.testing.assert_close(value.grad, expected, rtol=1e-3, atol=1e-6)
        assert expected.any()


def test_learns_a_sample_and_leaves_the_base(tmp_path: Path) -> None:
    """Twenty steps on one batch; not one weight of the base moves."""
    state = adapted()
    losses = train(state, 20)
    assert losses[-1] < 0.85 * losses[0]  # much of the noise is in no sample
    held = dict(named_parameters(state.model))
    for name, value in named_parameters(small(3)):
        part, _, last = name.rpartition(".")
        assert torch.equal(held[name] if name in held else held[f"{part}.base_layer.{last}"], value), name


def test_goes_on_bitwise(tmp_path: Path) -> None:
    state = adapted()
    train(state, 2, seed=1)
    state.save(tmp_path / "a", {"base": "b", "bad": []})
    saved = checkpoint.read(tmp_path / "a")
    assert saved.tensors(WEIGHTS).keys() == state.trained.keys()  # and nothing of the base
    resumed = adapted(seed=9)
    resumed.load(saved)
    assert train(state, 3, seed=9) == train(resumed, 3, seed=9)
    for one, name in ((state, "b"), (resumed, "c")):
        one.save(tmp_path / name, {"base": "b", "bad": []})
    for file in (WEIGHTS, OPTIMIZER, EMA):
        assert (tmp_path / "b" / file).read_bytes() == (tmp_path / "c" / file).read_bytes()


def test_of_another_rank_is_refused(tmp_path: Path) -> None:
    state = adapted()
    train(state, 1)
    state.save(tmp_path / "a", {"base": "b", "bad": []})
    with pytest.raises(PicsError, match=r"lora_A.default.weight is \[4, \d+\] in it, \[2, \d+\] in this model"):
        adapted(LoraSettings(rank=2)).load(checkpoint.read(tmp_path / "a"))


def test_frozen_weights_lie_in_half_precision() -> None:
    """bf16 for the base, float32 for the adapter, under autocast as training has it."""
    state = adapted(dtype=torch.bfloat16)
    dtypes = {name in state.trained: value.dtype for name, value in named_parameters(state.model)}
    assert dtypes == {True: torch.float32, False: torch.bfloat16}
    exact = randomised(adapted())
    randomised(state)
    batch = batch_of(state.model)
    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_of(state.model)
        loss.dtype = torch.bfloat16
        half = loss(batch, CPU).weighted
        half.mean().backward()
    assert all(value.grad is not None and value.grad.dtype == torch.float32 for value in state.trained.values())
    torch.testing.assert_close(half, losses_of(exact.model), rtol=0.05, atol=0.05)


def test_the_plan_says_what_the_tensors_hold(tmp_path: Path) -> None:
    recipe = recipe_of(train="lora", lora={"rank": 4})
    predicted = estimate_memory(recipe, on_device(small(3), META), torch.float32)
    state = adapted(LoraSettings(rank=4))
    train(state, 1)
    parameters = [value for part in state.model.parts.values() for value in part.parameters()]
    moments = [value for one in state.optimizer.state.values() for value in one.values() if value.ndim]
    assert predicted.trained == sum(value.numel() for value in state.trained.values())
    assert predicted.weights == sum(value.nbytes for value in parameters)
    assert predicted.optimizer == sum(value.nbytes for value in moments)
    assert state.ema is not None
    assert predicted.average == sum(value.nbytes for value in state.ema.state()[0].values())
    full = estimate_memory(recipe_of(train="experts"), on_device(small(3), META), torch.float32)
    assert predicted.peak < full.peak
    assert standard_batch(recipe, state.model)["boxes"].shape[1] == 2


def saved_run(tmp_path: Path, **changes: Any) -> tuple[Any, checkpoint.Checkpoint, TrainingState]:
    """A base model in a folder, and a checkpoint of an adapter of it."""
    small(3).save_pretrained(tmp_path / "base")
    recipe = recipe_of(train="lora", lora={"rank": 4, "alpha": 8.0}, export={"dtype": "fp32"}, **changes)
    model = replace(recipe.model, shape=None, base=str(tmp_path / "base"), reference_size=None)
    recipe = replace(recipe, model=model)
    state = adapted()
    randomised(state)
    train(state, 2)
    metadata = {
        "base": load_initial_model(recipe).base_sha256,
        "identity": {"data": {"A": {"contents": "aa", "samples": 8}}},
    }
    metadata |= {"world": {"processes": 1, "batch_size": recipe.batch_size, "accumulation": 1}}
    state.save(checkpoint.path_of(tmp_path / "run", state.step), metadata)
    return recipe, checkpoint.read(checkpoint.path_of(tmp_path / "run", state.step)), state


def test_the_average_is_exported_and_merged_is_the_same(tmp_path: Path) -> None:
    """Base and adapter give the weights, and so the pixels, of the merged model to the bit: they are added alike."""
    from pics_cli.core.model.adapters import AdapterChoice, load_adapter

    recipe, saved, state = saved_run(tmp_path)
    export(recipe, saved, tmp_path / "adapter")
    export(recipe, saved, tmp_path / "merged", merge=True)
    read = load_adapter(AdapterChoice(tmp_path / "adapter"))
    assert (read.config.rank, read.config.alpha, read.config.trained_steps) == (4, 8.0, 2)
    assert read.config.base == str(tmp_path / "base")
    assert read.config.base_fingerprint == load_initial_model(recipe).base_sha256
    assert state.ema is not None
    averages = adapter_tensors(state.ema.state()[0])
    assert all(torch.equal(value, averages[name]) for name, value in read.tensors.items())
    assert any(not torch.equal(value, averages[name]) for name, value in adapter_tensors(dict(state.trained)).items())
    ours = PicsModel.from_pretrained(tmp_path / "base", adapters=[read])
    merged = PicsModel.from_pretrained(tmp_path / "merged")
    found = dict(named_parameters(merged))
    assert all(torch.equal(value, found[name]) for name, value in named_parameters(ours))
    assert (merged.config.trained_steps, merged.config.trained_on) == (2, ["aa"])
    without = replace(recipe, ema=replace(recipe.ema, enabled=False))
    export(without, saved, tmp_path / "weights")
    plain = load_adapter(AdapterChoice(tmp_path / "weights")).tensors
    assert all(torch.equal(value, plain[name]) for name, value in adapter_tensors(dict(state.trained)).items())


def test_an_earlier_adapter_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    recipe, saved, _ = saved_run(tmp_path)
    out = tmp_path / "adapter"
    export(recipe, saved, out)
    with pytest.raises(PicsError, match="exists already"):
        export(recipe, saved, out)
    export(recipe, saved, out, overwrite=True)
    (out / "adapter.json").rename(out / "notes.json")
    with pytest.raises(PicsError, match="exists already"):
        export(recipe, saved, out, overwrite=True)


def test_a_rank_above_the_width() -> None:
    add_adapters(small(3), LoraSettings(rank=16), 0)
    with pytest.raises(PicsError, match=r"lora\.rank: got 17, expected at most 16, the width of this model's"):
        add_adapters(small(3), LoraSettings(rank=17), 0)
