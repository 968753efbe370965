"""The defects of the research code's builders (reference/data.md, 2), which the default mode must not have."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import yaml
from PIL import Image

from helpers import oracle
from helpers.compat_making import write_lvis
from helpers.making import annotation, build_folder, encoded, rectangle, smooth, with_orientation
from helpers.six_formats import (
    FIRST,
    HEIGHT,
    PAIR,
    SECOND,
    SIX,
    SIZE,
    WIDTH,
    Box,
    car,
    ids,
    lvis,
    objects365,
    region,
    viton_hd,
)
from helpers.street import bdd_label, put, rle, write_bdd, write_cityscapes, write_vistas, write_viton
from pics_cli.core.recipes.base import find_recipe
from pics_cli.core.recipes.dataset import load_dataset
from pics_cli.core.recipes.shipped import recipe_folder

Members = Mapping[str, bytes]

every_format = pytest.mark.parametrize("recipe", SIX)


def samples(recipe: str, raw: Path, **values: Any) -> list[Members]:
    _, out = build_folder(recipe, raw, raw.parent / f"out{len(list(raw.parent.iterdir()))}", **values)
    return list(oracle.read_tars(out).values())


def masks(members: Members, count: int = 2) -> list[npt.NDArray[np.bool_]]:
    return [oracle.read_mask(members[f"mask{k}.png"]) for k in range(count)]


def objects(members: Members) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(members["json"])["objects"]
    return found


# --- wrong pairs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inner", [(45, 12, 58, 24), (12, 30, 30, 38), (40, 28, 50, 38), (12, 12, 30, 24)])
@pytest.mark.parametrize("recipe", ["lvis", "objects365", "bdd100k"])
def test_d1_contained_boxes_are_no_pair(tmp_path: Path, recipe: str, inner: Box) -> None:
    """D1: a contained box was kept where its centre lay right of or below the outer one's, and won."""
    outer, beside = (10, 10, 60, 40), (50, 30, 80, 60)
    (found,) = samples(recipe, SIX[recipe].write(tmp_path, {"a": [outer, inner, beside]}))
    assert [mask.sum() for mask in masks(found)] == [50 * 30, 30 * 30]
    assert samples(recipe, SIX[recipe].write(tmp_path / "b", {"a": [outer, inner]})) == []


@pytest.mark.parametrize("shift", [0, 1, 2])
def test_d2_the_same_object_twice_is_no_pair(tmp_path: Path, shift: int) -> None:
    """D2: duplicates of one object won. (Those more than 2 px apart still do: IoU is of boxes, as published.)"""
    again = (FIRST[0] + shift, FIRST[1] - shift, FIRST[2] + shift, FIRST[3])
    (found,) = samples("lvis", lvis(tmp_path, {"a": [FIRST, again, SECOND]}))
    assert masks(found)[1].sum() == 40 * 30


def test_d3_viton_pairs_what_overlaps_where_asked_to(tmp_path: Path) -> None:
    """D3: VITON-HD computed IoU and then took the two largest; the rule is a key of the recipe."""
    raw = viton_hd(tmp_path, {"a": [FIRST, SECOND, (72, 2, 96, 62)]})
    (largest,), (closest,) = samples("viton_hd", raw), samples("viton_hd", raw, pairs__rule="max_iou")
    assert np.array_equal(masks(largest)[0], region(72, 2, 96, 62))
    assert np.array_equal(masks(closest)[0], region(*FIRST) & ~region(*SECOND))
    assert np.array_equal(masks(closest)[1], region(*SECOND))


def test_d4_hidden_parts_belong_to_what_hides_them(tmp_path: Path) -> None:
    """D4: Cityscapes polygons were drawn in full, so patch and mask held the occluder."""
    raw = write_cityscapes(
        tmp_path, {"ulm_a": (smooth(*SIZE), [car(FIRST), car(SECOND), car((0, 40, 96, 64), "wall")])}
    )
    (found,) = samples("cityscapes", raw)
    assert np.array_equal(masks(found)[0], region(*FIRST) & ~region(*SECOND))
    assert np.array_equal(masks(found)[1], region(30, 20, 70, 40))


@pytest.mark.parametrize("other", [car(SECOND, "cargroup"), car(SECOND, deleted=1)])
def test_d4_groups_and_deleted_objects_are_none(tmp_path: Path, other: dict[str, Any]) -> None:
    """D4: `cargroup` and `deleted: 1` were taken for one object."""
    raw = write_cityscapes(tmp_path, {"ulm_a": (smooth(*SIZE), [car(FIRST), other])})
    assert samples("cityscapes", raw) == []


