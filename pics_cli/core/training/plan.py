"""What a run would do: recipe, data, trained parameters and memory, found out without loading a weight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, NamedTuple

import torch
import yaml

from pics_cli.core.model.devices import choose_device, choose_dtype
from pics_cli.core.model.outline import Outline, outline
from pics_cli.core.model.pipeline import PicsPipeline
from pics_cli.core.model.scheduling import published_scheduler
from pics_cli.core.training.estimate import Memory, estimate
from pics_cli.core.training.job import Job
from pics_cli.core.training.sources import find_sources, share_rows
from pics_cli.core.training.start import overrides
from pics_cli.core.training_recipe import plain_recipe
from pics_cli.core.training_sections import Model

Rows = list[tuple[str, str]]


class Plan(NamedTuple):
    """Of a run.

    Attributes:
        recipe: as resolved, in YAML.
        tables: titles and rows, for people.
        memory: bytes at the peak of a training step, by what they are for.
    """

    recipe: str
    tables: list[tuple[str, Rows]]
    memory: Memory


def make_plan(job: Job, say: Callable[[str], None]) -> Plan:
    """Plan a run; nothing is written.

    Raises:
        PicsError: the data, the base model or the recipe are not what they should be.
    """
    recipe = job.recipe
    sources = find_sources(job, say)
    device = choose_device(job.device)
    dtype = choose_dtype(recipe.precision, device)
    drawn = outline_of(recipe.model)
    memory = estimate(recipe, blank_pipeline(drawn), dtype)
    batch = recipe.batch_size * recipe.accumulation
    epoch = sources.order.epoch_length
    data: Rows = [
        *share_rows(sources),
        ("an epoch", f"{epoch:,} samples"),
        ("a step", f"{batch:,} samples of each process"),
        ("the run", f"{recipe.steps:,} steps: {recipe.steps * batch / epoch:,.1f} epochs of one process"),
        ("validation", f"{len(sources.held):,} samples"),
    ]
    everything, trained = memory.parameters
    model: Rows = [
        ("start", drawn.words),
        ("parameters", f"{everything / 1e6:,.1f} million, trained {trained / 1e6:,.1f} million ({recipe.train})"),
        ("picture", f"{drawn.config.image_size}x{drawn.config.image_size}, hint {drawn.config.hint}, "
                    f"predicts {drawn.config.prediction_type}"),
        ("device", f"{device.type}, {str(dtype).removeprefix('torch.')}"),
    ]  # fmt: skip
    needs: Rows = [
        ("weights", _gb(memory.weights)),
        ("optimiser", _gb(memory.optimizer)),
        ("moving average", _gb(memory.average)),
        ("gradients, activations", _gb(memory.step)),
        ("peak", f"{_gb(memory.peak)} of tensors; libraries and workspaces come on top"),
    ]
    text = yaml.safe_dump(plain_recipe(recipe), sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)
    tables = [("data", data), ("model", model), ("memory of one process, predicted", needs)]
    return Plan(text.rstrip(), tables, memory)


def outline_of(model: Model) -> Outline:
    """The model section of a recipe without its weights."""
    shape = None if model.shape is None else asdict(model.shape)
    return outline(model.base, model.dinov2, shape, overrides(model))


def blank_pipeline(drawn: Outline) -> PicsPipeline:
    """An outline as a pipeline on the meta device."""
    parts: dict[str, Any] = drawn.parts
    return PicsPipeline(drawn.config, **parts, scheduler=published_scheduler(), device=torch.device("meta"))


def _gb(size: int) -> str:
    return f"{size / 1e9:,.2f} GB"
