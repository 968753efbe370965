"""How much memory a training step needs, found out by running one on the meta device: tensors without contents.

What is counted is what torch's allocator hands out for tensors. Not seen: workspaces that kernels take, and what the
process needs besides (about 0.5 GB for CUDA).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from pics_cli.core.model.config import ModelConfig
from pics_cli.core.model.meter import Meter
from pics_cli.core.model.pipeline import PicsPipeline
from pics_cli.core.rng import generator
from pics_cli.core.training.feed import draws_of
from pics_cli.core.training.objective import new_step
from pics_cli.core.training.trainable import set_up
from pics_cli.core.training_recipe import TrainingRecipe

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


def estimate(recipe: TrainingRecipe, pipeline: PicsPipeline, dtype: torch.dtype) -> Memory:
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


def standard_batch(recipe: TrainingRecipe, pipeline: PicsPipeline) -> dict[str, Any]:
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