@pytest.mark.parametrize("flag", ["crowd", "ignored"])
def test_d4_bdd_crowds_are_no_objects(tmp_path: Path, flag: str) -> None:
    """D4: BDD100K's crowd and ignored labels were not filtered."""
    flags: dict[str, Any] = {flag: True}
    labels = [bdd_label("1", region(*FIRST)), bdd_label("2", region(*SECOND), **flags)]
    assert samples("bdd100k", write_bdd(tmp_path, [{"name": "a.jpg", "labels": labels}], {"a": smooth(*SIZE)})) == []


@pytest.mark.parametrize("flag", ["iscrowd", "ignore"])
def test_d4_crowds_of_lvis_are_no_objects(tmp_path: Path, flag: str) -> None:
    """D4: iscrowd was not filtered in LVIS and Objects365."""
    entries = [annotation(1, FIRST), annotation(1, SECOND, **{flag: 1})]
    assert samples("lvis", write_lvis(tmp_path, {1: (smooth(*SIZE), entries)})) == []


@pytest.mark.parametrize("numbers", [(0, 1), (6, 5), (255, 0), (0, 0)])
def test_d5_no_instance_number_is_lost(tmp_path: Path, numbers: tuple[int, int]) -> None:
    """D5: the highest instance id of a picture was dropped, and all of them where that was 0."""
    labels, instances = np.full(SIZE, 21), np.zeros(SIZE, int)
    for box, label, number in zip(PAIR, (108, 114), numbers, strict=True):
        labels[region(*box)], instances[region(*box)] = label, number
    (found,) = samples("mapillary_vistas", write_vistas(tmp_path, {"a": (smooth(*SIZE), labels, instances)}))
    assert np.array_equal(masks(found)[1], region(*SECOND))


def test_d6_objects_is_honoured(tmp_path: Path, pics: Callable[..., Any]) -> None:
    """D6: `obj_thr` was unused and `is_multiple` did nothing."""
    raw = lvis(tmp_path, {"a": [FIRST, SECOND, (60, 30, 90, 60)]})
    for count in (1, 2, 3):
        (found,) = samples("lvis", raw, pairs__objects=count)
        assert len(objects(found)) == count
    done = pics("build-shards", "lvis", "--raw", raw, "--out", "flag", "--objects", 3, "--workers", 1)
    assert done.returncode == 0, done.stderr
    assert [len(objects(members)) for members in oracle.read_tars(tmp_path / "flag").values()] == [3]


# --- geometry ---------------------------------------------------------------------------------------------------------


@every_format
def test_d7_last_row_and_column_are_kept(tmp_path: Path, recipe: str) -> None:
    """D7: an object of 40 x 10 got a box of 39 x 9, and its patch lost the last row and column."""
    thin, other = (10, 10, 50, 20), (45, 5, 75, 35)
    raw = SIX[recipe].write(tmp_path, {"a": [other, thin]})  # the later one is whole in every format
    (found,) = samples(recipe, raw, patches__padding=[1.0])
    (described,) = (entry for entry in objects(found) if entry["pixels"] == 400)
    assert described["box"] == described["patch"]["crop"] == described["annotated_box"] == list(thin)
    patch = oracle.read_rgb(found[f"obj{objects(found).index(described)}.png"])
    assert np.array_equal(patch, oracle.cut_patch(oracle.read_rgb(found["bg.jpg"]), region(*thin), 1.0))


