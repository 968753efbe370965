"""Mapillary Vistas' maps, in the corrected mode, equal a plain reading of them; bad ones are counted and named."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from helpers import compat_scenes, oracle, street_oracle
from helpers.making import UPRIGHT, build_folder, encoded, smooth, with_orientation
from helpers.street import VEHICLES, put, vistas_config, write_vistas
from helpers.street_oracle import VISTAS_RULE, claiming, told
from pics_cli.errors import PicsError

Values = npt.NDArray[Any]

HEIGHT, WIDTH, ROAD, CAR, TRUCK = 64, 96, 21, 108, 114
MAPS = "training/v2.0/instances"


def map_of(*objects: tuple[int, int, Sequence[int]], background: int = ROAD) -> Values:
    """label * 256 + number; each object label, number and half-open box, later ones over earlier ones."""
    values = np.full((HEIGHT, WIDTH), background * 256)
    for label, number, (x0, y0, x1, y1) in objects:
        values[y0:y1, x0:x1] = label * 256 + number
    return values


def street(seed: int, height: int, width: int, ids: Sequence[int]) -> Values:
    """A map of random things, most of them vehicles, under any numbers; some pictures are vehicles all over."""
    rng = np.random.default_rng([seed, height, width])
    rows, columns = np.ogrid[:height, :width]
    values = np.full((height, width), (ids[0] if seed % 7 == 3 else 13) * 256)
    for _ in range(int(rng.integers(1, 9))):
        (y, x), (ry, rx) = rng.uniform(0, 1, 2) * (height, width), rng.uniform(0.1, 0.35, 2) * (height, width)
        label = int(rng.choice([*ids, *ids, ids[0] + 3, ids[-1] + 1, 2]))
        number = int(rng.choice([0, 1, 2, int(rng.integers(256)), 255]))
        values[((rows - y) / ry) ** 2 + ((columns - x) / rx) ** 2 < 1] = label * 256 + number
    return values


def write(root: Path, maps: dict[str, Values], version: str = "v2.0", split: str = "training") -> Path:
    pictures = {
        name: (smooth(values.shape[0], values.shape[1], i), values // 256, values % 256)
        for i, (name, values) in enumerate(maps.items())
    }
    return write_vistas(root, pictures, version, split)


def pictures_of(raw: Path, version: str = "v2.0", split: str = "training") -> list[oracle.Picture]:
    return street_oracle.vistas(
        raw / f"config_{version}.json", raw / split / version / "instances", raw / split / "images"
    )


def pair_of(tmp_path: Path, values: Values, **more: Any) -> list[npt.NDArray[np.bool_]] | None:
    """Masks of the pair in a picture, which equal the oracle's; None where there is none."""
    raw = write(tmp_path, {"x": values})
    _, out = build_folder("mapillary_vistas", raw, tmp_path / "out", **more)
    oracle.Expected("MapillaryVistas", "train", VISTAS_RULE).compare(pictures_of(raw), out)
    found = oracle.read_tars(out).values()
    return next(([oracle.read_mask(each[f"mask{k}.png"]) for k in (0, 1)] for each in found), None)


@pytest.mark.parametrize("version", ["v2.0", "v1.2"])
@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        (VISTAS_RULE, 6),
        (oracle.Rule(rule="largest", contained="keep", include=VISTAS_RULE.include[:2]), 6),
        (oracle.Rule(3, ratio=0.005, contained="keep"), 6),
    ],
)
def test_build_equals_the_oracle(tmp_path: Path, version: str, rule: oracle.Rule, kept: int) -> None:
    sizes, ids = [(64, 96), (60, 60), (96, 64)], list(VEHICLES[version].values())
    raw = write(tmp_path, {f"{i:03d}": street(i, *sizes[i % 3], ids) for i in range(20)}, version)
    values: dict[str, Any] = {
        "objects": rule.objects,
        "rule": rule.rule,
        "min_area_ratio": rule.ratio,
        "contained": rule.contained,
    }
    values = {f"pairs__{key}": value for key, value in values.items()} | {"pairs__classes__include": [*rule.include]}
    _, out = build_folder("mapillary_vistas", raw, tmp_path / "out", **values)
    outcome = oracle.Expected("MapillaryVistas", "train", rule).compare(pictures_of(raw, version), out)
    assert outcome["kept"] >= kept
    assert outcome.total() == 20


