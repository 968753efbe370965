"""Samples on their way to the networks: batches to train on, and what is looked at in between."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch

from pics_cli.core.data.loading import TrainingData, collate, make_loader, positions
from pics_cli.core.data.mixture import Listed
from pics_cli.core.model.pipeline import PicsPipeline
from pics_cli.core.model.pixels import PixelAutoencoder
from pics_cli.core.ranks import Ranks
from pics_cli.core.training.draws import Draws
from pics_cli.core.training.sources import Sources
from pics_cli.core.training.validation import Held, held
from pics_cli.core.training_recipe import TrainingRecipe


def draws_of(recipe: TrainingRecipe, pipeline: PicsPipeline) -> Draws:
    """What is drawn for each sample of a run."""
    config = pipeline.config
    latent = (config.latent_channels, config.latent_size, config.latent_size)
    # An autoencoder gives a distribution of latents, pixels are what they are.
    drawn = not isinstance(pipeline.vae, PixelAutoencoder)
    return Draws(recipe.objective, latent, len(pipeline.scheduler.alphas_cumprod), drawn)


def training_data(recipe: TrainingRecipe, sources: Sources, pipeline: PicsPipeline) -> TrainingData:
    """The samples to train on, by position of the endless stream."""
    return TrainingData(sources.sets, sources.order, draw=draws_of(recipe, pipeline), **_shape(recipe, pipeline))


def held_data(
    recipe: TrainingRecipe, sources: Sources, pipeline: PicsPipeline, wanted: Iterable[int], say: Callable[[str], None]
) -> dict[int, Held]:
    """Samples to look at by number, without variation, each with own and with swapped references.

    Raises:
        PicsError: they cannot be read.
    """
    if not sources.held:
        return {}
    options = {**_shape(recipe, pipeline), "fixed": True}
    own, swapped = (
        TrainingData(sources.held_sets, Listed(sources.held), swap=swap, **options) for swap in (False, True)
    )
    found = {}
    for at in wanted:
        sample = own[at]
        for bad in sample["bad"]:
            say(f"{bad['set']} {bad['key']}: {bad['reason']}: {bad['detail']}; validation takes another sample")
        other = _arrays(swapped[at]) if len(sample["boxes"]) > 1 else None
        found[at] = held(sample["key"], _arrays(sample), other, pipeline.config.hint)
    return found


@contextlib.contextmanager
def batches(
    recipe: TrainingRecipe, data: TrainingData, start: int, ranks: Ranks, device: torch.device
) -> Iterator[Iterator[dict[str, Any]]]:
    """This process's batches, from a position of the stream on, without end."""
    order = positions(start, ranks.rank, ranks.size, recipe.batch_size)
    loader = make_loader(data, order, recipe.data.workers, pin=device.type == "cuda")
    with contextlib.closing(iter(loader)) as iterator:
        yield iterator


def collated(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A batch of samples for validation."""
    return dict(collate(samples))  # type: ignore[arg-type]


def _shape(recipe: TrainingRecipe, pipeline: PicsPipeline) -> dict[str, Any]:
    return {
        "augment": recipe.augment,
        "seed": recipe.seed,
        "size": pipeline.config.image_size,
        "reference_size": pipeline.config.reference_size,
        "hint": pipeline.config.hint,
        "fill": pipeline.config.fill,
        "window_size": pipeline.config.window_size,
        "cache_gb": recipe.data.cache_gb,
    }


def _arrays(sample: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in sample.items() if name not in ("key", "bad")}
