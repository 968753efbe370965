"""The moving average of the weights, against a loop written from its definition."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pics_cli.core.recipes.training_sections import EmaSettings
from pics_cli.core.training.ema import ModelEma


def parameters(seed: int = 0) -> dict[str, nn.Parameter]:
    draw = torch.Generator().manual_seed(seed)
    return {name: nn.Parameter(torch.randn(shape, generator=draw)) for name, shape in (("a", (3, 4)), ("b", (5,)))}


def walked(average: ModelEma, trained: dict[str, nn.Parameter], steps: int, seed: int = 1) -> list[dict[str, Tensor]]:
    """Random steps of the weights, each followed by the average's; the weights after each."""
    draw, path = torch.Generator().manual_seed(seed), []
    for _ in range(steps):
        with torch.no_grad():
            for value in trained.values():
                value.add_(torch.randn(value.shape, generator=draw))
        average.step()
        path.append({name: value.detach().clone() for name, value in trained.items()})
    return path


@pytest.mark.parametrize("device", ["same", "cpu"])
@pytest.mark.parametrize("decay", [0.6, 0.995])
def test_the_average_is_the_plain_loop(device: Any, decay: float) -> None:
    """θ̄ ← d θ̄ + (1 − d) θ, d = min(decay, (1 + n) / (10 + n)); what stood there before any step counts for nothing."""
    trained = parameters()
    average = ModelEma(trained, EmaSettings(decay=decay, device=device))
    assert all(torch.equal(value, trained[name]) for name, value in average.state()[0].items())
    path = walked(average, trained, 40)
    for name in trained:
        mean = path[0][name].double()
        for n, weights in enumerate(path[1:], 1):
            d = min(decay, (1 + n) / (10 + n))
            mean = d * mean + (1 - d) * weights[name].double()
        torch.testing.assert_close(average.state()[0][name].double(), mean, rtol=1e-5, atol=1e-5)
        assert torch.equal(trained[name], path[-1][name])  # the weights are left alone
    assert average.state()[1] == 40


@pytest.mark.parametrize("device", ["same", "cpu"])
def test_swapped_twice_is_bitwise_as_before(device: Any) -> None:
    trained = parameters()
    average = ModelEma(trained, EmaSettings(decay=0.9, device=device))
    walked(average, trained, 5)
    identities = {name: value.data_ptr() for name, value in trained.items()}
    weights = {name: value.detach().clone() for name, value in trained.items()}
    averages = {name: value.clone() for name, value in average.state()[0].items()}
    average.swap()
    for name, value in trained.items():
        assert torch.equal(value, averages[name])
        assert torch.equal(average.state()[0][name], weights[name])
        assert value.requires_grad
    average.swap()
    for name, value in trained.items():
        assert torch.equal(value, weights[name])
        assert torch.equal(average.state()[0][name], averages[name])
        assert value.data_ptr() == identities[name]  # what the optimiser and autograd hold


@pytest.mark.parametrize("device", ["same", "cpu"])
def test_the_average_goes_on_where_it_was(device: Any) -> None:
    trained = parameters()
    average = ModelEma(trained, EmaSettings(decay=0.9, device=device))
    walked(average, trained, 7)
    kept = {name: value.clone() for name, value in average.state()[0].items()}
    other = {name: nn.Parameter(value.detach().clone()) for name, value in trained.items()}
    resumed = ModelEma(other, EmaSettings(decay=0.9, device=device))
    resumed.load(kept, average.state()[1])
    for one, weights in ((average, trained), (resumed, other)):
        walked(one, weights, 5, seed=2)
    assert resumed.state()[1] == average.state()[1] == 12
    for name, value in average.state()[0].items():
        assert torch.equal(resumed.state()[0][name], value)
