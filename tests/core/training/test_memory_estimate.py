"""Predicted memory against what torch's own profiler records of a real step's allocations on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.profiler import ProfilerActivity, profile
from torch.utils._pytree import tree_leaves

from helpers.trainees import CPU, GIVEN, SHAPE, pipeline_of, recipe_of, small
from pics_cli.core.model.controlnet import BackgroundControlNet
from pics_cli.core.model.interaction import ObjectContexts
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.model.regions import Regions
from pics_cli.core.model.small_model import new_small_model
from pics_cli.core.model.unet import InteractionUNet
from pics_cli.core.recipes.training import TrainingRecipe
from pics_cli.core.recipes.training_sections import ModelShape
from pics_cli.core.training.ema import ModelEma
from pics_cli.core.training.initial_model import blank_initial_model
from pics_cli.core.training.memory_estimate import MemoryCounter, as_on_gpu, estimate_memory, standard_batch
from pics_cli.core.training.networks import TrainingNetworks, on_device, prepare_for_training
from pics_cli.core.training.objective import DiffusionLoss
from pics_cli.core.training.optimizer import make_optimizer

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
META = torch.device("meta")


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KINETO_LOG_LEVEL", "99")


def step_on(device: str, recompute: bool) -> Callable[[], None]:
    """Forward and backward through a UNet and a ControlNet of one level, two samples, all gradients kept."""
    shape: dict[str, Any] = dict(
        block_out_channels=(32,), layers_per_block=1, attention_levels=(True,), head_width=16, context_width=48
    )
    unet, controlnet = InteractionUNet(**shape), BackgroundControlNet(hint_widths=(8, 8, 16, 16), **shape)
    for network in (unet, controlnet):
        network.to(device).requires_grad_()
        network.gradient_checkpointing = recompute
    masks = torch.zeros(2, 2, 128, 128, dtype=torch.bool)
    masks[:, 0, :80, :80] = masks[:, 1, 40:, 40:] = True
    hint, latent = torch.ones(2, 4, 128, 128, device=device), torch.ones(2, 4, 16, 16, device=device)
    contexts, timesteps = torch.ones(2, 2, 17, 48, device=device), torch.ones(2, device=device)

    def step() -> None:
        objects, regions = ObjectContexts(contexts), Regions(masks, device=torch.device(device))
        residuals = controlnet(controlnet.embed_hint(hint), timesteps, objects, regions)
        unet(latent, timesteps, objects, regions, residuals).square().mean().backward()

    return step


def counted_peak(action: Callable[[], None]) -> int:
    with as_on_gpu(torch.float32), MemoryCounter() as counter:
        action()
    return counter.peak


def profiled(action: Callable[[], None]) -> int:
    """What a call holds at most, above what was there before; see scripts/bench/denoise.py."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        action()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())))


@pytest.mark.parametrize("recompute", [False, True])
def test_agrees_with_the_profiler_and_on_the_meta_device(recompute: bool) -> None:
    counted = counted_peak(step_on("cpu", recompute))
    assert counted == pytest.approx(profiled(step_on("cpu", recompute)), rel=0.1)
    assert counted_peak(step_on("meta", recompute)) == pytest.approx(counted, rel=0.1)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_what_lives_and_what_lived(device: str) -> None:
    before = torch.zeros(1000, device=device)
    with MemoryCounter() as counter:
        one = before + 1
        assert (counter.current, counter.peak) == (4000, 4000)
        view = one.view(10, 100)[2:]  # the same memory
        before.add_(1)  # not made here
        two = one.double()
        assert (counter.current, counter.peak) == (12000, 12000)
        del one
        assert counter.current == 12000  # the view holds it
        del view
        assert (counter.current, counter.peak) == (8000, 12000)
        del two
    assert (counter.current, counter.peak) == (0, 12000)


ALIKE: list[Callable[[Tensor], Any]] = [
    lambda rows: rows + 1,
    lambda rows: rows + 1.5,
    lambda rows: (rows.long() + 1, rows.long() + 1.0, rows.long() + True),  # int64, float32, int64
    lambda rows: rows.t() * 2,
    lambda rows: rows @ rows.t(),
    lambda rows: rows.reshape(2, 4, 8) @ rows.reshape(2, 8, 4),  # with views that are not declared as such
    lambda rows: F.layer_norm(rows, (8,)),
    lambda rows: torch.var_mean(rows, dim=0),
    lambda rows: rows.max(dim=1),
    lambda rows: rows.split(3),
    lambda rows: rows.clone().mul_(2).unsqueeze(0),
    lambda rows: torch.zeros_like(rows, dtype=torch.bfloat16),
    lambda rows: F.conv2d(rows[None, None], rows.new_ones(4, 1, 3, 3), padding=1),
]


