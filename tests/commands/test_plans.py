"""`--plan` of build-shards and annotate: what it shows, what it refuses, and that it writes nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from conftest import Run
from helpers.detection import make_dataset, save_tiny
from pics_cli.core.runtime import cluster_model


@pytest.fixture(autouse=True)
def _few_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_model, "MOST_BLOCKS", 4)


def test_build_shards(lvis_raw: Path, tmp_path: Path, pics: Run) -> None:
    done = pics(
        "build-shards", "lvis", "--raw", lvis_raw, "--out", "shards", "--plan", "--workers", 3, "--shard-size", 7
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"pictures +48; 32 of them, in 4 places", done.stdout)
    assert re.search(r"shards +about 7 of 7 candidates", done.stdout)
    assert re.search(r"a core +\d+ ± \d+ pictures/s", done.stdout)
    assert "seconds on 3 cores" in done.stdout
    assert "on nodes of 3 cores and 10 Gbit/s" in done.stdout
    rows = [line.split() for line in done.stdout.splitlines()[-3:]]
    assert [row[:2] for row in rows] == [["1", "3"], ["20", "60"], ["200", "600"]]
    assert "fewer shards than cores: a lower --shard-size makes more" in done.stdout
    assert list(tmp_path.iterdir()) == []
    cluster = ("--nodes", 5, "--cores", 48, "--gbit", 0.001)
    done = pics("build-shards", "lvis", "--raw", lvis_raw, "--limit", 9, "--plan", *cluster)
    assert "on nodes of 48 cores and 0.001 Gbit/s" in done.stdout
    assert re.search(r"\n +5 +240 .* the nodes' network$", done.stdout)


def test_annotate(tmp_path: Path, pics: Run) -> None:
    make_dataset(tmp_path, 6)
    save_tiny(tmp_path / "sam")
    before = {path for path in tmp_path.rglob("*")}
    command = ("annotate", "boxed.yaml", "--raw", "raw", "--device", "cpu", "--plan", "--nodes", 3, "--gpus", 2)
    done = pics(*command, "--sam", "sam")
    assert done.returncode == 0, done.stderr
    assert re.search(r"pictures +6; 4 of them, in 4 places", done.stdout)
    assert re.search(r"boxes +3\.0 ± 0\.0 a picture, 18 ± 0 in all", done.stdout)
    assert re.search(r"a core +[\d.,]+ ± [\d.,]+ pictures/s", done.stdout)
    assert re.search(r"\n +3 +6 .*fewer blocks than cores: a lower source\.sam\.block makes more$", done.stdout)
    assert {path for path in tmp_path.rglob("*")} == before
    done = pics(*command)
    assert (done.returncode, done.stdout) == (2, "")
    assert "sam_vit_h_4b8939.pth: no such checkpoint of Segment Anything (vit_h)" in done.stderr


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("build-shards", "lvis", "--nodes", 2), "--nodes: of the cluster that --plan plans for"),
        (("build-shards", "lvis", "--plan", "--dry-run"), "--plan goes without --engine, --dry-run"),
        (("build-shards", "lvis", "--plan", "--range", "0:4"), "--range goes without --dry-run, --inspect, --plan"),
        (("build-shards", "lvis", "--range", "4:4"), "--range 4:4: expected LOW:HIGH, LOW below HIGH"),
        (("build-shards", "lvis", "--range", "0:4", "--overwrite"), "--range goes without"),
        (("build-shards", "--check", "shards", "--range", "0:4"), "--check DIR goes with --workers only"),
        (("annotate", "coco", "--gpus", 2, "--gbit", 1), "--gpus and --gbit: of the cluster that --plan plans for"),
        (("annotate", "coco", "--plan", "--overwrite"), "--plan goes without --range"),
    ],
)
def test_refusals(pics: Run, words: tuple[object, ...], text: str) -> None:
    done = pics(*map(str, words))
    assert done.returncode == 2
    assert text in done.stderr
