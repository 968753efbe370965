"""Several runs with --range on one folder: the bytes of one run, whatever order, interruption or neighbour."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pics_cli.core.datasets import build_blocks
from pics_cli.core.datasets.build import build
from pics_cli.core.datasets.build_job import BuildJob, BuildProgress
from pics_cli.core.datasets.build_range import RangeReport, build_range
from pics_cli.core.datasets.chosen_groups import CHOICE
from pics_cli.core.datasets.readers import open_reader
from pics_cli.core.datasets.readers.base import DatasetSplit
from pics_cli.core.recipes.base import Override, find_recipe
from pics_cli.core.recipes.dataset import load_dataset
from pics_cli.core.runtime.locks import InUse, single_writer
from pics_cli.core.runtime.open_engine import open_engine
from pics_cli.errors import PicsError

ENGINE = partial(open_engine, "local", 1)


@pytest.fixture(scope="module")
def raw(lvis_raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One picture is missing."""
    raw = tmp_path_factory.mktemp("ranges")
    for path in lvis_raw.rglob("*.*"):
        target = raw / path.relative_to(lvis_raw)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(path)
    sorted(raw.rglob("*.jpg"))[20].unlink()
    return raw


def dataset_of(raw: Path) -> DatasetSplit:
    overrides = [Override("shards.size", 4, "--shard-size"), Override("pairs.min_area_ratio", 0.12, "--area-ratio")]
    return DatasetSplit(load_dataset(find_recipe("lvis"), overrides), "train", raw)


@pytest.fixture
def job(raw: Path, tmp_path: Path) -> BuildJob:
    """24 pictures in shards of 4 candidates."""
    return BuildJob(dataset_of(raw), tmp_path / "shards", limit=24)


@pytest.fixture(scope="module")
def expected(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of one run."""
    job = BuildJob(dataset_of(raw), tmp_path_factory.mktemp("whole"), limit=24)
    whole(job)
    return contents(job.folder)


def whole(job: BuildJob) -> dict[str, Any]:
    return build(job, open_reader(job.dataset), ENGINE, BuildProgress())


def part(job: BuildJob, low: int, high: int | None = None) -> RangeReport:
    return build_range(job, (low, high), open_reader(job.dataset), ENGINE, BuildProgress())


def contents(folder: Path) -> dict[str, bytes]:
    """Every file, hidden ones too, so that nothing is left behind."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_ranges_in_any_order_make_what_one_run_makes(job: BuildJob, expected: dict[str, bytes]) -> None:
    manifest = json.loads(expected["manifest.json"])
    count = sum(name.endswith(".stats.json") for name in expected)  # one shard holds nothing: its picture is missing
    assert count >= 5
    assert len(manifest["bad_pictures"]) == 1
    assert manifest["skipped"]
    reports = [part(job, 3, 4), part(job, 4), part(job, 100, 200), part(job, 0, 2)]
    assert [report.built for report in reports] == [1, count - 4, 0, 2]
    assert [report.missing for report in reports] == [count - 1, 3, 3, 1]
    assert not any(report.manifest["complete"] for report in reports)
    assert json.loads((job.folder / "manifest.json").read_text())["complete"] is False
    last = part(job, 0, 3)
    assert (last.built, last.missing, last.of_range, last.of_shards) == (1, 0, 3, count)
    assert last.manifest == manifest
    assert contents(job.folder) == expected
    assert part(job, 1, 2).manifest == manifest
    assert contents(job.folder) == expected


@pytest.mark.parametrize("complete", [lambda job: part(job, 3), whole], ids=["range", "whole"])
def test_a_run_that_is_killed_is_taken_up(
    job: BuildJob, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, complete: Callable[[BuildJob], object]
) -> None:
    """Killed in the middle of its second shard, by a signal that nothing can catch."""
    child = os.fork()
    if not child:
        build_block = build_blocks.build_block

        def killed(dataset: Any, folder: Path, block: int, *more: Any) -> dict[str, Any]:
            if block == 1:
                for name in ("00001.tar.77.tmp", "manifest.json.78.tmp"):
                    (folder / name).write_bytes(b"half")
                os.kill(os.getpid(), signal.SIGKILL)
            return build_block(dataset, folder, block, *more)

        monkeypatch.setattr("pics_cli.core.datasets.build_range.build_block", killed)
        part(job, 0, 3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert {"00001.tar.77.tmp", ".00001.lock", CHOICE} < contents(job.folder).keys()
    before = (job.folder / "00000.tar").stat().st_mtime_ns
    assert part(job, 0, 3).built == 2
    complete(job)
    assert (job.folder / "00000.tar").stat().st_mtime_ns == before
    assert contents(job.folder) == expected


@contextmanager
def held_elsewhere(folder: Path, name: str) -> Iterator[None]:
    """By another process: file locks of one process do not exclude each other."""
    folder.mkdir(exist_ok=True)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        with single_writer(folder, name):
            os.write(writing, b"x")
            signal.pause()
    os.read(reading, 1)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)
        os.close(writing)


def test_shards_of_another_run_are_left_to_it(job: BuildJob) -> None:
    part(job, 0, 1)
    with held_elsewhere(job.folder, ".00002.lock"):
        report = part(job, 1, 4)
    assert (report.built, len(report.in_use)) == (2, 1)
    assert report.in_use[0].startswith("shard 00002: ")
    assert not (job.folder / "00002.tar").exists()


def test_runs_with_and_without_a_range_exclude_each_other(job: BuildJob, monkeypatch: pytest.MonkeyPatch) -> None:
    with held_elsewhere(job.folder, ".node7-12.run.lock"), pytest.raises(InUse):
        whole(job)
    monkeypatch.setattr("time.monotonic", iter(range(0, 10**6, 700)).__next__)  # a range waits for ten minutes
    with held_elsewhere(job.folder, ".lock"), pytest.raises(InUse):
        part(job, 0, 1)
    assert not list(job.folder.glob("*.tar"))


def test_a_choice_of_other_settings_is_made_anew(job: BuildJob) -> None:
    part(job, 0, 1)
    first = (job.folder / CHOICE).read_bytes()
    limited = replace(job, folder=job.folder.with_name("limited"), limit=20)
    part(limited, 0, 1)
    assert (limited.folder / CHOICE).read_bytes() != first
    part(replace(limited, limit=24), 0, 1)
    assert (limited.folder / CHOICE).read_bytes() == first
    with pytest.raises(PicsError, match="an unfinished build of 24 pictures, more than --limit"):
        part(limited, 0, 1)


def test_a_short_shard_of_a_limited_run_does_not_count(job: BuildJob, expected: dict[str, bytes]) -> None:
    last = len(whole(replace(job, limit=7))["shards"]) - 1
    assert part(job, last + 1).missing == 1
    part(job, 0, last + 1)
    assert contents(job.folder) == expected


def test_too_many_bad_pictures_stop_the_runs_together(job: BuildJob) -> None:
    with pytest.raises(PicsError, match="more than --max-bad 0"):
        [part(replace(job, max_bad=0), low, low + 1) for low in range(7)]
    assert json.loads((job.folder / "manifest.json").read_text())["complete"] is False


def test_a_damaged_choice_is_named(job: BuildJob) -> None:
    part(job, 0, 1)
    path = job.folder / CHOICE
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(PicsError, match=r"choice\.jsonl: damaged: "):
        part(job, 1, 2)