def test_scenes_at_the_borders_of_the_rule(tmp_path: Path) -> None:
    raw = compat_scenes.mapillary_vistas(tmp_path)
    _, out = build_folder("mapillary_vistas", raw, tmp_path / "out")
    outcome = oracle.Expected("MapillaryVistas", "train", VISTAS_RULE).compare(pictures_of(raw), out)
    assert min(outcome[reason] for reason in ("kept", "too_few_objects", "no_overlap")) >= 5


# --- which values are vehicles ----------------------------------------------------------------------------------------

FIRST, SECOND = (4, 4, 40, 40), (30, 30, 60, 60)
SIGN = (100, 9, (90, 2, 94, 6))


@pytest.mark.parametrize(
    ("numbers", "others"),
    [
        ((0, 1), []), ((1, 0), []), ((0, 255), []), ((255, 254), []), ((7, 3), [SIGN]), ((0, 9), [SIGN]),
        ((200, 255), [(100, 3, (90, 2, 94, 6))]),
    ],
)  # fmt: skip
def test_every_number_of_a_vehicle_is_an_object(tmp_path: Path, numbers: tuple[int, int], others: Any) -> None:
    values = map_of((CAR, numbers[0], FIRST), (CAR, numbers[1], SECOND), *others)
    found = pair_of(tmp_path, values)
    assert found is not None
    assert all(np.array_equal(mask, values == CAR * 256 + n) for mask, n in zip(found, sorted(numbers), strict=True))


def test_same_number_in_two_classes_and_parts_that_lie_apart(tmp_path: Path) -> None:
    values = map_of((CAR, 0, FIRST), (TRUCK, 0, SECOND), (CAR, 0, (70, 2, 80, 20)), (ROAD, 0, (0, 20, WIDTH, 22)))
    found = pair_of(tmp_path, values)
    assert found is not None
    assert found[0].sum() == 36 * 34 - 100 + 180
    assert np.array_equal(found[1], values == TRUCK * 256)


def test_only_vehicles(tmp_path: Path) -> None:
    half = (48, 0, WIDTH, HEIGHT)
    assert pair_of(tmp_path, map_of((CAR, 1, half), background=CAR)) is None  # side by side: no overlap
    found = pair_of(tmp_path / "b", map_of((CAR, 1, half), (CAR, 0, (48, 0, 60, 40)), background=CAR))
    assert found is not None
    assert found[0].sum() + found[1].sum() == HEIGHT * WIDTH


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (map_of(SIGN), "too_few_objects"),
        (map_of(), "no_annotations"),
        (map_of((110, 0, FIRST), (115, 1, SECOND)), "too_few_objects"),
        (map_of((CAR, 0, FIRST), (110, 1, SECOND)), "too_few_objects"),
        (map_of((CAR, 3, (0, 0, WIDTH, HEIGHT))), "too_few_objects"),
        (map_of((CAR, 3, (0, 0, WIDTH, HEIGHT)), (TRUCK, 3, (9, 9, 50, 50))), "only_contained"),
    ],
)  # fmt: skip
def test_pictures_without_a_pair(tmp_path: Path, values: Values, reason: str) -> None:
    manifest, out = build_folder("mapillary_vistas", write(tmp_path, {"x": values}), tmp_path / "out")
    assert manifest["skipped"] == {reason: 1}
    assert told(manifest, out).keys == []


def test_one_vehicle_over_the_whole_picture(tmp_path: Path) -> None:
    raw = write(tmp_path, {"x": map_of((CAR, 3, (0, 0, WIDTH, HEIGHT)))})
    manifest, _ = build_folder("mapillary_vistas", raw, tmp_path / "out", pairs__objects=1)
    assert manifest["skipped"] == {"full_mask": 1}


