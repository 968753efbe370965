"""Masks equal the oracle's, pixel for pixel."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from helpers.oracle import Bools, art, draw, mask_to_runs, pack_counts, runs_to_mask, tight_box, unpack_counts
from pics_cli.core.images.masks import BoxMask, box_mask, decode_mask_png, decode_segmentation
from pics_cli.errors import BadSample

PICTURES = {
    "rectangle": (
        [[2, 1, 6, 1, 6, 4, 2, 4]],
        """
        ........
        ..####..
        ..####..
        ..####..
        ........""",
    ),
    "two parts, of which one pixel": (
        [[0, 0, 3, 0, 3, 2, 0, 2], [6, 3, 7, 3, 7, 4, 6, 4]],
        """
        ###.....
        ###.....
        ........
        ......#.
        ........""",
    ),
    "parts that overlap are a union, not a hole": (
        [[0, 0, 5, 0, 5, 3, 0, 3], [3, 1, 8, 1, 8, 5, 3, 5]],
        """
        #####...
        ########
        ########
        ...#####
        ...#####""",
    ),
    "over every border": (
        [[-5, -5, 20, -5, 20, 20, -5, 20]],
        """
        ########
        ########
        ########
        ########
        ########""",
    ),
    "over the left and upper border": (
        [[-3, -2, 2, -2, 2, 3, -3, 3]],
        """
        ##......
        ##......
        ##......
        ........
        ........""",
    ),
    "over the right and lower border": (
        [[6, 3, 30, 3, 30, 9, 6, 9]],
        """
        ........
        ........
        ........
        ......##
        ......##""",
    ),
    "one wide, whole height": (
        [[3, 0, 4, 0, 4, 5, 3, 5]],
        """
        ...#....
        ...#....
        ...#....
        ...#....
        ...#....""",
    ),
    "one tall, whole width": (
        [[0, 4, 8, 4, 8, 5, 0, 5]],
        """
        ........
        ........
        ........
        ........
        ########""",
    ),
    "staircase": (
        [[0, 0, 2, 0, 2, 2, 4, 2, 4, 4, 0, 4]],
        """
        ##......
        ##......
        ####....
        ####....
        ........""",
    ),
    "a degenerate part beside a good one": (
        [[1, 1], [1, 1, 5, 4], [2, 1, 6, 1, 6, 4, 2, 4], [0, 0, 8, 0, 8, 5, 0]],
        """
        ........
        ..####..
        ..####..
        ..####..
        ........""",
    ),
}
RING = art("""
    ........
    .######.
    .#....#.
    .######.
    ........""")


def decode(segmentation: Any, height: int, width: int) -> BoxMask:
    """Decode and check that what comes back is consistent in itself."""
    found = decode_segmentation(segmentation, height, width)
    full = found.full()
    assert full.dtype == np.bool_
    assert full.shape == (height, width)
    assert found.pixels.dtype == np.bool_
    assert found.pixels.flags.c_contiguous
    assert found.area == full.sum()
    assert found.box == (tight_box(full) if full.any() else (0, 0, 0, 0))
    assert np.array_equal(decode_mask_png(found.png(), "mask0.png", full.shape[::-1]), full)
    return found


def same_as_oracle(segmentation: Any, height: int, width: int) -> None:
    assert np.array_equal(decode(segmentation, height, width).full(), draw(segmentation, height, width))


@pytest.mark.parametrize("name", PICTURES)
def test_polygons_drawn_by_hand(name: str) -> None:
    polygons, text = PICTURES[name]
    expected = art(text)
    assert np.array_equal(decode(polygons, 5, 8).full(), expected)
    assert np.array_equal(draw(polygons, 5, 8), expected)


COORDINATE = st.one_of(st.integers(-30, 70), st.floats(-30, 70).map(lambda v: round(v, 2)))
PART = st.lists(COORDINATE, min_size=0, max_size=16)
GOOD_PART = st.lists(st.tuples(COORDINATE, COORDINATE), min_size=3, max_size=12).map(
    lambda p: [v for xy in p for v in xy]
)
SIDE = st.integers(1, 40)


@settings(max_examples=150, deadline=None)
@given(st.lists(PART, max_size=3), GOOD_PART, SIDE, SIDE)
def test_polygons_of_any_shape(parts: list[list[float]], good: list[float], height: int, width: int) -> None:
    # Parts of any length, good or not, before and after one that can be drawn.
    same_as_oracle([*parts, good], height, width)
    same_as_oracle([good, *parts], height, width)


