"""`compat: true` chooses as the research code does, one fault at a time, where the answer is worked out by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import compat_scenes, oracle
from helpers.compat_making import assert_masks, block, build, compare, research_choices, square, write_lvis
from helpers.making import annotation, build_folder, smooth
from helpers.street import bdd_label, thing, write_bdd, write_cityscapes, write_vistas, write_viton
from pics_cli.core.recipes.shipped import recipe_folder

CAR, TRUCK = 108, 114

# --- D1: the containment test reads corners as x, y, w, h -------------------------------------------------------------

OUTER = (20, 12, 80, 52)
INNER = {  # what is kept has its centre, x0 + x1 or y0 + y1, more than 2 beyond the outer one's, 100 or 64
    "left above": ((22, 14, 40, 26), False),
    "left": ((22, 20, 40, 44), False),
    "above": ((40, 14, 60, 30), False),
    "right": ((60, 20, 78, 44), True),
    "below": ((40, 36, 60, 50), True),
    "right above": ((60, 14, 78, 26), True),
    "left below": ((22, 38, 40, 50), True),
    "right below": ((60, 38, 78, 50), True),
    "middle": ((40, 22, 60, 42), False),
    "2 to the right": ((42, 22, 60, 42), False),
    "3 to the right": ((43, 22, 60, 42), True),
    "2 below": ((40, 24, 60, 42), False),
    "3 below": ((40, 25, 60, 42), True),
    "2 out on the left": ((18, 22, 60, 42), False),
    "3 out on the left": ((17, 22, 60, 42), True),
    "identical": (OUTER, False),
}


def test_d1_contained_boxes_are_kept_where_their_centre_lies_right_or_below(tmp_path: Path) -> None:
    pictures = {}
    for i, (inner, _) in enumerate(INNER.values()):
        boxes = (OUTER, inner) if i % 2 else (inner, OUTER)  # both ways round
        pictures[i + 1] = (smooth(64, 100, i), [annotation(i + 1, box) for box in boxes])
    raw = write_lvis(tmp_path, pictures)
    found = build("lvis", raw)
    kept = [f"{i + 1:012d}" in found for i in range(len(INNER))]
    assert dict(zip(INNER, kept, strict=True)) == {name: stays for name, (_, stays) in INNER.items()}
    assert list(build("lvis", raw, compat=False)) == [f"{list(INNER).index('3 out on the left') + 1:012d}"]


def test_d1_contained_box_wins_over_one_that_overlaps_less(tmp_path: Path) -> None:
    # IoU of 216 / 2400 against 100 / (2400 + 600 - 100).
    boxes = (OUTER, (70, 42, 100, 62), (60, 14, 78, 26))
    raw = write_lvis(tmp_path, {7: (smooth(64, 100), [annotation(7, box) for box in boxes])})
    assert_masks(build("lvis", raw)["000000000007"], block(64, 100, *boxes[0]), block(64, 100, *boxes[2]))
    corrected = build("lvis", raw, compat=False)["000000000007"]
    assert_masks(corrected, block(64, 100, *boxes[0]), block(64, 100, *boxes[1]))


def test_overlaps_are_compared_in_single_precision(tmp_path: Path) -> None:
    # IoU of 17040 / 55640 = 0.306254493 and of 19072 / 62275 = 0.306254516: in float32 a tie, the first wins.
    boxes = ((100, 100, 300, 300), (158, 180, 310, 395), (55, 10, 228, 249))
    masks = [block(400, 400, *box) for box in boxes]
    raw = write_lvis(tmp_path, {1: (smooth(400, 400), [annotation(1, box) for box in boxes])})
    assert_masks(build("lvis", raw)["000000000001"], masks[0], masks[1])
    assert_masks(build("lvis", raw, compat=False)["000000000001"], masks[0], masks[2])


# --- D3: VITON-HD takes the two largest, whatever they are ------------------------------------------------------------

VITON = {
    "apart, largest first": ([(5, (2, 2, 22, 22)), (9, (30, 40, 60, 70))], (1, 0)),
    "equal, later first": ([(4, (2, 2, 22, 22)), (9, (30, 40, 50, 60)), (14, (2, 70, 22, 90))], (2, 1)),
    "equal second": ([(4, (2, 2, 22, 22)), (5, (30, 40, 60, 70)), (14, (2, 70, 22, 90))], (1, 2)),
    "stray pixels": ([(3, (2, 2, 32, 32)), (11, (40, 40, 62, 62)), (5, (2, 60, 12, 76))], (0, 1)),
    "unknown ids": ([(200, (2, 2, 32, 32)), (255, (40, 40, 62, 62))], (0, 1)),
    "at the threshold": ([(1, (2, 2, 32, 32)), (5, (40, 40, 48, 56))], None),
    "above it": ([(1, (2, 2, 32, 32)), (5, (40, 40, 43, 83))], (0, 1)),
}


@pytest.mark.parametrize("name", VITON)
def test_d3_viton_takes_the_two_largest(name: str, tmp_path: Path) -> None:
    regions, expected = VITON[name]
    ids = np.zeros((100, 64), np.uint8)
    for number, box in regions:
        ids[block(100, 64, *box)] = number
    found = build("viton_hd", write_viton(tmp_path, {"00001_00": (smooth(100, 64), ids)}))
    if expected is None:  # 128 pixels are 2 %, not more
        assert found == {}
    else:
        assert_masks(found["00001_00"], *(block(100, 64, *regions[i][1]) for i in expected))


def test_d3_viton_region_one_pixel_wide_is_an_object_on_a_white_patch(tmp_path: Path) -> None:
    ids = np.zeros((40, 30), np.uint8)
    ids[2:38, 4], ids[10:30, 10:20] = 5, 9  # 36 pixels, 24 are 2 %
    found = build("viton_hd", write_viton(tmp_path, {"a": (smooth(40, 30), ids)}, mode="L"))["a"]
    assert_masks(found, ids == 9, ids == 5)
    assert (found.patches[1] == 255).all()
    assert (found.patches[0] != 255).any()


def test_viton_regions_of_several_ids_are_taken_apart(tmp_path: Path) -> None:
    """Face is 4 and 13: one object of the recipe, two of the research code, each under its own id."""
    ids = np.zeros((40, 30), np.uint8)
    ids[5:15, 5:25], ids[20:35, 5:25] = 13, 14
    ids[2:4, 5:25] = 4
    raw, ids_of = write_viton(tmp_path, {"a": (smooth(40, 30), ids)}), {}
    for compat in (True, False):
        _, out = build_folder("viton_hd", raw, tmp_path / f"out{compat}", compat=compat)
        (members,) = oracle.read_tars(out).values()
        ids_of[compat] = [(entry["category_id"], entry["pixels"]) for entry in json.loads(members["json"])["objects"]]
    assert ids_of == {True: [(14, 300), (13, 200)], False: [(14, 300), (4, 240)]}


# --- D4: what is hidden, grouped or deleted is an object like any other -----------------------------------------------


def test_d4_cityscapes_polygons_are_filled_whole(tmp_path: Path) -> None:
    objects = [
        thing("car", square(10, 10, 39, 39)),
        thing("truck", square(30, 20, 69, 49)),
        thing("building", square(0, 30, 95, 63)),  # hides the lower half of both
    ]
    raw = write_cityscapes(tmp_path, {"aachen_000001_000019": (smooth(64, 96), objects)})
    car, truck = block(64, 96, 10, 10, 40, 40), block(64, 96, 30, 20, 70, 50)
    assert_masks(build("cityscapes", raw)["aachen_000001_000019_leftImg8bit"], car, truck)
    (corrected,) = build("cityscapes", raw, compat=False).values()
    assert [mask.sum() for mask in corrected.masks] == [30 * 20 - 10 * 10, 40 * 10]


@pytest.mark.parametrize("layout", ["official", "flat"])
def test_d4_cityscapes_groups_and_deleted_objects_are_taken(tmp_path: Path, layout: str) -> None:
    objects = [
        thing("cargroup", square(10, 10, 39, 39)),
        thing("truckgroup", square(60, 40, 89, 59)),  # less of an overlap with the bus than the first has
        thing("persongroup", square(12, 12, 42, 42)),
        thing("bus", square(35, 30, 64, 45), deleted=1),
    ]
    raw = write_cityscapes(tmp_path, {"ulm_000001_000019": (smooth(64, 96), objects)}, layout)
    expected = block(64, 96, 10, 10, 40, 40), block(64, 96, 35, 30, 65, 46)
    assert_masks(build("cityscapes", raw)["ulm_000001_000019_leftImg8bit"], *expected)
    assert build("cityscapes", raw, compat=False) == {}


def test_d4_bdd_crowds_and_ignored_regions_are_taken(tmp_path: Path) -> None:
    masks = block(64, 96, 10, 10, 40, 40), block(64, 96, 30, 20, 70, 50)
    labels = [bdd_label("1", masks[0], crowd=True), bdd_label("2", masks[1], category="other person", ignored=True)]
    raw = write_bdd(tmp_path, [{"name": "a-1.jpg", "labels": labels}], {"a-1": smooth(64, 96)})
    assert_masks(build("bdd100k", raw)["a-1"], *masks)
    assert build("bdd100k", raw, compat=False) == {}


def test_d4_lvis_crowds_are_taken(tmp_path: Path) -> None:
    entries = [annotation(3, OUTER, iscrowd=1), annotation(3, (70, 42, 100, 62))]
    raw = write_lvis(tmp_path, {3: (smooth(64, 100), entries)})
    assert_masks(build("lvis", raw)["000000000003"], block(64, 100, *OUTER), block(64, 100, 70, 42, 100, 62))
    assert build("lvis", raw, compat=False) == {}


# --- D5: Mapillary's highest instance number is lost ------------------------------------------------------------------

VISTAS = {  # label, number, box of what is painted; the pair by its place in the list
    "highest is a vehicle": ([(CAR, 0, (4, 4, 40, 40)), (CAR, 1, (30, 30, 60, 60))], None),
    "highest is a sign": (
        [(CAR, 0, (4, 4, 40, 40)), (CAR, 2, (20, 30, 80, 58)), (100, 3, (90, 2, 94, 6))],
        (0, 1),
    ),
    "highest is another vehicle's": (
        [(TRUCK, 1, (4, 4, 40, 40)), (CAR, 0, (30, 30, 60, 60)), (107, 2, (39, 2, 90, 20))],
        (1, 0),
    ),
    "all are 0": ([(CAR, 0, (4, 4, 40, 40)), (TRUCK, 0, (30, 30, 60, 60))], None),
    "0 is not lost": ([(CAR, 0, (4, 4, 40, 40)), (TRUCK, 0, (30, 30, 60, 60)), (21, 1, (90, 0, 96, 9))], (0, 1)),
    "255 is lost": ([(CAR, 254, (4, 4, 40, 40)), (CAR, 255, (30, 30, 60, 60))], None),
    "254 is not": ([(CAR, 254, (4, 4, 40, 40)), (CAR, 3, (30, 30, 60, 60)), (100, 255, (90, 2, 94, 6))], (1, 0)),
    "classes in their order": (
        [(TRUCK, 0, (4, 4, 40, 40)), (109, 1, (30, 30, 60, 60)), (100, 9, (90, 2, 94, 6))],
        (1, 0),
    ),
    "no such class": ([(110, 0, (4, 4, 40, 40)), (CAR, 1, (30, 30, 60, 60)), (100, 9, (90, 2, 94, 6))], None),
}


@pytest.mark.parametrize("name", VISTAS)
def test_d5_vistas_loses_the_highest_number(name: str, tmp_path: Path) -> None:
    painted, expected = VISTAS[name]
    labels, numbers = np.full((64, 96), 21), np.zeros((64, 96), int)
    for label, number, box in painted:
        labels[block(64, 96, *box)], numbers[block(64, 96, *box)] = label, number
    found = build("mapillary_vistas", write_vistas(tmp_path, {"-x_1": (smooth(64, 96), labels, numbers)}))
    if expected is None:
        assert found == {}
    else:
        masks = [(labels == painted[i][0]) & (numbers == painted[i][1]) for i in expected]
        assert_masks(found["-x_1"], *masks)


# --- the command ------------------------------------------------------------------------------------------------------


def test_command_and_recipe_key_build_alike(tmp_path: Path, pics: Callable[..., Any]) -> None:
    raw = compat_scenes.cityscapes(tmp_path)
    done = pics("build-shards", "cityscapes", "--raw", raw, "--out", "flag", "--compat", "--workers", "1")
    assert done.returncode == 0, done.stderr
    recipe = tmp_path / "mine.yaml"
    recipe.write_text((recipe_folder() / "cityscapes.yaml").read_text() + "\ncompat: true\n")
    build_folder(recipe, raw, tmp_path / "key")
    compare(research_choices("cityscapes", raw, 0.02), tmp_path / "flag")
    flag, key = [sorted((tmp_path / name).glob("*.tar")) for name in ("flag", "key")]
    assert [path.read_bytes() for path in flag] == [path.read_bytes() for path in key]
