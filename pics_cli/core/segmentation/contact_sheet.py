"""A picture of what the model made: boxes, masks and scores, the worst first, to judge a threshold by."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from pics_cli.core.datasets import contact_sheet
from pics_cli.core.datasets.labels import Labelled, block_path, finished_stats, read_block
from pics_cli.core.images.cutouts import SOLID
from pics_cli.core.images.image_io import decode_picture, read_first
from pics_cli.core.images.masks import decode_segmentation
from pics_cli.core.images.sheets import Tile, colour_of, rectangle, shrink, tint
from pics_cli.core.segmentation.boxes import BoxSource
from pics_cli.core.segmentation.job import Job
from pics_cli.core.segmentation.label_folder import options_of
from pics_cli.core.segmentation.preprocessing import boxes_of
from pics_cli.errors import BadSample

# Pictures of a sheet: the worst of all, and beside them some from everywhere, which say what is usual.
WORST, USUAL = 16, 8
# Of a mask's colour: what lies below is to be judged, too.
_TINT = 0.25


class Chosen(NamedTuple):
    """A picture of a block: its number and line, and the lowest score in it."""

    block: int
    line: int
    score: float


def write_sheet(job: Job, path: Path) -> None:
    """Draw the sheet of labels in layout `blocks` into a PNG file."""
    source = boxes_of(job.source)
    blocks = -(-len(source) // options_of(job).block)
    stats = finished_stats(job.state, blocks)
    tiles = [_tile(job, source, stats, each) for each in choose(stats)]
    title = f"{job.source.recipe.name} {job.source.split}: masks by their lowest score"
    contact_sheet.write_sheet(path, title, [tile for tile in tiles if tile is not None])


def choose(stats: list[dict[str, Any]]) -> list[Chosen]:
    """The worst pictures, and some that say what is usual, spread over the blocks; by their lowest scores."""
    every = [Chosen(each["block"], worst["line"], worst["score"]) for each in stats for worst in each["worst"]]
    worst = sorted(every, key=lambda chosen: chosen.score)[:WORST]
    usual = [Chosen(each["block"], **each["usual"]) for each in stats if each["usual"]]
    spread = [each for each in usual[:: max(1, len(usual) // USUAL)] if each not in worst][:USUAL]
    return worst + sorted(spread, key=lambda chosen: chosen.score)


def _tile(job: Job, source: BoxSource, stats: list[dict[str, Any]], chosen: Chosen) -> Tile | None:
    """None where the picture cannot be read any more."""
    try:
        picture = read_block(block_path(job.folder, chosen.block))[chosen.line]
        (of_block,) = (each for each in stats if each["block"] == chosen.block)
        failed = {entry["item"] for entry in of_block["bad"]}
        size = options_of(job).block
        rows = [row for row in range(chosen.block * size, (chosen.block + 1) * size) if row not in failed]
        rgb = decode_picture(read_first(source.picture(rows[chosen.line]).files)).rgb
    except BadSample:
        return None
    return Tile(draw(rgb, picture), captions(picture, chosen))


def draw(rgb: np.ndarray, picture: Labelled) -> np.ndarray:
    """A picture with its annotated boxes, thin, and its masks tinted and outlined, uint8 RGB of a row's height.

    Small masks come last, so that large ones do not hide them.
    """
    small, scale = shrink(rgb)
    for k, each in sorted(enumerate(picture.objects), key=lambda one: -one[1].area):
        if each.area:
            whole = {"size": [picture.height, picture.width], "counts": each.counts}
            mask = decode_segmentation(whole, picture.height, picture.width).full().astype(np.uint8)
            inside = cv2.resize(mask * 255, small.shape[1::-1], interpolation=cv2.INTER_AREA) >= SOLID
            tint(small, inside, colour_of(k), _TINT)
            outlines, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(small, outlines, -1, colour_of(k), 1)
    for k, each in enumerate(picture.objects):
        x0, y0, x1, y1 = each.box
        box = (round(max(x0, 0)), round(max(y0, 0)), round(min(x1, picture.width)), round(min(y1, picture.height)))
        rectangle(small, box, scale, colour_of(k), 1)
        place = (round(box[0] * scale[0]) + 2, round(box[1] * scale[1]) + 11)
        for colour, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            cv2.putText(small, f"{each.score:.2f}", place, cv2.FONT_HERSHEY_SIMPLEX, 0.35, colour, width, cv2.LINE_AA)
    return small


def captions(picture: Labelled, chosen: Chosen) -> tuple[str, ...]:
    """Below a picture: whose it is and its lowest score; what its masks are flagged with."""
    flags = sorted({flag for each in picture.objects for flag in each.flags})
    shown = f"{len(picture.objects)} boxes" + (f": {', '.join(flags)}" if flags else "")
    return f"{picture.file_name or picture.image_id} lowest {chosen.score:.2f}", shown
