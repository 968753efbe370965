"""Samples by position, batches of them in order whatever the number of workers."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from itertools import count
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from pics_cli.core.loading.mixture import Item
from pics_cli.core.loading.training_sample import prepare, still
from pics_cli.core.model.config import HintKind
from pics_cli.core.recipes.training_sections import AugmentSettings
from pics_cli.core.runtime.engines import exit_with_parent
from pics_cli.core.runtime.rng import generator
from pics_cli.core.shards.shard_sets import Shards, checked_index, local_path
from pics_cli.core.shards.tar_index import SampleIndex, read_sample
from pics_cli.errors import FAILED, BadSample, PicsError

# Seconds that the end of a worker may take after its connection.
_GONE = 5.0


def start_worker(_: int) -> None:
    """Signals to all processes of a job are for the main one alone, which still wants samples for the step it is in."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_when_told, daemon=True).start()
    exit_with_parent()
    cv2.setNumThreads(0)


def _end_when_told() -> None:
    """By the main process, that is, and not by whoever asks the whole job to end."""
    parent = multiprocessing.parent_process()  # not the process that forked this one, where a server does that
    while parent is not None and signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent.pid:
        pass
    os._exit(0)


def worker_died(error: Exception, workers: Sequence[BaseProcess] = ()) -> PicsError | None:
    """What the user reads where a loader's worker ended of itself, or could not hand over what it read.

    Args:
        error: as PyTorch raised it.
        workers: the processes.

    Returns:
        None for another error.
    """
    if workers and not isinstance(error, RuntimeError):  # one broke off, but may not be gone quite yet
        ends = wait([worker.sentinel for worker in workers], _GONE)
        for worker in workers:
            if worker.sentinel in ends:
                worker.join(_GONE)
    codes = [worker.exitcode for worker in workers]
    fewer = "run the same command again with fewer --set data.workers: it resumes"
    if "open files" in str(error):
        return PicsError("too many open files", f"allow more (ulimit -n 65536), or {fewer}", FAILED)
    if -signal.SIGBUS in codes:
        hint = f"give the container more (docker run --shm-size=8g), or {fewer}"
        return PicsError("a process that reads samples ran out of shared memory", hint, FAILED)
    if any(codes) or "DataLoader worker (pid" in str(error):
        return PicsError("a process that reads samples died; often the machine ran out of memory", fewer, FAILED)
    return None


Batch = dict[str, Any]

# Samples tried for one position, before the whole set is taken for unreadable.
_TRIES = 16


class Draw(Protocol):
    """What is drawn for a sample besides its augmentation, by name."""

    def __call__(self, rng: np.random.Generator, /) -> dict[str, npt.NDArray[Any]]: ...


class Order(Protocol):
    """Which sample stands where: a `Mixture`, or `Listed` items."""

    def locate(self, position: int) -> Item: ...

    def instead(self, item: Item, rng: np.random.Generator) -> Item: ...


class TrainingData(Dataset[Batch]):
    """Samples by position, as a training step sees them.

    Args:
        sets: shards of each set.
        order: which of their samples stands at a position.
        augment: how references and boxes are varied, of sets that do not say it themselves.
        seed: of the run: augmentation, `draw`, and which sample takes the place of a bad one.
        size: S.
        reference_size: R.
        hint: its kind.
        fill: share of a region's sides that a pasted object takes.
        window_size: see `training_sample.prepare`.
        draw: what else is drawn for a sample; must be picklable.
        cache_gb: room for shards fetched from elsewhere.
        fixed: without variation, for validation.
        swap: references exchanged among the objects of a sample.
    """

    def __init__(
        self,
        sets: Sequence[Shards],
        order: Order,
        *,
        augment: AugmentSettings,
        seed: int,
        size: int,
        reference_size: int,
        hint: HintKind,
        fill: float = 1.0,
        window_size: int | None = None,
        draw: Draw | None = None,
        cache_gb: float = 50.0,
        fixed: bool = False,
        swap: bool = False,
    ) -> None:
        self.sets, self.order, self.seed, self.draw = list(sets), order, seed, draw
        augments = [each.augment or augment for each in sets]
        self._augments = [still(each) for each in augments] if fixed else augments
        shape = {"size": size, "reference_size": reference_size, "hint": hint, "fill": fill, "window_size": window_size}
        self._compose: dict[str, Any] = {**shape, "swap": swap}
        self._cache_gb = cache_gb
        self._indexes: dict[tuple[int, int], SampleIndex] = {}

    def __getitem__(self, position: int) -> Batch:
        """Arrays of a sample and what `draw` drew; `key` ("SET/KEY"); `bad`: what it stands in for.

        Raises:
            PicsError: a shard cannot be read; one sample after the other is bad.
        """
        item, bad = self.order.locate(position), list[dict[str, str]]()
        rng = generator(self.seed, "instead", position)
        for _ in range(_TRIES):
            name = self.sets[item.set].name
            key = f"{Path(str(self.sets[item.set].sources[item.shard])).name} #{item.sample}"
            try:
                key, members = self.read(item)
                return {**self._prepare(item, key, members), "key": f"{name}/{key}", "bad": bad}
            except BadSample as error:
                bad.append({"set": name, "key": key, "reason": error.reason, "detail": error.detail})
            item = self.order.instead(item, rng)
        last = "{key}: {reason}: {detail}".format(**bad[-1])
        raise PicsError(
            f"{name}: {_TRIES} samples drawn in a row cannot be read, the last: {last}",
            "look at the set with `pics build-shards --check DIR`",
        )

    def __getitems__(self, positions: Sequence[int]) -> list[Batch] | Failed:
        """Several samples; what is wrong with them as a value, since the loader wraps exceptions in text of its own."""
        try:
            return [self[position] for position in positions]
        except PicsError as error:
            return Failed(error)

    def read(self, item: Item) -> tuple[str, Mapping[str, bytes]]:
        """Key and members of a sample; errors as those of `read_sample` but for files that are gone: PicsError."""
        shards = self.sets[item.set]
        for _ in range(_TRIES):
            path = local_path(shards, item.shard, self._cache_gb)
            try:
                index = self._index(item, path)
                start, stop = index[item.sample : item.sample + 2].tolist()
                return read_sample(path, start, stop)
            except FileNotFoundError:  # fetched, and removed by another process to make room
                if not shards.remote:
                    break
        if shards.remote:
            raise PicsError(f"{shards.sources[item.shard]}: removed from the cache before it was read, several times",
                            "raise data.cache_gb: it holds too few shards for this many processes")  # fmt: skip
        raise PicsError(f"{path}: no such file any more", "put it back, then run the same command again: it resumes")

    def _index(self, item: Item, path: Path) -> SampleIndex:
        found = self._indexes.get(item[:2])
        if found is None:
            found = self._indexes[item[:2]] = checked_index(self.sets[item.set], item.shard, path)
        return found

    def _prepare(self, item: Item, key: str, members: Mapping[str, bytes]) -> dict[str, Any]:
        name = self.sets[item.set].name
        when = (item.epoch, item.repetition)
        arrays = prepare(
            members,
            set_name=name,
            key=key,
            augment=self._augments[item.set],
            rng_keys=when,
            seed=self.seed,
            **self._compose,
        )
        drawn = self.draw(generator(self.seed, "draw", name, key, *when)) if self.draw else {}
        return {**arrays, **drawn}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_indexes": {}}


