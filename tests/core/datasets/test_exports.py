"""Exports of annotation tools, Pascal VOC and COCO panoptic become the samples that their masks tell."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw

from helpers import oracle
from helpers.exports import (
    EXPORTS,
    coco_panoptic,
    corners,
    cvat,
    label_studio,
    labelme_file,
    mask_shape,
    panoptic_map,
    rgb_ids,
    roboflow,
    segment,
    shape,
    voc,
    voc_maps,
    write_panoptic,
    write_voc,
    yolo_line,
    yolo_seg,
)
from helpers.making import build_folder, encoded, smooth
from helpers.six_formats import FIRST, HEIGHT, PAIR, SECOND, SIZE, WIDTH, region
from helpers.street import put
from pics_cli.core.datasets.inspect import inspect_dataset
from pics_cli.core.datasets.readers import open_reader
from pics_cli.core.datasets.readers.base import DatasetSplit
from pics_cli.core.datasets.readers.labelme import LabelMeReader
from pics_cli.core.recipes.base import find_recipe
from pics_cli.core.recipes.dataset import load_dataset
from pics_cli.errors import PicsError

Bools = npt.NDArray[np.bool_]

MAPS = ("voc", "coco_panoptic")
THIRD = (5, 45, 35, 60)


def build(recipe: str, raw: Path, **values: Any) -> tuple[dict[str, Any], list[dict[str, bytes]]]:
    """Manifest and samples of an export."""
    manifest, out = build_folder(recipe, raw, raw.parent / f"out{len(list(raw.parent.iterdir()))}", **values)
    return manifest, list(oracle.read_tars(out).values())


def masks(members: dict[str, bytes], count: int = 2) -> list[Bools]:
    return [oracle.read_mask(members[f"mask{k}.png"]) for k in range(count)]


def bad(manifest: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Reason and detail by image."""
    return {str(entry["item"]): (entry["reason"], entry["detail"]) for entry in manifest["bad_pictures"]}


# --- every format -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", EXPORTS)
def test_masks_boxes_and_categories(tmp_path: Path, recipe: str) -> None:
    manifest, (found, again) = build(
        recipe, EXPORTS[recipe](tmp_path, {"a": PAIR, "b": [THIRD, SECOND, FIRST], "c": []})
    )
    assert manifest["pictures"] == 3
    assert manifest["bad"] == {"pictures": {}, "records": {}}
    hidden = region(29, 19, 71, 51) if recipe == "voc" else region(*SECOND)  # VOC's void hides what is around it
    first = region(*FIRST) & ~hidden if recipe in MAPS else region(*FIRST)
    assert all(map(np.array_equal, masks(found), (first, region(*SECOND))))
    objects = json.loads(found["json"])["objects"]
    names = ("aeroplane", "bicycle") if recipe == "voc" else ("cup", "bowl")
    assert tuple(entry["category"] for entry in objects) == names
    assert [entry["area"] for entry in objects] == [mask.sum() for mask in masks(found)]
    assert [tuple(entry["box"]) for entry in objects] == [FIRST, SECOND]
    assert masks(again)[1].sum() == (30 * 30 if recipe != "voc" else 900)


@pytest.mark.parametrize("recipe", EXPORTS)
def test_classes_are_chosen_by_name(tmp_path: Path, recipe: str) -> None:
    raw = EXPORTS[recipe](tmp_path, {"a": [*PAIR, (20, 5, 50, 30)]})
    wanted = "aeroplane" if recipe == "voc" else "cup"
    _, (found,) = build(recipe, raw, pairs__classes__include=[wanted])
    assert [entry["category"] for entry in json.loads(found["json"])["objects"]] == [wanted, wanted]
    with pytest.raises(PicsError, match="'kettle' not among the"):
        build(recipe, raw, pairs__classes__include=["kettle"])


