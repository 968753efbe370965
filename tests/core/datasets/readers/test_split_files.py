"""Where annotations, labels and pictures of a split are looked for, and what is refused instead of guessed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers import oracle
from helpers.exports import EXPORTS, yolo_seg
from helpers.making import annotation, build_folder, encoded, rectangle, smooth, write_coco
from helpers.six_formats import PAIR, SIZE, region
from helpers.street import bdd_label, put, write_bdd
from pics_cli.errors import PicsError

Run = Callable[..., Any]

LEFT, RIGHT = (10, 10, 60, 50), (40, 20, 90, 60)


# --- pictures of annotation files in subfolders -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "images", "split"),
    [
        ("labels/train", "images/train", "train"),
        ("train/labels", "train/images", "train"),
        ("labels/val", "images/val", "val"),
        ("valid/labels", "valid/images", "val"),
        ("test/labels", "test/images", "test"),
    ],
)
def test_yolo_labels_of_one_name_in_several_folders(tmp_path: Path, labels: str, images: str, split: str) -> None:
    """Each is of the picture at the same place: before, all took the first one's, silently."""
    names = ["x", "sub/x", "sub/deep/x", "other/deep/x"]
    raw = yolo_seg(tmp_path, dict.fromkeys(names, PAIR), labels, images)
    pictures = {name: encoded(smooth(*SIZE, seed=i)) for i, name in enumerate(names)}
    for name, data in pictures.items():
        put(raw / images / f"{name}.jpg", data)
    _, out = build_folder("yolo_seg", raw, tmp_path / "out", split)
    samples = oracle.read_tars(out)
    assert {json.loads(sample["json"])["image_id"]: sample["bg.jpg"] for sample in samples.values()} == pictures


def test_a_picture_of_the_same_name_elsewhere_is_not_taken(tmp_path: Path) -> None:
    raw = yolo_seg(tmp_path, {"x": PAIR})
    put(raw / "labels/train/sub/x.txt", (raw / "labels/train/x.txt").read_text())
    manifest, _ = build_folder("yolo_seg", raw, tmp_path / "out")
    assert (manifest["samples"], manifest["bad"]["pictures"]) == (1, {"missing_image": 1})


@pytest.mark.parametrize(
    ("recipe", "lies_at"), [("cvat", "images/a/x.jpg"), ("label_studio", "images/a/x.jpg"), ("labelme", "a/x.jpg")]
)
@pytest.mark.parametrize(
    ("other", "expected"), [("b/y", {}), ("b/x", {"ambiguous_image": 1}), ("x", {"ambiguous_image": 1})]
)
def test_a_picture_without_its_folder_is_taken_where_its_name_is_of_one_image(
    tmp_path: Path, recipe: str, lies_at: str, other: str, expected: dict[str, int]
) -> None:
    """Before, the picture of another image with the same name was, silently."""
    raw = EXPORTS[recipe](tmp_path, {"a/x": PAIR, other: PAIR})
    picture = (raw / lies_at).read_bytes()
    (raw / lies_at).unlink()
    put(raw / "images/x.jpg", picture)
    manifest, _ = build_folder(recipe, raw, tmp_path / "out")
    assert (manifest["samples"], manifest["bad"]["pictures"]) == (2 - len(expected), expected)


