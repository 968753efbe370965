"""Predicted memory against what torch's own profiler records of a real step's allocations on the CPU."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from pics_cli.core.model.outline import outline
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.model.small_model import small_config, small_pipeline
from pics_cli.core.recipes.training import TrainingRecipe
from pics_cli.core.training.objective import new_step
from pics_cli.core.training.optimizer import Average, make_optimizer, set_up
from pics_cli.core.training.plan import blank_pipeline, estimate, standard_batch
from pics_cli.core.training.setup import moved
from trainees import CPU, GIVEN, SHAPE, pipeline_of, recipe_of, small

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
META = torch.device("meta")


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KINETO_LOG_LEVEL", "99")


def measured(recipe: TrainingRecipe, pipeline: PicsModel, dtype: torch.dtype) -> dict[str, int]:
    """Bytes of a real step after the first, by what they are for."""
    trained = set_up(pipeline, recipe.train, recipe.train_encoder, dtype)
    for network in (pipeline.unet, pipeline.controlnet):
        network.gradient_checkpointing = recipe.gradient_checkpointing
    optimizer = make_optimizer(trained, recipe.optimizer)
    average = Average(trained, recipe.ema) if recipe.ema.enabled else None
    step, batch = new_step(pipeline, recipe.objective, dtype), standard_batch(recipe, pipeline)

    def run() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype != torch.float32):
            loss = step(batch, CPU).weighted.mean()
        loss.backward()
        del loss
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if average is not None:
            average.step()

    run()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    peak = max(accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())))
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
    predicted = estimate(recipe, moved(pipeline_of(kind), META), torch.float32)
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
    predicted = estimate(recipe, moved(small(**options), META), torch.float32)
    found = measured(recipe, small(**options), torch.float32)
    assert predicted.average == found["average"]
    assert predicted.step == pytest.approx(found["step"], rel=0.15)
    assert predicted.peak == pytest.approx(sum(found.values()), rel=0.15)


@pytest.mark.parametrize("kind", ["small", pytest.param("tiny", marks=pytest.mark.slow)])
def test_in_bf16(kind: str) -> None:
    """With autocast's copies of the trained weights."""
    recipe = recipe_of(train="experts")
    predicted = estimate(recipe, moved(pipeline_of(kind), META), torch.bfloat16)
    found = measured(recipe, pipeline_of(kind), torch.bfloat16)
    assert predicted.weights == found["weights"]
    assert predicted.peak == pytest.approx(sum(found.values()), rel=0.15)


# One level: half the operations to count.
LOW = {**SHAPE, "block_out_channels": (16,), "attention_levels": (True,)}


def predicted_low(**changes: Any) -> int:
    recipe = recipe_of(**{"train": "full", "batch_size": 4, **changes})
    return estimate(recipe, blank_pipeline(outline(None, None, LOW, GIVEN)), torch.float32).peak


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
    pipeline = small_pipeline(small_config(LOW, GIVEN), LOW)
    recipe = recipe_of(train="full", batch_size=4)
    assert estimate(recipe, moved(pipeline, META), torch.float32).peak == base
