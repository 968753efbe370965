"""`open_shards`: the samples of local shards as arrays, in order."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pics_cli
from helpers.making import build_folder
from helpers.training_shards import members, write_shard
from pics_cli.core.shards.shard_files import ShardWriter
from pics_cli.errors import PicsError


def keys(path: Path) -> list[str]:
    return [sample.key for sample in pics_cli.open_shards(path)]


def test_samples_of_a_built_folder(tmp_path: Path) -> None:
    build_folder("synth", None, tmp_path / "Synth", limit=3, source__size=64, shards__size=2)
    samples = list(pics_cli.open_shards(tmp_path / "Synth"))
    assert [sample.key for sample in samples] == [
        sample.key for sample in pics_cli.open_shards(tmp_path / "Synth/*.tar")
    ]
    assert len(samples) == 3
    for sample in samples:
        assert (sample.image.dtype, sample.image.shape) == (np.uint8, (64, 64, 3))
        assert [mask.shape for mask in sample.masks] == [(64, 64)] * len(sample.references)
        assert {reference.shape for reference in sample.references} == {(224, 224, 3)}
        assert sample.metadata is not None
        assert sample.clean_background is not None


def test_published_shards_in_order(tmp_path: Path) -> None:
    for number in range(3):
        write_shard(tmp_path / f"{number:05d}.tar", range(2 * number, 2 * number + 2))
    samples = list(pics_cli.open_shards(str(tmp_path)))
    assert [sample.key for sample in samples] == [f"{number:04d}" for number in range(6)]
    assert all(sample.metadata is None for sample in samples)
    assert [sample.key for sample in pics_cli.open_shards(tmp_path / "{00001..00002}.tar")] == [
        "0002",
        "0003",
        "0004",
        "0005",
    ]
    assert [sample.key for sample in pics_cli.open_shards(tmp_path / "00001.tar")] == ["0002", "0003"]


def test_errors_name_shard_and_sample(tmp_path: Path) -> None:
    with pytest.raises(PicsError, match="no such folder"):
        pics_cli.open_shards(tmp_path / "none")
    path = tmp_path / "0.tar"
    with ShardWriter(path) as writer:
        writer.add("a", members(0))
        writer.add("b", {**members(1), "mask0.png": b"damaged"})
    samples = pics_cli.open_shards(path)
    assert next(samples).key == "a"
    with pytest.raises(PicsError, match=r"0\.tar: sample b: bad_mask: mask0\.png"):
        next(samples)
    write_shard(path, range(2))
    path.write_bytes(path.read_bytes()[:-12000])
    with pytest.raises(PicsError, match="truncated"):
        keys(path)


def test_importing_the_package_is_light() -> None:
    code = "import sys, pics_cli; print(pics_cli.__version__, 'numpy' in sys.modules, hasattr(pics_cli, 'nothing'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [pics_cli.__version__, "False", "False"]
    assert (Path(pics_cli.__file__).parent / "py.typed").exists()
