"""BDD100K's Scalabel json, in the corrected mode, equals a plain reading of it; bad frames are counted and named."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from helpers import compat_scenes, oracle, street_oracle
from helpers.making import UPRIGHT, build_folder, encoded, rectangle, smooth, with_orientation
from helpers.street import bdd_label, put, write_bdd
from helpers.street_oracle import BDD_RULE, told
from pics_cli.errors import PicsError

Label = dict[str, Any]

HEIGHT, WIDTH = 64, 96
SIZE = (HEIGHT, WIDTH)
FIRST, SECOND = (10, 10, 40, 40), (30, 20, 70, 50)
JSON = "labels/ins_seg/rles/ins_seg_train.json"
IMAGES = "images/10k/train"


def region(x0: int, y0: int, x1: int, y1: int) -> npt.NDArray[np.bool_]:
    mask = np.zeros(SIZE, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def pair(**more: Any) -> list[Label]:
    """Two labels that overlap; keywords change the first."""
    return [bdd_label("1", region(*FIRST)) | more, bdd_label("2", region(*SECOND), category="truck")]


def polygon(points: Sequence[Sequence[float]], types: str | None = None, closed: bool = True) -> dict[str, Any]:
    return {"vertices": [list(map(float, point)) for point in points], "types": types or "L" * len(points),
            "closed": closed}  # fmt: skip


def corners(x0: float, y0: float, x1: float, y1: float) -> list[tuple[float, float]]:
    flat = rectangle(x0, y0, x1, y1)
    return list(zip(flat[::2], flat[1::2], strict=True))


def street(seed: int) -> list[Label]:
    """Random labels: with and without a box of its own, run lengths, polygons or curves; some crowds or ignored."""
    rng = np.random.default_rng(seed)
    rows, columns = np.ogrid[:HEIGHT, :WIDTH]
    labels = []
    for k in range(int(rng.integers(0, 9))):
        (y, x), (ry, rx) = rng.uniform(0, 1, 2) * SIZE, rng.uniform(0.08, 0.35, 2) * SIZE
        mask = ((rows - y) / ry) ** 2 + ((columns - x) / rx) ** 2 < 1
        if not mask.any():
            continue
        flags: dict[str, Any] = {name: bool(rng.random() < 0.1) for name in ("crowd", "ignored", "occluded")}
        label = bdd_label(f"{seed}-{k}", mask, category=str(rng.choice(["car", "bus", "person"])), **flags)
        if rng.random() < 0.4:
            angle = np.sort(rng.uniform(0, 2 * np.pi, 9))
            points = np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], 1).round(3)
            parts = [polygon(points, str(rng.choice(["LLCCLLLLL", "LLLLLLLCC", "LLLLLLLLL", "LCCLCCLLL"])))]
            parts += [polygon(points[:4] / 2)] * int(rng.integers(2)) + [polygon(points[:2])] * int(rng.integers(2))
            label |= {"poly2d": parts, "rle": None}
        moved = {key: value + rng.uniform(-3, 3) for key, value in label["box2d"].items()}
        label["box2d"] = [None, label["box2d"], moved][int(rng.integers(3))]
        if rng.random() < 0.1:
            label |= {"rle": None, "poly2d": None}
        labels.append(label)
    return labels


def write(root: Path, frames: dict[str, Any]) -> Path:
    """Frames by stem, of labels or of everything but their name."""
    records = [
        {"name": f"{stem}.jpg", **(frame if isinstance(frame, dict) else {"labels": frame})}
        for stem, frame in frames.items()
    ]
    return write_bdd(root, records, {stem: smooth(*SIZE, i) for i, stem in enumerate(frames)})


def pictures_of(raw: Path, name: str = JSON, images: str = IMAGES) -> list[oracle.Picture]:
    data = json.loads((raw / name).read_text())
    return street_oracle.bdd(data["frames"] if isinstance(data, dict) else data, raw / images, SIZE)


def check(raw: Path, out: Path, rule: oracle.Rule = BDD_RULE, split: str = "train", **where: str) -> Any:
    return oracle.Expected("BDD100K", split, rule).compare(pictures_of(raw, **where), out)


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        (BDD_RULE, 12),
        (oracle.Rule(contained="keep", exclude=("person",)), 8),
        (oracle.Rule(rule="largest", include=("car", "bus")), 12),
        (oracle.Rule(3, ratio=0.005), 8),
    ],
)
def test_build_equals_the_oracle(tmp_path: Path, rule: oracle.Rule, kept: int) -> None:
    raw = write(tmp_path, {f"{i:08x}-{i:08x}": street(i) for i in reversed(range(50))})
    values: dict[str, Any] = {
        "objects": rule.objects,
        "rule": rule.rule,
        "min_area_ratio": rule.ratio,
        "contained": rule.contained,
    }
    classes = {"include": [*rule.include], "exclude": [*rule.exclude]}
    values = {f"pairs__{key}": value for key, value in {**values, "classes": classes}.items()}
    _, out = build_folder("bdd100k", raw, tmp_path / "out", **values)
    outcome = check(raw, out, rule)
    assert outcome["kept"] >= kept
    assert outcome.total() == 50


def test_scenes_at_the_borders_of_the_rule(tmp_path: Path) -> None:
    raw = compat_scenes.bdd100k(tmp_path)
    _, out = build_folder("bdd100k", raw, tmp_path / "out")
    frames = json.loads((raw / JSON).read_text())["frames"]
    pictures = []
    for frame in frames:
        size = next((label["rle"]["size"] for label in frame["labels"]), (0, 0))
        pictures += street_oracle.bdd([frame], raw / IMAGES, tuple(size))
    outcome = oracle.Expected("BDD100K", "train").compare(pictures, out)
    assert min(outcome[reason] for reason in ("kept", "too_few_objects", "no_overlap", "no_annotations")) >= 1


# --- boxes, flags, masks ----------------------------------------------------------------------------------------------


def test_last_pixel_belongs_to_the_box(tmp_path: Path) -> None:
    # Side by side as given, 39 against 40; half-open 40 against 40 still. One pixel further they do overlap.
    labels = [bdd_label("1", region(10, 10, 40, 40)), bdd_label("2", region(40, 10, 70, 40))]
    longer = [labels[0] | {"box2d": {"x1": 10.0, "y1": 10.0, "x2": 40.0, "y2": 39.0}}, labels[1]]
    raw = write(tmp_path, {"apart": labels, "overlapping": longer})
    found = told(*build_folder("bdd100k", raw, tmp_path / "out"))
    assert found.keys == ["overlapping"]
    assert check(raw, tmp_path / "out") == {"kept": 1, "no_overlap": 1}


@pytest.mark.parametrize("flag", ["crowd", "ignored"])
def test_crowds_and_ignored_labels_are_no_objects(tmp_path: Path, flag: str) -> None:
    flags = [{flag: True}, {flag: False}, {}]
    frames = {f"{i}": pair(attributes=given) for i, given in enumerate([*flags, None])}
    raw = write(tmp_path, frames)
    assert told(*build_folder("bdd100k", raw, tmp_path / "out")).keys == ["1", "2", "3"]
    assert check(raw, tmp_path / "out") == {"kept": 3, "too_few_objects": 1}


def drawn(tmp_path: Path, *parts: dict[str, Any], **more: Any) -> npt.NDArray[np.bool_]:
    """The mask of a label of these polygons, whose box is not theirs."""
    trusting: dict[str, Any] = {"pairs__contained": "keep", "pairs__box_mask_disagree": "keep"}
    raw = write(tmp_path, {"x": pair(rle=None, poly2d=[*parts], **more)})
    _, out = build_folder("bdd100k", raw, tmp_path / "out", pairs__rule="largest", **trusting)
    members = oracle.read_tars(out)["x"]
    sources = [entry["mask"]["source"] for entry in json.loads(members["json"])["objects"]]
    return oracle.read_mask(members[f"mask{sources.index('polygon')}.png"])


CURVES = {
    "ends at a vertex": ("LCCL", [(10, 40), (10, -20), (80, -20), (80, 40)]),
    "ends at the first vertex": ("LLCC", [(10, 40), (80, 40), (80, -20), (10, -20)]),
    "ends at a third control point": ("LCCC", [(10, 40), (10, -20), (80, -20), (80, 40)]),
    "third control point and on": ("LCCCL", [(10, 30), (10, -20), (60, -20), (80, 30), (60, 60)]),
    "two curves": ("LCCLCC", [(10, 30), (20, -10), (60, -10), (80, 30), (60, 70), (20, 70)]),
    "two curves in a row": ("LCCCCC", [(10, 30), (20, -10), (60, -10), (80, 30), (60, 70), (20, 70)]),
}


@pytest.mark.parametrize("name", CURVES)
def test_curves(tmp_path: Path, name: str) -> None:
    # As Scalabel draws them: C, C and the vertex behind them, which may be a C as well, are one cubic curve.
    types, points = CURVES[name]
    part = polygon(points, types)
    smooth_one = street_oracle.polygon_mask([street_oracle.outline(part, 500)], *SIZE)
    found = drawn(tmp_path, part)
    assert (found & smooth_one).sum() / (found | smooth_one).sum() > 0.98
    straight = street_oracle.polygon_mask([np.ravel(points).tolist()], *SIZE)
    assert (found & straight).sum() / (found | straight).sum() < 0.96


def test_parts_without_area_and_missing_letters(tmp_path: Path) -> None:
    whole = [polygon(corners(10, 10, 30, 40)), polygon(corners(25, 10, 40, 40))]
    assert np.array_equal(drawn(tmp_path / "a", *whole), region(10, 10, 40, 40))
    assert np.array_equal(drawn(tmp_path / "b", *whole, polygon([(1, 1)]), polygon([(1, 1), (9, 9)])), region(*FIRST))
    changes: list[dict[str, Any]] = [{"types": None}, {"closed": None}, {"types": "LLLL", "closed": True}]
    for i, change in enumerate(changes):
        assert np.array_equal(drawn(tmp_path / f"c{i}", polygon(corners(*FIRST)) | change), region(*FIRST))


def test_open_lines_are_no_areas(tmp_path: Path) -> None:
    # Lane markings stand in poly2d as well, with `closed` false: Scalabel draws a stroke and fills nothing.
    lane = pair(rle=None, poly2d=[polygon(corners(*FIRST), closed=False)])
    manifest, _ = build_folder("bdd100k", write(tmp_path, {"x": lane}), tmp_path / "out")
    assert manifest["samples"] == 0


def test_rings_are_areas_also_where_they_are_not_called_closed(tmp_path: Path) -> None:
    ring = polygon([*corners(*FIRST), corners(*FIRST)[0]], closed=False)
    assert np.array_equal(drawn(tmp_path, ring), region(*FIRST))


@pytest.mark.parametrize(("word", "is_set"), [("false", False), ("0", False), ("", False), (0, False), ("True", True)])
@pytest.mark.parametrize("name", ["crowd", "ignored"])
def test_flags_that_are_words(tmp_path: Path, name: str, word: Any, is_set: bool) -> None:
    """`"false"` was taken for true."""
    raw = write(tmp_path, {"x": pair(attributes={name: word})})
    manifest, _ = build_folder("bdd100k", raw, tmp_path / "out")
    assert manifest["samples"] == (not is_set)


def test_a_flag_that_is_none(tmp_path: Path) -> None:
    raw = write(tmp_path, {"x": pair(attributes={"crowd": "perhaps"})})
    manifest, _ = build_folder("bdd100k", raw, tmp_path / "out")
    assert manifest["bad"]["pictures"] == {"bad_frame_record": 1}
    assert 'crowd is "perhaps", expected 0 or 1' in manifest["bad_pictures"][0]["detail"]


def test_run_lengths_win_over_polygons(tmp_path: Path) -> None:
    raw = write(tmp_path, {"x": pair(poly2d=[polygon(corners(0, 0, 96, 64))])})
    _, out = build_folder("bdd100k", raw, tmp_path / "out")
    assert np.array_equal(oracle.read_mask(oracle.read_tars(out)["x"]["mask0.png"]), region(*FIRST))
    assert check(raw, out) == {"kept": 1}


# --- where the files lie ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("place", [JSON, "labels/ins_seg/polygons/ins_seg_train.json", "ins_seg_train.json"])
@pytest.mark.parametrize("name", ["bdd100k", "BDD100K", "elsewhere"])
def test_layouts(tmp_path: Path, name: str, place: str, bare: bool) -> None:
    (tmp_path / "data").mkdir()
    raw = write(tmp_path, {"x": pair()}).rename(tmp_path / "data" / name)
    data = json.loads((raw / JSON).read_text())
    (raw / JSON).unlink()
    split = "val" if bare else "train"
    place, images = place.replace("train", split), IMAGES.replace("train", split)
    put(raw / place, json.dumps(data["frames"] if bare else data, indent=bare or None))
    (raw / IMAGES).rename(raw / images)
    for i, given in enumerate([raw, *([tmp_path / "data"] if name != "elsewhere" else [])]):
        _, out = build_folder("bdd100k", given, tmp_path / f"out{i}", split)
        assert check(raw, out, split=split, name=place, images=images) == {"kept": 1}


def test_run_lengths_are_preferred_and_a_wrong_folder_is_told(tmp_path: Path) -> None:
    raw = write(tmp_path, {"x": pair()})
    put(raw / "labels/ins_seg/polygons/ins_seg_train.json", "not looked at")
    assert build_folder("bdd100k", raw, tmp_path / "out")[0]["samples"] == 1
    with pytest.raises(PicsError) as found:
        build_folder("bdd100k", raw / "labels", tmp_path / "other")
    for text in (JSON, "labels/ins_seg/polygons/ins_seg_train.json", "(also inside bdd100k, BDD100K)"):
        assert text in found.value.message
    assert found.value.message.endswith("found ins_seg/")


def test_frames_of_a_video(tmp_path: Path) -> None:
    frames = {f"{i}": {"videoName": video, "labels": pair()} for i, video in enumerate(["v", "w", None])}
    raw = write(tmp_path, frames)
    found = told(*build_folder("bdd100k", raw, tmp_path / "out"))
    assert found.keys == ["v%2F0", "w%2F1", "2"]
    assert check(raw, tmp_path / "out") == {"kept": 3}


def test_odd_names_stray_pictures_and_a_turned_one(tmp_path: Path) -> None:
    names = ["-x", "a.b", "é 日本", "x", "100%"]
    raw = write(tmp_path, dict.fromkeys(names, pair()))
    for stray in (".DS_Store", "._x.jpg", "without frame.jpg"):
        put(raw / IMAGES / stray, b"\0\1")
    turned = encoded(smooth(WIDTH, HEIGHT), exif=with_orientation(8), subsampling=0)
    put(raw / IMAGES / "x.jpg", turned)
    _, out = build_folder("bdd100k", tmp_path, tmp_path / "out")
    found = pictures_of(raw)
    found[3].rgb = UPRIGHT[8](oracle.read_rgb(turned))
    assert oracle.Expected("BDD100K", "train").compare(found, out) == {"kept": len(names)}
