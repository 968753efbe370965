"""The order head: what its features may not depend on, what its log-odds say, and that it learns a rule of boxes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from helpers.trainees import LAYERS, small
from pics_cli.core.model.order_head import OrderHead, order_log_odds, order_loss
from pics_cli.core.model.pics_model import PicsModel


def boxes(count: int, objects: int = 3) -> torch.Tensor:
    corners = torch.rand(count, objects, 2, generator=torch.Generator().manual_seed(1)) * 200
    return torch.cat([corners, corners + 20 + 100 * torch.rand(count, objects, 2)], -1)


def test_pairs_are_judged_alike_from_both_sides() -> None:
    logits = OrderHead()(boxes(5))
    assert logits.shape == (5, 3, 3, 3)
    torch.testing.assert_close(logits[..., 0], logits[..., 1].transpose(1, 2))
    torch.testing.assert_close(logits[..., 2], logits[..., 2].transpose(1, 2))
    odds = order_log_odds(logits)
    torch.testing.assert_close(odds, -odds.transpose(1, 2))


def test_scale_place_mirror_and_precision_do_not_matter() -> None:
    head, given = OrderHead(), boxes(4)
    mirrored = given.clone()
    mirrored[..., [0, 2]] = 500 - given[..., [2, 0]]
    expected = head(given)
    torch.testing.assert_close(head(given * 3 + 17), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(head(mirrored), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(head(given.bfloat16().float()), head(given.bfloat16()))
    assert head.bfloat16()(given).dtype == torch.float32


def test_a_pair_does_not_depend_on_the_other_objects() -> None:
    head, given = OrderHead(), boxes(4)
    torch.testing.assert_close(head(given)[:, :2, :2], head(given[:, :2]))


def test_nothing_is_said_of_what_is_inside_another() -> None:
    before, inside = torch.tensor([4.0, 0.0, 0.0]), torch.tensor([4.0, 0.0, 30.0])
    assert float(order_log_odds(before)) > 2
    assert abs(float(order_log_odds(inside))) < 1e-3


def test_learns_that_the_lower_box_is_nearer() -> None:
    torch.manual_seed(0)
    head, given = OrderHead(), boxes(400, 2)
    kinds = (given[:, 0, 3] < given[:, 1, 3]).long()
    first, second = torch.zeros_like(kinds), torch.ones_like(kinds)
    optimizer = torch.optim.Adam(head.parameters(), 0.02)
    for _ in range(100):
        optimizer.zero_grad()
        order_loss(head(given[:300]), first[:300], second[:300], kinds[:300]).mean().backward()
        optimizer.step()
    right = (order_log_odds(head(given[300:]))[:, 0, 1] > 0) == (kinds[300:] == 0)
    assert right.float().mean() >= 0.95


@pytest.mark.parametrize("memory", ["resident", "sequential", "offload"])
def test_a_model_says_the_same_in_every_memory_mode(memory: str) -> None:
    model = small(**LAYERS)
    model.controlnet.order_head = OrderHead()
    model.controlnet.config["estimates_order"] = True
    given = boxes(1)[0].numpy()
    expected = model.estimate_order(given)
    assert expected is not None
    parts: dict[str, Any] = dict(model.parts)
    placed = PicsModel(model.config, **parts, scheduler=model.scheduler, memory=memory)
    found = placed.estimate_order(given)
    assert found is not None
    np.testing.assert_array_equal(found, expected)
