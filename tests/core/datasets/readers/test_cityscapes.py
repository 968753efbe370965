"""Cityscapes' polygon files, in the corrected mode, equal a plain reading of them; bad ones are counted and named."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from helpers import compat_scenes, oracle, street_oracle
from helpers.making import build_folder, encoded, smooth, with_orientation
from helpers.street import put, thing, write_cityscapes
from helpers.street_oracle import CITY_RULE, told
from pics_cli.errors import PicsError

HEIGHT, WIDTH = 64, 96
LABELS = (
    *("car",) * 12, *("truck", "bus", "person", "license plate") * 2, "cargroup", "out of roi", "unheard of", "caravan",
)  # fmt: skip


def square(x0: float, y0: float, x1: float, y1: float) -> list[list[float]]:
    """Vertices that Pillow fills to x0 <= x < x1, y0 <= y < y1: the last pixels are vertices."""
    return [[x0, y0], [x1 - 1, y0], [x1 - 1, y1 - 1], [x0, y1 - 1]]


def region(x0: int, y0: int, x1: int, y1: int) -> npt.NDArray[np.bool_]:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def street(seed: int, height: int, width: int) -> list[dict[str, Any]]:
    """Random objects, back to front, which may leave the frame; some with fractions, deleted or without any area."""
    rng = np.random.default_rng([seed, height, width])
    objects = [thing("road", square(0, height // 2, width, height))]
    for _ in range(int(rng.integers(3, 12))):
        centre, reach = rng.uniform(-0.1, 1.1, 2) * (width, height), rng.uniform(0.1, 0.35, 2) * (width, height)
        angle = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(1, 12))))
        points = centre + reach * np.stack([np.cos(angle), np.sin(angle)], 1)
        points = points.round(2) if rng.random() < 0.3 else points.round().astype(int)
        flags: dict[int, dict[str, Any]] = {0: {"deleted": 1}, 1: {"deleted": 0}, 2: {"deleted": False}}
        deleted = flags.get(int(rng.integers(16)), {})
        objects.append(thing(str(rng.choice(LABELS)), points.tolist(), **deleted))
    return objects


def image_of(raw: Path, layout: str = "official", split: str = "train") -> Callable[[str], Path]:
    folder = raw / "leftImg8bit" / split if layout == "official" else raw / split / "images"
    return lambda name: folder / f"{name}_leftImg8bit.png"


def jsons(raw: Path, layout: str = "official", split: str = "train") -> Path:
    return raw / "gtFine" / split if layout == "official" else raw / split / "jsons"


def masks_of(tmp_path: Path, objects: Sequence[dict[str, Any]], **values: Any) -> list[npt.NDArray[np.bool_]] | None:
    """Masks of the group in a picture of these objects, which equal the oracle's; None where there is none."""
    raw = write_cityscapes(tmp_path, {"ulm_x": (smooth(HEIGHT, WIDTH), objects)})
    _, out = build_folder("cityscapes", raw, tmp_path / "out", **values)
    found = oracle.read_tars(out).values()
    pictures = street_oracle.cityscapes(jsons(raw), image_of(raw))
    oracle.Expected("Cityscapes", "train", CITY_RULE).compare(pictures, out)
    return next(([oracle.read_mask(each[f"mask{k}.png"]) for k in (0, 1)] for each in found), None)


@pytest.mark.parametrize("layout", ["official", "flat"])
@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        (CITY_RULE, 12),
        (oracle.Rule(3, ratio=0.005, contained="keep"), 8),
        (oracle.Rule(rule="largest", include=("car", "person", "caravan")), 12),
    ],
)
def test_build_equals_the_oracle(tmp_path: Path, layout: str, rule: oracle.Rule, kept: int) -> None:
    sizes = [(64, 96), (60, 60), (96, 64)]
    pictures = {
        f"{('aachen', 'ulm')[i % 2]}_{i:06d}": (smooth(*sizes[i % 3], i), street(i, *sizes[i % 3])) for i in range(40)
    }
    raw = write_cityscapes(tmp_path, pictures, layout)
    values: dict[str, Any] = {
        "objects": rule.objects,
        "rule": rule.rule,
        "min_area_ratio": rule.ratio,
        "contained": rule.contained,
    }
    values = {f"pairs__{key}": value for key, value in values.items()} | {"pairs__classes__include": [*rule.include]}
    _, out = build_folder("cityscapes", raw, tmp_path / "out", **values)
    found = street_oracle.cityscapes(jsons(raw, layout), image_of(raw, layout))
    outcome = oracle.Expected("Cityscapes", "train", rule).compare(found, out)
    assert outcome["kept"] >= kept
    assert outcome.total() == 40