class Failed:
    """An error on its way from a worker."""

    def __init__(self, error: PicsError) -> None:
        self.error = error


def collate(samples: Sequence[Mapping[str, Any]] | Failed) -> Batch | Failed:
    """Samples to a batch: arrays stacked to tensors, `keys` and `bad` as lists.

    Samples with fewer objects get empty boxes, 0 0 0 0, and black references.
    """
    if isinstance(samples, Failed):
        return samples
    most = max(len(sample["boxes"]) for sample in samples)
    batch: Batch = {}
    for name, first in samples[0].items():
        if not isinstance(first, np.ndarray):
            continue
        shape = (most, *first.shape[1:]) if name in ("boxes", "references") else first.shape
        whole = _empty((len(samples), *shape), torch.from_numpy(first[...]).dtype)
        rows = whole.numpy()
        for at, sample in enumerate(samples):
            array = sample[name]
            if array.shape == shape:
                rows[at] = array
            else:
                rows[at, : len(array)] = array
                rows[at, len(array) :] = 0
        batch[name] = whole
    batch["keys"] = [sample["key"] for sample in samples if "key" in sample]
    batch["bad"] = [one for sample in samples for one in sample.get("bad", ())]
    return batch


def positions(start: int, rank: int, size: int, batch: int) -> Iterator[list[int]]:
    """Positions of each batch of one of `size` processes, from `start` on, without end.

    All processes' n-th batches together are the n-th `batch * size` positions, so that a step of any number of batches
    takes the next ones without a gap.
    """
    for number in count():
        first = start + (number * size + rank) * batch
        yield list(range(first, first + batch))


class Loader(DataLoader[Batch]):
    """Batches in the order asked for; errors of the workers come out as they are."""

    def check_worker_number_rationality(self) -> None:
        """PyTorch warns, twice, where there are more workers than cores; a recipe is for machines of any size."""

    def __iter__(self) -> Generator[Batch, None, None]:  # type: ignore[override]
        """Close the generator to end the workers.

        Raises:
            PicsError: of a worker, or because one ended of itself.
        """
        before = signal.getsignal(signal.SIGCHLD)
        batches = super().__iter__()
        if self.num_workers and threading.current_thread() is threading.main_thread():
            # PyTorch's handler would tell of a dead worker in whatever line the main thread is; here it is told anyway.
            signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)
        told = None
        try:
            for batch in batches:
                if isinstance(batch, Failed):
                    raise batch.error
                yield batch
        except (RuntimeError, ConnectionError, EOFError) as error:
            told = worker_died(error, getattr(batches, "_workers", []))
            if told is None:
                raise
        finally:
            del batches
        if told is not None:  # raised here, so that nothing of the error keeps the other workers
            raise told


def make_loader(data: TrainingData, batches: Iterator[list[int]], workers: int, pin: bool = False) -> Loader:
    """A loader of batches, which are read ahead by workers, two for each.

    Args:
        data: the samples.
        batches: positions of each batch.
        workers: processes; 0: this one.
        pin: into memory that a GPU can fetch from by itself.
    """
    return Loader(
        data,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin,
        worker_init_fn=start_worker,
        generator=torch.Generator(),  # of workers' seeds, which nothing uses: torch's own generator stays as it is
    )


def _empty(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """A tensor; in a worker, in memory shared with the main process, so that it is not copied once more."""
    if torch.utils.data.get_worker_info() is None:
        return torch.empty(shape, dtype=dtype)
    return torch.empty(shape, dtype=dtype).share_memory_()  # type: ignore[no-any-return]
