"""Builds of real BDD100K records and of Mapillary's published names and layout equal the oracle's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from helpers import oracle, street_oracle
from helpers.making import build_folder, encoded, smooth
from helpers.street import VEHICLES, put, thing, write_cityscapes, write_vistas
from helpers.street_oracle import CITY_RULE
from pics_cli.core.datasets.readers import open_reader
from pics_cli.core.datasets.readers.base import DatasetSplit, Reader
from pics_cli.core.datasets.scene import Scene
from pics_cli.core.images.masks import decode_segmentation, segmentation_area
from pics_cli.core.recipes.base import Override, find_recipe
from pics_cli.core.recipes.dataset import load_dataset
from pics_cli.errors import PicsError

SIZE = (720, 1280)
SCALABEL = (
    "ins_seg_preds.json", "ins_seg_preds_empty.json", "ins_seg_rle_sample.json", "insseg_rle.json",
    "pan_seg_sample.json", "scalabel_ins_seg.json",
)  # fmt: skip


def frames_of(path: Path) -> list[dict[str, Any]]:
    data = json.loads(path.read_text())
    return data if isinstance(data, list) else data["frames"]


def placed(tmp_path: Path, source: Path, frames: list[dict[str, Any]] | None = None) -> Path:
    """A raw folder of a json, as it is or of other frames, with made-up pictures of the frames' size."""
    raw = tmp_path / "bdd100k"
    raw.mkdir()
    if frames is None:
        shutil.copy(source, raw / "ins_seg_train.json")
    else:
        put(raw / "ins_seg_train.json", json.dumps({"frames": frames}))
    for i, frame in enumerate(frames or frames_of(source)):
        put(raw / "images/10k/train" / frame["name"], encoded(smooth(*SIZE, i)))
    return raw


def reader_of(recipe: str, raw: Path, split: str = "train", **values: Any) -> Reader:
    overrides = [Override(key.replace("__", "."), value, key) for key, value in values.items()]
    return open_reader(DatasetSplit(load_dataset(find_recipe(recipe), overrides), split, raw))


def scenes_of(reader: Reader) -> list[Scene]:
    return [reader.scene(item) for item in reader.item_ids(0, len(reader))]


# --- BDD100K ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCALABEL)
def test_every_frame_and_label(shared_data: Path, tmp_path: Path, name: str) -> None:
    source = shared_data / "bdd100k/scalabel" / name
    scenes = scenes_of(reader_of("bdd100k", placed(tmp_path, source)))
    frames = frames_of(source)
    assert [scene.image_id for scene in scenes] == [frame["name"] for frame in frames]
    for scene, frame in zip(scenes, frames, strict=True):
        labels = [label for label in frame["labels"] if label.get("box2d") or label.get("rle")]
        assert [(i.annotation_id, i.category) for i in scene.instances] == [(x["id"], x["category"]) for x in labels]
        assert (scene.height, scene.width) == SIZE
        for instance, label in zip(scene.instances, labels, strict=True):
            assert (instance.mask is None) == (not label.get("rle"))
            if instance.mask is None:
                continue
            expected = coco_mask.decode(label["rle"]) == 1
            assert np.array_equal(instance.mask().full(), expected)
            assert instance.area == expected.sum() == coco_mask.area(label["rle"])
            assert instance.mask_source == "rle"
            if not label.get("box2d"):
                assert instance.box == oracle.tight_box(expected)


@pytest.mark.parametrize("name", ["ins_seg_rle_sample.json", "insseg_rle.json", "scalabel_ins_seg.json"])
def test_real_boxes_hold_their_last_pixels(shared_data: Path, tmp_path: Path, name: str) -> None:
    # Annotated, not predicted: half-open they are the boxes of the masks exactly.
    scenes = scenes_of(reader_of("bdd100k", placed(tmp_path, shared_data / "bdd100k/scalabel" / name)))
    instances = [instance for scene in scenes for instance in scene.instances]
    assert len(instances) >= 2
    assert all(instance.mask and instance.box == instance.mask().box for instance in instances)


@pytest.mark.parametrize(
    ("name", "ratio", "kept"),
    [
        ("ins_seg_preds.json", 0.02, 1),
        ("ins_seg_preds.json", 0.0005, 1),
        ("ins_seg_preds_empty.json", 0.0005, 0),
        ("ins_seg_rle_sample.json", 0.01, 1),
        ("insseg_rle.json", 0.0005, 1),
        ("pan_seg_sample.json", 0.02, 1),
        ("scalabel_ins_seg.json", 0.0005, 0),
    ],
)
def test_build_equals_the_oracle(shared_data: Path, tmp_path: Path, name: str, ratio: float, kept: int) -> None:
    source = shared_data / "bdd100k/scalabel" / name
    raw = placed(tmp_path, source)
    _, out = build_folder("bdd100k", raw, tmp_path / "out", pairs__min_area_ratio=ratio)
    pictures = street_oracle.bdd(frames_of(source), raw / "images/10k/train", SIZE)
    outcome = oracle.Expected("BDD100K", "train", oracle.Rule(ratio=ratio)).compare(pictures, out)
    assert outcome["kept"] == kept