@pytest.mark.parametrize("recipe", EXPORTS)
def test_missing_pictures_and_others_sizes_are_counted(tmp_path: Path, recipe: str) -> None:
    raw = EXPORTS[recipe](tmp_path, {"a": PAIR, "b": PAIR, "c": PAIR})
    pictures = sorted(raw.rglob("*.jpg"))
    pictures[0].unlink()
    pictures[1].write_bytes(encoded(smooth(WIDTH, HEIGHT)))
    manifest, samples = build(recipe, raw)
    reasons = [reason for reason, _ in bad(manifest).values()]
    # YOLO's labels hold no size: a turned picture is one of another size.
    assert reasons == (["missing_image"] if recipe == "yolo_seg" else ["missing_image", "size_mismatch"])
    assert len(samples) == 3 - len(reasons)


@pytest.mark.parametrize("recipe", EXPORTS)
def test_a_build_is_the_same_twice(tmp_path: Path, recipe: str) -> None:
    raw = EXPORTS[recipe](tmp_path, {name: PAIR for name in "abcd"})
    (one, first), (two, second) = (build(recipe, raw) for _ in range(2))
    assert first == second
    assert one["shards"] == two["shards"]


@pytest.mark.parametrize("recipe", EXPORTS)
def test_other_folders_are_refused(tmp_path: Path, pics: Callable[..., Any], recipe: str) -> None:
    put(tmp_path / "raw/readme.md", "nothing here")
    done = pics("build-shards", recipe, "--raw", "raw", "--out", "out")
    assert done.returncode == 2
    assert "hint: " in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


# --- COCO exports of annotation tools ---------------------------------------------------------------------------------


def test_roboflow_splits(tmp_path: Path) -> None:
    for folder, split in (("train", "train"), ("valid", "val"), ("test", "test")):
        raw = roboflow(tmp_path, {split: PAIR}, folder)
        manifest, _ = build_folder("roboflow", raw, tmp_path / split, split)
        assert manifest["samples"] == 1


@pytest.mark.parametrize(
    ("images", "subset", "split"),
    [("images/default", "default", "train"), ("images/val", "val", "val"), ("images", "Test", "test")],
)
def test_cvat_layouts(tmp_path: Path, images: str, subset: str, split: str) -> None:
    manifest, _ = build_folder("cvat", cvat(tmp_path, {"a": PAIR}, images, subset), tmp_path / "out", split)
    assert manifest["samples"] == 1


@pytest.mark.parametrize(
    "name",
    ["images/{}.jpg", "{}.jpg", "images\\{}.jpg", ".\\images\\{}.jpg", r"C:\Users\me\media\upload\1\{}.jpg"],
    ids=["folder", "bare", "Windows", "Windows below", "Windows absolute"],
)
def test_label_studio_names(tmp_path: Path, name: str) -> None:
    manifest, samples = build("label_studio", label_studio(tmp_path, {"a": PAIR}, name))
    assert len(samples) == 1, bad(manifest)


# --- --inspect --------------------------------------------------------------------------------------------------------


