"""The samples of a run: shards of every set, samples held out for validation, and the order of the others."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pics_cli.core.loading.dataset import TrainingDataset
from pics_cli.core.loading.loader import batch_positions, build_dataloader
from pics_cli.core.loading.mixture import FixedOrder, Mixture, SampleRef, choose_validation_samples, sample_refs
from pics_cli.core.model.config import ModelConfig
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.recipes.training import TrainingRecipe
from pics_cli.core.runtime.ranks import Ranks
from pics_cli.core.shards.shard_sets import SHARD_WINDOW, ShardSet, resolve_shard_sets
from pics_cli.core.training.objective import NoiseSampler
from pics_cli.core.training.validation import ValidationSample, validation_sample
from pics_cli.errors import PicsError

logger = logging.getLogger(__name__)
# Of sets that have no validation shards, at most this share is held out.
_HELD_OUT = 0.1


class DataSplit(NamedTuple):
    """The samples that a run trains on and those that it validates with.

    Attributes:
        sets: shards to train on.
        order: of their samples.
        validation_sets: for each set, the shards that validation takes its samples from: its own or those of `sets`.
        validation_items: which samples of these.
    """

    sets: list[ShardSet]
    order: Mixture
    validation_sets: list[ShardSet]
    validation_items: list[SampleRef]

    @property
    def held_out_sets(self) -> list[str]:
        """Names of the sets whose samples for validation are held out of training."""
        pairs = zip(self.sets, self.validation_sets, strict=True)
        return [shards.name for shards, validation in pairs if validation is shards]

    @property
    def local_shards(self) -> list[Path]:
        """Shards that lie on this machine."""
        used = [shards for shards in (*self.sets, *self.validation_sets) if not shards.remote]
        return [Path(source) for shards in used for source in shards.sources]

    @property
    def samples(self) -> int:
        """Samples to train on, each counted once."""
        names = self.held_out_sets
        held_out = sum(self.sets[item.set].name in names for item in self.validation_items)
        return sum(shards.samples for shards in self.sets) - held_out

    @property
    def contents(self) -> dict[str, Any]:
        """The identity of the data: must be the same when a run is resumed."""
        return {
            shards.name: {"samples": shards.samples, "contents": shards.contents_sha256,
                          "validation": "held out" if validation is shards else validation.contents_sha256,
                          **({"order": f"{SHARD_WINDOW} shards at a time"} if shards.windowed else {})}
            for shards, validation in zip(self.sets, self.validation_sets, strict=True)
        }  # fmt: skip

    def summary(self) -> list[tuple[str, str]]:
        """Names of the sets, and in words the size of each and its share of an epoch."""
        rows = []
        for shards, share in zip(self.sets, self.order.shares, strict=True):
            validation = "held out" if shards.name in self.held_out_sets else "shards of its own"
            size = f"{shards.samples:,} samples in {len(shards.sources):,} shards"
            words = f"{size}, repeated {shards.repeat:g}: {share:.1%} of an epoch; validation: {validation}"
            rows.append((shards.name, words))
        return rows


def find_data(recipe: TrainingRecipe, *, allow_missing: bool = False, allow_pipe: bool = False) -> DataSplit:
    """Find the shards of a recipe, and decide which samples are held out.

    Args:
        recipe: its sections `data` and `validation`, and its seed.
        allow_missing: leave out sets without shards.
        allow_pipe: run the commands of `pipe:` addresses.

    Raises:
        PicsError: sets that are missing, empty or of another layout; an address that needs --allow-pipe.
    """
    data = recipe.data
    sets = resolve_shard_sets(data, "train", allow_missing=allow_missing, allow_pipe=allow_pipe)
    own = resolve_shard_sets(data, "val", allow_missing=True, allow_pipe=allow_pipe)
    own_by_name = {shards.name: shards for shards in own}
    validation_sets = [own_by_name.get(shards.name, shards) for shards in sets]
    held_out_shares = [1.0 if shards.name in own_by_name else _HELD_OUT for shards in sets]
    counts = [shards.counts for shards in validation_sets]
    numbers = choose_validation_samples(counts, recipe.validation.samples, recipe.seed, held_out_shares)
    try:
        order = Mixture(
            [shards.counts for shards in sets],
            [shards.repeat for shards in sets],
            recipe.seed,
            share=data.epoch_share,
            held_out=[
                set() if shards.name in own_by_name else chosen for shards, chosen in zip(sets, numbers, strict=True)
            ],
            windows=[SHARD_WINDOW if shards.windowed else None for shards in sets],
        )
        empty = [shards.name for shards, share in zip(sets, order.shares, strict=True) if not share]
    except ValueError:
        empty = [shards.name for shards in sets]
    if empty:
        raise PicsError(
            f"{', '.join(empty)}: no sample in an epoch: too few for so small a repeat", "raise data.sets.NAME.repeat"
        )
    return DataSplit(sets, order, validation_sets, sample_refs(counts, numbers))


def training_data(
    recipe: TrainingRecipe, data: DataSplit, config: ModelConfig, noise_sampler: NoiseSampler | None = None
) -> TrainingDataset:
    """The samples to train on, by position in the endless stream."""
    return TrainingDataset(data.sets, data.order, noise_sampler=noise_sampler, **_sample_options(recipe, config))


@contextlib.contextmanager
def training_batches(
    recipe: TrainingRecipe, data: DataSplit, model: PicsModel, position: int, ranks: Ranks
) -> Iterator[Iterator[dict[str, Any]]]:
    """This process's batches, from a position of the stream on, without end."""
    samples = training_data(recipe, data, model.config, NoiseSampler.for_model(recipe.objective, model))
    order = batch_positions(position, ranks.rank, ranks.size, recipe.batch_size)
    loader = build_dataloader(samples, order, recipe.data.workers, pin=model.device.type == "cuda")
    with contextlib.closing(iter(loader)) as batches:
        yield batches


def load_validation_samples(
    recipe: TrainingRecipe, data: DataSplit, config: ModelConfig, numbers: Iterable[int]
) -> dict[int, ValidationSample]:
    """Validation samples by number, without variation, each with its own and with swapped references.

    Raises:
        PicsError: they cannot be read.
    """
    if not data.validation_items:
        return {}
    options = {**_sample_options(recipe, config), "augmented": False}
    own, swapped = (
        TrainingDataset(data.validation_sets, FixedOrder(data.validation_items), swap_references=swap, **options)
        for swap in (False, True)
    )
    samples = {}
    for number in numbers:
        sample = own[number]
        for bad in sample["bad"]:
            logger.warning("%(set)s %(key)s: %(reason)s: %(detail)s; validation takes another sample", bad)
        swapped_arrays = _arrays(swapped[number]) if len(sample["boxes"]) > 1 else None
        samples[number] = validation_sample(sample["key"], _arrays(sample), swapped_arrays, config.hint)
    return samples


def _sample_options(recipe: TrainingRecipe, config: ModelConfig) -> dict[str, Any]:
    return {
        "augment": recipe.augment,
        "seed": recipe.seed,
        "size": config.image_size,
        "reference_size": config.reference_size,
        "hint": config.hint,
        "object_scale": config.fill,
        "shadows": config.shadows,
        "window_size": config.window_size,
        "cache_gb": recipe.data.cache_gb,
    }


def _arrays(sample: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in sample.items() if name not in ("key", "bad")}
