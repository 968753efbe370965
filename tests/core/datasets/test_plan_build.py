"""What a plan says of a build, against the build."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from helpers.making import build_folder
from pics_cli.core.datasets import build_schedule
from pics_cli.core.datasets.build_blocks import BuildStats
from pics_cli.core.datasets.build_job import BuildJob
from pics_cli.core.datasets.plan_build import plan_build
from pics_cli.core.datasets.readers import open_reader
from pics_cli.core.datasets.readers.base import DatasetSplit
from pics_cli.core.recipes.base import Override, find_recipe
from pics_cli.core.recipes.dataset import load_dataset
from pics_cli.core.runtime.open_engine import open_engine
from pics_cli.core.runtime.progress import Progress


def test_all_pictures_tried_are_all_pictures_built(lvis_raw: Path, tmp_path: Path) -> None:
    """48 pictures in blocks of 8: the sample is the split, so counts and bytes are those of the build."""
    values: dict[str, Any] = {"pairs.min_area_ratio": 0.12, "shards.size": 8}
    recipe = load_dataset(find_recipe("lvis"), [Override(key, value, key) for key, value in values.items()])
    source, progress = DatasetSplit(recipe, "train", lvis_raw), Progress()
    job = BuildJob(source, tmp_path / "nothing")
    plan = plan_build(job, open_reader(source), progress)
    manifest, _ = build_folder("lvis", lvis_raw, tmp_path / "shards", pairs__min_area_ratio=0.12, shards__size=8)
    assert not job.folder.exists()
    assert sum(block.pictures for block in plan.tried) == plan.pictures == progress.done == progress.total == 48
    assert sum(block.samples for block in plan.tried) == manifest["samples"] < 48
    assert plan.per_picture("samples").of(48).value == pytest.approx(manifest["samples"])
    assert plan.shards == len(manifest["shards"])
    size = sum(shard["bytes"] for shard in manifest["shards"])
    assert plan.per_picture("written").of(48).value == pytest.approx(size, rel=0.02)  # tar files end in whole records
    read = sum(path.stat().st_size for path in lvis_raw.rglob("*.jpg"))
    chosen = plan.per_picture("candidates").value
    assert plan.per_picture("read").of(48).value == pytest.approx(read * chosen, rel=0.1)
    work = plan.work
    assert work.block == pytest.approx(8 / chosen)
    assert work.seconds >= plan.per_picture("cpu").value > 1e-4
    limited = plan_build(replace(job, limit=3), open_reader(source), Progress())
    assert [block.pictures for block in limited.tried] == [3]


def test_the_choice_is_made_in_longer_runs_where_it_is_quick(lvis_raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs double from their shortest to their longest, shorten where they take long, and cover all images once."""
    source = DatasetSplit(load_dataset(find_recipe("lvis")), "train", lvis_raw)
    lengths = list[int]()

    def choose(_: DatasetSplit, item_ids: range) -> tuple[list[int], BuildStats, float]:
        lengths.append(len(item_ids))
        return list(item_ids), BuildStats(), 0.1 if len(lengths) < 10 else 3.0

    long: Any = SimpleNamespace(item_ids=range)
    monkeypatch.setattr(build_schedule, "_timed_choice", choose)
    with open_engine("local", 1) as engine:
        chosen = [items for items, _ in build_schedule.choose_all(source, long, engine, 40_000)]
    assert list(chain.from_iterable(chosen)) == list(range(40_000))
    assert max(lengths) == 4096
    assert lengths[:4] == [64, 64, 64, 128]  # two runs are ahead
    assert lengths[-2] < 4096
