"""What a training run would do and need (`pics train --plan`): data, model and memory."""

from __future__ import annotations

from typing import NamedTuple

import yaml

from pics_cli.core.model.devices import choose_device, choose_dtype
from pics_cli.core.recipes.base import plain_recipe
from pics_cli.core.training.data import find_data
from pics_cli.core.training.initial_model import blank_initial_model
from pics_cli.core.training.memory_estimate import Memory, estimate_memory
from pics_cli.core.training.run import TrainingJob


class TrainingPlan(NamedTuple):
    """What a run would do.

    Attributes:
        recipe: as resolved, in YAML.
        tables: titles and rows, for people.
        memory: bytes at the peak of a training step, by what they are for.
    """

    recipe: str
    tables: list[tuple[str, list[tuple[str, str]]]]
    memory: Memory


def plan_training(job: TrainingJob) -> TrainingPlan:
    """Plan a run; nothing is written.

    Raises:
        PicsError: the data, the base model or the recipe are not what they should be.
    """
    recipe = job.recipe
    split = find_data(recipe, allow_missing=job.allow_missing, allow_pipe=job.allow_pipe)
    device = choose_device(job.device)
    blank, origin = blank_initial_model(recipe.model)
    config = blank.config
    dtype = choose_dtype(recipe.precision, device, config.full_size)
    memory = estimate_memory(recipe, blank, dtype)
    batch, epoch = recipe.batch_size * recipe.accumulation, split.order.epoch_length
    data = [
        *split.summary(),
        ("an epoch", f"{epoch:,} samples"),
        ("a step", f"{batch:,} samples of each process"),
        ("the run", f"{recipe.steps:,} steps: {recipe.steps * batch / epoch:,.1f} epochs of one process"),
        ("validation", f"{len(split.validation_items):,} samples"),
    ]
    lacks_model = recipe.train == "lora" and recipe.model.base is None
    trained = f"trained {memory.trained / 1e6:,.1f} million ({recipe.train})"
    model = [
        ("start", f"{origin}; an adapter needs a trained model: --base" if lacks_model else origin),
        ("parameters", f"{memory.parameters / 1e6:,.1f} million, {trained}"),
        (
            "picture",
            f"{config.image_size}x{config.image_size}, hint {config.hint}, predicts {config.prediction_type}",
        ),
        ("device", f"{device.type}, {str(dtype).removeprefix('torch.')}"),
    ]
    needs = [
        ("weights", _gb(memory.weights)),
        *([("adapter, of these", _gb(4 * memory.trained))] if recipe.train == "lora" else []),
        ("optimiser", _gb(memory.optimizer)),
        ("moving average", _gb(memory.average)),
        ("gradients, activations", _gb(memory.step)),
        ("peak", f"{_gb(memory.peak)} of tensors; libraries and workspaces come on top"),
    ]
    text = yaml.safe_dump(plain_recipe(recipe), sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)
    return TrainingPlan(
        text.rstrip(), [("data", data), ("model", model), ("memory of one process, predicted", needs)], memory
    )


def _gb(size: int) -> str:
    return f"{size / 1e9:,.2f} GB"