def test_inspect_tells_what_is_there(tmp_path: Path, pics: Callable[..., Any]) -> None:
    raw = cvat(tmp_path, {"a": PAIR, "b": [FIRST, FIRST], "c": [], "d": PAIR, "e": PAIR})
    (raw / "images/d.jpg").unlink()
    put(raw / "images/e.jpg", encoded(smooth(WIDTH, HEIGHT)))
    path = raw / "annotations/instances_default.json"
    data = json.loads(path.read_text())
    data["annotations"][0]["bbox"] = [10, 10, 1, 1]
    del data["annotations"][-1]["segmentation"]
    data["annotations"][1]["iscrowd"] = 0
    path.write_text(json.dumps(data))
    done = pics("build-shards", "cvat", "--raw", raw, "--out", "out", "--inspect", "--workers", 1)
    assert done.returncode == 0, done.stderr
    shown = {line.strip()[:20].strip(): line.strip()[20:].strip() for line in done.stdout.splitlines() if line.strip()}
    assert shown["objects"] == "8, 1.6 a picture"
    assert shown["masks"] == "7 rle, 1 box alone"
    assert shown["crowds"] == "7 (88%); pairs.crowd: keep"
    assert shown["box against mask"] == "IoU median 1.00, lowest 0.00; 1 of 7 below 0.5"
    assert shown["picture sizes"] == "96x64 to 96x64, median 96x64 (1 different)"
    assert shown["categories"] == "cup 4, bowl 4"
    assert "1, such as 000000000003: no file" in shown["bad: missing_image"]
    assert shown["bad: size_mismatch"].endswith("000000000004: picture is 64x96, annotated as 96x64")
    assert "would be tried" in shown
    assert "noted: measured_by_mask    1 objects whose box or area is of another scale" in done.stdout
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("recipe", EXPORTS)
def test_inspect_knows_every_format(tmp_path: Path, recipe: str) -> None:
    raw = EXPORTS[recipe](tmp_path, {"a": PAIR, "b": [FIRST], "c": []})
    found = inspect_dataset(open_reader(DatasetSplit(load_dataset(find_recipe(recipe)), "train", raw)))
    assert (found.pictures, found.objects, found.faults) == (3, 3, {})
    assert min(found.agreements) > 0.999
    assert sum(found.masks.values()) == sum(found.categories.values()) == 3
    assert found.sizes == {(WIDTH, HEIGHT): 3}


def test_inspect_drawn_scenes(tmp_path: Path) -> None:
    reader = open_reader(DatasetSplit(load_dataset(find_recipe("synth")), "train", None))
    found = inspect_dataset(reader, 2)
    assert (found.pictures, found.faults) == (2, {})


# --- LabelMe ----------------------------------------------------------------------------------------------------------


def labelme_of(root: Path, *shapes: Any, **more: Any) -> Path:
    put(root / "raw/a.json", labelme_file(shapes, "a.jpg", **more))
    put(root / "raw/a.jpg", encoded(smooth(*SIZE)))
    return root / "raw"


