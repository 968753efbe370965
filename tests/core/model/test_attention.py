"""Layers of a transformer block against diffusers' own, with the same weights."""

from __future__ import annotations

import diffusers.models.attention
import pytest
import torch
from diffusers.models import attention_processor

from pics_cli.core.model.attention import Attention, FeedForward


@pytest.mark.parametrize("context_width", [None, 20])
@torch.no_grad()
def test_attention(context_width: int | None) -> None:
    torch.manual_seed(0)
    ours = Attention(16, context_width, heads=2, head_width=8)
    theirs = attention_processor.Attention(16, context_width, heads=2, dim_head=8)
    theirs.load_state_dict(ours.state_dict())
    queries, context = torch.randn(3, 7, 16), torch.randn(3, 5, context_width or 16)
    torch.testing.assert_close(ours(queries, context), theirs(queries, context), rtol=0, atol=1e-6)


@torch.no_grad()
def test_feed_forward() -> None:
    torch.manual_seed(0)
    ours, theirs = FeedForward(16), diffusers.models.attention.FeedForward(16, activation_fn="geglu")
    theirs.load_state_dict(ours.state_dict())
    tokens = torch.randn(3, 7, 16)
    torch.testing.assert_close(ours(tokens), theirs(tokens), rtol=0, atol=0)
