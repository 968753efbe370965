"""Batches: the same in order for any number of workers, exact resume, bad samples replaced and counted."""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.making import build_folder
from helpers.training_shards import STILL, local_set, members, mixed, write_shard
from pics_cli.core.loading.dataset import TrainingDataset, WorkerError
from pics_cli.core.loading.loader import Batch, batch_positions, build_dataloader, collate
from pics_cli.core.loading.mixture import FixedOrder, SampleRef, choose_validation_samples, sample_refs
from pics_cli.core.recipes.training_sections import AugmentSettings, DataSettings, TrainingSet
from pics_cli.core.shards import tar_index
from pics_cli.core.shards.shard_files import ShardWriter, read_shard
from pics_cli.core.shards.shard_sets import resolve_shard_sets
from pics_cli.errors import PicsError


def noise(rng: np.random.Generator) -> dict[str, Any]:
    return {"noise": rng.standard_normal((2, 3), np.float32), "timestep": np.asarray(rng.integers(1000))}


def data_of(sets: list[Any], order: Any = None, **options: Any) -> TrainingDataset:
    given = {
        "augment": AugmentSettings(),
        "seed": 0,
        "size": 64,
        "reference_size": 56,
        "hint": "background",
        "noise_sampler": noise,
    }
    return TrainingDataset(sets, order or mixed(sets), **{**given, **options})


def batches_of(data: TrainingDataset, number: int, batch: int, workers: int = 0, start: int = 0) -> list[Batch]:
    with closing(iter(build_dataloader(data, batch_positions(start, 0, 1, batch), workers))) as loader:
        return list(itertools.islice(loader, number))