STAR = [(48, 4), (58, 26), (90, 26), (64, 40), (74, 62), (48, 48), (22, 62), (32, 40), (6, 26), (38, 26)]
KINDS = {
    "polygon": (shape("star", STAR), STAR),
    "no type": (shape("star", STAR, shape_type=None), STAR),
    "circle": (shape("disc", [(50, 32), (50, 60)], "circle"), None),
    "rectangle": (shape("box", [(80, 55), (30, 8)], "rectangle"), corners((30, 8, 80, 55))),
    "rotated": (shape("box", STAR[:4], "rotation"), STAR[:4]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_labelme_shapes(tmp_path: Path, kind: str) -> None:
    entry, outline = KINDS[kind]
    fine = 16  # drawn so much larger: what is set in most of a pixel
    canvas = Image.new("L", (WIDTH * fine, HEIGHT * fine))
    if outline:
        ImageDraw.Draw(canvas).polygon([(x * fine, y * fine) for x, y in outline], fill=255)
    else:
        ImageDraw.Draw(canvas).ellipse([value * fine for value in (22, 4, 78, 60)], fill=255)
    expected = np.asarray(canvas.reduce(fine)) > 127
    _, (found,) = build("labelme", labelme_of(tmp_path, entry), pairs__objects=1)
    (mask,) = masks(found, 1)
    assert (mask & expected).sum() / (mask | expected).sum() > 0.96


def test_labelme_masks_and_groups(tmp_path: Path) -> None:
    ring = region(0, 0, 30, 30)[:30, :30].copy()
    ring[10:20, 10:20] = False
    parts = [shape("cup", corners((2, 2, 12, 30)), group_id=3), mask_shape("cup", (10, 10, 40, 40), ring, group_id=3)]
    raw = labelme_of(tmp_path, *parts, shape("cup", corners(SECOND), group_id=4), shape("cup", [(1, 1)], "point"))
    _, (found,) = build("labelme", raw)
    expected = region(2, 2, 12, 30) | region(*FIRST) & ~region(20, 20, 30, 30)
    assert all(map(np.array_equal, masks(found), (expected, region(*SECOND))))
    assert json.loads(found["json"])["objects"][0]["area"] == expected.sum()


PLACES = ["../photos/a.jpg", "..\\photos\\a.jpg", "C:\\Users\\me\\photos\\a.jpg", "/home/me/photos/a.jpg", None, ""]


@pytest.mark.parametrize("place", PLACES)
def test_labelme_pictures_elsewhere(tmp_path: Path, place: str | None) -> None:
    shapes = [shape("cup", corners(box)) for box in PAIR]
    put(tmp_path / "raw/annotations/a.json", labelme_file(shapes, "", imagePath=place))
    relative = place is not None and place.startswith("..")
    put(tmp_path / "raw" / ("photos" if relative else "images") / "a.jpg", encoded(smooth(*SIZE)))
    manifest, samples = build("labelme", tmp_path / "raw")
    assert len(samples) == bool(place), bad(manifest)


def test_labelme_without_a_size_takes_the_pictures(tmp_path: Path) -> None:
    shapes = [shape("cup", corners(box)) for box in PAIR]
    _, (found,) = build("labelme", labelme_of(tmp_path, *shapes, imageWidth=None, imageHeight=None))
    assert np.array_equal(masks(found)[1], region(*SECOND))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_labelme_files_of_other_encodings(tmp_path: Path, encoding: str) -> None:
    shapes = [shape("tasse à thé", corners(box)) for box in PAIR]
    raw = labelme_of(tmp_path)
    put(raw / "a.json", json.dumps(json.loads(labelme_file(shapes, "a.jpg")), ensure_ascii=False).encode(encoding))
    _, (found,) = build("labelme", raw)
    assert json.loads(found["json"])["objects"][0]["category"] == "tasse à thé"


HUGE = {"imageWidth": 1 << 40, "imageHeight": 1 << 40}
SMALL = region(0, 0, 8, 8)[:8, :8]
LABELME_FAULTS: dict[str, tuple[str, str, str]] = {
    "text": ("no json", "bad_annotation_file", "malformed"),
    "list": ("[]", "bad_annotation_file", "Expected `object`"),
    "number": (labelme_file([shape("cup", [(1e300, 0), (1, 1), (2, 2)])], "x.jpg"), "bad_annotation_file", "points"),
    "nan": (
        labelme_file([], "x.jpg").replace("[]", '[{"label": "a", "points": [[NaN, 1]]}]'),
        "bad_annotation_file",
        "",
    ),
    "size": (labelme_file([], "x.jpg", **HUGE), "bad_annotation_file", "claims 1099511627776"),
    "none": (labelme_file([], "x.jpg", imageWidth=0), "bad_annotation_file", "claims 0 x"),
    "kind": (labelme_file([shape("cup", STAR, "cuboid")], "x.jpg"), "bad_mask", "'cuboid' with 10 points"),
    "two": (labelme_file([shape("cup", STAR[:2])], "x.jpg"), "bad_mask", "'polygon' with 2 points"),
    "outside": (labelme_file([mask_shape("cup", (92, 60, 100, 68), SMALL)], "x.jpg"), "bad_mask", "8x8, its corners"),
    "other": (labelme_file([mask_shape("cup", (0, 0, 9, 8), SMALL)], "x.jpg"), "bad_mask", "8x8, its corners"),
    "base64": (labelme_file([shape("cup", STAR[:2], "mask", mask="§")], "x.jpg"), "bad_mask", "no base64"),
    "png": (labelme_file([shape("cup", STAR[:2], "mask", mask="QUFB")], "x.jpg"), "bad_label_map", "not a picture"),
    "leaves": (
        labelme_file([shape("cup", corners(box)) for box in PAIR], "../etc/x.jpg"),
        "missing_image",
        "images/x.jpg",
    ),
}


def test_labelme_faults_are_named(tmp_path: Path) -> None:
    for name, (text, _, _) in LABELME_FAULTS.items():
        put(tmp_path / "raw" / f"{name}.json", text)
    put(tmp_path / "raw/a.json", labelme_file([shape("cup", corners(box)) for box in PAIR], "a.jpg"))
    put(tmp_path / "raw/a.jpg", encoded(smooth(*SIZE)))
    put(tmp_path / "etc/x.jpg", encoded(smooth(*SIZE)))
    manifest, samples = build("labelme", tmp_path / "raw")
    assert len(samples) == 1
    found = bad(manifest)
    for name, (_, reason, detail) in LABELME_FAULTS.items():
        assert found[f"{name}.json"][0] == reason, (name, found[f"{name}.json"])
        assert detail in found[f"{name}.json"][1]


@pytest.mark.parametrize("out", ["shards", "built/train"])
def test_labelme_shards_inside_the_folder(tmp_path: Path, pics: Callable[..., Any], out: str) -> None:
    """A second run read the first one's manifest and stats as annotations; other files that are none stay bad ones."""
    raw = labelme_of(tmp_path, *(shape("cup", corners(box)) for box in PAIR))
    put(raw / "more/manifest.json", '{"name": "not ours"}')
    command = ("build-shards", "labelme", "--raw", raw, "--out", raw / out, "--workers", 1)
    first, second = pics(*command), pics(*command)
    assert first.returncode == second.returncode == 0, second.stderr
    assert "is complete already" in second.stderr
    manifest = json.loads((raw / out / "manifest.json").read_text())
    assert (manifest["pictures"], manifest["samples"]) == (2, 1)
    assert bad(manifest)["more/manifest.json"][0] == "bad_annotation_file"


def test_labelme_files_are_not_read_for_categories_that_nobody_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = labelme_of(tmp_path, *(shape("cup", corners(box)) for box in PAIR))
    calls: list[str] = []

    def labels(self: LabelMeReader) -> list[str]:
        calls.append("")
        return ["cup"]

    monkeypatch.setattr(LabelMeReader, "_occurring_labels", labels)
    assert build("labelme", raw)[0]["samples"] == 1
    assert not calls
    assert build("labelme", raw, pairs__classes__exclude=["cup"])[0]["samples"] == 0
    assert calls


# --- YOLO -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "images", "split"),
    [
        ("labels/val", "images/val", "val"),
        ("train/labels", "train/images", "train"),
        ("valid/labels", "valid/images", "val"),
        ("test/labels", "test/images", "test"),
        ("labels/train/kitchen", "images/train/kitchen", "train"),
    ],
)
def test_yolo_layouts(tmp_path: Path, labels: str, images: str, split: str) -> None:
    raw = yolo_seg(tmp_path, {"a": PAIR}, labels, images)
    manifest, _ = build_folder("yolo_seg", raw, tmp_path / "out", split)
    assert manifest["samples"] == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("data.yaml", "names: [cup, bowl]\nnc: 2"),
        ("data.yaml", "names: {'1': bowl, '0': cup}"),
        ("classes.txt", "cup\nbowl\n"),
        ("classes.txt", "\ufeff cup \r\nbowl\r\n\r\n \n"),
    ],
)
def test_yolo_class_names(tmp_path: Path, name: str, text: str) -> None:
    raw = yolo_seg(tmp_path, {"a": PAIR})
    (raw / "data.yaml").unlink()
    put(raw / name, text)
    put(raw / "labels/train/classes.txt", "cup\nbowl\n")  # as labelling tools leave it: no picture's
    manifest, (found,) = build("yolo_seg", raw)
    assert [entry["category"] for entry in json.loads(found["json"])["objects"]] == ["cup", "bowl"]
    assert manifest["pictures"] == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "no data.yaml or data.yml or dataset.yaml or classes.txt, which names the classes of"),
        ("nc: 2", "data.yaml: names: expected a list, or a mapping from 0, 1, … to names"),
        ("names: {1: cup, 2: bowl}", "names: expected a list"),
        ("names: 3", "names: expected a list"),
        ("names: [", "not YAML"),
    ],
)
def test_yolo_without_class_names(tmp_path: Path, text: str | None, words: str) -> None:
    raw = yolo_seg(tmp_path, {"a": PAIR})
    (raw / "data.yaml").unlink()
    if text:
        put(raw / "data.yaml", text)
    with pytest.raises(PicsError, match=words):
        build("yolo_seg", raw)


