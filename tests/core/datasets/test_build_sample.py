"""Patches equal the oracle's; so do whole samples read back out of built shards."""

from __future__ import annotations

import json
import os
import resource
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers import oracle
from helpers.making import (
    UPRIGHT,
    annotation,
    build_folder,
    encoded,
    rectangle,
    smooth,
    with_orientation,
    write_coco,
)
from pics_cli.core.images.cutouts import cut_patch, padding_ratios
from pics_cli.core.images.masks import box_mask
from pics_cli.core.shards.samples import decode_sample, escape_key, unescape_key
from pics_cli.core.shards.shard_files import read_shard

RATIOS = (1.1, 1.2, 1.3, 1.4)

# --- patches ----------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.01, 0.1, 0.6, 1.0]),
    st.sampled_from([1.0, *RATIOS]),
)
def test_patch_equals_the_oracle(shape: tuple[int, int], seed: int, share: float, padding: float) -> None:
    rng = np.random.default_rng(seed)
    rgb = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    mask = rng.random(shape) < share
    mask[rng.integers(shape[0]), rng.integers(shape[1])] = True
    found = cut_patch(rgb, box_mask(mask), padding)
    assert (found.rgb.dtype, found.rgb.shape) == (np.uint8, (224, 224, 3))
    assert (found.crop, found.padding) == (oracle.tight_box(mask), padding)
    assert np.array_equal(found.rgb, oracle.cut_patch(rgb, mask, padding))


def test_patch_of_the_final_size_is_the_crop_itself() -> None:
    # 224 x 224 pixels and no padding: nothing is resized, every pixel can be compared by eye.
    rgb = np.random.default_rng(0).integers(0, 256, (230, 240, 3), dtype=np.uint8)
    mask = np.zeros((230, 240), bool)
    mask[3:227, 9:233] = True
    assert np.array_equal(cut_patch(rgb, box_mask(mask), 1.0).rgb, rgb[3:227, 9:233])
    mask[100:120, 50:80] = False
    patch = cut_patch(rgb, box_mask(mask), 1.0).rgb
    assert (patch[97:117, 41:71] == 255).all()
    assert np.array_equal(patch[117:], rgb[120:227, 9:233])


def test_patch_keeps_the_last_row_and_column() -> None:
    # 160 x 160 padded by 1.4 is 224: the object stands in the middle, 32 px from each side.
    rgb = np.full((200, 200, 3), 90, np.uint8)
    rgb[179, 20:180] = (255, 0, 0)
    rgb[20:180, 179] = (0, 0, 255)
    mask = np.zeros((200, 200), bool)
    mask[20:180, 20:180] = True
    patch = cut_patch(rgb, box_mask(mask), 1.4).rgb
    assert (patch[191, 32:191] == (255, 0, 0)).all()
    assert (patch[32:192, 191] == (0, 0, 255)).all()
    assert (patch[:32] == 255).all()
    assert (patch[192:] == 255).all()
    assert (patch[:, :32] == 255).all()
    assert (patch[:, 192:] == 255).all()
    assert (patch[32:191, 32:191] == 90).all()


def test_narrow_patch_is_centred() -> None:
    # 100 wide, 224 tall, not padded: (224 - 100) / 2 = 62 px of white on both sides.
    rgb = np.full((224, 100, 3), 7, np.uint8)
    patch = cut_patch(rgb, box_mask(np.ones((224, 100), bool)), 1.0).rgb
    assert (patch[:, 62:162] == 7).all()
    assert (patch[:, :62] == 255).all()
    assert (patch[:, 162:] == 255).all()


@pytest.mark.parametrize("shape", [(1, 40), (40, 1), (1, 1)])
def test_one_pixel_wide_or_tall_is_not_blank(shape: tuple[int, int]) -> None:
    mask = np.zeros((50, 50), bool)
    mask[5 : 5 + shape[0], 5 : 5 + shape[1]] = True
    patch = cut_patch(np.zeros((50, 50, 3), np.uint8), box_mask(mask), 1.2).rgb
    assert patch.min() < 128
    assert np.array_equal(patch, oracle.cut_patch(np.zeros((50, 50, 3), np.uint8), mask, 1.2))


@pytest.mark.parametrize("value", [250, 252, 255])
def test_white_object_stays_whole(value: int) -> None:
    # The research code takes what is nearly white for background, wherever it lies.
    rgb = np.full((300, 300, 3), 40, np.uint8)
    rows, columns = np.ogrid[:300, :300]
    disc = (rows - 150) ** 2 + (columns - 150) ** 2 < 80**2
    rgb[disc] = value
    rgb[140:160, 140:160] = (10, 20, 30)
    patch = cut_patch(rgb, box_mask(disc), 1.4).rgb
    x0, y0, x1, y1 = oracle.tight_box(disc)
    assert np.array_equal(patch, oracle.cut_patch(rgb, disc, 1.4))
    assert patch[112, 112].tolist() == [10, 20, 30]
    assert (patch[112, 60] == value).all()
    # Nothing of the dark background stands in it.
    assert ((patch >= value) | (np.abs(patch.astype(int) - [10, 20, 30]).max(axis=2) < 245)[..., None]).all()
    assert (x1 - x0, y1 - y0) == (159, 159)