@pytest.mark.parametrize(("pixels", "expected"), [(0, "empty_mask"), (9, "tiny_mask"), (10, None)])
def test_d8_tiny_masks_are_skipped_and_thin_ones_are_not_blank(
    tmp_path: Path, pixels: int, expected: str | None
) -> None:
    """D8: below 10 pixels the whole picture was the patch; 1 pixel wide gave a white one, 0 pixels a black hint."""
    thin = region(39, 10, 40, 10 + pixels)
    entries = [annotation(1, FIRST), annotation(1, (39, 10, 50, 40), rle(thin))]
    raw = write_lvis(tmp_path, {1: (smooth(*SIZE) // 2, entries)})
    trusting: dict[str, Any] = {"pairs__min_area_ratio": 1e-5, "pairs__box_mask_disagree": "keep"}
    manifest, out = build_folder("lvis", raw, tmp_path / "out", **trusting)
    if expected:
        assert {**manifest["skipped"], **manifest["bad"]["pictures"]} == {expected: 1}
        return
    (members,) = oracle.read_tars(out).values()
    assert objects(members)[1]["patch"]["crop"] == [39, 10, 40, 20]
    assert oracle.read_rgb(members["obj1.png"]).min() < 128


def test_d9_regions_are_not_grown_and_every_padding_occurs(tmp_path: Path) -> None:
    """D9: of the jitter from 1.1 to 1.2 only 1.1 was ever drawn, the end being exclusive."""
    found = samples("lvis", lvis(tmp_path, {f"{i}": PAIR for i in range(30)}))
    described = [entry for members in found for entry in objects(members)]
    assert {entry["patch"]["padding"] for entry in described} == {1.1, 1.2, 1.3, 1.4}
    assert {tuple(entry["box"]) for entry in described} == {*PAIR}


def test_d10_padding_is_a_function_of_seed_and_key(tmp_path: Path) -> None:
    """D10: padding was drawn from numpy's unseeded global generator."""
    raw, fewer = lvis(tmp_path, dict.fromkeys("abcdefgh", PAIR)), lvis(tmp_path / "fewer", dict.fromkeys("abc", PAIR))
    drawn: list[Any] = []
    for place, seed in ((raw, 0), (raw, 0), (fewer, 0), (raw, 1)):
        np.random.seed(len(drawn))
        drawn.append([[entry["patch"]["padding"] for entry in objects(m)] for m in samples("lvis", place, seed=seed)])
    assert drawn[0] == drawn[1] != drawn[3]
    assert drawn[2] == drawn[0][:3]


def test_d11_holes_and_parts_are_kept_and_specks_do_no_harm(tmp_path: Path) -> None:
    """D11: SAM's labels lost holes and all parts but one; contours of one or two points raised."""
    ring, parts = region(*FIRST) & ~region(15, 15, 30, 30), region(36, 20, 50, 50) | region(55, 20, 70, 50)
    speck = annotation(0, FIRST, [[5, 5], [5, 5, 6, 6], [1, 2, 3]])
    polygons = [rectangle(36, 20, 50, 50), rectangle(55, 20, 70, 50), [5, 5]]
    entries = [speck, annotation(0, FIRST, rle(ring)), annotation(0, SECOND, polygons)]
    raw = objects365(tmp_path, {"b": PAIR})
    put(raw / "labels/train/patch0/b.json", json.dumps({"annotations": entries}))
    (found,) = samples("objects365", raw)
    assert all(map(np.array_equal, masks(found), (ring, parts)))


@every_format
def test_d12_turned_pictures_are_set_upright(tmp_path: Path, recipe: str) -> None:
    """D12: cv2 turned the pixels by EXIF and not the masks."""
    raw = SIX[recipe].write(tmp_path, dict.fromkeys("abc", PAIR))
    stored = smooth(WIDTH, HEIGHT)
    kind = {"kind": "PNG"} if recipe == "cityscapes" else {"quality": 98, "subsampling": 0}
    put(raw / SIX[recipe].picture, encoded(stored, exif=with_orientation(6), **kind))
    found = samples(recipe, raw)[1]
    background = Image.open(io.BytesIO(found["bg.jpg"]))
    assert background.size == (WIDTH, HEIGHT)
    assert background.getexif().get(0x0112, 1) == 1
    upright = stored.transpose(1, 0, 2)[:, ::-1]
    assert np.abs(np.asarray(background).astype(int) - upright).mean() < 4


# --- robustness -------------------------------------------------------------------------------------------------------


DAMAGES = [(recipe, damage) for recipe in SIX for damage in ("missing", "empty", "cut", "text", "half the size")]
DAMAGES.remove(("objects365", "half the size"))  # label files do not say how large their picture is


@pytest.mark.parametrize(("recipe", "damage"), DAMAGES)
def test_d12_d13_one_bad_picture_does_not_end_the_build(tmp_path: Path, recipe: str, damage: str) -> None:
    """D12, D13: half a JPEG gave a grey sample, other damage ended the build; the last pictures were not read."""
    raw = SIX[recipe].write(tmp_path, dict.fromkeys("abc", PAIR))
    path = raw / SIX[recipe].picture
    data, small = path.read_bytes(), encoded(smooth(HEIGHT // 2, WIDTH // 2))
    path.unlink()
    if damage != "missing":
        path.write_bytes({"empty": b"", "cut": data[: len(data) // 2], "text": b"<html>"}.get(damage, small))
    manifest, out = build_folder(recipe, raw, tmp_path / "out")
    assert len(oracle.read_tars(out)) == manifest["samples"] == 2
    (bad,) = manifest["bad_pictures"]
    expected = {"missing": "missing_image", "cut": "truncated_image", "half the size": "size_mismatch"}
    assert bad["reason"] == expected.get(damage, "unreadable_image")


@pytest.mark.parametrize("recipe", [name for name, each in SIX.items() if each.annotation])
@pytest.mark.parametrize("contents", [b"", b"\0\1\2", b"{}", b"[]", b"null"])
def test_d13_one_bad_annotation_does_not_end_the_build(tmp_path: Path, recipe: str, contents: bytes) -> None:
    """D13: any damaged file, and a stray one such as .DS_Store, ended the build."""
    raw = SIX[recipe].write(tmp_path, dict.fromkeys("abc", PAIR))
    path = raw / str(SIX[recipe].annotation)
    put(path, contents)
    put(path.with_name(".DS_Store"), b"\0")
    put(path.with_name("._a" + path.suffix), b"\0")
    manifest, _ = build_folder(recipe, raw, tmp_path / "out")
    assert (manifest["samples"], manifest["pictures"]) == (2, 3)
    assert sum(manifest["bad"]["pictures"].values()) + sum(manifest["skipped"].values()) == 1


def test_d13_a_killed_build_is_resumed_to_the_same_bytes(tmp_path: Path) -> None:
    """D13: a killed build left partial folders that looked complete."""
    raw = viton_hd(tmp_path, dict.fromkeys("abc", PAIR))
    _, out = build_folder("viton_hd", raw, tmp_path / "out", shards__size=1)
    whole = {path.name: path.read_bytes() for path in out.iterdir()}
    put(out / "manifest.json", json.dumps(json.loads(whole["manifest.json"]) | {"complete": False}))
    (out / "00001.stats.json").unlink()  # the shard is there, and its stats are not: it is not finished
    put(out / "00001.tar", whole["00001.tar"][:700])
    put(out / "00002.tar.1.tmp", b"half")
    build_folder("viton_hd", raw, out, shards__size=1)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == whole


@every_format
def test_d14_skipped_pictures_leave_nothing_behind(tmp_path: Path, recipe: str) -> None:
    """D14: folders were made before the choice, so that empty ones were counted and reading one crashed."""
    pictures = {"a": [(2, 2, 20, 20)], "b": PAIR, "c": [], "d": PAIR}
    manifest, out = build_folder(recipe, SIX[recipe].write(tmp_path, pictures), tmp_path / "out", shards__size=1)
    names = {f"0000{i}.{kind}" for i in (0, 1) for kind in ("tar", "stats.json")}
    assert {path.name for path in out.iterdir()} == {*names, "manifest.json"}
    assert [shard["samples"] for shard in manifest["shards"]] == [1, 1]
    assert manifest["samples"] == len(oracle.read_tars(out)) == 2
    assert sum(manifest["skipped"].values()) == 2


@pytest.mark.parametrize("recipe", [name for name, each in SIX.items() if each.annotation])
def test_d15_files_are_taken_in_the_order_of_their_names(tmp_path: Path, recipe: str) -> None:
    """D15: os.listdir's order decided which picture was which."""
    raw = SIX[recipe].write(tmp_path, dict.fromkeys(["b", "-a", "c", "B", "a10", "a2"], PAIR))
    found = [json.loads(members["json"])["image_id"].rpartition("/")[2] for members in samples(recipe, raw)]
    assert found == [("ulm_" if recipe == "cityscapes" else "") + name for name in ("-a", "B", "a10", "a2", "b", "c")]


@every_format
def test_d15_d16_backgrounds_are_jpegs_and_masks_are_of_one_bit(tmp_path: Path, recipe: str) -> None:
    """D15, D16: Cityscapes' PNG bytes stood in image.jpg; its masks were float64, which OpenCV could only warn of."""
    (found,) = samples(recipe, SIX[recipe].write(tmp_path, {"b": PAIR}))
    assert found["bg.jpg"][:3] == b"\xff\xd8\xff"
    for k, mask in enumerate(masks(found)):  # asserts a PNG of mode 1
        assert mask.sum() == objects(found)[k]["pixels"]


def test_d15_map_in_colours_is_refused(tmp_path: Path) -> None:
    """D15: a map stored as RGB was silently turned into other ids."""
    raw = write_viton(tmp_path, {"a": (smooth(*SIZE), ids(PAIR))}, mode="RGB")
    manifest, _ = build_folder("viton_hd", raw, tmp_path / "out")
    assert manifest["bad"]["pictures"] == {"bad_label_map": 1}


@pytest.mark.parametrize("path", sorted(recipe_folder().glob("*.yaml")), ids=lambda path: path.stem)
def test_d25_no_absolute_paths_and_one_area_ratio(path: Path) -> None:
    """D25: one dataset's folder was absolute ('/data/…'); the README said 0.02 and the yaml 0.01171."""
    if yaml.safe_load(path.read_text())["kind"] != "dataset":
        return
    recipe = load_dataset(find_recipe(path.stem), [])
    folders = [recipe.out, *([recipe.raw] if recipe.raw else [])]
    assert not any(Path(folder).is_absolute() for folder in folders)
    assert recipe.pairs.min_area_ratio == 0.02 or recipe.source.format in ("synth", "rendered")
