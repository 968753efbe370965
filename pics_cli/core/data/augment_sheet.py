"""A picture of how references are varied, for people to look at."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from pics_cli.core.data.augment import Reference
from pics_cli.core.data.cutouts import paste
from pics_cli.core.data.drawing import GAP, Tile, colour_of, draw_sheet
from pics_cli.core.data.pictures import RGB

TITLE = "References: as they are (framed), and varied. Below each, its cut-out on a ground that shows its rim."
_SIDE, _MARGIN, _SQUARE = 144, 8, 12
_LIGHT, _DARK, _FRAME = 150, 110, 200

Row = tuple[str, Reference, Sequence[Reference]]
"""Caption, the reference as it is, and variations of it."""


def draw_augmented(rows: Sequence[Row], title: str = TITLE) -> RGB:
    """One row for each object, uint8 RGB: patch above cut-out, first as it is, then varied."""
    tiles = []
    for caption, original, varied in rows:
        cells = [_cell(original, colour_of(0), 2), *(_cell(one, (_FRAME,) * 3, 1) for one in varied)]
        tiles.append(Tile(np.concatenate(cells, axis=1), (caption,)))
    height = 2 * _SIDE + GAP
    width = max((tile.rgb.shape[1] for tile in tiles), default=0)
    # All as wide as the sheet, so that no two share a row.
    tiles = [Tile(_widened(tile.rgb, width), tile.lines) for tile in tiles]
    return draw_sheet(title, tiles, height, max(width + 2 * GAP, 480))


def _cell(one: Reference, colour: tuple[int, int, int], thickness: int) -> RGB:
    """Patch above cut-out, uint8 RGB, with a gap to the right."""
    cell = np.full((2 * _SIDE + GAP, _SIDE + GAP, 3), 250, np.uint8)
    how = cv2.INTER_AREA if len(one.patch) > _SIDE else cv2.INTER_LINEAR
    patch = cv2.resize(one.patch, (_SIDE, _SIDE), interpolation=how)
    cell[:_SIDE, :_SIDE] = cv2.rectangle(patch, (0, 0), (_SIDE - 1, _SIDE - 1), colour, thickness)
    row, column = np.indices((_SIDE, _SIDE)) // _SQUARE
    ground = np.where((row + column) % 2, _LIGHT, _DARK).astype(np.uint8)[..., None].repeat(3, axis=2)
    paste(ground, (_MARGIN, _MARGIN, _SIDE - _MARGIN, _SIDE - _MARGIN), one.rgba)
    cell[_SIDE + GAP // 2 : 2 * _SIDE + GAP // 2, :_SIDE] = ground
    return cell


def _widened(rgb: RGB, width: int) -> RGB:
    short = width - rgb.shape[1]
    return cv2.copyMakeBorder(rgb, 0, 0, 0, short, cv2.BORDER_CONSTANT, value=(250, 250, 248)).astype(np.uint8)
