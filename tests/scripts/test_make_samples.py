"""`scripts/make_samples.py` and the folders that it made, which come with the package."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from helpers.in_process import run_script
from make_samples import RENDERED, SCENES, SIZE
from pics_cli.core.images.cutouts import cut_out
from pics_cli.core.images.geometry import order_by_lower_edge
from pics_cli.core.inference.inputs import decode, find_folders, list_sample, read_parts
from pics_cli.core.inference.sample import CompositeSample
from pics_cli.core.scenes.drawn.photos import load_photo
from sample_drawing import cup

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "make_samples.py"
BUNDLED = ROOT / "pics_cli" / "samples"
# By name: the number of objects.
COUNTS = {name: len(scene.objects) for name, scene in SCENES.items()}
COUNTS |= {name: len(scene.objects) for name, scene in RENDERED.items()}
REDRAWN = ("fruit_in_bowl", "espresso_and_lemon", "bowl_on_table_egg_behind")


def read(name: str) -> CompositeSample:
    files = list_sample(BUNDLED / name, None)
    return decode(files, read_parts(files))


def rim(rgba: np.ndarray) -> tuple[float, float]:
    """Shares of the half-transparent pixels that are lighter, and darker, than all nearly opaque ones around them."""
    rgb, alpha = rgba[..., :3].astype(int), rgba[..., 3]
    solid = (alpha >= 250)[..., None]
    around = np.ones((7, 7), np.uint8)
    high = cv2.dilate(np.where(solid, rgb, 0).astype(np.uint8), around).astype(int)
    low = cv2.erode(np.where(solid, rgb, 255).astype(np.uint8), around).astype(int)
    edge = (alpha >= 48) & (alpha < 250)
    lighter, darker = ((off.max(axis=2)[edge] > 40).mean() for off in (rgb - high, low - rgb))
    return float(lighter), float(darker)


def slits(rgba: np.ndarray) -> int:
    """Pixels that show what is behind, with nearly opaque ones within 4 px on two opposite sides."""
    solid, alpha = np.pad(rgba[..., 3] >= 250, 4), np.pad(rgba[..., 3], 4)
    between = np.zeros(alpha.shape, bool)
    for axis in (0, 1):
        sides = [np.any([np.roll(solid, sign * step, axis) for step in range(1, 5)], axis=0) for sign in (1, -1)]
        between |= sides[0] & sides[1]
    return int(np.count_nonzero(between & (alpha < 128)))


def test_the_bundled_folders_are_those_that_the_script_names() -> None:
    folders = find_folders(BUNDLED)
    assert [folder.name for folder in folders] == sorted(COUNTS)
    counts = list(COUNTS.values())
    assert counts.count(2) >= 6
    assert counts.count(3) == 1


@pytest.mark.parametrize("name", REDRAWN)
def test_drawing_again_writes_what_is_bundled(name: str, tmp_path: Path) -> None:
    assert run_script(SCRIPT, "--out", tmp_path, "--only", name).returncode == 0
    assert sorted(p.name for p in (tmp_path / name).iterdir()) == sorted(p.name for p in (BUNDLED / name).iterdir())
    for path in (tmp_path / name).iterdir():
        drawn, bundled = (np.asarray(Image.open(each), int) for each in (path, BUNDLED / name / path.name))
        assert drawn.shape == bundled.shape
        # Drawn in float32, which CPUs round differently: single pixels of an outline may be another step lighter.
        assert np.abs(drawn - bundled).max() <= 8, path.name
        assert np.abs(drawn - bundled).mean() < 0.01, path.name


def test_rendered_ones_need_their_raw_material(tmp_path: Path) -> None:
    done = run_script(SCRIPT, "--out", tmp_path, "--only", "milk_on_clothes")
    assert done.returncode == 2
    assert "name its raw material with --raw" in done.stderr


def test_a_second_run_writes_the_same_bytes_over_the_first(tmp_path: Path) -> None:
    seen = []
    for _ in range(2):
        run_script(SCRIPT, "--out", tmp_path, "--only", "egg_in_cup")
        seen.append({path.name: path.read_bytes() for path in (tmp_path / "egg_in_cup").iterdir()})
    assert seen[0] == seen[1]


@pytest.mark.parametrize("name", COUNTS)
def test_a_sample_reads_as_objects_with_regions_in_the_picture(name: str) -> None:
    inputs = read(name)
    assert inputs.background.shape == (SIZE, SIZE, 3)
    assert len(inputs.references) == len(inputs.boxes) == COUNTS[name]
    for (x0, y0, x1, y1), rgba in zip(inputs.boxes, inputs.references, strict=True):
        assert 0 <= x0 < x1 <= SIZE
        assert 0 <= y0 < y1 <= SIZE
        assert max(x1 - x0, y1 - y0) >= 0.25 * SIZE
        # The region has about its object's shape; where it ends with the picture, somewhat less.
        height, width = cut_out(rgba).shape[:2]
        assert 0.83 < (x1 - x0) / (y1 - y0) * height / width < 1.2


@pytest.mark.parametrize("name", COUNTS)
def test_masks_are_one_bit_rectangles_and_no_picture_of_the_result_is_there(name: str) -> None:
    names = {path.name for path in (BUNDLED / name).iterdir()}
    count = COUNTS[name]
    wanted = {"image.jpg"} | {f"object_{k}{part}.png" for k in range(count) for part in ("", "_mask")}
    assert names == wanted
    for k, (x0, y0, x1, y1) in enumerate(read(name).boxes):
        with Image.open(BUNDLED / name / f"object_{k}_mask.png") as mask:
            assert mask.mode == "1"
            values = np.asarray(mask)
        assert values[y0:y1, x0:x1].all()
        assert np.count_nonzero(values) == (x1 - x0) * (y1 - y0)


@pytest.mark.parametrize("name", COUNTS)
def test_references_have_clean_edges_and_none_at_their_frames(name: str) -> None:
    for rgba in read(name).references:
        alpha = rgba[..., 3]
        assert rgba.shape[2] == 4
        assert not alpha[[0, -1]].any()
        assert not alpha[:, [0, -1]].any()
        assert 0.2 < np.count_nonzero(alpha == 255) / alpha.size < 0.9
        lighter, darker = rim(rgba)
        # A halo; the lip of a vessel, or a thin leg in the sun, is a light line of its own.
        assert lighter <= (0.05 if name in RENDERED else 0.04)
        assert darker <= 0.15  # the outer wall of a vessel is seen as a line of its own there
        assert slits(rgba) <= (25 if name in RENDERED else 20)  # corners where a handle meets its vessel, legs a seat


def test_the_edge_checks_see_a_white_rim_and_a_slit() -> None:
    rgba = read("egg_in_cup").references[1].copy()
    rgba[150, 100:120, 3] = 0
    assert slits(rgba) == 20
    rgba[(rgba[..., 3] > 0) & (rgba[..., 3] < 250), :3] = 255
    assert rim(rgba)[0] > 0.1


def test_nothing_of_the_table_is_in_the_cup_cut_out_of_the_photograph() -> None:
    at_full_size = cup(404)
    assert at_full_size.shape[0] == pytest.approx(373, abs=4)
    picture = load_photo("coffee.png")
    # The table, in the photograph's lower left, beside the saucer; and the cup's own inside, which is there unchanged.
    assert not at_full_size[-40:, :40, 3].any()
    middle = at_full_size[110:130, 200:220]
    assert (middle[..., 3] == 255).all()
    where = cv2.matchTemplate(picture, np.ascontiguousarray(middle[..., :3]), cv2.TM_SQDIFF_NORMED)
    assert where.min() < 0.002


def test_telling_where_the_usual_order_of_pasting_is_wrong() -> None:
    """Where an object carries or holds another one, its region reaches lower, so that a paste hides the other one."""
    for name, carrier in (("fruit_in_bowl", 0), ("jug_on_table", 1), ("cup_on_stool", 0), ("egg_in_cup", 0)):
        assert order_by_lower_edge(read(name).boxes)[-1] == carrier, name


def test_all_samples_are_small() -> None:
    assert sum(path.stat().st_size for path in BUNDLED.rglob("*") if path.is_file()) < 2_500_000