@pytest.mark.parametrize(
    "polygons", [[], [[]], [[3, 4]], [[3, 4, 5, 6]], [[1, 1, 5, 1, 5, 5, 1]], [[], [1, 2], [0] * 5]]
)
def test_polygons_without_three_points_are_bad(polygons: list[list[float]]) -> None:
    with pytest.raises(BadSample) as error:
        decode_segmentation(polygons, 10, 10)
    assert error.value.reason == "bad_mask"


@pytest.mark.parametrize("polygons", [[[50, 50, 60, 50, 60, 60]], [[-9, -9, -3, -9, -3, -3]], [[4, 4, 4, 4, 4, 4]]])
def test_polygon_that_covers_nothing_is_an_empty_mask(polygons: list[list[float]]) -> None:
    found = decode(polygons, 10, 12)
    assert (found.box, found.area, found.full().any()) == ((0, 0, 0, 0), 0, False)
    same_as_oracle(polygons, 10, 12)


@pytest.mark.parametrize("value", [None, "3", float("nan"), float("inf"), [1]])
def test_polygon_coordinates_that_are_no_numbers_are_bad(value: object) -> None:
    with pytest.raises(BadSample) as error:
        decode_segmentation([[value, 1, 5, 1, 5, 5]], 10, 10)
    assert error.value.reason == "bad_mask"


@pytest.mark.parametrize("value", [1e8, -1e8, 1e9, 1e300])
def test_coordinates_far_out_of_any_frame_do_no_harm(value: float) -> None:
    # In a process of its own with bounded memory: pycocotools needs 40 bytes for every pixel of the outline's length,
    # does not look whether it got them, and counts in 32 bits.
    code = (
        "import resource\n"
        "from pics_cli.core.images.masks import decode_segmentation\n"
        "from pics_cli.errors import BadSample\n"
        "resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))\n"
        f"try: print(decode_segmentation([[0, 0, {value!r}, 0, {value!r}, 5, 0, 5]], 10, 12).box)\n"
        "except BadSample as error: print(error.reason)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr[-300:]
    clipped = "(0, 0, 12, 5)" if value > 0 else "(0, 0, 0, 0)"
    assert done.stdout.strip() in ("bad_mask", clipped)


def test_oracle_reads_and_writes_compressed_counts() -> None:
    # Worked out by hand from the format: 16 needs a second character because its fifth bit would be a sign; the fourth
    # count is stored as the difference to the second.
    known = {"0?": [0, 15], "`0": [16], "Xo0": [1000], "572L": [5, 7, 2, 3], "33300": [3, 3, 3, 3, 3]}
    for text, counts in known.items():
        assert (pack_counts(counts), unpack_counts(text)) == (text, counts)


MASK = st.tuples(st.integers(1, 24), st.integers(1, 24), st.integers(0, 2**32 - 1), st.floats(0, 1))


def random_mask(height: int, width: int, seed: int, share: float) -> Bools:
    return np.random.default_rng(seed).random((height, width)) < share


@settings(max_examples=150, deadline=None)
@given(MASK)
def test_run_lengths_of_any_mask(parameters: tuple[int, int, int, float]) -> None:
    mask = random_mask(*parameters)
    height, width = mask.shape
    counts = mask_to_runs(mask)
    official = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    assert pack_counts(counts) == official.decode()
    for form in (counts, official, official.decode()):
        assert np.array_equal(decode({"size": [height, width], "counts": form}, height, width).full(), mask)
        assert np.array_equal(draw({"size": [height, width], "counts": form}, height, width), mask)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.integers(1, 7))
def test_list_run_lengths_with_zeros_anywhere(counts: list[int], height: int) -> None:
    counts = [*counts, -sum(counts) % height or height]
    width = sum(counts) // height
    mask = runs_to_mask(counts, height, width)
    assert np.array_equal(decode({"size": [height, width], "counts": counts}, height, width).full(), mask)
    packed = {"size": [height, width], "counts": pack_counts(counts)}
    assert np.array_equal(decode(packed, height, width).full(), mask)


def test_long_runs_in_a_large_frame() -> None:
    mask = np.zeros((900, 700), bool)
    mask[3:880, 5:690] = True
    mask[100:700, 200:500] = False
    official = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    for counts in (mask_to_runs(mask), official, official.decode()):
        assert np.array_equal(decode({"size": [900, 700], "counts": counts}, 900, 700).full(), mask)


def test_hole_stays_a_hole() -> None:
    counts = mask_to_runs(RING)
    assert counts[:4] == [6, 3, 2, 1]
    found = decode({"size": [5, 8], "counts": counts}, 5, 8)
    assert np.array_equal(found.full(), RING)
    assert (found.area, found.box) == (14, (1, 1, 7, 4))


@pytest.mark.parametrize("counts", [[0, 40], [0, 1, 39], [0, 0, 0, 40], [39, 1], [40]])
def test_list_run_lengths_at_the_ends(counts: list[int]) -> None:
    same_as_oracle({"size": [5, 8], "counts": counts}, 5, 8)


