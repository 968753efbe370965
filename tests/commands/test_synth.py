"""`pics build-shards synth`: from nothing to samples that know the truth about their objects."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import oracle
from helpers.making import build_folder
from pics_cli.core.shards.samples import Sample, decode_sample

SMALL: dict[str, Any] = {"source__size": 96, "shards__size": 4}
RELATIONS = ("apart", "touching", "occluding", "supporting", "containing")


def built(folder: Path, limit: int = 6, **values: Any) -> dict[str, Sample]:
    _, out = build_folder("synth", None, folder, limit=limit, **SMALL, **values)
    return {key: decode_sample(key, members) for key, members in oracle.read_tars(out).items()}


def test_the_command_needs_no_raw_folder(tmp_path: Path, pics: Callable[..., Any]) -> None:
    command = ["build-shards", "synth", "--out", "out", "--limit", "6", "--set", "source.size=96", "--shard-size", "4"]
    done = pics(*command, "--workers", "1", "--contact-sheet", "sheet.png")
    assert done.returncode == 0, done.stderr
    assert "drawn from seed 0" in done.stderr
    assert (tmp_path / "sheet.png").exists()
    first = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert {"00000.tar", "00001.tar", "manifest.json"} <= first.keys()
    assert pics(*command, "--workers", "2", "--overwrite").returncode == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == first
    (tmp_path / "out/00001.stats.json").unlink()
    assert pics(*command, "--workers", "1").returncode == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == first
    assert pics("build-shards", "--check", "out").returncode == 0


@pytest.mark.parametrize("objects", [1, 2, 3, 4])
@pytest.mark.parametrize("layout", ["published", "compact"])
def test_samples_hold_every_optional_member(tmp_path: Path, objects: int, layout: str) -> None:
    found = built(tmp_path / "out", 3, pairs__objects=objects, shards__layout=layout)
    assert len(found) == 3
    for sample in found.values():
        assert (
            len(sample.masks)
            == len(sample.references)
            == len(sample.alternate_views)
            == len(sample.amodal_masks)
            == objects
        )
        assert sample.clean_background is not None
        assert sample.clean_background.shape == sample.image.shape == (96, 96, 3)
        outside = ~np.any([mask for mask in sample.amodal_masks if mask is not None], axis=0)
        changed = np.abs(sample.clean_background.astype(int) - sample.image).max(axis=2)
        rest = max(1.0, changed[outside].mean())  # JPEG and shadows
        assert changed[~outside].mean() > 4 * rest
        for mask, full, other in zip(sample.masks, sample.amodal_masks, sample.alternate_views, strict=True):
            assert full is not None
            assert other is not None
            assert not (mask & ~full).any()
            assert other.shape == (224, 224, 4)
            assert 0.1 < (other[..., 3] > 0).mean() < 0.95
            assert (other[other[..., 3] == 0] == (255, 255, 255, 0)).all()
        meta = sample.metadata or {}
        assert sorted(meta["order"]) == list(range(objects))
        assert len(meta["pairs"]) == objects * (objects - 1) // 2
        for pair in meta["pairs"]:
            assert pair["relation"] in RELATIONS
            assert pair["subject"] in pair["objects"]


@pytest.mark.parametrize("relation", RELATIONS)
def test_objects_are_told_apart_in_the_json(tmp_path: Path, relation: str) -> None:
    """Order, subject and hidden parts refer to the sample's own numbering, largest object first."""
    relations = dict.fromkeys(RELATIONS, 0.0) | {relation: 1.0}
    seen = set()
    for sample in built(tmp_path / "out", limit=8, source__relations=relations).values():
        meta = sample.metadata or {}
        (pair,) = meta["pairs"]
        assert pair["relation"] == relation
        subject, other = pair["subject"], 1 - pair["subject"]
        seen.add(subject)
        hidden = [int((full & ~mask).sum()) for full, mask in zip(sample.amodal_masks, sample.masks, strict=True)]  # type: ignore[operator]
        if relation == "occluding":
            assert meta["order"] == [subject, other]
            assert hidden[other] > hidden[subject] == 0
        elif relation == "supporting":
            bottom = [int(np.flatnonzero(full.any(axis=1))[-1]) for full in sample.amodal_masks if full is not None]
            assert bottom[subject] > bottom[other] - 2
        elif relation == "containing":
            assert meta["order"][0] == subject
            assert meta["objects"][subject]["category"] in ("cup", "bowl")
            assert hidden[other] > 0
        elif relation == "apart":
            assert sum(hidden) == 0
    assert relation in ("apart", "touching") or seen  # the larger object is not always the subject
    assert relation != "occluding" or seen == {0, 1}


def test_splits_share_nothing(tmp_path: Path, pics: Callable[..., Any]) -> None:
    for split in ("train", "val"):
        done = pics(
            "build-shards", "synth", "--split", split, "--out", split, "--limit", "3", "--set", "source.size=96"
        )
        assert done.returncode == 0, done.stderr
    pictures = [oracle.read_tars(tmp_path / split) for split in ("train", "val")]
    assert not {m["bg.jpg"] for m in pictures[0].values()} & {m["bg.jpg"] for m in pictures[1].values()}
    manifests = [json.loads((tmp_path / split / "manifest.json").read_text()) for split in ("train", "val")]
    assert [m["recipe"]["source"]["splits"][s]["pool"] for m, s in zip(manifests, ("train", "val"), strict=True)] == [
        "train", "held_out",
    ]  # fmt: skip


def test_seeds_and_views_change_the_scenes(tmp_path: Path) -> None:
    plain, again, seeded, turned = (
        built(tmp_path / name, limit=2, **values)
        for name, values in (
            ("plain", {}), ("again", {}), ("seeded", {"seed": 1}),
            ("turned", {"source__view": {"turn": 0.0, "light": 0.0}}),
        )
    )  # fmt: skip
    for key, sample in plain.items():
        assert np.array_equal(sample.image, again[key].image)
        assert not np.array_equal(sample.image, seeded[key].image)
        assert np.array_equal(sample.image, turned[key].image)
        views: list[tuple[Any, Any]] = [*zip(sample.alternate_views, turned[key].alternate_views, strict=True)]
        assert not all(np.array_equal(a, b) for a, b in views)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--raw", "somewhere"], "takes no raw folder"),
        (["--split", "dev"], "Synth has no split 'dev'"),
        (["--set", "source.size=32"], "source.size: got 32, expected 64 <= value <= 1024"),
        (["--set", "source.relations={occluding: 0}"], "expected a weight above 0"),
        (["--set", "source.relations={behind: 1}"], "expected 'apart', 'touching', 'occluding'"),
        (["--set", "pairs.classes.include=[sofa]"], "'sofa' not among the"),
        (["--objects", "5"], "--objects: got 5, expected 1 <= value <= 4"),
        (["--compat"], "is drawn: compat reproduces what the research code does with photographs"),
        (["--layout", "tar"], "--layout: got \"tar\", expected 'published' or 'compact'"),
    ],
)
def test_what_cannot_be_drawn(pics: Callable[..., Any], arguments: list[str], words: str) -> None:
    done = pics("build-shards", "synth", "--out", "out", "--limit", "2", *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