@pytest.mark.parametrize(("text", "number"), [("cup\n\nbowl\n", 2), ("\ncup\nbowl", 1), ("cup\n \nbowl", 2), ("", 1)])
def test_yolo_classes_without_a_name(tmp_path: Path, text: str, number: int) -> None:
    """An empty line was a class of its own, whose name is nothing; as one at the end of the file was."""
    raw = yolo_seg(tmp_path, {"a": PAIR})
    (raw / "data.yaml").unlink()
    put(raw / "classes.txt", text)
    with pytest.raises(PicsError, match=f"classes.txt: line {number} is empty, .* the name of class {number - 1}"):
        build("yolo_seg", raw)


def test_yolo_has_no_class_behind_the_last_name(tmp_path: Path) -> None:
    raw = yolo_seg(tmp_path, {"a": PAIR})
    (raw / "data.yaml").unlink()
    put(raw / "classes.txt", "cup\n")
    manifest, _ = build("yolo_seg", raw)
    assert "class 1, expected one of the 1 that are named" in bad(manifest)["a.txt"][1]


def test_yolo_boxes_have_no_mask(tmp_path: Path) -> None:
    raw = yolo_seg(tmp_path, {"a": PAIR})
    put(raw / "labels/train/a.txt", "0 0.25 0.4 0.3 0.4\n1 0.5 0.5 0.4 0.4\n\n")
    manifest, _ = build("yolo_seg", raw)
    assert manifest["skipped"] == {"no_masks": 1}