# --- labels elsewhere -------------------------------------------------------------------------------------------------


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """A COCO file of one picture whose masks are the boxes, and elsewhere labels of other masks."""
    image = {"id": 1, "file_name": "a.jpg", "width": 100, "height": 70}
    picture = encoded(smooth(70, 100))
    write_coco(tmp_path / "raw", {"a.jpg": picture}, [image], [annotation(1, box) for box in (LEFT, RIGHT)])
    (tmp_path / "raw/mine.yaml").rename(tmp_path / "mine.yaml")
    shrunk = [(x0 + 2, y0, x1, y1) for x0, y0, x1, y1 in (LEFT, RIGHT)]
    entries = [{"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0), "segmentation": [rectangle(*box)]}
               for box in shrunk for x0, y0, x1, y1 in [box]]  # fmt: skip
    put(tmp_path / "labels/a.json", json.dumps({"image_id": 1, "annotations": entries}))
    return tmp_path


def areas(folder: Path) -> list[int]:
    (sample,) = oracle.read_tars(folder).values()
    return [entry["pixels"] for entry in json.loads(sample["json"])["objects"]]


@pytest.mark.parametrize("labels", ["labels", "raw/../labels", "./labels/../labels"])
def test_labels_by_any_path(labelled: Path, pics: Run, labels: str) -> None:
    done = pics("build-shards", "mine.yaml", "--raw", "raw", "--out", "out", "--labels", labels, "--workers", 1)
    assert done.returncode == 0, done.stderr
    assert areas(labelled / "out") == [48 * 40, 48 * 40]


def test_labels_whose_path_has_a_star(labelled: Path, pics: Run) -> None:
    (labelled / "labels").rename(labelled / "la*bels")
    done = pics("build-shards", "mine.yaml", "--raw", "raw", "--out", "out", "--labels", "la*bels", "--workers", 1)
    assert done.returncode == 0, done.stderr
    assert areas(labelled / "out") == [48 * 40, 48 * 40]


@pytest.mark.parametrize("labels", ["label", "lab*", "raw/../nowhere"])
def test_labels_that_are_not_there(labelled: Path, pics: Run, labels: str) -> None:
    """The annotation file is not taken in their stead."""
    done = pics("build-shards", "mine.yaml", "--raw", "raw", "--out", "out", "--labels", labels)
    assert done.returncode == 2
    assert f"labels folder {(labelled / labels).resolve()}: no such folder" in done.stderr
    assert not (labelled / "out").exists()


@pytest.mark.parametrize("out", ["labels", "raw/../labels", "raw/labels.json"])
@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_shards_do_not_go_where_annotations_are(labelled: Path, pics: Run, out: str, overwrite: list[str]) -> None:
    put(
        labelled / "labels/manifest.json",
        json.dumps({"complete": True, "pictures": 1, "boxes": 2, "made_by": "annotate"}),
    )
    options = ["--labels", "labels"] if Path(out).name == "labels" else []
    before = {path: path.read_bytes() for path in labelled.rglob("*") if path.is_file()}
    done = pics("build-shards", "mine.yaml", "--raw", "raw", "--out", out, *options, *overwrite)
    assert done.returncode == 2
    assert f"--out {out}: is the annotations " in done.stderr
    assert {path: path.read_bytes() for path in labelled.rglob("*") if path.is_file()} == before


def test_labels_of_a_format_that_has_none(tmp_path: Path, pics: Run) -> None:
    yolo_seg(tmp_path, {"a": PAIR})
    done = pics("build-shards", "yolo_seg", "--raw", "yolo", "--out", "out", "--labels", "yolo/labels")
    assert done.returncode == 2
    assert "go with the formats coco and scalabel, its format is yolo_seg" in done.stderr


def test_pictures_of_labels_elsewhere_lie_where_the_annotations_do(tmp_path: Path) -> None:
    """The dataset lies in a folder of its recipe's name inside --raw."""
    labels = [bdd_label(str(k), region(*box)) for k, box in enumerate(PAIR)]
    raw = write_bdd(tmp_path, [{"name": "a.jpg", "labels": labels}], {"a": smooth(*SIZE)})
    entries = [annotation(0, box) for box in PAIR]
    put(tmp_path / "labels/a.json", json.dumps({"annotations": entries}))
    for root in (raw, raw.parent):
        values: dict[str, Any] = {
            "source__folder": [raw.name],
            "source__splits__train__labels": [str(tmp_path / "labels")],
        }
        manifest, _ = build_folder("bdd100k", root, tmp_path / f"out{root.name}", **values)
        assert (manifest["samples"], manifest["bad"]["pictures"]) == (1, {})


# --- several files ----------------------------------------------------------------------------------------------------


def test_a_star_that_cannot_be(tmp_path: Path) -> None:
    recipe, _ = write_coco(tmp_path, {}, [], [])
    with pytest.raises(PicsError, match=r"source\.splits\.train: '\*\*\.json': .*component") as error:
        build_folder(recipe, tmp_path, tmp_path / "out", source__splits__train__annotations=["**.json"])
    assert error.value.hint
    assert not (tmp_path / "out").exists()


def test_a_pattern_too_long_for_a_name(tmp_path: Path) -> None:
    recipe, _ = write_coco(tmp_path, {}, [], [])
    for pattern in ("*" * 300, "x" * 300):
        with pytest.raises(PicsError, match=f"{re.escape(pattern)}: cannot read: file name too long"):
            build_folder(recipe, tmp_path, tmp_path / "out", source__splits__train__annotations=[pattern])


def test_a_file_whose_name_has_a_star(tmp_path: Path) -> None:
    image = {"id": 1, "file_name": "a.jpg", "width": 100, "height": 70}
    pair = [annotation(1, box) for box in (LEFT, RIGHT)]
    recipe, _ = write_coco(tmp_path, {"a.jpg": encoded(smooth(70, 100))}, [image], pair)
    (tmp_path / "labels.json").rename(tmp_path / "labels*.json")
    put(tmp_path / "labels2.json", "no json")
    values: dict[str, Any] = {"source__splits__train__annotations": ["labels*.json"]}
    assert build_folder(recipe, tmp_path, tmp_path / "out", **values)[0]["samples"] == 1
