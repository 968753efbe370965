"""Learning rate and AdamW, against loops written from their definitions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pics_cli.core.recipes.training_sections import OptimizerSettings
from pics_cli.core.training.optimizer import learning_rate_factor, make_optimizer, make_schedule


def parameters(seed: int = 0) -> dict[str, nn.Parameter]:
    draw = torch.Generator().manual_seed(seed)
    return {name: nn.Parameter(torch.randn(shape, generator=draw)) for name, shape in (("a", (3, 4)), ("b", (5,)))}


def rates(options: OptimizerSettings, steps: int, done: int = 0, until: int | None = None) -> list[float]:
    """What the optimiser really takes, step by step."""
    optimizer = make_optimizer(parameters(), options)
    schedule = make_schedule(optimizer, options, steps, done)
    found = []
    for _ in range(done, steps if until is None else until):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_constant_after_the_warm_up() -> None:
    found = rates(OptimizerSettings(learning_rate=1e-3, warmup=4), 8)
    np.testing.assert_allclose(found, [0.25e-3, 0.5e-3, 0.75e-3, 1e-3, 1e-3, 1e-3, 1e-3, 1e-3])
    assert rates(OptimizerSettings(learning_rate=1e-3, warmup=0), 2) == [1e-3, 1e-3]


def test_cosine() -> None:
    options = OptimizerSettings(learning_rate=2.0, warmup=5, schedule="cosine")
    found = rates(options, 25)
    expected = [2 * (n + 1) / 5 for n in range(5)] + [1 + math.cos(math.pi * n / 20) for n in range(20)]
    np.testing.assert_allclose(found, expected)
    assert learning_rate_factor(options, 25, 25) == pytest.approx(0, abs=1e-12)
    assert learning_rate_factor(options, 25, 60) == pytest.approx(0, abs=1e-12)  # a run that was once longer
    assert rates(OptimizerSettings(learning_rate=1.0, warmup=10, schedule="cosine"), 4) == [0.1, 0.2, 0.3, 0.4]


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_resumed_it_is_as_if_never_stopped(schedule: Any) -> None:
    options = OptimizerSettings(learning_rate=0.3, warmup=6, schedule=schedule)
    whole = rates(options, 20)
    for done in (1, 5, 6, 13, 19):
        assert rates(options, 20, until=done) + rates(options, 20, done) == whole


def test_adamw() -> None:
    """Loshchilov and Hutter 2019, algorithm 2, in float64: every option reaches it."""
    options = OptimizerSettings(learning_rate=0.02, betas=(0.8, 0.95), weight_decay=0.1, epsilon=1e-3, warmup=0)
    trained = parameters()
    optimizer = make_optimizer(trained, options)
    random = np.random.default_rng(0)
    values = {name: value.detach().numpy().astype(np.float64) for name, value in trained.items()}
    first, second = ({name: np.zeros_like(value) for name, value in values.items()} for _ in range(2))
    for step in range(1, 7):
        for name, parameter in trained.items():
            gradient = random.standard_normal(parameter.shape)
            parameter.grad = torch.from_numpy(gradient).float()
            values[name] *= 1 - 0.02 * 0.1
            first[name] = 0.8 * first[name] + 0.2 * gradient
            second[name] = 0.95 * second[name] + 0.05 * gradient**2
            corrected = first[name] / (1 - 0.8**step), second[name] / (1 - 0.95**step)
            values[name] -= 0.02 * corrected[0] / (np.sqrt(corrected[1]) + 1e-3)
        optimizer.step()
    for name, parameter in trained.items():
        np.testing.assert_allclose(parameter.detach(), values[name], rtol=2e-6, atol=1e-6)
