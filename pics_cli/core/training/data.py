"""The samples of a run: shards of every set, what is held out of them, and the order of the others."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch

from pics_cli.core.loading.dataset import TrainingDataset
from pics_cli.core.loading.loader import batch_positions, build_dataloader, collate
from pics_cli.core.loading.mixture import FixedOrder, Mixture, SampleRef, choose_validation_samples, sample_refs
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.model.pixel_autoencoder import PixelAutoencoder
from pics_cli.core.recipes.training import TrainingRecipe
from pics_cli.core.runtime.ranks import Ranks
from pics_cli.core.shards.shard_sets import SHARD_WINDOW, ShardSet, resolve_shard_sets
from pics_cli.core.training.job import Job
from pics_cli.core.training.objective import Draws
from pics_cli.core.training.validation import Held, held
from pics_cli.errors import PicsError

# Of sets that have no validation shards, at most this share is held out.
_HELD_OUT = 0.1


class Sources(NamedTuple):
    """What a run trains on and looks at.

    Attributes:
        sets: shards to train on.
        order: of their samples.
        held_sets: for each set, the shards that validation takes its samples from.
        held: which samples of these.
        from_training: names of the sets whose samples for validation are held out of training.
    """

    sets: list[ShardSet]
    order: Mixture
    held_sets: list[ShardSet]
    held: list[SampleRef]
    from_training: list[str]

    @property
    def samples(self) -> int:
        """Samples to train on, each counted once."""
        return sum(each.samples for each in self.sets) - sum(
            self.sets[item.set].name in self.from_training for item in self.held
        )

    @property
    def contents(self) -> dict[str, Any]:
        """What must be the same for a run to be resumed."""
        return {
            each.name: {"samples": each.samples, "contents": each.contents_sha256,
                        "validation": held.contents_sha256 if held is not each else "held out"}
            for each, held in zip(self.sets, self.held_sets, strict=True)
        }  # fmt: skip


def find_sources(job: Job, say: Callable[[str], None]) -> Sources:  # noqa: ARG001
    """Look for the shards of a recipe, and decide which samples are held out.

    Raises:
        PicsError: sets that are missing, empty or of another layout; an address that needs --allow-pipe.
    """
    data, options = job.recipe.data, job.recipe.validation
    sets = resolve_shard_sets(data, "train", allow_missing=job.allow_missing, allow_pipe=job.allow_pipe)
    there = {each.name: each for each in resolve_shard_sets(data, "val", allow_missing=True, allow_pipe=job.allow_pipe)}
    held_sets = [there.get(each.name, each) for each in sets]
    counts = [each.counts for each in held_sets]
    own = [held is each for held, each in zip(held_sets, sets, strict=True)]
    numbers = choose_validation_samples(
        counts, options.samples, job.recipe.seed, [_HELD_OUT if here else 1.0 for here in own]
    )
    try:
        order = Mixture(
            [each.counts for each in sets],
            [each.repeat for each in sets],
            job.recipe.seed,
            share=data.epoch_share,
            held_out=[chosen if here else set() for chosen, here in zip(numbers, own, strict=True)],
            windows=[SHARD_WINDOW if each.remote else None for each in sets],
        )
        empty = [each.name for each, share in zip(sets, order.shares, strict=True) if not share]
    except ValueError:
        empty = [each.name for each in sets]
    if empty:
        raise PicsError(
            f"{', '.join(empty)}: no sample in an epoch: too few for so small a repeat", "raise data.sets.NAME.repeat"
        )
    names = [each.name for each, here in zip(sets, own, strict=True) if here]
    return Sources(sets, order, held_sets, sample_refs(counts, numbers), names)


def share_rows(sources: Sources) -> list[tuple[str, str]]:
    """What each set has and gives, a line each, for people."""
    return [
        (
            each.name,
            f"{each.samples:,} samples in {len(each.sources):,} shards, repeated {each.repeat:g}: {share:.1%} of an "
            f"epoch; validation: {'held out' if each.name in sources.from_training else 'shards of its own'}",
        )
        for each, share in zip(sources.sets, sources.order.shares, strict=True)
    ]


def draws_of(recipe: TrainingRecipe, pipeline: PicsModel) -> Draws:
    """What is drawn for each sample of a run."""
    config = pipeline.config
    latent = (config.latent_channels, config.latent_size, config.latent_size)
    # An autoencoder gives a distribution of latents, pixels are what they are.
    drawn = not isinstance(pipeline.vae, PixelAutoencoder)
    return Draws(recipe.objective, latent, len(pipeline.scheduler.alphas_cumprod), drawn)


def training_data(recipe: TrainingRecipe, sources: Sources, pipeline: PicsModel) -> TrainingDataset:
    """The samples to train on, by position of the endless stream."""
    return TrainingDataset(
        sources.sets, sources.order, noise_sampler=draws_of(recipe, pipeline), **_shape(recipe, pipeline)
    )


def held_data(
    recipe: TrainingRecipe, sources: Sources, pipeline: PicsModel, wanted: Iterable[int], say: Callable[[str], None]
) -> dict[int, Held]:
    """Samples to look at by number, without variation, each with own and with swapped references.

    Raises:
        PicsError: they cannot be read.
    """
    if not sources.held:
        return {}
    options = {**_shape(recipe, pipeline), "augmented": False}
    own, swapped = (
        TrainingDataset(sources.held_sets, FixedOrder(sources.held), swap_references=swap, **options)
        for swap in (False, True)
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
    recipe: TrainingRecipe, data: TrainingDataset, start: int, ranks: Ranks, device: torch.device
) -> Iterator[Iterator[dict[str, Any]]]:
    """This process's batches, from a position of the stream on, without end."""
    order = batch_positions(start, ranks.rank, ranks.size, recipe.batch_size)
    loader = build_dataloader(data, order, recipe.data.workers, pin=device.type == "cuda")
    with contextlib.closing(iter(loader)) as iterator:
        yield iterator


def collated(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A batch of samples for validation."""
    return dict(collate(samples))  # type: ignore[arg-type]


def _shape(recipe: TrainingRecipe, pipeline: PicsModel) -> dict[str, Any]:
    return {
        "augment": recipe.augment,
        "seed": recipe.seed,
        "size": pipeline.config.image_size,
        "reference_size": pipeline.config.reference_size,
        "hint": pipeline.config.hint,
        "object_scale": pipeline.config.fill,
        "window_size": pipeline.config.window_size,
        "cache_gb": recipe.data.cache_gb,
    }


def _arrays(sample: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in sample.items() if name not in ("key", "bad")}