def test_scenes_at_the_borders_of_the_rule(tmp_path: Path) -> None:
    raw = compat_scenes.cityscapes(tmp_path)
    _, out = build_folder("cityscapes", raw, tmp_path / "out")
    found = street_oracle.cityscapes(jsons(raw), image_of(raw))
    outcome = oracle.Expected("Cityscapes", "train", CITY_RULE).compare(found, out)
    assert min(outcome[reason] for reason in ("kept", "too_few_objects", "no_overlap")) >= 5


# --- what is visible --------------------------------------------------------------------------------------------------

CAR, BUS = thing("car", square(10, 10, 40, 40)), thing("bus", square(30, 20, 70, 50))
OVER = square(35, 15, 80, 30)  # over the upper part of the bus and a corner of the car
HIDDEN = region(10, 10, 40, 40) & ~region(30, 20, 70, 50) & ~region(35, 15, 80, 30)


@pytest.mark.parametrize(
    "label",
    ["person", "cargroup", "truckgroup", "out of roi", "ego vehicle", "static", "unheard of", "pole", "trailer"],
)
def test_whatever_is_painted_later_hides(tmp_path: Path, label: str) -> None:
    found = masks_of(tmp_path, [CAR, BUS, thing(label, OVER)])
    assert found is not None
    assert np.array_equal(found[0], HIDDEN)
    assert np.array_equal(found[1], region(30, 20, 70, 50) & ~region(35, 15, 80, 30))


@pytest.mark.parametrize(
    "over",
    [
        thing("license plate", OVER), thing("pole", OVER, deleted=1), thing("car", OVER, deleted=1),
        thing("pole", OVER, deleted=True), thing("pole", OVER[:2]), thing("pole", OVER[:1]), thing("pole", []),
    ],
)  # fmt: skip
def test_what_hides_nothing(tmp_path: Path, over: dict[str, Any]) -> None:
    found = masks_of(tmp_path, [CAR, BUS, over])
    assert found is not None
    assert np.array_equal(found[0], region(10, 10, 40, 40) & ~region(30, 20, 70, 50))
    assert np.array_equal(found[1], region(30, 20, 70, 50))


def test_what_is_painted_earlier_hides_nothing(tmp_path: Path) -> None:
    found = masks_of(tmp_path, [thing("pole", OVER), BUS, CAR])
    assert found is not None
    assert np.array_equal(found[0], region(30, 20, 70, 50) & ~region(10, 10, 40, 40))
    assert np.array_equal(found[1], region(10, 10, 40, 40))


@pytest.mark.parametrize("other", [thing("busgroup", BUS["polygon"]), BUS | {"deleted": 1}, BUS | {"label": "unknown"}])
def test_what_is_no_object(tmp_path: Path, other: dict[str, Any]) -> None:
    assert masks_of(tmp_path, [CAR, other]) is None


def test_object_that_is_hidden_altogether_is_none(tmp_path: Path) -> None:
    assert masks_of(tmp_path, [CAR, BUS, thing("wall", square(0, 0, WIDTH, 40)), thing("wall", OVER)]) is None
    shown = [CAR, BUS, thing("wall", square(5, 5, 45, 45)), thing("truck", square(60, 40, 90, 60))]
    found = masks_of(tmp_path / "other", shown)
    assert found is not None
    assert np.array_equal(found[1], region(60, 40, 90, 60))


def test_vertices_outside_the_frame(tmp_path: Path) -> None:
    objects = [thing("car", square(-30, -20, 40, 40)), thing("bus", square(30, 20, 5000, 900))]
    found = masks_of(tmp_path, objects)
    assert found is not None
    assert np.array_equal(found[0], region(0, 0, 40, 40) & ~region(30, 20, WIDTH, HEIGHT))
    assert np.array_equal(found[1], region(30, 20, WIDTH, HEIGHT))


@pytest.mark.parametrize("count", [254, 255, 256, 600])
def test_more_objects_than_a_byte_can_number(tmp_path: Path, count: int) -> None:
    few = [thing("pole", square(x, 60, x + 1, 62)) for x in range(count - 2)]
    found = masks_of(tmp_path, [CAR, *few, BUS])
    assert found is not None
    assert [int(mask.sum()) for mask in found] == [30 * 30 - 10 * 20, 40 * 30]


