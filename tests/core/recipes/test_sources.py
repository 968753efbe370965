"""Sources of every format: what contradicts itself or leaves the raw folder is refused, with the key named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pics_cli.core.recipes.base import Override, find_recipe
from pics_cli.core.recipes.dataset import load_dataset
from pics_cli.errors import PicsError

SPLIT = {"annotations": ["a"], "images": ["{name}"]}
FAULTS = [
    ("viton_hd", "source.regions", {}, "expected at least one value"),
    ("viton_hd", "source.regions", {"hat": []}, "--set source.regions: hat: got [], expected at least one value"),
    ("viton_hd", "source.regions", {"hat": [0]}, "got 0, expected 1 <= value <= 255"),
    ("viton_hd", "source.regions", {"hat": [1], "cap": [1]}, "expected id 1 once, in regions or in void"),
    ("viton_hd", "source.void", [0, 5], "expected id 5 once, in regions or in void"),
    ("cityscapes", "source.transparent", ["car"], "expected car in labels or in transparent"),
    ("cityscapes", "source.labels", [], "expected at least one value"),
    ("mapillary_vistas", "source.versions", [], "expected at least one value"),
    ("mapillary_vistas", "source.versions", ["../MVD"], 'got "../MVD", expected a name without folders'),
    ("mapillary_vistas", "source.configs", [], "expected at least one value"),
    ("mapillary_vistas", "source.configs", ["/etc/config.json"], "a path inside the raw folder, without '..'"),
    ("lvis", "source.folder", ["../COCO"], "a path inside the raw folder, without '..'"),
    ("lvis", "source.folder", ["/COCO"], "a path inside the raw folder, without '..'"),
    ("lvis", "source.folder", ["{split}"], "a path without fields in braces"),
    ("lvis", "source.splits", {}, "expected at least one value"),
    ("lvis", "source.splits", {"../x": SPLIT}, "a name without folders"),
    ("lvis", "source.splits", {"..": SPLIT}, "a name without folders"),
    ("lvis", "source.splits", {"train": {"images": ["{name}"]}}, "expected a split with annotations"),
    ("lvis", "source.splits", {"train": {"annotations": ["a"], "images": []}}, "expected at least one value"),
    ("lvis", "source.splits.train.annotations", ["{stem}.json"], "expected plain fields among split, version"),
    ("synth", "source.splits", {"train": {"pool": "all", "scenes": 3}}, "expected 'train' or 'held_out'"),
    ("synth", "source.splits.train.scenes", 0, "got 0, expected 1 <= value"),
    ("synth", "source.view.turn", 181, "got 181, expected 0 <= value <= 180"),
    ("lvis", "source.format", "via", "expected 'coco', 'parse_map', 'cityscapes', 'vistas', 'scalabel', 'labelme'"),
    ("lvis", "source.format", "vistas", "versions: missing"),
    ("lvis", "patches.padding", [], "patches.padding: got [], expected at least one value"),
    ("lvis", "patches.padding", [0.9], "expected 1 <= value <= 2"),
    ("lvis", "shards.layout", "zip", "expected 'published' or 'compact'"),
    ("lvis", "pairs.min_area_ratio", "1e-5", "(YAML reads 1e-5 as text; write 1.0e-05)"),
    ("lvis", "pairs.min_area_ratio", "2.5e-5", "(YAML reads 2.5e-5 as text; write 2.5e-05)"),
]


@pytest.mark.parametrize(("recipe", "key", "value", "words"), FAULTS)
def test_faults_are_named(recipe: str, key: str, value: object, words: str) -> None:
    with pytest.raises(PicsError) as caught:
        load_dataset(find_recipe(recipe), [Override(key, value, f"--set {key}")])
    assert words in caught.value.message
    assert "Traceback" not in caught.value.message


def test_an_alias_is_overridden_alone() -> None:
    """`val: *split` in a recipe repeats `train`; a value given for one of them must not change the other."""
    override = Override("source.splits.train.images", ["{stem}.png"], "--set")
    recipe = load_dataset(find_recipe("cityscapes"), [override])
    splits: Any = recipe.source.splits
    unchanged: Any = load_dataset(find_recipe("cityscapes")).source.splits
    assert splits["train"].images == ("{stem}.png",)
    assert splits["val"].images == unchanged["val"].images


@pytest.mark.parametrize(
    ("recipe", "made", "words"),
    [
        ("cityscapes", "gtFine/train", "gtFine/train is a file, expected a folder of annotations"),
        ("objects365", "zhiyuan_objv2_train.json/", "is a folder, expected a file of annotations"),
        ("bdd100k", "labels/", "looked for labels/ins_seg/rles/ins_seg_train.json"),
        ("mapillary_vistas", "training/v2.0/instances/", "no config_v2.0.json or config.json, which names the labels"),
        ("viton_hd", "train/image-parse-v3/", "no annotation files (*.png) in it"),
    ],
)
def test_odd_raw_folders_are_named(tmp_path: Path, pics, recipe: str, made: str, words: str) -> None:
    path = tmp_path / "raw" / made
    path.parent.mkdir(parents=True)
    if made.endswith("/"):
        path.mkdir()
    else:
        path.write_text("")
    done = pics("build-shards", recipe, "--raw", "raw", "--out", "out")
    assert done.returncode == 2
    assert words in done.stderr
    assert "hint: " in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_link_to_a_folder_around_it_is_passed_over(objects365_raw: Path, tmp_path: Path, pics) -> None:
    raw = tmp_path / "raw"
    (raw / "labels/train").mkdir(parents=True)
    for folder in sorted((objects365_raw / "object365/labels/train").iterdir()):
        (raw / "labels/train" / folder.name).symlink_to(folder)
    (raw / "labels/train/again").symlink_to(raw / "labels")
    (raw / "images").symlink_to(objects365_raw / "object365/images")
    done = pics("build-shards", "objects365", "--raw", "raw", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "30 pictures" in done.stderr