YOLO_FAULTS = {
    "class": ("2 0.1 0.1 0.5 0.1 0.5 0.5", "line 1: class 2, expected one of the 2"),
    "negative": ("-1 0.1 0.1 0.5 0.1 0.5 0.5", "class -1"),
    "huge": ("1e400 0.1 0.1 0.5 0.1 0.5 0.5", "class inf"),
    "fraction": ("0.5 0.1 0.1 0.5 0.1 0.5 0.5", "class 0.5"),
    "pixels": ("\n0 10 10 50 10 50 50", "line 2: got 10, expected shares of the picture from 0 to 1"),
    "nan": ("0 nan 0.1 0.5 0.1 0.5 0.5", "got nan"),
    "word": ("cup 0.1 0.1 0.5 0.1 0.5 0.5", "could not convert string to float: 'cup'"),
    "odd": ("0 0.1 0.1 0.5 0.1 0.5 0.5 0.9", "7 numbers behind the class"),
    "short": ("0 0.1 0.1", "2 numbers behind the class"),
}


def test_yolo_faults_are_named(tmp_path: Path) -> None:
    raw = yolo_seg(tmp_path, {"a": PAIR, **dict.fromkeys(YOLO_FAULTS, ()), "bytes": ()})
    for name, (text, _) in YOLO_FAULTS.items():
        put(raw / f"labels/train/{name}.txt", text)
    put(raw / "labels/train/bytes.txt", b"\xff\xfe\0\x81")
    put(raw / "labels/train/a.txt", f"{yolo_line(0, corners(FIRST))}\n{yolo_line(1, corners(SECOND))}\n" * 2)
    manifest, (sample,) = build("yolo_seg", raw)
    assert np.array_equal(masks(sample)[0], region(*FIRST))  # a repeated line is no second object
    found = bad(manifest)
    assert found.pop("bytes.txt")[0] == "bad_annotation_file"
    assert set(found) == {f"{name}.txt" for name in YOLO_FAULTS}
    for name, (_, detail) in YOLO_FAULTS.items():
        assert detail in found[f"{name}.txt"][1], (name, found[f"{name}.txt"])


