"""Which shards a recipe means, and what is wrong with them, told all at once."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from helpers.making import build_folder
from helpers.training_shards import members, write_shard
from pics_cli.core.recipes.training_sections import AugmentSettings, DataSettings, TrainingSet
from pics_cli.core.shards import shard_sets
from pics_cli.core.shards.shard_files import ShardWriter
from pics_cli.core.shards.shard_paths import expand_ranges, glob_files
from pics_cli.core.shards.shard_sets import ShardSet, resolve_shard_sets
from pics_cli.errors import PicsError


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards of the built-in generator, with their manifest, in train/Synth."""
    folder = tmp_path_factory.mktemp("built")
    build_folder("synth", None, folder / "train/Synth", limit=6, source__size=64, shards__size=2)
    return folder


@pytest.fixture
def root(built: Path, tmp_path: Path) -> Path:
    """The same, to be damaged."""
    return shutil.copytree(built, tmp_path / "data")


def found(root: Path, split: str = "train", **sets: Any) -> list[ShardSet]:
    """Resolve sets given by their shards or as keywords of `TrainingSet`; `allow_…` are options."""
    options = {key: sets.pop(key) for key in ("allow_missing", "allow_pipe") if key in sets}
    given = {name: TrainingSet(**({"shards": each} if isinstance(each, str) else each)) for name, each in sets.items()}
    return resolve_shard_sets(DataSettings(root=str(root), sets=given), split, **options)  # type: ignore[arg-type]


def fault(root: Path, split: str = "train", **sets: Any) -> str:
    with pytest.raises(PicsError) as caught:
        found(root, split, **sets)
    return caught.value.text.replace(f"{root}/", "")


def without_manifest(root: Path) -> Path:
    (root / "train/Synth/manifest.json").unlink()
    return root / "train/Synth"


@pytest.mark.parametrize("shards", [
    "train/Synth", "{split}/Synth", "train/Synth/*.tar", "train/Synth/0000?.tar", "train/*/*.tar",
    "train/Synth/{00000..00002}.tar",
])  # fmt: skip
@pytest.mark.parametrize("manifest", [True, False])
def test_ways_to_name_the_same_shards(root: Path, shards: str, manifest: bool, tmp_path: Path, caplog: Any) -> None:
    """Folder, wildcards and ranges, relative and absolute; counts from the manifest or from an index."""
    if not manifest:
        without_manifest(root)
    caplog.set_level(logging.INFO, logger="pics_cli")
    (one,) = found(root, A={"shards": shards, "repeat": 3.0, "augment": AugmentSettings(flip=0.0)})
    assert [str(source) for source in one.sources] == [str(root / f"train/Synth/0000{i}.tar") for i in range(3)]
    assert (one.name, one.repeat, one.augment, one.remote) == ("A", 3.0, AugmentSettings(flip=0.0), False)
    assert (one.counts, one.samples) == ([2, 2, 2], 6)
    assert caplog.messages == ([] if manifest else ["counting the samples of 3 shards without a manifest.json, once"])
    assert all(bool(sha256) == manifest for sha256 in one.hashes)
    if not manifest:
        caplog.clear()
        assert found(root, A=shards)[0].counts == [2, 2, 2]
        assert caplog.messages == []
    (absolute,) = found(tmp_path, A=str(root / shards))
    assert absolute.counts == one.counts


def test_identity_is_of_the_contents(root: Path, tmp_path: Path) -> None:
    first = found(root, A="train/Synth")[0].contents_sha256
    moved = shutil.copytree(root, tmp_path / "elsewhere")
    assert found(moved, B={"shards": "train/Synth", "repeat": 2.0})[0].contents_sha256 == first
    assert found(moved, A="train/Synth/{00000..00001}.tar")[0].contents_sha256 != first
    build_folder("synth", None, tmp_path / "other", limit=6, source__size=64, shards__size=2, seed=1)
    assert found(tmp_path, A="other")[0].contents_sha256 != first


def test_many_shards_are_counted_by_other_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "many"
    for i in range(5):
        write_shard(folder / f"{i}.tar", range(i, 2 * i + 1))
    monkeypatch.setattr(shard_sets, "_MIN_PARALLEL", 2)
    assert found(tmp_path, A="many")[0].counts == [1, 2, 3, 4, 5]


def test_validation_shards_where_there_are_some(root: Path) -> None:
    """Of the sets with {split} those whose folder is there; none is missed."""
    sets = {"A": "{split}/Synth", "B": "train/Synth", "C": "{split}/Gone"}
    assert found(root, "val", **sets) == []
    shutil.copytree(root / "train/Synth", root / "val/Synth")
    (one,) = found(root, "val", **sets)
    assert (one.name, one.sources[0]) == ("A", root / "val/Synth/00000.tar")
    (root / "val/Gone").mkdir()
    assert [each.name for each in found(root, "val", **sets)] == ["A"]


def test_missing_sets_are_reported_together(root: Path, caplog: Any) -> None:
    """Where each was looked for, how to build and to fetch it."""
    (root / "train/Empty").mkdir()
    sets: dict[str, Any] = {
        "LVIS": {"shards": "{split}/LVIS", "recipe": "lvis", "fetch": "https://example.org/lvis"},
        "Mine": "{split}/Empty",
        "Synth": "{split}/Synth",
        "Files": {"shards": "x/{00..12}.tar", "recipe": "coco"},
        "Wild": "train/LVIS/*.tar",
        "Drawn": {"shards": "{split}/Drawn", "recipe": "synth"},
    }
    assert (
        fault(root, **sets)
        == f"""\
error: LVIS: train/LVIS: no such folder
  build it: pics build-shards lvis --raw DIR --out {root}/train/LVIS
  or fetch it: https://example.org/lvis
Mine: train/Empty: no .tar shard in it
Files: x/{{00..12}}.tar: no such files (13 named)
  build it: pics build-shards coco --raw DIR
Wild: train/LVIS/*.tar: no such file
Drawn: train/Drawn: no such folder
  build it: pics build-shards synth --out {root}/train/Drawn

hint: name the folder they lie in with --data-root DIR, or leave these sets out with --allow-missing""".replace(
            f"--out {root}/", "--out "
        )
    )
    assert [each.name for each in found(root, allow_missing=True, **sets)] == ["Synth"]
    assert len(caplog.messages) == 5
    assert caplog.messages[0] == f"left out: LVIS: {root}/train/LVIS: no such folder"
    del sets["Synth"]
    assert "nothing to train on" in fault(root, allow_missing=True, **sets)