def test_highest_value_that_there_is(tmp_path: Path) -> None:
    # The config names 256 labels, as many as fit; the last of them has instances.
    raw = write(tmp_path, {"x": map_of((255, 254, FIRST), (255, 255, SECOND))})
    names = [{"name": f"thing-{i}", "instances": i == 255} for i in range(256)]
    put(raw / "config_v2.0.json", json.dumps({"labels": names}))
    manifest, out = build_folder("mapillary_vistas", raw, tmp_path / "out", pairs__classes__include=["thing-255"])
    assert manifest["samples"] == 1
    rule = oracle.Rule(include=("thing-255",))
    oracle.Expected("MapillaryVistas", "train", rule).compare(pictures_of(raw), out)


# --- where the files lie ----------------------------------------------------------------------------------------------

PAIR = map_of((CAR, 0, FIRST), (TRUCK, 1, SECOND))
OLD_PAIR = map_of((55, 0, FIRST), (61, 1, (35, 35, 90, 60)), background=13)


@pytest.mark.parametrize("name", ["MVD", "mapillary-vistas", "mapillary_vistas", "elsewhere"])
@pytest.mark.parametrize(("split", "folder"), [("train", "training"), ("val", "validation"), ("train", "train")])
def test_layouts(tmp_path: Path, name: str, split: str, folder: str) -> None:
    (tmp_path / "data").mkdir()
    raw = write(tmp_path, {"-x_1": PAIR}, split=folder).rename(tmp_path / "data" / name)
    for i, given in enumerate([raw, *([tmp_path / "data"] if name != "elsewhere" else [])]):
        _, out = build_folder("mapillary_vistas", given, tmp_path / f"out{i}", split)
        expected = oracle.Expected("MapillaryVistas", split, VISTAS_RULE)
        assert expected.compare(pictures_of(raw, split=folder), out) == {"kept": 1}


def test_both_versions(tmp_path: Path) -> None:
    write(tmp_path, {"x": OLD_PAIR}, "v1.2")
    raw = write(tmp_path, {"x": PAIR})
    expected = oracle.Expected("MapillaryVistas", "train", VISTAS_RULE)
    versions: dict[str, dict[str, Any]] = {"v2.0": {}, "v1.2": {"source__versions": ["v1.2"]}}
    for version, values in versions.items():
        _, out = build_folder("mapillary_vistas", raw, tmp_path / version, **values)
        assert expected.compare(pictures_of(raw, version), out) == {"kept": 1}


def test_folder_without_versions(tmp_path: Path) -> None:
    raw = write(tmp_path, {"x": OLD_PAIR}, "v1.2")
    (raw / MAPS.replace("v2.0", "v1.2")).rename(raw / "training/instances")
    (raw / "config_v1.2.json").rename(raw / "config.json")
    _, out = build_folder("mapillary_vistas", tmp_path, tmp_path / "out")
    found = street_oracle.vistas(raw / "config.json", raw / "training/instances", raw / "training/images")
    assert oracle.Expected("MapillaryVistas", "train", VISTAS_RULE).compare(found, out) == {"kept": 1}


def test_wrong_folder_is_told_what_was_looked_for_and_found(tmp_path: Path) -> None:
    raw = write(tmp_path, {"x": PAIR})
    with pytest.raises(PicsError) as found:
        build_folder("mapillary_vistas", raw / "training", tmp_path / "out")
    for text in ("training/v2.0/instances/", "training/v1.2/instances/", "training/instances/", "(also inside MVD, "):
        assert text in found.value.message
    assert found.value.message.endswith("found images/, v2.0/")
    (raw / MAPS / "x.png").unlink()
    with pytest.raises(PicsError, match="no annotation files"):
        build_folder("mapillary_vistas", raw, tmp_path / "out")


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (None, "no config_v2.0.json or config.json"),
        ("", "config_v2.0.json: Input data was truncated"),
        (json.dumps(vistas_config("v2.0"))[:-9], "config_v2.0.json: "),
        ("[]", "config_v2.0.json: Expected `object`"),
        ('{"version": 2}', "config_v2.0.json: Object missing required field `labels`"),
        ('{"labels": [{"readable": "Car"}]}', "config_v2.0.json: Object missing required field `name`"),
        (json.dumps({"labels": [{"name": "x"}] * 257}), "257 labels, at most 256"),
        (json.dumps(vistas_config("v1.2")).replace("object--vehicle--bus", "bus"), "'object--vehicle--bus' not among"),
    ],
)
def test_config_missing_or_broken(tmp_path: Path, contents: str | None, message: str) -> None:
    raw = write(tmp_path, {"x": PAIR})
    (raw / "config_v2.0.json").unlink()
    if contents is not None:
        put(raw / "config_v2.0.json", contents)
    with pytest.raises(PicsError) as found:
        build_folder("mapillary_vistas", raw, tmp_path / "out")
    assert message in found.value.message
    assert str(raw) in found.value.message


