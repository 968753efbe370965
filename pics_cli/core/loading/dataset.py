"""Training samples by position of an order, as a PyTorch dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from pics_cli.core.loading.mixture import FixedOrder, Mixture, SampleRef
from pics_cli.core.loading.training_sample import prepare_training_sample, without_augmentation
from pics_cli.core.model.config import HintKind
from pics_cli.core.recipes.training_sections import AugmentSettings
from pics_cli.core.runtime.rng import generator
from pics_cli.core.shards.shard_sets import ShardSet
from pics_cli.core.shards.tar_index import SampleIndex, read_sample
from pics_cli.errors import BadSample, PicsError

# Samples tried for one position, before the whole set is taken for unreadable.
_TRIES = 16
_WITHOUT_CLEAN = (
    "train on scenes that come with it (synth, rendered), or else a new network with --set model.hint=collage, or the "
    "published model (--base pics)"
)


class NoiseSampler(Protocol):
    """What is drawn for a sample besides its augmentation, by name."""

    def __call__(self, rng: np.random.Generator, /) -> dict[str, npt.NDArray[Any]]: ...


class WorkerError:
    """An error on its way from a worker: the loader would wrap an exception in text of its own."""

    def __init__(self, error: PicsError) -> None:
        self.error = error


class TrainingDataset(Dataset[dict[str, Any]]):
    """Samples by position, as arrays of a training step.

    Args:
        sets: shards of each set.
        order: which of their samples is at a position.
        augment: how references and boxes are varied, of sets that do not say it themselves.
        seed: of the run: augmentation, `noise_sampler`, and which sample replaces a bad one.
        size, reference_size, hint, object_scale, shadows, window_size, swap_references: see `prepare_training_sample`.
        noise_sampler: what else is drawn for a sample; must be picklable.
        cache_gb: room for remote shards.
        augmented: False for validation.
    """

    def __init__(
        self,
        sets: Sequence[ShardSet],
        order: Mixture | FixedOrder,
        *,
        augment: AugmentSettings,
        seed: int,
        size: int,
        reference_size: int,
        hint: HintKind,
        object_scale: float = 1.0,
        shadows: bool = False,
        window_size: int | None = None,
        noise_sampler: NoiseSampler | None = None,
        cache_gb: float = 50.0,
        augmented: bool = True,
        swap_references: bool = False,
    ) -> None:
        self.sets, self.order, self.seed, self.noise_sampler = list(sets), order, seed, noise_sampler
        augments = [shard_set.augment or augment for shard_set in sets]
        self._augments = augments if augmented else [without_augmentation(settings) for settings in augments]
        self._prepare_sample = partial(
            prepare_training_sample,
            seed=seed,
            size=size,
            reference_size=reference_size,
            hint=hint,
            object_scale=object_scale,
            shadows=shadows,
            window_size=window_size,
            swap_references=swap_references,
        )
        self._cache_gb = cache_gb
        self._indexes: dict[tuple[int, int], SampleIndex] = {}

    def __getitem__(self, position: int) -> dict[str, Any]:
        """A `TrainingSample` and what `noise_sampler` drew; `key` ("SET/KEY"); `bad`: samples that it replaces.

        Raises:
            PicsError: a shard cannot be read; one sample after the other is bad.
        """
        ref, bad = self.order[position], list[dict[str, str]]()
        rng = generator(self.seed, "instead", position)
        for _ in range(_TRIES):
            name = self.sets[ref.set].name
            key = f"{Path(str(self.sets[ref.set].sources[ref.shard])).name} #{ref.sample}"
            try:
                key, members = self.read(ref)
                return {**self._prepare(ref, key, members), "key": f"{name}/{key}", "bad": bad}
            except BadSample as error:
                bad.append({"set": name, "key": key, "reason": error.reason, "detail": error.detail})
            ref = self.order.resample(ref, rng)
        last = "{key}: {reason}: {detail}".format(**bad[-1])
        raise PicsError(
            f"{name}: {_TRIES} samples drawn in a row cannot be read, the last: {last}",
            _WITHOUT_CLEAN
            if all(each["reason"] == "no_clean" for each in bad)
            else "look at the set with `pics build-shards --check DIR`",
        )

    def __getitems__(self, positions: Sequence[int]) -> list[dict[str, Any]] | WorkerError:
        """Several samples, or the error of one of them."""
        try:
            return [self[position] for position in positions]
        except PicsError as error:
            return WorkerError(error)

    def read(self, ref: SampleRef) -> tuple[str, Mapping[str, bytes]]:
        """Key and members of a sample; errors as those of `read_sample`, but PicsError for files that are gone."""
        shards = self.sets[ref.set]
        for _ in range(_TRIES):
            path = shards.local_path(ref.shard, self._cache_gb)
            try:
                index = self._indexes.get(ref[:2])
                if index is None:
                    index = self._indexes[ref[:2]] = shards.load_index(ref.shard, path)
                start, stop = index[ref.sample : ref.sample + 2].tolist()
                return read_sample(path, start, stop)
            except FileNotFoundError:  # fetched, and removed by another process to make room
                if not shards.remote:
                    break
        if shards.remote:
            raise PicsError(
                f"{shards.sources[ref.shard]}: removed from the cache before it was read, several times",
                "raise data.cache_gb: it holds too few shards for this many processes",
            )
        raise PicsError(f"{path}: no such file any more", "put it back, then run the same command again: it resumes")

    def _prepare(self, ref: SampleRef, key: str, members: Mapping[str, bytes]) -> dict[str, Any]:
        name = self.sets[ref.set].name
        rng_keys = (ref.epoch, ref.repetition)
        sample = self._prepare_sample(
            members, set_name=name, key=key, augment=self._augments[ref.set], rng_keys=rng_keys
        )
        noise = self.noise_sampler(generator(self.seed, "draw", name, key, *rng_keys)) if self.noise_sampler else {}
        return {**sample, **noise}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_indexes": {}}