def test_faults_are_told_together_and_cannot_be_left_out(root: Path) -> None:
    shutil.copytree(root / "train/Synth", root / "train/Short")
    (root / "train/Short/00001.tar").unlink()
    shutil.copytree(root / "train/Synth", root / "train/Begun")
    manifest = json.loads((root / "train/Begun/manifest.json").read_text())
    (root / "train/Begun/manifest.json").write_text(json.dumps({**manifest, "complete": False}))
    shutil.copytree(root / "train/Synth", root / "train/Cut")
    data = (root / "train/Cut/00002.tar").read_bytes()
    (root / "train/Cut/00002.tar").write_bytes(data[:-3000])
    shutil.copytree(root / "train/Synth", root / "train/More")
    write_shard(root / "train/More/00009.tar", [1])
    sets = {name: f"{{split}}/{name}" for name in ("Short", "Begun", "Cut", "More", "Gone")}
    text = fault(root, **sets, Listed="train/Short/{00000..00002}.tar", allow_missing=True)
    assert text.splitlines()[:5] == [
        "error: Short: train/Short/00001.tar: no such file; 1 of 3 shards in manifest.json are missing",
        "Begun: train/Begun: its build was not finished",
        f"Cut: train/Cut/00002.tar: {len(data) - 3000:,} bytes, manifest.json says {len(data):,}",
        "More: train/More/00009.tar: not in manifest.json",
        "Listed: train/Short/00001.tar: no such file; 1 of 3 named shards are missing",
    ]
    assert "run the same `pics build-shards` again" in text


def test_truncated_without_a_manifest(root: Path) -> None:
    path = without_manifest(root) / "00001.tar"
    path.write_bytes(path.read_bytes()[:-12000])
    assert "train/Synth/00001.tar: truncated" in fault(root, A="train/Synth")


def test_shards_of_another_layout(tmp_path: Path) -> None:
    (tmp_path / "A").mkdir()
    with ShardWriter(tmp_path / "A/0.tar") as writer:
        for key in range(20):
            writer.add(f"{key}", {"jpg": b"x", "txt": b"a cat"})
    text = fault(tmp_path, A="A")
    assert text.startswith("error: A: A/0.tar: its samples are none of pics: missing_member: no bg.jpg, mask0.png")
    with ShardWriter(tmp_path / "A/0.tar"):
        pass
    assert "A: its shards hold no sample" in fault(tmp_path, A="A")


def test_one_bad_sample_at_the_start_is_no_other_layout(tmp_path: Path) -> None:
    (tmp_path / "A").mkdir()
    with ShardWriter(tmp_path / "A/0.tar") as writer:
        writer.add("0", {"bg.jpg": b"damaged"})
        writer.add("1", dict(members(1)))
    assert found(tmp_path, A="A")[0].counts == [2]


def test_a_count_that_is_not_true(root: Path) -> None:
    path = root / "train/Synth/manifest.json"
    manifest = json.loads(path.read_text())
    manifest["shards"][0]["samples"] = 3
    path.write_text(json.dumps(manifest))
    assert "00000.tar: holds 2 samples, expected 3" in fault(root, A="train/Synth")


@pytest.mark.parametrize(("text", "names"), [
    ("a.tar", ["a.tar"]),
    ("{0..2}", ["0", "1", "2"]),
    ("x/{08..11}.tar", ["x/08.tar", "x/09.tar", "x/10.tar", "x/11.tar"]),
    ("{1..2}/{8..9}", ["1/8", "1/9", "2/8", "2/9"]),
    ("pipe:awk '{print}' {0..1}", ["pipe:awk '{print}' 0", "pipe:awk '{print}' 1"]),
])  # fmt: skip
def test_ranges(text: str, names: list[str]) -> None:
    assert expand_ranges(text) == names


@pytest.mark.parametrize(
    "text", ["{2..1}.tar", "{a..b}.tar", "{a,b}.tar", "{0..9", "{0..999}/{0..9999}.tar", "{spilt}/A"]
)
def test_ranges_that_are_none(text: str, tmp_path: Path) -> None:
    with pytest.raises(PicsError, match=r"braces are for|names [0-9,]+ shards"):
        expand_ranges(text)
    assert "A: " in fault(tmp_path, A=text)


def test_brackets_are_names(tmp_path: Path) -> None:
    write_shard(tmp_path / "[ab]" / "0.tar", [1])
    assert glob_files(f"{tmp_path}/[ab]/*.tar") == [tmp_path / "[ab]/0.tar"]


def test_a_command_needs_permission(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "a.tar", range(3))
    text = fault(tmp_path, A=f"pipe:cat {path}")
    assert "data.sets.A.shards: pipe:cat" in text
    assert "needs --allow-pipe" in text
    (one,) = found(tmp_path, A=f"pipe:cat {path}", allow_pipe=True)
    assert (one.sources, one.counts, one.remote) == ([f"pipe:cat {path}"], [3], True)
