"""A sheet of composites of drawn scenes: the background, the references, the truth, and every method's picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pics_cli.core.data.drawing import GAP, Tile, colour_of, column, draw_sheet, on_white, rectangle, shrink
from pics_cli.core.data.pictures import RGB
from pics_cli.core.evaluation.case import Case

HEIGHT = 256


class Shown(NamedTuple):
    """A scene of the sheet: why it is there, the scene, and by method a picture and what is written below it."""

    why: str
    case: Case
    results: Mapping[str, tuple[RGB, str]]


def draw_results(title: str, shown: Sequence[Shown]) -> RGB:
    """One row a scene: uint8 RGB."""
    rows = [_row(one) for one in shown]
    wide = max(sum(tile.rgb.shape[1] + GAP for tile in row) for row in rows)
    # Filled up to one width, so that a row never takes in the next one's first picture.
    tiles = []
    for row in rows:
        last = row[-1]
        left = wide - sum(tile.rgb.shape[1] + GAP for tile in row)
        tiles += [*row[:-1], Tile(np.pad(last.rgb, ((0, 0), (0, left), (0, 0)), constant_values=250), last.lines)]
    return draw_sheet(title, tiles, HEIGHT, wide + 2 * GAP)


def _row(one: Shown) -> list[Tile]:
    scene = one.case
    clean, scale = shrink(scene.background, HEIGHT)
    for k, region in enumerate(one.case.regions):
        rectangle(clean, region, scale, colour_of(k), 1)
    references = column([on_white(each) for each in scene.references], HEIGHT)
    tiles = [
        Tile(clean, (f"{one.why}: scene {one.case.key}", one.case.relation)),
        Tile(references, ("references",)),
        Tile(shrink(scene.truth, HEIGHT)[0], ("truth",)),
    ]
    return tiles + [Tile(shrink(rgb, HEIGHT)[0], (name, text)) for name, (rgb, text) in one.results.items()]