def test_patch_does_not_change_the_picture() -> None:
    rgb = smooth(40, 40)
    before = rgb.copy()
    cut_patch(rgb, box_mask(np.eye(40, dtype=bool)), 1.3)
    assert np.array_equal(rgb, before)


def test_padding_is_a_function_of_seed_and_key() -> None:
    keys = [f"{i:012d}" for i in range(300)]
    first = {key: padding_ratios(RATIOS, 0, key, 2) for key in keys}
    # In any order, any number of times, whatever else is drawn; more objects do not change the first ones.
    np.random.default_rng(0).random(10)
    assert {key: padding_ratios(RATIOS, 0, key, 2) for key in reversed(keys)} == first
    assert all(padding_ratios(RATIOS, 0, key, 4)[:2] == ratios for key, ratios in first.items())
    assert {key: padding_ratios(RATIOS, 1, key, 2) for key in keys} != first
    counts = Counter(ratio for ratios in first.values() for ratio in ratios)
    assert set(counts) == {1.1, 1.2, 1.3, 1.4}
    assert min(counts.values()) > 100
    assert len({tuple(ratios) for ratios in first.values()}) == 16


def test_padding_is_the_same_in_every_process_and_version() -> None:
    # Drawn once and written down: a change here changes the bytes of every shard.
    assert [padding_ratios(RATIOS, 0, key, 3) for key in ("000000000001", "patch0/é")] == [
        [1.4, 1.1, 1.1],
        [1.2, 1.4, 1.2],
    ]


# --- keys -------------------------------------------------------------------------------------------------------------

NAMES = [
    "a.b",
    "a.b.c",
    "patch1/x",
    "patch1/x.y",
    "é",
    "日本 語",
    "%2E",
    "a%b",
    "-x",
    "x~y_z-0",
    ".",
    "..",
    "a\nb",
    "A&B=C?#",
]


@pytest.mark.parametrize("name", NAMES)
def test_keys_hold_no_dot_and_can_be_read_back(name: str) -> None:
    key = escape_key(name)
    assert "." not in key
    assert "/" not in key
    assert key.isascii()
    assert unescape_key(key) == name
    assert key == oracle.escape(name)


@settings(max_examples=150, deadline=None)
@given(st.text(st.characters(codec="utf-8"), max_size=20), st.text(st.characters(codec="utf-8"), max_size=20))
def test_different_names_give_different_keys(a: str, b: str) -> None:
    assert (escape_key(a) == escape_key(b)) == (a == b)
    assert unescape_key(escape_key(a)) == a
    assert escape_key(a) == oracle.escape(a)


# --- whole samples, synthetic datasets --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lvis(lvis_raw: Path) -> tuple[Path, list[oracle.Picture]]:
    root = lvis_raw / "COCO"
    data = json.loads((root / "lvis_v1/lvis_v1_train.json").read_text())
    return lvis_raw, oracle.coco_pictures(data, lambda image: root.joinpath(*image["coco_url"].split("/")[-2:]))


