"""AdamW and its learning rate."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from pics_cli.core.recipes.training_sections import OptimizerSettings


def make_optimizer(trained: Mapping[str, nn.Parameter], options: OptimizerSettings) -> torch.optim.AdamW:
    """AdamW over the trained parameters."""
    return torch.optim.AdamW(
        list(trained.values()),
        lr=options.learning_rate,
        betas=options.betas,
        eps=options.epsilon,
        weight_decay=options.weight_decay,
        # One kernel for all: the loop over tensors costs time, and `foreach` a copy of every gradient.
        fused=True,
    )


def learning_rate_factor(options: OptimizerSettings, steps: int, step: int) -> float:
    """Factor on the learning rate at a step, counted from 0: linear warm-up, then constant or half a cosine."""
    if step < options.warmup:
        return (step + 1) / options.warmup
    if options.schedule == "constant":
        return 1.0
    progress = (step - options.warmup) / max(1, steps - options.warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def make_schedule(
    optimizer: torch.optim.Optimizer, options: OptimizerSettings, steps: int, steps_done: int
) -> LambdaLR:
    """The learning rate of every step of a run, which has made `steps_done` of its `steps`."""
    for group in optimizer.param_groups:
        group["initial_lr"] = options.learning_rate
    return LambdaLR(optimizer, lambda step: learning_rate_factor(options, steps, step), last_epoch=steps_done - 1)