@pytest.mark.parametrize(("name", "label", "least"), [
    ("insseg_rle.json", "a", 0.99), ("insseg_rle.json", "b", 0.97), ("insseg_rle.json", "c", 0.92),
    ("insseg_rle.json", "e", 0.92), ("scalabel_ins_seg.json", "16", 0.94), ("scalabel_ins_seg.json", "18", 0.92),
    ("ins_seg_rle_sample.json", "46", 0.99),
])  # fmt: skip
def test_polygons_and_curves_are_close_to_their_run_lengths(
    shared_data: Path, tmp_path: Path, name: str, label: str, least: float
) -> None:
    # a, b and c have curves. The others of these files are partly hidden, which their polygons do not know.
    source = shared_data / "bdd100k/scalabel" / name
    frames = frames_of(source)
    (given,) = (entry for entry in frames[0]["labels"] if entry["id"] == label)
    expected = coco_mask.decode(given["rle"]) == 1
    frames[0].update(labels=[given | {"rle": None, "box2d": None}], size={"width": 1280, "height": 720})
    (scene,) = scenes_of(reader_of("bdd100k", placed(tmp_path, source, frames[:1])))
    (instance,) = scene.instances
    assert instance.mask is not None
    assert instance.mask_source == "polygon"
    found = instance.mask().full()
    assert (found & expected).sum() / (found | expected).sum() > least
    assert instance.area == found.sum()
    assert instance.box == oracle.tight_box(found)