# --- Pascal VOC -------------------------------------------------------------------------------------------------------


def test_voc_faults_are_named(tmp_path: Path) -> None:
    objects, classes = voc_maps(PAIR)
    half = np.where((objects == 1) & (np.arange(WIDTH) < 20), 5, classes)
    cases = {
        "good": (objects, classes),
        "unknown": (objects, np.where(objects == 1, 21, classes)),
        "background": (objects, np.where(objects == 1, 0, classes)),
        "contradiction": (objects, half),
        "sizes": (objects, classes.T),
    }
    raw = write_voc(tmp_path, {**cases, "no class": cases["good"], "colours": cases["good"]})
    base = raw / "VOC2012"
    (base / "SegmentationClass/no class.png").unlink()
    put(base / "SegmentationObject/colours.png", encoded(smooth(*SIZE), "PNG"))
    names = [*cases, "no class", "colours", "good", "no map", "../../../etc/passwd", "/etc/passwd"]
    put(base / "ImageSets/Segmentation/train.txt", "\r\n".join(names))
    manifest, samples = build("voc", raw)
    assert (manifest["pictures"], len(samples)) == (len(names) - 1, 1)  # `good` is listed twice
    found = {name.removesuffix(".png"): fault for name, fault in bad(manifest).items()}
    expected = {
        "unknown": ("unknown_label", "object 1 is of class 21, the recipe names 20"),
        "background": ("unknown_label", "object 1 is of class 0"),
        "contradiction": ("bad_label_map", "of object 1 is of class 1, the rest of others"),
        "sizes": ("bad_label_map", "are 96x64 and 64x96"),
        "no class": ("bad_annotation_file", "no such file"),
        "colours": ("bad_label_map", "stored as RGB, expected palette or grey"),
        "no map": ("bad_annotation_file", "no such file"),
        "../../../etc/passwd": ("bad_annotation_file", "VOC2012/SegmentationObject/passwd.png: no such file"),
    }
    assert set(found) == {*expected, "/etc/passwd"}
    for name, (reason, detail) in expected.items():
        assert found[name][0] == reason, (name, found[name])
        assert detail in found[name][1]


def test_maps_outside_the_folder_are_not_read(tmp_path: Path) -> None:
    raw = voc(tmp_path, {"a": PAIR})
    put(tmp_path / "VOCdevkit/a.png", (raw / "VOC2012/SegmentationObject/a.png").read_bytes())
    put(raw / "VOC2012/ImageSets/Segmentation/train.txt", "../a")
    manifest, _ = build("voc", raw, source__objects=["{file_name}"])
    assert bad(manifest)["../a.png"] == ("bad_label_map", f"'../a.png' lies outside the folder {raw / 'VOC2012'}")


def test_voc_void_is_no_object(tmp_path: Path) -> None:
    objects, classes = voc_maps([FIRST])
    objects[50:], classes[50:] = 255, 255
    raw = write_voc(tmp_path, {"a": (objects, classes)})
    reader = open_reader(DatasetSplit(load_dataset(find_recipe("voc")), "train", raw))
    (instance,) = reader.scene("a.png").instances
    assert (instance.box, instance.area, instance.category) == (FIRST, 900, "aeroplane")


def test_voc_other_labels_and_splits(tmp_path: Path) -> None:
    raw = voc(tmp_path, {"a": PAIR})
    (raw / "VOC2012/ImageSets/Segmentation/train.txt").rename(raw / "VOC2012/ImageSets/Segmentation/trainval.txt")
    _, out = build_folder("voc", raw, tmp_path / "out", "trainval", source__labels=["cup", "bowl"])
    (sample,) = oracle.read_tars(out).values()
    assert [entry["category"] for entry in json.loads(sample["json"])["objects"]] == ["cup", "bowl"]