@pytest.mark.parametrize("operation", ALIKE)
def test_what_is_inferred_once_is_what_torch_infers(operation: Callable[[Tensor], Any]) -> None:
    """Shapes, strides, types and what shares memory, of every run and of tensors of other shapes after it."""

    def described(rows: Tensor) -> list[tuple[Any, ...]]:
        found = operation(rows)
        storages = [value.untyped_storage()._cdata for value in (rows, *tree_leaves(found))]
        return [
            (value.shape, value.stride(), value.dtype, value.device, storages.index(value.untyped_storage()._cdata))
            for value in tree_leaves(found)
        ]

    shapes = [torch.empty(8, 8, device="meta"), torch.empty(8, 8, device="meta").t(), torch.ones(8, 8)]
    plain = [described(rows) for rows in shapes]
    for _ in range(2):
        with MemoryCounter():
            assert [described(rows) for rows in shapes] == plain


def call(name: str, device: str) -> Tensor:
    """A function of `torch.nn.functional` on tensors in float32."""
    made = {
        "linear": ((2, 8), (4, 8), (4,)),
        "conv2d": ((1, 4, 8, 8), (4, 4, 3, 3), (4,)),
        "layer_norm": ((2, 8),),
        "group_norm": ((1, 4, 8, 8),),
        "scaled_dot_product_attention": ((1, 2, 8, 16),) * 3,
    }[name]
    arguments: dict[str, list[Any]] = {"layer_norm": [(8,)], "group_norm": [2]}
    others = arguments.get(name, [])
    found: Tensor = getattr(F, name)(*(torch.empty(shape, device=device) for shape in made), *others)
    return found


@pytest.mark.parametrize("name", ["linear", "conv2d", "layer_norm", "group_norm", "scaled_dot_product_attention"])
def test_half_computes_what_autocast_does_on_a_gpu(name: str) -> None:
    """Against torch's own rules for CUDA, which tensors that only pretend to be there follow, too."""
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    torch.set_autocast_enabled("cuda", True)
    try:
        with FakeTensorMode():
            expected = call(name, "cuda").dtype
    finally:
        torch.set_autocast_enabled("cuda", False)
    with as_on_gpu(torch.bfloat16):
        assert call(name, "meta").dtype == expected
    with as_on_gpu(torch.float32):
        assert call(name, "meta").dtype == torch.float32


def test_half_takes_less_and_its_gradients_are_exact() -> None:
    peaks = []
    for dtype in (torch.float32, torch.bfloat16):
        layer = torch.nn.Linear(256, 256, device="meta")
        rows = torch.empty(4096, 256, device="meta")
        with as_on_gpu(dtype), MemoryCounter() as counter:
            layer(layer(rows)).sum().backward()
        assert layer.weight.grad is not None
        assert layer.weight.grad.dtype == torch.float32
        peaks.append(counter.peak)
    assert 0.4 < peaks[1] / peaks[0] < 0.8


def test_leaves_torchs_functions_as_they_were() -> None:
    before = F.scaled_dot_product_attention, F.linear, F.layer_norm
    with pytest.raises(ZeroDivisionError), as_on_gpu(torch.bfloat16):
        raise ZeroDivisionError
    assert (F.scaled_dot_product_attention, F.linear, F.layer_norm) == before


def measured(recipe: TrainingRecipe, pipeline: PicsModel, dtype: torch.dtype) -> dict[str, int]:
    """Bytes of a real step after the first, by what they are for."""
    trained = prepare_for_training(pipeline, recipe.train, recipe.train_encoder, dtype)
    for network in (pipeline.unet, pipeline.controlnet):
        network.gradient_checkpointing = recipe.gradient_checkpointing
    optimizer = make_optimizer(trained, recipe.optimizer)
    average = ModelEma(trained, recipe.ema) if recipe.ema.enabled else None
    loss_fn = DiffusionLoss(pipeline, TrainingNetworks(pipeline), recipe.objective, dtype)
    batch = standard_batch(recipe, pipeline)

    def run() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype != torch.float32):
            loss = loss_fn(batch, CPU).weighted.mean()
        loss.backward()
        del loss
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if average is not None:
            average.step()

    run()
    peak = profiled(run)
    moments = (value for state in optimizer.state.values() for value in state.values() if value.numel() > 1)
    return {
        "weights": sum(value.nbytes for part in pipeline.parts.values() for value in part.parameters()),
        "optimizer": sum(value.nbytes for value in moments),
        "average": sum(value.nbytes for value in average.state()[0].values()) if average is not None else 0,
        "step": peak,
    }