# --- where the files lie ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["official", "flat"])
@pytest.mark.parametrize("name", ["Cityscapes", "cityscapes", "elsewhere"])
def test_layouts(tmp_path: Path, layout: str, name: str) -> None:
    (tmp_path / "data").mkdir()
    written = write_cityscapes(tmp_path, {"ulm_x": (smooth(HEIGHT, WIDTH), [CAR, BUS])}, layout, "val")
    raw = written.rename(tmp_path / "data" / name)
    pictures = street_oracle.cityscapes(jsons(raw, layout, "val"), image_of(raw, layout, "val"))
    around = [tmp_path / "data"] if name != "elsewhere" else []
    for i, given in enumerate([raw, *around]):
        _, out = build_folder("cityscapes", given, tmp_path / f"out{i}", "val")
        assert oracle.Expected("Cityscapes", "val", CITY_RULE).compare(pictures, out) == {"kept": 1}


def test_wrong_folder_is_told_what_was_looked_for_and_found(tmp_path: Path) -> None:
    raw = write_cityscapes(tmp_path, {"ulm_x": (smooth(HEIGHT, WIDTH), [CAR, BUS])})
    with pytest.raises(PicsError) as found:
        build_folder("cityscapes", raw / "gtFine", tmp_path / "out")
    assert "looked for gtFine/train/, train/jsons/ (also inside Cityscapes, cityscapes); " in found.value.message
    assert found.value.message.endswith("found train/")
    with pytest.raises(PicsError, match="'lorry' not among the 10 categories"):
        build_folder("cityscapes", raw, tmp_path / "out", pairs__classes__include=["lorry"])
    (raw / "gtFine/train/ulm/ulm_x_gtFine_polygons.json").unlink()
    with pytest.raises(PicsError, match="no annotation files"):
        build_folder("cityscapes", raw, tmp_path / "out")


def test_equal_stems_in_two_cities_stray_files_and_odd_names(tmp_path: Path) -> None:
    names = ("ulm_x", "-ulm_x", "ulm_a.b", "ulm_é 日本", os.fsdecode(b"ulm_caf\xe9"))
    raw = write_cityscapes(tmp_path, {name: (smooth(HEIGHT, WIDTH), [CAR, BUS]) for name in names})
    shutil.copytree(raw / "gtFine/train/ulm", raw / "gtFine/train/bonn")
    shutil.copytree(raw / "leftImg8bit/train/ulm", raw / "leftImg8bit/train/bonn")
    folder, grey = raw / "gtFine/train/ulm", encoded(smooth(HEIGHT, WIDTH), "PNG")  # as official folders hold
    for stray in ("ulm_x_gtFine_labelIds.png", ".DS_Store", "._ulm_x_gtFine_polygons.json", "readme.txt", "ulm_x.json"):
        put(folder / stray, grey)
    put(raw / "leftImg8bit/train/ulm/ulm_y_leftImg8bit.png", grey)
    found = told(*build_folder("cityscapes", tmp_path, tmp_path / "out"))
    stems = ["ulm_a%2Eb", "ulm_caf%E9", "ulm_x", "ulm_%C3%A9%20%E6%97%A5%E6%9C%AC"]
    assert not found.bad
    assert sorted(found.keys) == sorted(
        ["-ulm%2F-ulm_x", *(f"{city}%2F{s}" for city in ("bonn", "ulm") for s in stems)]
    )


# --- bad input --------------------------------------------------------------------------------------------------------

GOOD = {"imgHeight": HEIGHT, "imgWidth": WIDTH, "objects": [CAR, BUS]}


def with_vertex(text: str) -> str:
    return json.dumps(GOOD).replace("[10, 10]", text, 1)