# --- COCO panoptic ----------------------------------------------------------------------------------------------------


def test_panoptic_stuff_and_crowds_are_no_objects(tmp_path: Path) -> None:
    ids_HW, segments = panoptic_map([*PAIR, (50, 5, 90, 30)])
    segments[0]["iscrowd"] = 1
    raw = write_panoptic(tmp_path, {9: (ids_HW, segments)})
    _, (found,) = build("coco_panoptic", raw)
    described = json.loads(found["json"])
    assert [entry["annotation_id"] for entry in described["objects"]] == [2 * 0x30201, 3 * 0x30201]
    assert described["image_id"] == 9
    _, (kept,) = build("coco_panoptic", raw, pairs__crowd="keep")
    assert json.loads(kept["json"])["objects"][0]["annotation_id"] == 0x30201
    reader = open_reader(DatasetSplit(load_dataset(find_recipe("coco_panoptic")), "train", raw))
    assert list(reader.categories) == ["cup", "bowl"]


def test_panoptic_faults_are_named(tmp_path: Path) -> None:
    ids_HW, segments = panoptic_map(PAIR)
    good = ids_HW, segments
    stray = ids_HW.copy()
    stray[0, 0] = 0xABCDEF
    absent = segment(ids_HW, 7, 193, id=99)
    cases: dict[int, Any] = {
        1: good,
        2: (stray, segments),
        3: (ids_HW, [*segments, absent]),
        4: (ids_HW, [{**segments[0], "category_id": 5}, *segments[1:]]),
        5: (ids_HW.T, segments),
        6: (ids_HW, [*segments, segments[0]]),
        7: (ids_HW, [{**segments[0], "id": 1 << 40}, *segments[1:]]),
        8: good,
        9: good,
        10: good,
    }
    raw = write_panoptic(tmp_path, cases)
    json_path, maps = raw / "annotations/panoptic_train2017.json", raw / "annotations/panoptic_train2017"
    (maps / "000000000008.png").unlink()
    put(maps / "000000000009.png", encoded(Image.fromarray(ids_HW.astype(np.uint8)), "PNG"))
    data = json.loads(json_path.read_text())
    data["annotations"][9]["file_name"] = "../../../secret.png"
    put(tmp_path / "secret.png", rgb_ids(ids_HW))
    data["images"] += [data["images"][0], {"id": 11, "file_name": "x.jpg", "width": 1 << 17, "height": 1 << 17}]
    data["annotations"].append({"image_id": 77, "file_name": "x.png", "segments_info": []})
    json_path.write_text(json.dumps(data))
    manifest, samples = build("coco_panoptic", raw)
    assert len(samples) == 1
    found = bad(manifest)
    expected = {
        "2": ("bad_label_map", "segment 11259375 is not in segments_info"),
        "3": ("bad_label_map", "segment 99 of segments_info has no pixel"),
        "4": ("unknown_label", "is of category 5"),
        "5": ("size_mismatch", "is 64x96, annotated as 96x64"),
        "8": ("bad_annotation_file", "no such file"),
        "9": ("bad_label_map", "stored as L, expected RGB"),
        "10": ("bad_annotation_file", "no such file"),
    }
    assert set(found) == set(expected)
    for name, (reason, detail) in expected.items():
        assert found[name][0] == reason, (name, found[name])
        assert detail in found[name][1]
    # Repeated and enormous images, repeated and too large segment ids, an annotation of no image.
    assert manifest["bad"]["records"] == {"bad_annotation_record": 2, "bad_image_record": 2, "unknown_image": 1}


def test_panoptic_json_of_another_kind(tmp_path: Path) -> None:
    raw = coco_panoptic(tmp_path, {"a": PAIR})
    path = raw / "annotations/panoptic_train2017.json"
    path.write_text(json.dumps({"images": [], "annotations": []}))
    with pytest.raises(PicsError, match="no 'categories' in it"):
        build("coco_panoptic", raw)