def test_run_lengths_alone_are_no_frames(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "bdd100k/scalabel/scalabel_rle.json"
    data = json.loads(source.read_text())
    mask = decode_segmentation(data, *data["size"])
    assert np.array_equal(mask.full(), coco_mask.decode(data) == 1)
    assert np.array_equal(mask.full(), oracle.draw(data, *data["size"]))
    assert segmentation_area(data, *data["size"]) == mask.area > 1000
    raw = tmp_path / "bdd100k"
    put(raw / "ins_seg_train.json", source.read_bytes())
    with pytest.raises(PicsError, match="no 'frames' in it"):
        reader_of("bdd100k", raw)


def test_several_files_as_one(shared_data: Path, tmp_path: Path) -> None:
    # Frames of all files after one another; the first of a name wins, the others are duplicates.
    folder = shared_data / "bdd100k/scalabel"
    frames = [frame for name in SCALABEL for frame in frames_of(folder / name)]
    manifest, out = build_folder("bdd100k", placed(tmp_path, folder, frames), tmp_path / "out")
    names = dict.fromkeys((frame.get("videoName"), frame["name"]) for frame in frames)
    assert manifest["pictures"] == len(names) < len(frames)
    assert manifest["bad"]["records"] == {"duplicate_frame": len(frames) - len(names)}
    firsts = [next(f for f in frames if (f.get("videoName"), f["name"]) == name) for name in names]
    pictures = street_oracle.bdd(firsts, tmp_path / "bdd100k/images/10k/train", SIZE)
    oracle.Expected("BDD100K", "train").compare(pictures, out)


# --- Mapillary Vistas -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["v1.2", "v2.0"])
def test_published_names_and_ids(shared_data: Path, tmp_path: Path, version: str) -> None:
    # The recipe's four classes under the ids that the published lists give them, and no other.
    config = shared_data / f"mapillary/config_{version}.names_colors.json"
    names = [label["name"] for label in json.loads(config.read_text())["labels"]]
    values = np.full((len(names), 40), 0)
    values[:] = np.arange(len(names))[:, None]
    raw = write_vistas(tmp_path, {"x": (smooth(*values.shape), values, np.zeros_like(values))}, version)
    put(raw / f"config_{version}.json", config.read_bytes())  # it says of no label that it has no instances
    reader = reader_of("mapillary_vistas", raw)
    (scene,) = scenes_of(reader)
    recipe = load_dataset(find_recipe("mapillary_vistas"), [])
    wanted = {i.category: i.category_id for i in scene.instances if i.category in recipe.pairs.classes.include}
    assert wanted == {f"object--vehicle--{name}": number for name, number in VEHICLES[version].items()}
    assert [i.category for i in scene.instances] == names == list(reader.categories)


def test_synthetic_layout_lacks_the_recipes_classes(shared_data: Path, tmp_path: Path) -> None:
    raw = shared_data / "mapillary/datumaro_synthetic_layout"
    with pytest.raises(PicsError, match=r"'object--vehicle--bus', .* not among the 3 categories"):
        build_folder("mapillary_vistas", raw, tmp_path / "out")


@pytest.mark.parametrize("version", ["v1.2", "v2.0"])
@pytest.mark.parametrize(
    ("split", "objects", "rule", "expected"),
    [
        ("train", 1, "max_iou", {"tiny_mask": 1}),  # stripes of 5 pixels
        ("train", 2, "largest", {"tiny_mask": 1}),
        ("train", 2, "max_iou", {"no_overlap": 1}),
        ("val", 1, "max_iou", {"kept": 2}),  # 15 pixels, and two stripes of 10
        ("val", 2, "largest", {"kept": 1, "too_few_objects": 1}),
        ("val", 2, "max_iou", {"no_overlap": 1, "too_few_objects": 1}),
    ],
)
def test_synthetic_layout(
    shared_data: Path, tmp_path: Path, version: str, split: str, objects: int, rule: str, expected: dict[str, int]
) -> None:
    raw, names = shared_data / "mapillary/datumaro_synthetic_layout", ("animal--bird", "object--vehicle--bicycle")
    values: dict[str, Any] = {
        "pairs__classes__include": [*names],
        "pairs__objects": objects,
        "pairs__min_area_ratio": 0.1,
    }
    values |= {"pairs__rule": rule, "source__versions": [version]}
    _, out = build_folder("mapillary_vistas", raw, tmp_path / "out", split, **values)
    folder = raw / split
    pictures = street_oracle.vistas(raw / f"config_{version}.json", folder / version / "instances", folder / "images")
    chosen = oracle.Rule(objects, rule, 0.1, include=names)
    assert oracle.Expected("MapillaryVistas", split, chosen).compare(pictures, out) == expected


def test_both_versions_are_there_and_the_newer_is_taken(shared_data: Path) -> None:
    raw = shared_data / "mapillary/datumaro_synthetic_layout"
    assert reader_of("mapillary_vistas", raw).annotations == raw / "train/v2.0/instances"
    assert reader_of("mapillary_vistas", raw, source__versions=["v1.2"]).annotations == raw / "train/v1.2/instances"


# --- Cityscapes, which has no free sample: as data/README.md describes it ---------------------------------------------


def test_file_like_cityscapes(tmp_path: Path) -> None:
    height, width = 256, 512
    objects = [
        thing("sky", [[0, 0], [511, 0], [511, 90], [0, 90]]),
        thing("road", [[0, 120], [511, 120], [511, 255], [0, 255]]),
        thing("cargroup", [[20, 100], [60, 100], [60, 130], [20, 130]]),
        thing("car", [[90, 80], [260, 76], [268, 170], [84, 180]]),
        thing("license plate", [[150, 150], [180, 150], [180, 160], [150, 160]]),
        thing("bus", [[220, 40], [420, 36], [430, 200], [222, 204]], deleted=1),
        thing("bus", [[230, 50], [440, 44], [450, 210], [228, 216]]),
        thing("person", [[300, 100], [320, 100], [322, 190], [298, 190]]),
        thing("polegroup", [[400, 0], [408, 0], [408, 230], [400, 230]]),
        thing("ego vehicle", [[-10, 230], [520, 225], [540, 300], [-10, 300]]),
        thing("out of roi", [[0, 0], [511, 0], [511, 255], [0, 255], [0, 4], [5, 4], [5, 250], [506, 250], [506, 4],
                             [0, 4]]),
    ]  # fmt: skip
    raw = write_cityscapes(tmp_path, {"frankfurt_000000_000294": (smooth(height, width), objects)}, split="val")
    _, out = build_folder("cityscapes", raw, tmp_path / "out", "val")
    pictures = street_oracle.cityscapes(
        raw / "gtFine/val", lambda name: raw / "leftImg8bit/val" / f"{name}_leftImg8bit.png"
    )
    assert oracle.Expected("Cityscapes", "val", CITY_RULE).compare(pictures, out) == {"kept": 1}
    (members,) = oracle.read_tars(out).values()
    car, bus = (oracle.read_mask(members[f"mask{k}.png"]) for k in (0, 1))
    assert car[155, 165]  # the plate is the car's
    assert not bus[150, 310]  # a person stands before the bus
    assert not bus[100, 404]
    assert not (car & bus).any()