# --- bad input --------------------------------------------------------------------------------------------------------


def png(values: Values, mode: type = np.uint16) -> bytes:
    return encoded(Image.fromarray(values.astype(mode)), "PNG")


BAD = {
    "8 bit": (png(PAIR // 256, np.uint8), "bad_label_map", "uint8 64x96, expected one channel of 16 bits"),
    "colours": (png(np.stack([PAIR // 256] * 3, 2), np.uint8), "bad_label_map", "uint8 64x96x3"),
    "palette": (encoded(Image.fromarray((PAIR // 256).astype(np.uint8)).convert("P"), "PNG"), "bad_label_map", "uint8"),
    "beyond the config": (png(map_of((124, 0, FIRST))), "unknown_label", "label 124, the config names 124 labels"),
    "far beyond it": (png(map_of((255, 255, FIRST), (CAR, 0, SECOND))), "unknown_label", "label 255"),
    "truncated": (png(PAIR)[:-30], "bad_label_map", ""),
    "start": (png(PAIR)[:20], "bad_label_map", ""),
    "empty": (b"", "bad_label_map", ""),
    "text": (b"<html>", "bad_label_map", ""),
    "enormous": (claiming(png(PAIR), 2**31 - 1, 2**31 - 1), "bad_label_map", ""),
    "long": (claiming(png(PAIR), WIDTH, 90 * HEIGHT), "bad_label_map", ""),
    "size": (png(PAIR.T), "size_mismatch", "96x64, annotated as 64x96"),
    "no picture": (png(PAIR), "missing_image", "training/images/no picture.jpg"),
    "half a picture": (png(PAIR), "truncated_image", ""),
}


def test_bad_maps_are_counted_and_named(tmp_path: Path) -> None:
    raw = write(tmp_path, {name: PAIR for name in ("0 good", *BAD, "z good")})
    for name, (data, _, _) in BAD.items():
        put(raw / MAPS / f"{name}.png", data)
    (raw / "training/images/no picture.jpg").unlink()
    half = raw / "training/images/half a picture.jpg"
    half.write_bytes(half.read_bytes()[:700])
    found = told(*build_folder("mapillary_vistas", raw, tmp_path / "out"))
    assert found.keys == ["0%20good", "z%20good"]
    assert {item: reason for item, (reason, _) in found.bad.items()} == {f"{n}.png": BAD[n][1] for n in BAD}
    for name, (_, reason, detail) in BAD.items():
        assert detail in found.bad[f"{name}.png"][1], name
        if reason in ("bad_label_map", "unknown_label"):
            assert f"{raw}/{MAPS}/{name}.png" in found.bad[f"{name}.png"][1]


def test_stray_files_odd_names_and_turned_pictures(tmp_path: Path) -> None:
    names = ["-x", "a.b", "é 日本", "x", "_-_"]
    raw = write(tmp_path, dict.fromkeys(names, PAIR))
    for stray in (".DS_Store", "._x.png", "readme.txt", "x.jpg", "x.png~"):
        put(raw / MAPS / stray, b"\0\1")
    put(raw / "training/images/without map.jpg", encoded(smooth(HEIGHT, WIDTH)))
    turned = encoded(smooth(WIDTH, HEIGHT), exif=with_orientation(6), subsampling=0)
    put(raw / "training/images/x.jpg", turned)
    _, out = build_folder("mapillary_vistas", tmp_path, tmp_path / "out")
    found = {picture.key: picture for picture in pictures_of(raw)}
    found["x"].rgb = UPRIGHT[6](oracle.read_rgb(turned))
    outcome = oracle.Expected("MapillaryVistas", "train", VISTAS_RULE).compare(found.values(), out)
    assert outcome == {"kept": len(names)}