def same(one: Batch | WorkerError, other: Batch | WorkerError) -> bool:
    assert not isinstance(one, WorkerError)
    assert not isinstance(other, WorkerError)
    return one.keys() == other.keys() and all(
        torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name]
        for name, value in one.items()
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built set of 12 in three shards, and one of two shards with 1 and 3 objects."""
    folder = tmp_path_factory.mktemp("sets")
    build_folder("synth", None, folder / "Synth", limit=12, source__size=128, shards__size=4)
    write_shard(folder / "Odd/0.tar", range(3), objects=1)
    write_shard(folder / "Odd/1.tar", range(3, 5), objects=3)
    return folder


@pytest.fixture
def two(folder: Path) -> list[Any]:
    sets = {"Synth": TrainingSet(shards="Synth"), "Odd": TrainingSet(shards="Odd", repeat=2.5, augment=STILL)}
    return resolve_shard_sets(DataSettings(root=str(folder), sets=sets), "train")


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_same_batches_for_any_number_of_workers(two: list[Any], workers: int) -> None:
    """More workers than shards in a set, over the end of an epoch, in order, bit for bit."""
    data = data_of(two, hint="collage")
    expected = [collate([data[4 * b + i] for i in range(4)]) for b in range(7)]
    found = batches_of(data, 7, 4, workers)
    assert all(same(one, other) for one, other in zip(expected, found, strict=True))
    seen = [key for batch in found for key in batch["keys"]]
    assert sorted(set(seen[:24])) == sorted(
        {*(f"Synth/{n:08d}" for n in range(12)), *(f"Odd/{n:04d}" for n in range(5))}
    )
    assert not any(batch["bad"] for batch in found)


def test_a_batch(two: list[Any]) -> None:
    """Bytes and small integers; objects that a sample has not got are empty boxes with black references."""
    data = data_of(two)
    where = [p for p in range(24) if data.order[p].set == 1]
    samples = [data[where[0]], data[where[1]], data[where[2]], *(data[p] for p in range(24) if p not in where[:3])]
    batch = collate(samples)
    assert isinstance(batch, dict)
    kinds = {
        name: (value.dtype, tuple(value.shape)) for name, value in batch.items() if isinstance(value, torch.Tensor)
    }
    assert kinds == {
        "control_image": (torch.uint8, (24, 64, 64, 3)), "target": (torch.uint8, (24, 64, 64, 3)),
        "boxes": (torch.int16, (24, 3, 4)), "content": (torch.int16, (24, 4)),
        "references": (torch.uint8, (24, 3, 56, 56, 3)), "noise": (torch.float32, (24, 2, 3)),
        "timestep": (torch.int64, (24,)),
    }  # fmt: skip
    for row, sample in enumerate(samples):
        objects = len(sample["boxes"])
        assert objects in (1, 2, 3)
        assert all(
            np.array_equal(batch[name][row], sample[name]) for name in ("control_image", "target", "content", "noise")
        )
        assert batch["timestep"][row] == sample["timestep"]
        assert np.array_equal(batch["boxes"][row, :objects], sample["boxes"])
        assert np.array_equal(batch["references"][row, :objects], sample["references"])
        assert not batch["boxes"][row, objects:].any()
        assert not batch["references"][row, objects:].any()
    assert batch["keys"] == [sample["key"] for sample in samples]
    del samples[0]["key"], samples[0]["bad"]
    assert collate(samples[:1])["keys"] == []  # type: ignore[index]


def test_what_passes_through_the_pipe_is_small(two: list[Any]) -> None:
    """At the published size, at most 2.7 MB a sample."""
    sample = data_of(two, size=512, reference_size=224)[0]
    assert sum(value.nbytes for value in sample.values() if isinstance(value, np.ndarray)) < 2.7e6


def test_each_set_has_its_own_augmentation(two: list[Any]) -> None:
    data, still = data_of(two), data_of(two, augment=STILL)
    for position in range(24):
        equal = np.array_equal(data[position]["references"], still[position]["references"])
        assert equal == (data.order[position].set == 1)


def test_two_ranks_see_every_position_once(two: list[Any]) -> None:
    """Together they are one process with twice the batch; odd lengths make no rank stop early."""
    data = data_of(two)
    one = [key for batch in batches_of(data, 6, 4) for key in batch["keys"]]
    ranks = []
    for rank in (0, 1):
        with closing(iter(build_dataloader(data, batch_positions(0, rank, 2, 2), 1))) as loader:
            ranks.append([batch["keys"] for batch in itertools.islice(loader, 6)])
    assert one == [key for pair in zip(*ranks, strict=True) for keys in pair for key in keys]


@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_reads_nothing_that_was_consumed(
    two: list[Any], workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a position on, the same batches as without a break; and in this process, just those samples are read."""
    whole = batches_of(data_of(two), 6, 4)
    reads: list[tuple[Path, int]] = []
    read = tar_index.read_bytes

    def counted(path: Path, start: int, stop: int) -> bytes:
        reads.append((path, start))
        return read(path, start, stop)

    monkeypatch.setattr(tar_index, "read_bytes", counted)
    data = data_of(two)
    rest = batches_of(data, 2, 4, workers, start=16)
    assert all(same(one, other) for one, other in zip(whole[4:], rest, strict=True))
    if workers == 0:
        items = [data.order[position] for position in range(16, 24)]
        assert len(reads) == 8
        assert {path for path, _ in reads} == {Path(two[item.set].sources[item.shard]) for item in items}


def test_draws_follow_from_seed_sample_and_time(two: list[Any]) -> None:
    """The same sample gets other noise the next time, and the same noise in every run."""
    data, again, other = data_of(two), data_of(two), data_of(two, mixed(two), seed=1)
    drawn = [data[position]["noise"] for position in range(48)]
    assert all(np.array_equal(value, again[position]["noise"]) for position, value in enumerate(drawn))
    assert not any(np.array_equal(value, other[position]["noise"]) for position, value in enumerate(drawn))
    assert len({value.tobytes() for value in drawn}) == 48


