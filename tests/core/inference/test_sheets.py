"""Sheets of any number of objects and any shape of picture."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.composites import scene, thing
from pics_cli.core.images.sheets import object_colour
from pics_cli.core.inference import sheets
from pics_cli.core.inference.sample import CompositeSample

SHAPES = [(120, 96), (600, 60), (50, 300), (1, 1)]


@pytest.mark.parametrize("size", SHAPES)
@pytest.mark.parametrize("objects", [1, 2, 5])
def test_grids_show_every_object_and_result(size: tuple[int, int], objects: int) -> None:
    background = np.asarray(scene(size))
    references = [np.asarray(thing(k, (30 + 40 * k, 50), alpha=k % 2 == 0)) for k in range(objects)]
    results = [("one", background), ("another", background)]
    boxes = [(0, 0, size[0], size[1])] * objects
    sample = CompositeSample("name", background, tuple(boxes), tuple(references))
    sheet = sheets.draw_grid(sample, results)
    assert sheet.dtype == np.uint8
    for k in range(min(objects, 4)):
        assert (sheet == np.array(object_colour(k))).all(2).any()
    with_one = sheets.draw_grid(sample, results[:1])
    assert not np.array_equal(sheet, with_one)


@pytest.mark.parametrize("size", SHAPES[:3])
def test_regions_mark_their_boxes(size: tuple[int, int]) -> None:
    window = np.full((size[1], size[0], 3), 128, np.uint8)
    half = (0, 0, size[0] // 2, size[1])
    sheet = sheets.draw_regions("name", window, [half, (size[0] // 2, 0, *size)], [1, 0])
    for k in range(2):
        mixed = (128 * 0.65 + np.array(object_colour(k)) * 0.35).astype(np.uint8)
        assert (np.abs(sheet.astype(int) - mixed).max(2) <= 1).sum() > 1000


def test_alpha_shows_weights_at_overlaps_alone() -> None:
    alpha = np.full((2, 16, 16), np.nan, np.float32)
    alpha[0, 4:8, 4:8], alpha[1, 4:8, 4:8] = 1, 0
    window = np.full((64, 64, 3), 100, np.uint8)
    sheet = sheets.draw_alpha("name", window, alpha)
    tile = sheet[44 : 44 + sheets.HEIGHT, 10 : 10 + sheets.HEIGHT]
    cell = sheets.HEIGHT // 16
    assert (tile[4 * cell : 8 * cell, 4 * cell : 8 * cell] == object_colour(0)).all()
    assert (tile[: 4 * cell] == 35).all()
    other = sheet[44 : 44 + sheets.HEIGHT, 20 + sheets.HEIGHT :]
    assert (other[5 * cell, 5 * cell] == 0).all()
    nowhere = sheets.draw_alpha("name", window, np.full((3, 16, 16), np.nan, np.float32))
    assert not (nowhere == np.array(object_colour(0))).all(2).any()


def test_routing_mixes_the_colours_of_overlaps() -> None:
    codes = np.zeros((8, 8), np.int64)
    codes[:4], codes[2:4, :4], codes[6:] = 1, 3, 0b100000
    window = np.zeros((30, 60, 3), np.uint8)
    sheet = sheets.draw_routing("name", window, [("8x8", codes), ("4x4", codes[::2, ::2])])
    cell = sheets.HEIGHT // 8
    tile = sheet[44 : 44 + sheets.HEIGHT, 20 + 2 * sheets.HEIGHT :]
    assert tuple(tile[0, 0]) == object_colour(0)
    assert tuple(tile[7 * cell, 0]) == object_colour(5)
    both = np.mean([object_colour(0), object_colour(1)], axis=0).astype(np.uint8)
    assert (tile[2 * cell + 1, 1] == both).all()