BROKEN: dict[str, tuple[bytes | str, str]] = {
    "truncated": (json.dumps(GOOD)[:-30], "truncated"),
    "empty": (b"", "truncated"),
    "text": ("not found", ""),
    "latin": (json.dumps(GOOD).replace("car", "c\xe4r").encode("latin-1"), "utf-8"),
    "list": ("[]", "object"),
    "no height": (json.dumps({k: v for k, v in GOOD.items() if k != "imgHeight"}), "imgHeight"),
    "no objects": (json.dumps({k: v for k, v in GOOD.items() if k != "objects"}), "objects"),
    "objects null": (json.dumps(GOOD | {"objects": None}), "objects"),
    "no polygon": (json.dumps(GOOD | {"objects": [{"label": "car"}]}), "polygon"),
    "zero size": (json.dumps(GOOD | {"imgWidth": 0}), "claims 0 x 64"),
    "huge size": (json.dumps(GOOD | {"imgHeight": 10**12}), "claims"),
    "vertex NaN": (with_vertex("[NaN, 10]"), "malformed"),
    "vertex infinite": (with_vertex("[1e999, 10]"), "range"),
    "vertex far": (with_vertex("[-1e6, 10]"), "1000000"),
    "vertex huge": (with_vertex("[1e300, 10]"), "1000000"),
    "vertex of three": (with_vertex("[10, 10, 10]"), "length 2"),
    "vertex text": (with_vertex('["10", 10]'), "polygon[0][0]"),
}  # fmt: skip
UNUSABLE = {
    "no picture": (json.dumps(GOOD), "missing_image"),
    "other size": (json.dumps(GOOD | {"imgWidth": WIDTH - 1}), "size_mismatch"),
    "half a picture": (json.dumps(GOOD), "truncated_image"),
    "empty picture": (json.dumps(GOOD), "unreadable_image"),
}


def test_bad_files_are_counted_and_named(tmp_path: Path) -> None:
    raw = tmp_path / "Cityscapes/train"
    texts = {name: text for name, (text, _) in BROKEN.items()} | {name: text for name, (text, _) in UNUSABLE.items()}
    picture = encoded(smooth(HEIGHT, WIDTH), "PNG")
    for name, text in {"a": json.dumps(GOOD), "zz": json.dumps(GOOD)}.items() | texts.items():
        put(raw / "jsons" / f"{name}_gtFine_polygons.json", text)
        cut = {"half a picture": len(picture) // 2, "empty picture": 0}.get(name, len(picture))
        if name != "no picture":
            put(raw / "images" / f"{name}_leftImg8bit.png", picture[:cut])
    manifest, out = build_folder("cityscapes", tmp_path, tmp_path / "out")
    found = told(manifest, out)
    assert found.keys == ["a", "zz"]
    for name, (_, detail) in BROKEN.items():
        reason, text = found.bad.pop(f"{name}_gtFine_polygons.json")
        assert reason == "bad_annotation_file"
        assert text.startswith(f"{raw}/jsons/{name}_gtFine_polygons.json: ")
        assert detail in text, name
    reasons = {f"{name}_gtFine_polygons.json": reason for name, (_, reason) in UNUSABLE.items()}
    assert {item: reason for item, (reason, _) in found.bad.items()} == reasons


def test_values_that_are_nested_beyond_measure(tmp_path: Path) -> None:
    raw = write_cityscapes(tmp_path, {f"ulm_{name}": (smooth(HEIGHT, WIDTH), [CAR, BUS]) for name in "xyz"})
    deep = json.dumps(GOOD | {"draft": 0}).replace('"draft": 0', f'"draft": {"[" * 5000 + "]" * 5000}')
    put(raw / "gtFine/train/ulm/ulm_x_gtFine_polygons.json", deep)
    assert told(*build_folder("cityscapes", raw, tmp_path / "out")).keys == ["ulm%2Fulm_y", "ulm%2Fulm_z"]


def test_more_objects_than_two_bytes_can_number(tmp_path: Path) -> None:
    raw = write_cityscapes(tmp_path, {f"ulm_{name}": (smooth(HEIGHT, WIDTH), [CAR, BUS]) for name in "xyz"})
    crumbs = [thing("pole", square(1, 60, 3, 62))] * (1 << 16)
    put(raw / "gtFine/train/ulm/ulm_x_gtFine_polygons.json", json.dumps(GOOD | {"objects": [*crumbs, CAR, BUS]}))
    found = told(*build_folder("cityscapes", raw, tmp_path / "out"))
    assert {"ulm%2Fulm_y", "ulm%2Fulm_z"} <= set(found.keys)


def test_turned_picture(tmp_path: Path) -> None:
    raw = write_cityscapes(tmp_path, {"ulm_x": (smooth(HEIGHT, WIDTH), [CAR, BUS])})
    stored = smooth(WIDTH, HEIGHT)
    put(image_of(raw)("ulm/ulm_x"), encoded(stored, "PNG", exif=with_orientation(6)))
    _, out = build_folder("cityscapes", raw, tmp_path / "out")
    (picture,) = street_oracle.cityscapes(jsons(raw), image_of(raw))
    picture.rgb = stored.transpose(1, 0, 2)[:, ::-1]
    assert oracle.Expected("Cityscapes", "train", CITY_RULE).compare([picture], out) == {"kept": 1}