@pytest.mark.parametrize("y", [0, 2, 4])
@pytest.mark.parametrize("x", [0, 3, 7])
def test_single_pixel(x: int, y: int) -> None:
    mask = np.zeros((5, 8), bool)
    mask[y, x] = True
    found = decode({"size": [5, 8], "counts": mask_to_runs(mask)}, 5, 8)
    assert found.box == (x, y, x + 1, y + 1)
    assert np.array_equal(found.full(), mask)


@pytest.mark.parametrize("size", [[8, 5], [5, 9], [40, 1], [], None, [5], [5, 8, 1], "5x8"])
@pytest.mark.parametrize("counts", [[40], "X1", b"X1"])
def test_run_lengths_for_another_size_are_bad(size: object, counts: object) -> None:
    with pytest.raises(BadSample) as error:
        decode_segmentation({"size": size, "counts": counts}, 5, 8)
    assert error.value.reason == "bad_mask"


def bad_counts(counts: object) -> None:
    with pytest.raises(BadSample) as error:
        decode_segmentation({"size": [5, 8], "counts": counts}, 5, 8)
    assert error.value.reason == "bad_mask"


@pytest.mark.parametrize(
    "counts", [[], [39], [41], [0, 39], [20, 21], [10**12], [-1, 41], [20, -5, 25], [40.0], [None], ["40"]]
)
def test_list_run_lengths_that_do_not_add_up_are_bad(counts: list[Any]) -> None:
    bad_counts(counts)


@pytest.mark.parametrize("counts", [[41], [20, 10, 11], [0, 10**7], [2**32 - 1, 41]])
def test_compressed_run_lengths_that_are_too_long_are_bad(counts: Sequence[int]) -> None:
    bad_counts(pack_counts(counts))
    bad_counts(pack_counts(counts).encode())


@pytest.mark.parametrize("counts", [[], [39], [10, 10], [0, 1], [0, 0, 0]])
def test_compressed_run_lengths_that_are_too_short_are_bad(counts: Sequence[int]) -> None:
    # pycocotools leaves the rest of its buffer as it found it: whatever lay in memory.
    bad_counts(pack_counts(counts))
    bad_counts(pack_counts(counts).encode())


@pytest.mark.parametrize("counts", ["é", "~~~~", "\x00", "zzzzzzzzzzzzzzzzzz", pack_counts([20, -5, 25])])
def test_compressed_run_lengths_that_are_nonsense_are_bad(counts: str) -> None:
    bad_counts(counts)


@pytest.mark.parametrize(
    "segmentation", [None, 3, "abc", {}, {"size": [5, 8]}, {"counts": [40]}, {"size": [5, 8], "counts": 3}]
)
def test_other_things_are_bad(segmentation: object) -> None:
    with pytest.raises(BadSample) as error:
        decode_segmentation(segmentation, 5, 8)
    assert error.value.reason == "bad_mask"


@settings(max_examples=80, deadline=None)
@given(MASK, st.sampled_from(["C", "F"]), st.sampled_from([np.bool_, np.uint8]))
def test_box_mask_of_any_array(parameters: tuple[int, int, int, float], order: Any, kind: type) -> None:
    mask = random_mask(*parameters)
    found = box_mask(np.array(mask, kind, order=order))
    assert np.array_equal(found.full(), mask)
    assert found.box == (tight_box(mask) if mask.any() else (0, 0, 0, 0))
    assert (found.height, found.width) == mask.shape


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (7, 8), (5, 9)])
def test_png_has_one_bit_a_pixel(shape: tuple[int, int]) -> None:
    mask = random_mask(*shape, seed=3, share=0.5)
    mask[0, 0] = True
    image = Image.open(io.BytesIO(box_mask(mask).png()))
    assert (image.format, image.mode, image.size) == ("PNG", "1", (shape[1], shape[0]))
    assert np.array_equal(np.asarray(image), mask)


def test_mask_png_is_set_above_half_of_the_range() -> None:
    file = io.BytesIO()
    Image.fromarray(np.array([[0, 1, 127, 128, 254, 255]], np.uint8)).save(file, "PNG")
    assert decode_mask_png(file.getvalue(), "mask0.png", (6, 1)).tolist() == [[False, False, False, True, True, True]]


@pytest.mark.parametrize("data", [b"", b"no picture", b"\x89PNG\r\n\x1a\n"])
def test_mask_png_that_is_none_is_bad(data: bytes) -> None:
    with pytest.raises(BadSample) as error:
        decode_mask_png(data, "mask0.png", (6, 1))
    assert error.value.reason == "bad_mask"