# Of twelve that can be made so; all are within the same bounds, and take two minutes.
SOME = [("small", "published", False), ("small", "experts", True), ("tiny", "full", True)]


@pytest.mark.parametrize(("kind", "train", "recompute"), SOME)
def test_as_a_real_step(kind: str, train: str, recompute: bool) -> None:
    recipe = recipe_of(train=train, gradient_checkpointing=recompute)
    predicted = estimate_memory(recipe, on_device(pipeline_of(kind), META), torch.float32)
    found = measured(recipe, pipeline_of(kind), torch.float32)
    assert predicted.weights == found["weights"]
    # Moments of parameters of a single value are not told from the count of steps here.
    assert predicted.optimizer == pytest.approx(found["optimizer"], rel=1e-3)
    assert predicted.average == found["average"]
    assert predicted.step == pytest.approx(found["step"], rel=0.15)
    assert predicted.peak == pytest.approx(sum(found.values()), rel=0.15)


OTHERS: list[dict[str, Any]] = [
    {"train_encoder": True, "model": {"prediction_type": "sample", "correct_hint": True}, "batch_size": 1},
    {"model": {"objects": 4}, "batch_size": 3, "objective": {"region_weight": 3.0}, "ema": {"enabled": False}},
]


@pytest.mark.slow
@pytest.mark.parametrize("changes", OTHERS)
def test_of_other_recipes(changes: dict[str, Any]) -> None:
    recipe = recipe_of(train="full", **changes)
    options = {key: value for key, value in changes.get("model", {}).items() if key not in GIVEN}
    predicted = estimate_memory(recipe, on_device(small(**options), META), torch.float32)
    found = measured(recipe, small(**options), torch.float32)
    assert predicted.average == found["average"]
    assert predicted.step == pytest.approx(found["step"], rel=0.15)
    assert predicted.peak == pytest.approx(sum(found.values()), rel=0.15)


@pytest.mark.parametrize("kind", ["small", pytest.param("tiny", marks=pytest.mark.slow)])
def test_in_bf16(kind: str) -> None:
    """With autocast's copies of the trained weights."""
    recipe = recipe_of(train="experts")
    predicted = estimate_memory(recipe, on_device(pipeline_of(kind), META), torch.bfloat16)
    found = measured(recipe, pipeline_of(kind), torch.bfloat16)
    assert predicted.weights == found["weights"]
    assert predicted.peak == pytest.approx(sum(found.values()), rel=0.15)


# One level, with interaction blocks in the middle alone: a third of the operations to count.
LOW = {**SHAPE, "block_out_channels": (16,), "attention_levels": (False,)}


def predicted_low(**changes: Any) -> int:
    recipe = recipe_of(**{"train": "full", "batch_size": 4, "model": {"shape": LOW}, **changes})
    return estimate_memory(recipe, blank_initial_model(recipe.model)[0], torch.float32).peak


@pytest.fixture(scope="module")
def base() -> int:
    return predicted_low()


CHEAPER = [
    {"gradient_checkpointing": True},
    *(pytest.param(change, marks=pytest.mark.slow) for change in (
        {"batch_size": 2, "accumulation": 2}, {"ema": {"device": "cpu"}}, {"train": "published"})),
]  # fmt: skip


@pytest.mark.parametrize("change", CHEAPER)
def test_what_is_cheaper(base: int, change: dict[str, Any]) -> None:
    """What users are told to try really lowers the figure."""
    assert predicted_low(**change) < base


def test_configuration_files_are_enough(base: int) -> None:
    """As of the model itself."""
    pipeline = new_small_model(ModelShape(**LOW), GIVEN)
    recipe = recipe_of(train="full", batch_size=4)
    assert estimate_memory(recipe, on_device(pipeline, META), torch.float32).peak == base