def test_validation_samples_are_fixed(two: list[Any]) -> None:
    counts = [each.counts for each in two]
    listed = FixedOrder(sample_refs(counts, choose_validation_samples(counts, 6, 0)))
    data = data_of(two, listed, augmented=False, noise_sampler=None)
    first, swapped = (
        [data[position] for position in range(6)],
        data_of(two, listed, augmented=False, noise_sampler=None, swap_references=True),
    )
    assert {sample["key"].partition("/")[0] for sample in first} == {"Synth", "Odd"}
    assert all(np.array_equal(one["references"], data[position]["references"]) for position, one in enumerate(first))
    for position, sample in enumerate(first):
        assert np.array_equal(swapped[position]["references"], np.roll(sample["references"], 1, axis=0))


def damaged(folder: Path, numbers: set[int], total: int = 12) -> Any:
    """A set of one shard of which some samples are damaged."""
    with ShardWriter(folder / "bad.tar") as writer:
        for number in range(total):
            sample = members(number)
            if number in numbers:
                sample["bg.jpg"] = sample["bg.jpg"][:-200]
            writer.add(f"{number:04d}", sample)
    return local_set("Bad", [folder / "bad.tar"])


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_samples_are_replaced_and_told(tmp_path: Path, workers: int) -> None:
    """By another of their set, the same one in every run; the others stay where they were."""
    data = data_of([damaged(tmp_path, {3, 7})])
    found = batches_of(data, 6, 4, workers)
    keys = [key for batch in found for key in batch["keys"]]
    assert len(keys) == 24
    assert not {"Bad/0003", "Bad/0007"} & set(keys)
    bad = [one for batch in found for one in batch["bad"]]
    assert {(one["set"], one["key"], one["reason"]) for one in bad} == {
        ("Bad", "0003", "truncated_image"), ("Bad", "0007", "truncated_image")}  # fmt: skip
    for position, key in enumerate(keys):
        number = data.order[position].sample
        assert key == f"Bad/{number:04d}" or number in (3, 7)
    assert keys == [key for batch in batches_of(data, 6, 4) for key in batch["keys"]]


def test_a_bad_run_of_members_is_told_by_its_place(tmp_path: Path) -> None:
    samples = list(read_shard(write_shard(tmp_path / "a.tar", range(4))))
    with ShardWriter(tmp_path / "b.tar") as writer:
        for key, found in samples:
            writer.add(key if key != "0002" else "x/../../0002", dict(found))
    data = data_of([local_set("B", [tmp_path / "b.tar"])])
    bad = [one for position in range(4) for one in data[position]["bad"]]
    assert {(one["key"], one["reason"]) for one in bad} == {("b.tar #2", "bad_name")}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_set_that_cannot_be_read_ends_it(tmp_path: Path, workers: int) -> None:
    """As one line, also out of a worker."""
    data = data_of([damaged(tmp_path, set(range(12)))])
    with pytest.raises(
        PicsError, match=r"^Bad: 16 samples drawn in a row cannot be read, the last: 00\d\d: trunc"
    ) as told:
        batches_of(data, 1, 4, workers)
    assert "--check" in str(told.value.hint)


def test_an_order_without_others(tmp_path: Path) -> None:
    """A bad sample in a list of one is replaced by itself until it is given up."""
    sets = [damaged(tmp_path, {1})]
    with pytest.raises(PicsError, match="16 samples"):
        data_of(sets, FixedOrder([SampleRef(0, 0, 1, 0, 0)]))[0]


def test_errors_travel_as_values(tmp_path: Path) -> None:
    sets = [local_set("A", [write_shard(tmp_path / "a.tar", range(3))])]
    data = data_of(sets)
    (tmp_path / "a.tar").unlink()
    failed = data.__getitems__([0, 1])
    assert isinstance(failed, WorkerError)
    assert collate(failed) is failed
    assert str(failed.error).startswith(f"{tmp_path}/a.tar: ")


@pytest.fixture(autouse=True)
def _no_leftover_workers() -> Iterator[None]:
    yield
    for child in multiprocessing.active_children():
        child.join(5)
    assert not multiprocessing.active_children()
