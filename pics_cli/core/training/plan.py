"""How much memory a training step needs, found out by running one on the meta device: tensors without contents.

What is counted is what torch's allocator hands out for tensors. Not seen: workspaces that kernels take, and what the
process needs besides (about 0.5 GB for CUDA).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, NamedTuple

import torch
import yaml

from pics_cli.core.model.config import ModelConfig
from pics_cli.core.model.devices import choose_device, choose_dtype
from pics_cli.core.model.meter import Meter
from pics_cli.core.model.outline import Outline, outline
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.model.schedulers import published_scheduler
from pics_cli.core.recipes.training import TrainingRecipe, plain_recipe
from pics_cli.core.recipes.training_sections import Model
from pics_cli.core.runtime.rng import generator
from pics_cli.core.training.data import draws_of, find_sources, share_rows
from pics_cli.core.training.job import Job
from pics_cli.core.training.objective import new_step
from pics_cli.core.training.optimizer import set_up
from pics_cli.core.training.starting_model import overrides

# The standard case for figures (DESIGN §5): two boxes of 30 % of a 512×512 picture, which overlap.
_BOXES, _OF = ((147, 75, 364, 292), (147, 219, 364, 436)), 512


class Memory(NamedTuple):
    """Bytes of tensors at the peak of a training step, by what they are for.

    Attributes:
        weights: of all parts, as they lie in training.
        optimizer: both moments of AdamW.
        average: the moving average, where it lies with the weights.
        step: the rest at the peak: gradients, what the backward pass needs, copies in the computing precision.
        parameters: of the model, and how many of them are trained.
    """

    weights: int
    optimizer: int
    average: int
    step: int
    parameters: tuple[int, int]

    @property
    def peak(self) -> int:
        """All of it."""
        return self.weights + self.optimizer + self.average + self.step


def estimate(recipe: TrainingRecipe, pipeline: PicsModel, dtype: torch.dtype) -> Memory:
    """Memory of a step after the first.

    Args:
        recipe: batch size, what is trained, what is kept for the backward pass.
        pipeline: on the meta device; unusable afterwards.
        dtype: what the networks compute in.
    """
    trained = set_up(pipeline, recipe.train, recipe.train_encoder, dtype)
    for network in (pipeline.unet, pipeline.controlnet):
        network.gradient_checkpointing = recipe.gradient_checkpointing
    weights = sum(value.nbytes for part in pipeline.parts.values() for value in part.parameters())
    count = sum(value.numel() for value in trained.values())
    everything = sum(value.numel() for part in pipeline.parts.values() for value in part.parameters())
    single = 4 * count
    step = new_step(pipeline, recipe.objective, dtype)
    # There is no autocast on the meta device: the meter does what it does elsewhere.
    with Meter(half=dtype if dtype != torch.float32 else None) as meter:
        losses = step(standard_batch(recipe, pipeline), torch.device("meta"))
        losses.weighted.mean().backward()
    needed = max(meter.peak, single)  # at the end of the backward pass only gradients are left
    average = single if recipe.ema.enabled and recipe.ema.device == "same" else 0
    return Memory(weights, 2 * single, average, needed, (everything, count))


def standard_batch(recipe: TrainingRecipe, pipeline: PicsModel) -> dict[str, Any]:
    """A batch of the standard case, on the CPU, of zeros."""
    config: ModelConfig = pipeline.config
    size, batch, objects = config.image_size, recipe.batch_size, config.objects
    boxes = torch.tensor([_BOXES[k % 2] for k in range(objects)]) * size // _OF
    drawn = draws_of(recipe, pipeline)(generator(0, "estimate"))
    found = {name: torch.from_numpy(value)[None].repeat(batch, *[1] * value.ndim) for name, value in drawn.items()}
    picture = torch.zeros(batch, size, size, 3, dtype=torch.uint8)
    layers = {"agreement": picture[..., 0]} if config.hint == "layers" else {}
    hint = torch.zeros(batch, size, size, 3 * config.hint_pictures, dtype=torch.uint8)
    return {
        **found,
        **layers,
        "hint": hint,
        "target": picture,
        "boxes": boxes[None].repeat(batch, 1, 1),
        "content": torch.tensor([[0, 0, size, size]]).repeat(batch, 1),
        "references": torch.zeros(batch, objects, config.reference_size, config.reference_size, 3, dtype=torch.uint8),
    }


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
    drawn = outline_of(recipe.model)
    dtype = choose_dtype(recipe.precision, device, drawn.config.full_size)
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


def blank_pipeline(drawn: Outline) -> PicsModel:
    """An outline as a pipeline on the meta device."""
    parts: dict[str, Any] = drawn.parts
    return PicsModel(drawn.config, **parts, scheduler=published_scheduler(), device=torch.device("meta"))


def _gb(size: int) -> str:
    return f"{size / 1e9:,.2f} GB"
