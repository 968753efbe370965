"""Reader of rendered scenes: samples with their truth, and one clear line for what the raw folder lacks."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers import oracle
from helpers.making import build_folder
from helpers.rendered_raw import make_raw, write_hdri, write_obj
from pics_cli.core.images.lighting import read_lighting
from pics_cli.core.shards.samples import decode_sample
from pics_cli.errors import PicsError

TINY: dict[str, Any] = {"source__size": 64, "source__samples": 1, "shards__size": 1}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = make_raw(tmp_path_factory.mktemp("raw") / "rendered")
    (folder / "models/broken.obj").write_text("f 1 2 3\n")
    return folder


def test_samples_know_their_truth_and_their_bytes_depend_on_nothing_else(
    raw: Path, tmp_path: Path, pics: Callable[..., Any]
) -> None:
    """Built in this process, and by the command in another; a broken model is named and passed over."""
    manifest, out = build_folder("rendered", raw, tmp_path / "here", limit=2, **TINY)
    command = ["build-shards", "rendered", "--raw", str(raw), "--out", "there", "--limit", "2", "--shard-size", "1"]
    done = pics(*command, "--set", "source.size=64", "--set", "source.samples=1", "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert "bad records: no_faces" in done.stderr + done.stdout
    assert {path.name: path.read_bytes() for path in (tmp_path / "there").iterdir()} == {
        path.name: path.read_bytes() for path in out.iterdir()
    }
    assert manifest["samples"] == 2
    assert manifest["bad"]["records"] == {"no_faces": 1}
    assert manifest["bad_records"] == ["no_faces: broken.obj"]
    for key, members in oracle.read_tars(out).items():
        sample = decode_sample(key, members)
        assert sample.metadata is not None
        lighting = read_lighting(sample.metadata)
        assert lighting is not None
        assert 5 < lighting.pitch < 62
        assert sorted(sample.metadata["order"]) == [0, 1]
        assert sample.metadata["pairs"][0]["relation"] in ("apart", "touching", "occluding", "supporting", "containing")
        assert [entry["mask"]["source"] for entry in sample.metadata["objects"]] == ["rendered", "rendered"]
        assert sample.clean_background is not None
        assert all(view is not None for view in sample.alternate_views)


def remove(*names: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for name in names:
            for path in sorted(folder.glob(name)):
                path.unlink()

    return change


def only_small_hdri(folder: Path) -> None:
    remove("hdris/*")(folder)
    write_hdri(folder / "hdris/square.exr", 32, 32)


def only_cones(folder: Path) -> None:
    remove("models/*")(folder)
    import trimesh

    for number in range(4):
        write_obj(folder / f"models/cone{number}.obj", trimesh.creation.cone(0.4, 0.6 + number / 9), [9, 99, 9])


def only_broken(folder: Path) -> None:
    remove("models/*")(folder)
    (folder / "models/broken.obj").write_text("f 1 2 3\n")


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        (shutil.rmtree, r"folder .*models does not exist", "--raw DIR"),
        (remove("models/*"), r"models: no 3D models in it \(\*\.obj, \*\.glb, \*\.sh3f\)", "polyhaven.com"),
        (only_broken, r"none of 1 models can be used: 1 no_faces", "120,000 triangles"),
        (
            remove("models/b[!r]*", "models/c*"),
            r"only 1 models \(slab.obj\): train, val and test share none",
            "polyhaven.com",
        ),
        (only_cones, r"none of the \d models has a (level surface|hollow), which the relation", "source.relations"),
        (remove("hdris/*"), r"hdris: no HDRI panoramas in it \(\*\.exr, \*\.hdr\)", "polyhaven.com"),
        (only_small_hdri, r"square.exr is 32 x 32 pixels, and no panorama", "polyhaven.com"),
        (remove("grounds/*"), r"grounds: no photographs in it \(\*\.jpg, \*\.jpeg, \*\.png\)", "polyhaven.com"),
        (remove("grounds/*1.png"), r"only 2 photographs", "polyhaven.com"),
    ],
)
def test_what_the_raw_folder_lacks(
    raw: Path, tmp_path: Path, change: Callable[[Path], None], message: str, hint: str
) -> None:
    shutil.copytree(raw, tmp_path / "raw")
    change(tmp_path / "raw")
    relations = {"supporting": 1, "containing": 1}
    with pytest.raises(PicsError, match=message) as caught:
        build_folder("rendered", tmp_path / "raw", tmp_path / "out", limit=1, source__relations=relations, **TINY)
    assert caught.value.exit_code == 2
    assert hint in str(caught.value.hint)


def test_no_raw_folder(tmp_path: Path, pics: Callable[..., Any]) -> None:
    done = pics("build-shards", "rendered", "--out", "out")
    assert done.returncode == 2
    assert "folder data/raw/rendered/models does not exist" in done.stderr
