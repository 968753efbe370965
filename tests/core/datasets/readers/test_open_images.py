"""Open Images: masks of another size, relationships as pairs, and lines that cannot be used, from drawn files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import oracle
from helpers.making import build_folder
from helpers.published_sets import BOX_HEADER, CUP, SPOON, TABLE, sides_of, still_life, write_open_images
from pics_cli.core.datasets.readers import open_reader
from pics_cli.core.datasets.readers.base import DatasetSplit, Reader
from pics_cli.core.evaluation.example_sources import ShardExamples
from pics_cli.core.recipes.base import Override, find_recipe
from pics_cli.core.recipes.dataset import load_dataset
from pics_cli.core.recipes.evaluation import ShardSamples
from pics_cli.errors import BadSample, PicsError

ON, INSIDE, HOLDS, CONTAINS = (
    (CUP, "on", TABLE),
    (SPOON, "inside_of", CUP),
    (TABLE, "holds", CUP),
    (CUP, "contain", SPOON),
)
MASKS, BOXES, SAID = (
    "train-annotations-object-segmentation.csv", "oidv6-train-annotations-bbox.csv", "oidv6-train-annotations-vrd.csv",
)  # fmt: skip


def reader_of(raw: Path, **values: Any) -> Reader:
    overrides = [Override(key.replace("__", "."), value, key) for key, value in values.items()]
    return open_reader(DatasetSplit(load_dataset(find_recipe("open_images"), overrides), "train", raw))


def test_scenes_have_masks_of_the_pictures_size(tmp_path: Path) -> None:
    """Whatever size the PNG files have, and where the lines of an image stand in the file."""
    for size, slack in (((240, 192), 0), ((120, 96), 0), ((60, 48), 150), ((201, 161), 100)):
        raw = write_open_images(tmp_path / f"{size[0]}", {"0b": [ON], "0a": [ON]}, mask_size=size)
        reader = reader_of(raw)
        assert list(reader.item_ids(0, 9)) == ["0a", "0b"]
        scene = reader.scene("0a")
        assert (scene.key, scene.width, scene.height) == ("0a", 120, 96)
        _, masks = still_life(1)
        assert {instance.category for instance in scene.instances} == {"Table", "Coffee cup", "Spoon"}
        for instance in scene.instances:
            label = {"Table": TABLE, "Coffee cup": CUP, "Spoon": SPOON}[str(instance.category)]
            assert instance.mask is not None
            assert np.count_nonzero(instance.mask().full() != masks[label]) <= slack
            x0, _, x1, _ = instance.box
            assert [x0 / 120, x1 / 120] == pytest.approx(list(map(float, sides_of(label).split(",")[:2])), abs=1e-5)


RELATIONS = [
    ([ON], ("Coffee cup", "Table"), "supporting", "Table"),
    ([HOLDS], ("Coffee cup", "Table"), "supporting", "Table"),
    ([INSIDE], ("Coffee cup", "Spoon"), "containing", "Coffee cup"),
    ([CONTAINS], ("Coffee cup", "Spoon"), "containing", "Coffee cup"),
    ([(CUP, "is", CUP), (CUP, "at", TABLE), INSIDE], ("Coffee cup", "Spoon"), "containing", "Coffee cup"),
]


@pytest.mark.parametrize(("said", "objects", "relation", "subject"), RELATIONS)
def test_relationships_are_pairs(
    tmp_path: Path, said: list[Any], objects: tuple[str, str], relation: str, subject: str
) -> None:
    raw = write_open_images(tmp_path / "raw", {"00a1": said})
    _, out = build_folder("open_images", raw, tmp_path / "out")
    (sample,) = oracle.read_tars(out).values()
    meta = json.loads(sample["json"])
    names = [each["category"] for each in meta["objects"]]
    assert sorted(names) == sorted(objects)
    (pair,) = meta["pairs"]
    assert (pair["relation"], names[pair["subject"]]) == (relation, subject)
    assert "order" not in meta
    example = ShardExamples(ShardSamples(root="/", shards=str(out)), 1.0)[0]
    assert (example.relation, example.front_to_back) == (relation, None)


def test_of_several_pairs_that_which_overlaps_most(tmp_path: Path) -> None:
    """And of several relationships of a pair the first that the recipe names; others pairs are none."""
    raw = write_open_images(
        tmp_path / "raw", {"0a": [INSIDE, ON], "0b": [HOLDS, ON], "0c": [], "0d": [(CUP, "at", TABLE)]}
    )
    manifest, out = build_folder("open_images", raw, tmp_path / "out")
    assert (manifest["samples"], manifest["skipped"]) == (2, {"no_known_pair": 2})
    first = json.loads(oracle.read_tars(out)["0a"]["json"])
    assert {each["category"] for each in first["objects"]} == {"Coffee cup", "Spoon"}


def test_groups_are_no_objects(tmp_path: Path) -> None:
    raw = write_open_images(tmp_path / "raw", {"0a": [ON]}, groups=[TABLE])
    manifest, _ = build_folder("open_images", raw, tmp_path / "out")
    assert manifest["samples"] == 0
    manifest, _ = build_folder("open_images", raw, tmp_path / "kept", pairs__crowd="keep")
    assert manifest["samples"] == 1
    (raw / BOXES).unlink()
    manifest, _ = build_folder("open_images", raw, tmp_path / "unknown", source__boxes=[])
    assert manifest["samples"] == 1


def test_as_fiftyone_lays_it_out(tmp_path: Path) -> None:
    raw = write_open_images(tmp_path / "raw", {"0a": [ON], "f1": [INSIDE]})
    home = tmp_path / "open-images-v7/train"
    (home / "labels/masks").mkdir(parents=True)
    (home / "metadata").mkdir()
    (raw / "train").rename(home / "data")
    for path in (raw / "masks/train").iterdir():
        (home / "labels/masks" / path.name[0].upper()).mkdir(exist_ok=True)
        path.rename(home / "labels/masks" / path.name[0].upper() / path.name)
    for old, new in ((MASKS, "segmentations"), (BOXES, "detections"), (SAID, "relationships")):
        (raw / old).rename(home / f"labels/{new}.csv")
    (raw / "oidv7-class-descriptions-boxable.csv").rename(home / "metadata/classes.csv")
    manifest, _ = build_folder("open_images", tmp_path, tmp_path / "out")
    assert manifest["samples"] == 2


def add(name: str, line: str) -> Callable[[Path], object]:
    return lambda raw: (raw / name).write_text((raw / name).read_text() + line + "\n")


LINES = [
    (add(MASKS, f"a.png,0a,{CUP},1,{sides_of(CUP)},0.8"), f"{MASKS}: line 5: 9 values, expected 10"),
    (add(MASKS, f"../a.png,0a,{CUP},1,{sides_of(CUP)},0.8,"), "MaskPath is '../a.png', expected the name of a file"),
    (add(MASKS, f"a.png,,{CUP},1,{sides_of(CUP)},0.8,"), "line 5: ImageID is '', expected 1 to 64 letters"),
    (add(MASKS, f"a.png,0a,{CUP},1,0.5,0.4,0,1,0.8,"), "BoxXMin '0.5' and BoxXMax '0.4', expected 0 <= BoxXMin"),
    (add(MASKS, f"a.png,0a,{CUP},1,0.1,0.4,nan,1,0.8,"), "BoxYMin 'nan' and BoxYMax '1'"),
    (add(MASKS, f"a.png,0a,{CUP},1,10,40,0,1,0.8,"), "BoxXMin '10' and BoxXMax '40'"),
    (add(BOXES, f"0a,x,{CUP},1,{sides_of(CUP)},0,0,yes,0,0"), "line 5: IsGroupOf is 'yes', expected 0, 1 or -1"),
    (add(SAID, f"0a,{CUP},{CUP},{sides_of(CUP)},{sides_of(CUP)},"), "no RelationshipLabel or RelationLabel"),
    (add(SAID, f"0a,{CUP},{CUP},{sides_of(CUP)},0.1,0.2,0.1,x,on"), "YMin2 '0.1' and YMax2 'x'"),
]


@pytest.mark.parametrize(("spoil", "words"), LINES)
def test_bad_lines_are_counted(tmp_path: Path, spoil: Callable[[Path], object], words: str) -> None:
    raw = write_open_images(tmp_path, {"0a": [ON]})
    spoil(raw)
    reader = reader_of(raw)
    assert reader.bad_records.counts == {"bad_csv_line": 1}
    assert words in reader.bad_records.lines[0]
    assert len(reader.scene("0a").instances) == 3


REFUSED: list[tuple[Callable[[Path], object], str]] = [
    (lambda raw: (raw / MASKS).unlink(), "holds no OpenImages train annotations"),
    (lambda raw: (raw / SAID).unlink(), "no oidv6-train-annotations-vrd.csv or"),
    (lambda raw: (raw / BOXES).unlink(), "no train-annotations-bbox.csv or"),
    (lambda raw: (raw / "oidv7-class-descriptions-boxable.csv").unlink(), "no oidv7-class-descriptions-boxable.csv or"),
    (lambda raw: (raw / SAID).write_text(BOX_HEADER + "\n"), "line 1: no column LabelName1, LabelName2, XMin1"),
    (lambda raw: (raw / MASKS).write_bytes(b"\xff\xfe\x00"), "cannot be read as utf-16"),
    (lambda raw: (raw / MASKS).write_bytes(b""), "line 1: no column MaskPath"),
    (
        lambda raw: (raw / MASKS).write_text((raw / MASKS).read_text().splitlines()[0] + "\na,b\n"),
        "none of its lines can be used; 1 bad_csv_line; the first: line 2: 2 values, expected 10",
    ),
    (
        lambda raw: (raw / "oidv7-class-descriptions-boxable.csv").write_text("/m/1\n"),
        "line 1: got '/m/1', expected a label and its name",
    ),
]


@pytest.mark.parametrize(("spoil", "words"), REFUSED)
def test_files_that_cannot_be_used_are_told(tmp_path: Path, spoil: Callable[[Path], object], words: str) -> None:
    raw = write_open_images(tmp_path, {"0a": [ON]})
    spoil(raw)
    with pytest.raises(PicsError) as caught:
        reader_of(raw)
    assert words in caught.value.message


def test_unknown_split_and_settings(tmp_path: Path) -> None:
    raw = write_open_images(tmp_path, {"0a": [ON]})
    recipe = load_dataset(find_recipe("open_images"))
    with pytest.raises(PicsError, match="OpenImages has no split 'val'") as caught:
        open_reader(DatasetSplit(recipe, "val", raw))
    assert caught.value.hint == "its recipe knows: train, validation, test"
    with pytest.raises(PicsError, match="got \"behind\", expected 'supporting' or 'containing'"):
        reader_of(raw, source__relations={"on": {"relation": "behind", "subject": 1}})
    with pytest.raises(PicsError, match="pairs of 2 objects by max_iou for format open_images"):
        reader_of(raw, pairs__objects=3)


def test_bad_samples_are_counted(tmp_path: Path) -> None:
    """A picture or a mask that is missing, a mask of another aspect, a class without a name: the others are built."""
    raw = write_open_images(tmp_path / "raw", {f"0{letter}": [ON] for letter in "abcde"})
    (raw / "train/0a.jpg").unlink()
    cup = {image: next((raw / "masks/train").glob(f"{image}_m02p5f1q_*")) for image in ("0b", "0c")}
    cup["0b"].unlink()
    other = write_open_images(tmp_path / "other", {"0a": [ON]}, mask_size=(96, 120))
    cup["0c"].write_bytes(next((other / "masks/train").iterdir()).read_bytes())
    masks = raw / MASKS
    lines = masks.read_text().splitlines()
    masks.write_text(
        "\n".join(line.replace(",/m/0cmx8,", ",/m/x,") if ",0d," in line else line for line in lines) + "\n"
    )
    reader = reader_of(raw)
    reasons = {}
    for image in "0a", "0d":
        with pytest.raises(BadSample) as caught:
            reader.scene(image)
        reasons[image] = caught.value.reason
    assert reasons == {"0a": "missing_image", "0d": "unknown_label"}
    manifest, _ = build_folder("open_images", raw, tmp_path / "out")
    assert manifest["samples"] == 1
    assert set(manifest["bad"]["pictures"]) == {"missing_image", "unknown_label", "missing_mask", "size_mismatch"}
