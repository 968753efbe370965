"""VITON-HD's label maps, in the corrected mode, equal a plain reading of them; bad ones are counted and named."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from helpers import compat_scenes, oracle, street_oracle
from helpers.making import UPRIGHT, build_folder, encoded, smooth, with_orientation
from helpers.street import put, write_viton
from helpers.street_oracle import claiming, told
from pics_cli.errors import PicsError

Ids = npt.NDArray[np.uint8]

HEIGHT, WIDTH = 100, 75


def dressed(seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> Ids:
    """A map of random regions, later ones over earlier ones, with stray pixels."""
    rng = np.random.default_rng([seed, height, width])
    ids = np.zeros((height, width), np.uint8)
    rows, columns = np.ogrid[:height, :width]
    for i in rng.choice(np.arange(1, 20), int(rng.integers(1, 8)), replace=False):
        (y, x), (ry, rx) = rng.uniform(0, 1, 2) * (height, width), rng.uniform(0.08, 0.4, 2) * (height, width)
        ids[((rows - y) / ry) ** 2 + ((columns - x) / rx) ** 2 < 1] = i
    ids[rng.integers(height, size=6), rng.integers(width, size=6)] = rng.integers(0, 20, 6)
    return ids


def two(first: int = 5, second: int = 9, height: int = HEIGHT, width: int = WIDTH) -> Ids:
    ids = np.zeros((height, width), np.uint8)
    ids[10:60, 10:50], ids[50:90, 30:70] = first, second
    return ids


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = [(100, 75), (64, 96), (81, 81)]
    maps = {f"{i:05d}_00": dressed(i, *sizes[i % 3]) for i in range(30)}
    return write_viton(tmp_path_factory.mktemp("viton"), {k: (smooth(*m.shape), m) for k, m in maps.items()})


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        (street_oracle.VITON_RULE, 20),
        (oracle.Rule(contained="keep"), 15),
        (oracle.Rule(contained="drop"), 10),
        (oracle.Rule(rule="largest", contained="drop"), 15),
        (oracle.Rule(1, "largest", 0.1, "keep"), 10),
        (oracle.Rule(3, "largest", 0.005, "keep"), 10),
        (oracle.Rule(rule="largest", contained="keep", exclude=("face", "hair", "left arm")), 12),
    ],
)
def test_build_equals_the_oracle(raw: Path, tmp_path: Path, rule: oracle.Rule, kept: int) -> None:
    values: dict[str, Any] = {
        "objects": rule.objects,
        "rule": rule.rule,
        "min_area_ratio": rule.ratio,
        "contained": rule.contained,
    }
    values = {f"pairs__{key}": value for key, value in values.items()} | {"pairs__classes__exclude": [*rule.exclude]}
    _, out = build_folder("viton_hd", raw, tmp_path / "out", **values)
    outcome = oracle.Expected("VITONHD", "train", rule).compare(street_oracle.viton(raw / "train"), out)
    assert outcome["kept"] >= kept
    assert outcome.total() == 30


def test_scenes_at_the_borders_of_the_rule(tmp_path: Path) -> None:
    # Ties, areas of exactly 2 %, nested regions, unknown ids.
    raw = compat_scenes.viton_hd(tmp_path)
    _, out = build_folder("viton_hd", raw, tmp_path / "out")
    pictures = street_oracle.viton(raw / "train")
    outcome = oracle.Expected("VITONHD", "train", street_oracle.VITON_RULE).compare(pictures, out)
    assert min(outcome[reason] for reason in ("unknown_label", "too_few_objects", "no_annotations")) >= 1


def test_face_is_one_region_of_two_ids(tmp_path: Path) -> None:
    # Neither half is larger than the dress; together they are, and their box spans both.
    ids = np.zeros((100, 75), np.uint8)
    ids[5:25, 5:25], ids[5:25, 45:65], ids[40:60, 10:45], ids[80:90, 10:20] = 4, 13, 6, 15
    raw = write_viton(tmp_path, {"x": (smooth(100, 75), ids)})
    _, out = build_folder("viton_hd", raw, tmp_path / "out")
    (members,) = oracle.read_tars(out).values()
    assert np.array_equal(oracle.read_mask(members["mask0.png"]), (ids == 4) | (ids == 13))
    assert np.array_equal(oracle.read_mask(members["mask1.png"]), ids == 6)
    oracle.Expected("VITONHD", "train", street_oracle.VITON_RULE).compare(street_oracle.viton(raw / "train"), out)


def test_regions_are_the_recipes(tmp_path: Path) -> None:
    ids = two(3, 11)  # void by the shipped recipe
    ids[:8, :40] = 19
    raw = write_viton(tmp_path, {"x": (smooth(HEIGHT, WIDTH), ids)})
    regions = {"noise": [11, 3], "shoe": [19]}
    manifest, out = build_folder(
        "viton_hd", raw, tmp_path / "out", source__regions=regions, source__void=[0], pairs__objects=2
    )
    assert manifest["samples"] == 1
    pictures = street_oracle.viton(raw / "train", regions=regions)
    oracle.Expected("VITONHD", "train", street_oracle.VITON_RULE).compare(pictures, out)
    manifest, _ = build_folder("viton_hd", raw, tmp_path / "shipped")
    assert manifest["skipped"] == {"too_few_objects": 1}


# --- where the files lie ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["P", "L"])
@pytest.mark.parametrize("maps", ["image-parse-v3", "image-parse"])
@pytest.mark.parametrize("name", ["VitonHD", "zalando-hd-resized", "viton_hd", "elsewhere"])
def test_layouts(tmp_path: Path, name: str, maps: str, mode: str) -> None:
    raw = write_viton(tmp_path, {"00001_00": (smooth(HEIGHT, WIDTH), two())}, mode, "test")
    (raw / "test/image-parse-v3").rename(raw / "test" / maps)
    (tmp_path / "data").mkdir()
    raw = raw.rename(tmp_path / "data" / name)
    pictures = street_oracle.viton(raw / "test", maps)
    around = [tmp_path / "data"] if name != "elsewhere" else []
    for i, given in enumerate([raw, *around]):
        _, out = build_folder("viton_hd", given, tmp_path / f"out{i}", "test")
        assert oracle.Expected("VITONHD", "test", street_oracle.VITON_RULE).compare(pictures, out)["kept"] == 1


def test_newer_maps_are_preferred(tmp_path: Path) -> None:
    raw = write_viton(tmp_path, {"x": (smooth(HEIGHT, WIDTH), two())})
    put(raw / "train/image-parse/x.png", b"not looked at")
    assert build_folder("viton_hd", raw, tmp_path / "out")[0]["samples"] == 1


def test_wrong_folder_is_told_what_was_looked_for_and_found(tmp_path: Path) -> None:
    raw = write_viton(tmp_path, {"x": (smooth(HEIGHT, WIDTH), two())})
    with pytest.raises(PicsError) as found:
        build_folder("viton_hd", raw / "train", tmp_path / "out")
    for text in (f"raw folder {raw / 'train'}", "train/image-parse-v3/", "train/image-parse/", "zalando-hd-resized"):
        assert text in found.value.message
    assert found.value.message.endswith("found image-parse-v3/, image/")
    with pytest.raises(PicsError, match="does not exist"):
        build_folder("viton_hd", tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(PicsError, match="no split 'val'"):
        build_folder("viton_hd", raw, tmp_path / "out", "val")
    for path in (raw / "train/image-parse-v3").iterdir():
        path.unlink()
    with pytest.raises(PicsError, match=r"image-parse-v3: no annotation files \(\*\.png\)"):
        build_folder("viton_hd", raw, tmp_path / "out")


# --- bad input --------------------------------------------------------------------------------------------------------


def png(ids: npt.NDArray[Any], **options: Any) -> bytes:
    return encoded(Image.fromarray(ids), "PNG", **options)


COLOURED = np.random.default_rng(0).integers(0, 256, (256, 3), dtype=np.uint8)[two()]
MAPS: dict[str, tuple[bytes | None, str | None, str]] = {
    "0good": (png(two()), None, ""),
    "colours": (png(COLOURED), "bad_label_map", "stored as RGB"),
    "colours with alpha": (encoded(Image.fromarray(COLOURED).convert("RGBA"), "PNG"), "bad_label_map", "RGBA"),
    "one bit": (encoded(Image.fromarray(two() > 0), "PNG"), "bad_label_map", "stored as 1"),
    "16 bit": (png(two().astype(np.uint16)), "bad_label_map", "stored as I;16"),
    "truncated": (png(dressed(1))[:-60], "bad_label_map", "truncated"),
    "start": (png(two())[:20], "bad_label_map", ""),
    "empty": (b"", "bad_label_map", "empty"),
    "text": (b"<html>", "bad_label_map", ""),
    "unknown": (png(two(5, 77)), "unknown_label", "ids [77]"),
    "unknowns": (png(two(255, 20)), "unknown_label", "ids [20, 255]"),
    "one region": (png(two(5, 5)), "too_few_objects", ""),
    "void": (png(two(3, 11)), "no_annotations", ""),
    "nothing": (png(two(0, 0)), "no_annotations", ""),
    "size": (png(two(height=WIDTH, width=HEIGHT)), "size_mismatch", "75x100, annotated as 100x75"),
    "no picture": (png(two()), "missing_image", "no picture.jpg"),
    "half a picture": (png(two()), "truncated_image", ""),
    "z good": (png(two(14, 15)), None, ""),
}


def test_bad_maps_are_counted_and_named(tmp_path: Path) -> None:
    folder = tmp_path / "VitonHD/train"
    for name, (data, _, _) in MAPS.items():
        assert data is not None
        put(folder / "image-parse-v3" / f"{name}.png", data)
        picture = encoded(smooth(HEIGHT, WIDTH))
        if name != "no picture":
            put(folder / "image" / f"{name}.jpg", picture[: len(picture) // 2] if name == "half a picture" else picture)
    manifest, out = build_folder("viton_hd", tmp_path, tmp_path / "out")
    found = told(manifest, out)
    assert found.keys == ["0good", "z%20good"]
    assert manifest["pictures"] == len(MAPS)
    skips = {"too_few_objects", "no_annotations"}
    assert {f"{name}.png" for name, (_, reason, _) in MAPS.items() if reason and reason not in skips} == set(found.bad)
    for name, (_, reason, detail) in MAPS.items():
        item = f"{name}.png"
        if reason in skips:
            assert item in found.skipped[reason]
        elif reason:
            assert found.bad[item][0] == reason, found.bad[item]
            assert detail in found.bad[item][1]
            # the map is named where it is at fault
            assert (item in found.bad[item][1]) == (reason in ("bad_label_map", "unknown_label")), found.bad[item]


def test_map_that_claims_to_be_enormous(tmp_path: Path) -> None:
    raw = write_viton(tmp_path, {name: (smooth(HEIGHT, WIDTH), two()) for name in "xyz"})
    put(raw / "train/image-parse-v3/x.png", claiming(png(two()), 2**31 - 1, 2**31 - 1))
    found = told(*build_folder("viton_hd", raw, tmp_path / "out"))
    assert found.keys == ["y", "z"]
    assert found.bad["x.png"][0] == "bad_label_map"


def test_details_are_the_same_in_every_run(tmp_path: Path) -> None:
    # Manifests are compared byte for byte: no address in memory may stand in them.
    raw = write_viton(tmp_path, {"x": (smooth(HEIGHT, WIDTH), two())})
    put(raw / "train/image-parse-v3/text.png", b"<html>")
    (bad,) = build_folder("viton_hd", raw, tmp_path / "out")[0]["bad_pictures"]
    assert " at 0x" not in bad["detail"]


def test_region_that_covers_the_picture_is_no_object(tmp_path: Path) -> None:
    raw = write_viton(tmp_path, {"x": (smooth(40, 40), np.full((40, 40), 5, np.uint8))})
    manifest, _ = build_folder("viton_hd", raw, tmp_path / "out", pairs__objects=1)
    assert manifest["skipped"] == {"full_mask": 1}


def test_map_of_fewer_bits_is_read_as_indices(tmp_path: Path) -> None:
    ids = two(5, 9)
    image = Image.fromarray(ids)
    image.putpalette(np.arange(48, dtype=np.uint8).tobytes())
    raw = write_viton(tmp_path, {"x": (smooth(HEIGHT, WIDTH), ids)})
    put(raw / "train/image-parse-v3/x.png", encoded(image, "PNG", bits=4))
    _, out = build_folder("viton_hd", raw, tmp_path / "out")
    (members,) = oracle.read_tars(out).values()
    assert np.array_equal(oracle.read_mask(members["mask0.png"]), ids == 5)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_turned_picture(tmp_path: Path, orientation: int) -> None:
    # The map is that of the upright picture; the stored one may lie on its side, or have another shape altogether.
    upright = smooth(HEIGHT, WIDTH)
    stored = {1: upright, 3: upright, 6: smooth(WIDTH, HEIGHT), 8: smooth(WIDTH, HEIGHT)}[orientation]
    data = encoded(stored, exif=with_orientation(orientation), subsampling=0)
    raw = write_viton(tmp_path, {"x": (upright, two()), "y": (smooth(WIDTH, HEIGHT), two())})
    put(raw / "train/image/x.jpg", data)
    manifest, out = build_folder("viton_hd", raw, tmp_path / "out")
    x, y = street_oracle.viton(raw / "train")
    x.rgb = None if orientation == 1 else UPRIGHT[orientation](oracle.read_rgb(data))
    y.fault = "size_mismatch"
    outcome = oracle.Expected("VITONHD", "train", street_oracle.VITON_RULE).compare([x, y], out)
    assert outcome == {"kept": 1, "size_mismatch": 1}
    assert manifest["bad_pictures"][0]["item"] == "y.png"


def test_stray_files_and_odd_names(tmp_path: Path) -> None:
    names = ["-x", "a.b", "a.b.c", "é 日本", "100%", "x" * 120, "sub/x"]
    raw = write_viton(tmp_path, {name: (smooth(HEIGHT, WIDTH, i), two()) for i, name in enumerate(names)})
    put(raw / "train/image/x.jpg", encoded(smooth(HEIGHT, WIDTH, 99)))  # pictures lie in one folder
    folder = raw / "train/image-parse-v3"
    for stray in (".DS_Store", "._x.png", "readme.txt", "x.jpg", "Thumbs.db", "x.png.bak"):
        put(folder / stray, b"\0\1")
    put(raw / "train/image/without map.jpg", encoded(smooth(HEIGHT, WIDTH)))
    _, out = build_folder("viton_hd", tmp_path, tmp_path / "out")
    pictures = street_oracle.viton(raw / "train")
    outcome = oracle.Expected("VITONHD", "train", street_oracle.VITON_RULE).compare(pictures, out)
    assert outcome == {"kept": len(names)}


def test_hidden_folders_are_no_part_of_the_dataset(tmp_path: Path) -> None:
    # Notebooks leave copies of what was opened in them: the same picture again, under another key.
    raw = write_viton(tmp_path, {"x": (smooth(HEIGHT, WIDTH), two())})
    put(raw / "train/image-parse-v3/.ipynb_checkpoints/x.png", png(two()))
    manifest, _ = build_folder("viton_hd", raw, tmp_path / "out")
    assert (manifest["pictures"], manifest["samples"]) == (1, 1)


def test_name_that_is_not_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    raw = write_viton(tmp_path, {name: (smooth(HEIGHT, WIDTH), two()), "x": (smooth(HEIGHT, WIDTH), two())})
    found = told(*build_folder("viton_hd", raw, tmp_path / "out"))
    assert found.keys == ["caf%E9", "x"]


def test_command_names_a_map_in_colours(tmp_path: Path, pics: Callable[..., Any]) -> None:
    raw = write_viton(tmp_path, {"x": (smooth(HEIGHT, WIDTH), two())}, "RGB")
    done = pics("build-shards", "viton_hd", "--raw", raw, "--out", "out", "--workers", 1)
    assert done.returncode == 2
    assert "1 bad_label_map" in done.stderr
    assert "Traceback" not in done.stderr