@pytest.fixture(scope="module")
def lvis_shards(lvis_raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LVIS built by the recipe as it is shipped, in small shards."""
    return build_folder("lvis", lvis_raw, tmp_path_factory.mktemp("shards") / "out", shards__size=10)[1]


RULES: dict[str, tuple[dict[str, Any], oracle.Rule]] = {
    "three objects": ({"pairs__objects": 3, "pairs__min_area_ratio": 0.03}, oracle.Rule(3, ratio=0.03)),
    "four largest, contained kept": (
        {"pairs__objects": 4, "pairs__rule": "largest", "pairs__contained": "keep", "pairs__min_area_ratio": 0.05},
        oracle.Rule(4, "largest", 0.05, "keep"),
    ),
    "single objects": ({"pairs__objects": 1, "pairs__min_area_ratio": 0.15}, oracle.Rule(1, ratio=0.15)),
}


def test_lvis_as_shipped(lvis: tuple[Path, list[oracle.Picture]], lvis_shards: Path) -> None:
    assert oracle.Expected("LVIS", "train").compare(lvis[1], lvis_shards)["kept"] > 20


@pytest.mark.parametrize("name", RULES)
def test_lvis_by_other_rules(lvis: tuple[Path, list[oracle.Picture]], tmp_path: Path, name: str) -> None:
    raw, pictures = lvis
    values, rule = RULES[name]
    _, out = build_folder("lvis", raw, tmp_path / "out", limit=20, shards__size=6, **values)
    outcome = oracle.Expected("LVIS", "train", rule).compare(pictures[:20], out)
    assert outcome["kept"] >= 4
    assert len(outcome) >= 2


def test_lvis_sample_with_run_lengths_and_one_with_two_parts(lvis: tuple[Path, list[oracle.Picture]]) -> None:
    # So that the comparison above cannot pass for want of them.
    chosen = []
    for picture in lvis[1]:
        group = oracle.choose(picture.things, picture.width, picture.height, oracle.Rule())
        chosen += [] if isinstance(group, str) else [picture.things[i].segmentation for i in group]
    assert any(isinstance(shape, dict) for shape in chosen)
    assert any(len(shape) > 1 for shape in chosen if isinstance(shape, list))
    assert any("val2017" in str(picture.path) for picture in lvis[1])


def test_objects365(objects365_raw: Path, tmp_path: Path) -> None:
    root = objects365_raw / "object365"
    pictures = oracle.label_pictures(root / "labels/train", root / "images/train")
    _, out = build_folder("objects365", objects365_raw, tmp_path / "out", shards__size=10)
    outcome = oracle.Expected("Objects365", "train").compare(pictures, out)
    assert outcome["kept"] >= 8


def test_same_picture_gets_the_same_sample_whatever_stands_beside_it(
    lvis_raw: Path, lvis_shards: Path, tmp_path: Path
) -> None:
    raw = lvis_raw
    data = json.loads((raw / "COCO/lvis_v1/lvis_v1_train.json").read_text())
    data["images"] = data["images"][::-3]
    listed = {entry["id"] for entry in data["images"]}
    data["annotations"] = [entry for entry in data["annotations"] if entry["image_id"] in listed]
    root = tmp_path / "COCO"
    root.mkdir()
    for name in ("train2017", "val2017"):
        (root / name).symlink_to(raw / "COCO" / name)
    (root / "lvis_v1").mkdir()
    (root / "lvis_v1/lvis_v1_train.json").write_text(json.dumps(data))
    _, some = build_folder("lvis", tmp_path, tmp_path / "b")
    before, after = oracle.read_tars(lvis_shards), oracle.read_tars(some)
    assert 4 <= len(after) < len(before)
    for key, members in after.items():
        assert members == before[key]


# --- whole samples, hand-made COCO files ------------------------------------------------------------------------------

LEFT, RIGHT = (10, 10, 60, 50), (40, 20, 90, 60)
"""Two boxes that overlap, in a picture of 100 x 70."""


def image(image_id: int, name: str, width: int = 100, height: int = 70) -> dict[str, Any]:
    return {"id": image_id, "width": width, "height": height, "file_name": name}


def pair(image_id: int, left: Any = None, right: Any = None) -> list[dict[str, Any]]:
    """Annotations of the two boxes with masks of their own."""
    return [annotation(image_id, LEFT, left), annotation(image_id, RIGHT, right)]


def runs(mask: np.ndarray) -> dict[str, Any]:
    return {"size": list(mask.shape), "counts": oracle.mask_to_runs(mask)}


def block(x0: int, y0: int, x1: int, y1: int, height: int = 70, width: int = 100) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def test_masks_of_every_kind(tmp_path: Path) -> None:
    ring = block(10, 10, 60, 50) & ~block(20, 20, 50, 40)
    packed = oracle.pack_counts(oracle.mask_to_runs(ring))
    whole = block(0, 0, 100, 70)
    cases: list[tuple[Any, str]] = [
        ([rectangle(*LEFT)], "kept"),
        # Parts: two, one over the border, a degenerate one before and behind.
        ([rectangle(10, 10, 20, 20), rectangle(40, 30, 60, 50)], "kept"),
        ([rectangle(-20, -20, 30, 30)], "kept"),
        ([[1, 1], rectangle(*LEFT), [1, 2, 3, 4], [0, 0, 50, 0, 50, 50, 0]], "kept"),
        ([[1, 1], [5, 5, 9, 9]], "bad_mask"),
        ([[0, 0, 50, 0, 50, 50, 0]], "bad_mask"),
        ([rectangle(200, 200, 300, 300)], "empty_mask"),
        # Number of pixels.
        (runs(block(0, 0, 0, 0)), "empty_mask"),
        (runs(block(10, 10, 11, 11)), "tiny_mask"),
        (runs(block(10, 10, 13, 13)), "tiny_mask"),
        (runs(block(10, 10, 12, 15)), "kept"),
        (runs(block(10, 10, 20, 11)), "kept"),
        (runs(block(10, 10, 11, 20)), "kept"),
        (runs(block(10, 10, 11, 19)), "tiny_mask"),
        (runs(whole), "full_mask"),
        ([rectangle(-5, -5, 200, 200)], "full_mask"),
        (runs(whole & ~block(99, 69, 100, 70)), "kept"),
        # Touching each border.
        (runs(block(0, 20, 20, 40)), "kept"),
        (runs(block(80, 20, 100, 40)), "kept"),
        (runs(block(20, 0, 40, 20)), "kept"),
        (runs(block(20, 50, 40, 70)), "kept"),
        (runs(block(0, 0, 100, 1)), "kept"),
        (runs(block(99, 0, 100, 70)), "kept"),
        # Run lengths: a hole, compressed, starting with a set pixel, wrong in size or sum.
        (runs(ring), "kept"),
        ({"size": [70, 100], "counts": packed}, "kept"),
        ({"size": [70, 100], "counts": [0, 700, 6300]}, "kept"),
        ({"size": [100, 70], "counts": [0, 700, 6300]}, "bad_mask"),
        ({"size": [100, 70], "counts": packed}, "bad_mask"),
        ({"size": [70, 100], "counts": [0, 700, 6299]}, "bad_mask"),
        ({"size": [70, 100], "counts": [0, 700, 6301]}, "bad_mask"),
        ({"size": [70, 100], "counts": oracle.pack_counts([0, 700, 6301])}, "bad_mask"),
        ({"size": [70, 100], "counts": None}, "bad_mask"),
    ]
    images = [image(i, "a.jpg") for i in range(len(cases))]
    annotations = [entry for i, (shape, _) in enumerate(cases) for entry in pair(i, shape)]
    recipe, data = write_coco(tmp_path, {"a.jpg": encoded(smooth(70, 100))}, images, annotations)
    # Boxes and areas are not those of the masks: what becomes of such is another test's subject.
    trusting: dict[str, Any] = {"pairs__min_area_ratio": 1e-5, "pairs__box_mask_disagree": "keep"}
    manifest, out = build_folder(recipe, tmp_path, tmp_path / "out", **trusting)
    pictures = oracle.coco_pictures(data, lambda _: tmp_path / "pictures/a.jpg")
    for picture, (_, fate) in zip(pictures, cases, strict=True):
        picture.fault = fate if fate == "bad_mask" else None
    outcome = oracle.Expected("Mine", "train", oracle.Rule(ratio=1e-5, disagree="keep")).compare(pictures, out)
    assert outcome == Counter(fate for _, fate in cases)
    kept = [f"{i:012d}" for i, (_, fate) in enumerate(cases) if fate == "kept"]
    assert list(oracle.read_tars(out)) == kept
    assert manifest["skipped_examples"]["tiny_mask"] == [8, 9, 13]
    assert [entry["item"] for entry in manifest["bad_pictures"] if entry["reason"] == "empty_mask"] == [6, 7]


def test_second_object_is_looked_at_as_well(tmp_path: Path) -> None:
    recipe, _ = write_coco(
        tmp_path,
        {"a.jpg": encoded(smooth(70, 100))},
        [image(i, "a.jpg") for i in (1, 2, 3, 4)],
        [
            *pair(1),
            *pair(2, right=runs(block(40, 20, 43, 23))),
            *pair(3, right=runs(block(0, 0, 100, 70))),
            *pair(4, right=runs(block(0, 0, 0, 0))),
        ],
    )
    # Boxes and areas are not those of the masks: what becomes of such is another test's subject.
    trusting: dict[str, Any] = {"pairs__min_area_ratio": 1e-5, "pairs__box_mask_disagree": "keep"}
    manifest, _ = build_folder(recipe, tmp_path, tmp_path / "out", **trusting)
    assert (manifest["samples"], manifest["skipped"]) == (1, {"full_mask": 1, "tiny_mask": 1})
    assert manifest["bad"]["pictures"] == {"empty_mask": 1}


def test_choice_from_a_file(tmp_path: Path) -> None:
    nested = (15, 15, 55, 45)
    crowd = {"size": [70, 100], "counts": [0, 3500, 3500]}
    wanted: dict[str, list[dict[str, Any]]] = {
        "kept: crowd and ignored ones passed over": [
            annotation(0, LEFT, crowd, iscrowd=1), annotation(0, LEFT, ignore=1), *pair(0)],
        "too_few_objects: one is a crowd": [annotation(0, LEFT), annotation(0, RIGHT, crowd, iscrowd=1)],
        "no_annotations": [],
        "too_few_objects: single": [annotation(0, LEFT)],
        "too_few_objects: just as large as the threshold": [
            annotation(0, LEFT) | {"area": 0.02 * 7000}, annotation(0, RIGHT)],
        "kept: a little larger": [annotation(0, LEFT) | {"area": 0.02 * 7000 + 1e-6}, annotation(0, RIGHT)],
        "kept: no area given": [annotation(0, LEFT) | {"area": None}, annotation(0, RIGHT)],
        "only_contained": [annotation(0, LEFT), annotation(0, nested)],
        "only_contained: equal": [annotation(0, LEFT), annotation(0, LEFT)],
        "no_overlap": [annotation(0, LEFT), annotation(0, (60, 10, 90, 50))],
        "no_masks": [annotation(0, LEFT), annotation(0, RIGHT) | {"segmentation": []}],
        "kept: one without mask": [annotation(0, LEFT) | {"segmentation": None}, *pair(0)],
        "kept: box without width": [annotation(0, LEFT) | {"bbox": [20, 20, 0, 30]}, *pair(0)],
        "kept: box of negative size": [annotation(0, LEFT) | {"bbox": [60, 50, -30, -30]}, *pair(0)],
        "kept: boxes out of the frame": [annotation(0, (-20, -10, 50, 40)), annotation(0, (30, 20, 130, 90))],
        "kept: unknown category": [annotation(0, LEFT) | {"category_id": 77}, annotation(0, RIGHT)],
        "kept: no category": [annotation(0, LEFT) | {"category_id": None}, annotation(0, RIGHT)],
    }  # fmt: skip
    images = [image(i, "a.jpg") for i in range(len(wanted))]
    annotations = [entry | {"image_id": i} for i, entries in enumerate(wanted.values()) for entry in entries]
    recipe, data = write_coco(tmp_path, {"a.jpg": encoded(smooth(70, 100))}, images, annotations)
    _, out = build_folder(recipe, tmp_path, tmp_path / "out")
    for entry in data["annotations"]:
        # An area that is not given is that of the mask.
        entry["area"] = 2000 if entry["area"] is None else entry["area"]
    pictures = oracle.coco_pictures(data, lambda _: tmp_path / "pictures/a.jpg")
    outcome = oracle.Expected("Mine", "train").compare(pictures, out)
    assert outcome == Counter(name.partition(":")[0] for name in wanted)


def test_object_that_cannot_be_drawn_does_not_spoil_its_picture(tmp_path: Path) -> None:
    # It would not have been chosen; that its area has to be told from its mask must not make a difference.
    annotations = []
    areas: list[dict[str, Any]] = [{"area": 25.0}, {"area": 0}, {"area": None}, {}]
    for image_id, area in enumerate(areas):
        undrawable = annotation(image_id, (0, 0, 5, 5), [[1, 1, 2, 2]])
        del undrawable["area"]
        annotations += [undrawable | area, *pair(image_id)]
    images = [image(i, "a.jpg") for i in range(4)]
    recipe, _ = write_coco(tmp_path, {"a.jpg": encoded(smooth(70, 100))}, images, annotations)
    manifest, _ = build_folder(recipe, tmp_path, tmp_path / "out")
    assert (manifest["samples"], manifest["bad"]["pictures"]) == (4, {})


def test_picture_record_with_null_fields(tmp_path: Path) -> None:
    images = [image(1, "a.jpg") | {"coco_url": None, "flickr_url": None, "license": None, "date_captured": None}]
    recipe, _ = write_coco(tmp_path, {"a.jpg": encoded(smooth(70, 100))}, images, pair(1))
    manifest, _ = build_folder(recipe, tmp_path, tmp_path / "out")
    assert (manifest["samples"], manifest["bad"]["records"]) == (1, {})


def test_classes_from_a_file(tmp_path: Path) -> None:
    kinds = list(permutations([1, 2, 3], 2))
    annotations = []
    for i, (a, b) in enumerate(kinds):
        annotations += [annotation(i, LEFT) | {"category_id": a}, annotation(i, RIGHT) | {"category_id": b}]
    images = [image(i, "a.jpg") for i in range(len(kinds))]
    recipe, data = write_coco(tmp_path, {"a.jpg": encoded(smooth(70, 100))}, images, annotations)
    pictures = oracle.coco_pictures(data, lambda _: tmp_path / "pictures/a.jpg")
    for include, exclude in (((), ("cup",)), (("cup", "bowl"), ())):
        out = tmp_path / f"out{len(include)}"
        build_folder(
            recipe, tmp_path, out, pairs__classes__include=list(include), pairs__classes__exclude=list(exclude)
        )
        rule = oracle.Rule(include=include, exclude=exclude)
        assert oracle.Expected("Mine", "train", rule).compare(pictures, out) == {"kept": 2, "too_few_objects": 4}


def test_pictures_of_every_kind(tmp_path: Path) -> None:
    base = smooth(70, 100)
    grey = np.repeat(base[..., :1], 3, axis=2)
    sixteen = base[..., 0].astype(np.uint16) * 257
    alpha = np.where(block(0, 0, 50, 70), 255, 0).astype(np.uint8)
    palette = Image.fromarray(base).quantize(32)
    # Contents, and the upright pixels where the file must be encoded anew.
    kinds: dict[str, tuple[bytes, np.ndarray | None]] = {
        "plain.jpg": (encoded(base, quality=90), None),
        "fine.jpg": (encoded(base, quality=90, subsampling=0), None),
        "progressive.jpg": (encoded(base, progressive=True), None),
        "grey.jpg": (encoded(Image.fromarray(base[..., 0])), oracle.read_rgb(encoded(Image.fromarray(base[..., 0])))),
        "rgb.png": (encoded(base, "PNG"), base),
        "png named.jpg": (encoded(base, "PNG"), base),
        "grey.png": (encoded(Image.fromarray(base[..., 0]), "PNG"), grey),
        "alpha.png": (encoded(np.dstack([base, alpha]), "PNG"), np.where(alpha[..., None] > 0, base, np.uint8(255))),
        "palette.png": (encoded(palette, "PNG"), np.asarray(palette.convert("RGB"))),
        "16.png": (encoded(Image.fromarray(sixteen), "PNG"), grey),
        "a.b.c.jpg": (encoded(base), None),
        "no extension": (encoded(base), None),
        "schön 日本 %41.jpg": (encoded(base), None),
        "folder/deep/x.jpg": (encoded(base), None),
    }
    for value, turn in UPRIGHT.items():
        # Stored such that it is upright when shown; 1 keeps its bytes.
        stored = next(s for s in (turn(base), turn(turn(turn(base)))) if np.array_equal(turn(s), base))
        data = encoded(stored, exif=with_orientation(value), subsampling=0)
        kinds[f"turned {value}.jpg"] = (data, None if value == 1 else turn(oracle.read_rgb(data)))
        kinds[f"turned {value}.png"] = (encoded(stored, "PNG", exif=with_orientation(value)), base)
    images = [image(i, name) for i, name in enumerate(kinds)]
    files = {name: contents for name, (contents, _) in kinds.items()}
    recipe, labels = write_coco(tmp_path, files, images, [entry for i in range(len(images)) for entry in pair(i)])
    manifest, out = build_folder(recipe, tmp_path, tmp_path / "out", shards__size=5)
    assert manifest["noted"] == {"turned_by_exif": 2 * 7}
    pictures = oracle.coco_pictures(labels, lambda entry: tmp_path / "pictures" / entry["file_name"])
    for picture, (_, rgb) in zip(pictures, kinds.values(), strict=True):
        picture.rgb = rgb
    assert oracle.Expected("Mine", "train").compare(pictures, out) == {"kept": len(kinds)}


def test_pictures_of_odd_sizes(tmp_path: Path) -> None:
    sizes = [(1, 64), (64, 1), (33, 17), (512, 512), (64, 64)]
    files, images, annotations = {}, [], []
    for i, (height, width) in enumerate(sizes):
        files[f"{i}.jpg"] = encoded(smooth(height, width))
        images.append(image(i, f"{i}.jpg", width, height))
        boxes: list[list[float]] = []
        for start, stop in ((0.0, 0.6), (0.4, 0.9)):
            boxes.append([start * width, start * height, stop * width, stop * height])
        if height == 1:
            boxes = [[box[0], 0, box[2], 1] for box in boxes]
        if width == 1:
            boxes = [[0, box[1], 1, box[3]] for box in boxes]
        annotations += [annotation(i, box) for box in boxes]
    recipe, data = write_coco(tmp_path, files, images, annotations)
    _, out = build_folder(recipe, tmp_path, tmp_path / "out")
    pictures = oracle.coco_pictures(data, lambda entry: tmp_path / "pictures" / entry["file_name"])
    assert oracle.Expected("Mine", "train").compare(pictures, out) == {"kept": len(sizes)}


def test_pictures_that_cannot_be_read(tmp_path: Path) -> None:
    good = encoded(smooth(70, 100))
    turned = encoded(smooth(70, 100), exif=with_orientation(6))
    kinds = {
        "good.jpg": (good, None),
        "empty.jpg": (b"", "unreadable_image"),
        "text.jpg": (b"<html>not found</html>", "unreadable_image"),
        "start.jpg": (good[:300], "truncated_image"),
        "half.jpg": (good[: len(good) // 2], "truncated_image"),
        "nearly.jpg": (good[:-20], "truncated_image"),
        "missing.jpg": (None, "missing_image"),
        "small.jpg": (encoded(smooth(69, 100)), "size_mismatch"),
        "swapped.jpg": (encoded(smooth(100, 70)), "size_mismatch"),
        "turned.jpg": (turned, "size_mismatch"),
    }
    images = [image(i, name) for i, name in enumerate(kinds)]
    recipe, _ = write_coco(
        tmp_path,
        {name: contents for name, (contents, _) in kinds.items() if contents is not None},
        images,
        [entry for i in range(len(images)) for entry in pair(i)],
    )
    manifest, out = build_folder(recipe, tmp_path, tmp_path / "out")
    assert list(oracle.read_tars(out)) == ["000000000000"]
    expected = [(i, reason) for i, (_, reason) in enumerate(kinds.values()) if reason]
    assert [(entry["item"], entry["reason"]) for entry in manifest["bad_pictures"]] == expected
    assert manifest["bad"]["pictures"] == Counter(reason for _, reason in expected)
    assert manifest["samples"] + len(expected) == manifest["pictures"] == len(kinds)
    shown = {entry["item"]: entry["detail"] for entry in manifest["bad_pictures"]}
    assert "missing.jpg" in shown[6]
    assert "100x69" in shown[7]


def test_picture_that_says_it_is_enormous(tmp_path: Path, pics: Callable[..., Any]) -> None:
    # A damaged header asks for gigabytes; the annotation knows better. Memory is bounded so that none are handed out.
    jpeg, png = bytearray(encoded(smooth(70, 100))), bytearray(encoded(smooth(70, 100), "PNG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 65000, 65000)
    png[16:24] = struct.pack(">II", 60000, 60000)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    files = {"good.jpg": encoded(smooth(70, 100)), "bad.jpg": bytes(jpeg), "bad.png": bytes(png)}
    images = [image(i, name) for i, name in enumerate(files)]
    recipe, _ = write_coco(tmp_path, files, images, [entry for i in range(3) for entry in pair(i)])

    def bound() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))

    done = pics("build-shards", recipe, "--raw", tmp_path, "--out", tmp_path / "out", "--workers", 1, preexec_fn=bound)
    assert done.returncode == 0, done.stderr[-500:]
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert (manifest["samples"], sum(manifest["bad"]["pictures"].values())) == (1, 2)


def test_white_object_in_a_whole_sample(tmp_path: Path) -> None:
    rgb = np.full((70, 100, 3), 60, np.uint8)
    rgb[block(*LEFT)] = 252
    recipe, data = write_coco(tmp_path, {"a.png": encoded(rgb, "PNG")}, [image(1, "a.png")], pair(1))
    _, out = build_folder(recipe, tmp_path, tmp_path / "out")
    (members,) = oracle.read_tars(out).values()
    patch = oracle.read_rgb(members["obj0.png"])
    padding = json.loads(members["json"])["objects"][0]["patch"]["padding"]
    # Of the crop's 50 x 40 pixels all are 252, none was taken for background.
    share = (np.abs(patch.astype(int) - 252) < 3).all(axis=2).mean()  # JPEG, of quality 95
    assert abs(share - 50 * 40 / int(50 * padding) ** 2) < 0.05
    pictures = oracle.coco_pictures(data, lambda _: tmp_path / "pictures/a.png")
    pictures[0].rgb = rgb
    oracle.Expected("Mine", "train").compare(pictures, out)


# --- label files ------------------------------------------------------------------------------------------------------


def label(box: Sequence[float], segmentation: Any = None, **more: Any) -> dict[str, Any]:
    entry = annotation(0, box, segmentation, **more)
    del entry["image_id"]
    return entry


def write_labels(root: Path, files: Mapping[str, tuple[bytes | None, Any]]) -> None:
    """Label files `labels/train/NAME.json` (as bytes or data) and pictures `images/train/NAME.jpg`."""
    for name, (picture, contents) in files.items():
        for kind, suffix, data in (
            ("labels", "json", contents if isinstance(contents, bytes) else json.dumps(contents).encode()),
            ("images", "jpg", picture),
        ):
            path = root / kind / "train" / f"{name}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            if data is not None:
                path.write_bytes(data)


def test_label_folders_with_equal_stems_dots_and_other_scripts(tmp_path: Path) -> None:
    names = [
        "patch0/x",
        "patch1/x",
        "patch1/x.y",
        "patch1/x.y.z",
        "patch2/é 日本",
        "v1/patch3/x",
        "patch0/-x",
        "patch0/100%",
    ]
    both = {"annotations": [label(LEFT), label(RIGHT)]}
    files = {name: (encoded(smooth(70, 100, seed=i)), both) for i, name in enumerate(names)}
    # Stray files and folders are no labels.
    write_labels(tmp_path, files)
    (tmp_path / "labels/train/patch0/.DS_Store").write_bytes(b"\0")
    (tmp_path / "labels/train/patch0/._x.json").write_bytes(b"\0")
    (tmp_path / "labels/train/readme.txt").write_text("hello")
    _, out = build_folder("objects365", tmp_path, tmp_path / "out")
    root = tmp_path / "labels/train"
    (root / "patch0/._x.json").unlink()
    pictures = oracle.label_pictures(root, tmp_path / "images/train")
    assert oracle.Expected("Objects365", "train").compare(pictures, out) == {"kept": len(names)}
    keys = list(oracle.read_tars(out))
    assert len(set(keys)) == len(names)
    assert sorted(map(unescape_key, keys)) == sorted(names)


def test_labels_as_the_research_script_leaves_them(tmp_path: Path) -> None:
    picture = encoded(smooth(70, 100))
    two, four = label(LEFT, [[10, 10]]) | {"area": 0.0}, label(LEFT, [[10, 10, 20, 20]]) | {"area": 0.0}
    ring = block(10, 10, 60, 50) & ~block(20, 20, 50, 40)
    files: dict[str, tuple[bytes | None, Any]] = {
        "patch0/a": (picture, {"image_id": 7, "annotations": [two, label(LEFT), four, label(RIGHT)]}),
        "patch0/b": (picture, {"image_id": "seven", "annotations": [two, four, label(LEFT)]}),
        "patch0/c": (picture, {"annotations": []}),
        "patch0/d": (picture, {"annotations": [label(LEFT), label((60, 10, 90, 50))]}),
        "patch0/e": (picture, {"annotations": [label(LEFT, runs(ring)), label(RIGHT, [rectangle(*RIGHT), [1, 2]])]}),
        "patch0/f": (picture, {"annotations": [two, four]}),
        "patch0/g": (picture, {"annotations": [label(LEFT), label((20, 20, 50, 40))]}),
    }
    write_labels(tmp_path, files)
    _, out = build_folder("objects365", tmp_path, tmp_path / "out")
    pictures = oracle.label_pictures(tmp_path / "labels/train", tmp_path / "images/train")
    outcome = oracle.Expected("Objects365", "train").compare(pictures, out)
    assert outcome == {"kept": 2, "too_few_objects": 1, "no_annotations": 2, "no_overlap": 1, "only_contained": 1}


def test_label_files_that_cannot_be_used(tmp_path: Path) -> None:
    picture = encoded(smooth(70, 100))
    both = {"annotations": [label(LEFT), label(RIGHT)]}
    whole = json.dumps(both).encode()
    wrong_size = {"annotations": [label(LEFT, {"size": [100, 70], "counts": [0, 700, 6300]}), label(RIGHT)]}
    files: dict[str, tuple[bytes | None, Any]] = {
        "patch0/good": (picture, both),
        "patch0/turned": (encoded(smooth(100, 70), exif=with_orientation(6)), both),
        "patch1/cut": (picture, whole[:-30]),
        "patch1/empty": (picture, b""),
        "patch1/list": (picture, []),
        "patch1/null": (picture, {"annotations": None}),
        "patch2/missing": (None, both),
        "patch2/none": (b"", both),
        "patch2/text": (b"hello", both),
        "patch2/wrong": (picture, wrong_size),
        "top": (picture, both),
    }
    write_labels(tmp_path, files)
    manifest, out = build_folder("objects365", tmp_path, tmp_path / "out")
    assert list(oracle.read_tars(out)) == ["patch0%2Fgood", "patch0%2Fturned"]
    expected = {
        "bad_annotation_file": ["patch1/cut", "patch1/empty", "patch1/list", "patch1/null"],
        "missing_image": ["patch2/missing", "top"],
        "unreadable_image": ["patch2/none", "patch2/text"],
        "bad_mask": ["patch2/wrong"],
    }
    found: dict[str, list[str]] = {}
    for entry in manifest["bad_pictures"]:
        found.setdefault(entry["reason"], []).append(entry["item"].removesuffix(".json"))
    assert found == expected
    assert manifest["samples"] + len(manifest["bad_pictures"]) == manifest["pictures"] == len(files)


def test_turned_picture_beside_a_label_file(tmp_path: Path) -> None:
    # The frame of the labels is the upright picture's, 100 x 70; the file stores 70 x 100.
    data = encoded(smooth(100, 70), exif=with_orientation(8), subsampling=0)
    write_labels(tmp_path, {"patch0/x": (data, {"annotations": [label(LEFT), label(RIGHT)]})})
    _, out = build_folder("objects365", tmp_path, tmp_path / "out")
    things = [oracle.Thing(box, 2000, segmentation=[rectangle(*box)], source="sam") for box in (LEFT, RIGHT)]
    path = tmp_path / "images/train/patch0/x.jpg"
    picture = oracle.Picture("patch0/x", "patch0/x", 100, 70, things, path, UPRIGHT[8](oracle.read_rgb(data)))
    assert oracle.Expected("Objects365", "train").compare([picture], out) == {"kept": 1}


def test_label_file_whose_name_is_not_utf8(tmp_path: Path) -> None:
    # A folder unpacked from an archive made on another system: Linux keeps whatever bytes the name holds.
    name = os.fsdecode(b"patch0/caf\xe9")
    both = {"annotations": [label(LEFT), label(RIGHT)]}
    picture = encoded(smooth(70, 100))
    write_labels(tmp_path, {name: (picture, both), "patch0/good": (picture, both)})
    manifest, out = build_folder("objects365", tmp_path, tmp_path / "out")
    assert "patch0%2Fgood" in oracle.read_tars(out)
    assert manifest["samples"] + sum(manifest["bad"]["pictures"].values()) == manifest["pictures"] == 2


# --- reading back -----------------------------------------------------------------------------------------------------


def test_samples_read_by_the_package_are_those_written(lvis_shards: Path) -> None:
    plain = oracle.read_tars(lvis_shards)
    seen = []
    for path in sorted(lvis_shards.glob("*.tar"))[:3]:
        for key, members in read_shard(path):
            assert members == plain[key]
            sample = decode_sample(key, members)
            assert np.array_equal(sample.image, oracle.read_rgb(members["bg.jpg"]))
            for k in range(2):
                assert np.array_equal(sample.references[k], oracle.read_rgb(members[f"obj{k}.png"]))
                assert np.array_equal(sample.masks[k], oracle.read_mask(members[f"mask{k}.png"]))
            assert sample.metadata == json.loads(members["json"])
            seen.append(key)
    assert seen == list(plain)[: len(seen)]
    assert len(seen) > 10
