"""Contact sheet of labels: boxes, masks and scores of the worst and of typical images, for choosing `min_score`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from pics_cli.core.datasets import contact_sheet
from pics_cli.core.datasets.labels import LabelledImage, block_path, finished_stats, read_block
from pics_cli.core.images.cutouts import OPAQUE_ALPHA
from pics_cli.core.images.image_io import decode_image, read_first_existing
from pics_cli.core.images.masks import decode_segmentation
from pics_cli.core.images.sheets import Tile, draw_box, fit_height, object_colour, tint
from pics_cli.core.segmentation.blocks import AnnotationJob, BlockPlan
from pics_cli.core.segmentation.boxes import BoxSource
from pics_cli.core.segmentation.preprocessing import box_source_of
from pics_cli.errors import BadSample

# Images of a sheet: those with the lowest scores, and typical ones from the whole dataset.
WORST, USUAL = 16, 8
# Opacity of a mask's colour, under which the object must stay visible.
_TINT = 0.25


class ChosenImage(NamedTuple):
    """An image in a block: the block's number, the line in its file, and the lowest score of its labels."""

    block: int
    line: int
    score: float


def write_sheet(job: AnnotationJob, path: Path) -> None:
    """Draw the sheet of labels in layout `blocks` into a PNG file."""
    source = box_source_of(job.source)
    plan = BlockPlan(job, len(source))
    stats = finished_stats(job.state, plan.count)
    tiles = [_tile(plan, source, stats, chosen) for chosen in choose_images(stats)]
    title = f"{job.source.recipe.name} {job.source.split}: masks by their lowest score"
    contact_sheet.write_sheet(path, title, [tile for tile in tiles if tile is not None])


def choose_images(stats: list[dict[str, Any]]) -> list[ChosenImage]:
    """The worst images, then typical ones spread over the blocks; both parts sorted by lowest score."""
    candidates = [
        ChosenImage(block["block"], worst["line"], worst["score"]) for block in stats for worst in block["worst"]
    ]
    worst = sorted(candidates, key=lambda chosen: chosen.score)[:WORST]
    usual = [ChosenImage(block["block"], **block["usual"]) for block in stats if block["usual"]]
    spread = [image for image in usual[:: max(1, len(usual) // USUAL)] if image not in worst][:USUAL]
    return worst + sorted(spread, key=lambda chosen: chosen.score)


def _tile(plan: BlockPlan, source: BoxSource, stats: list[dict[str, Any]], chosen: ChosenImage) -> Tile | None:
    """None where the image cannot be read any more."""
    try:
        picture = read_block(block_path(plan.job.folder, chosen.block))[chosen.line]
        (block_stats,) = (block for block in stats if block["block"] == chosen.block)
        failed = {entry["item"] for entry in block_stats["bad"]}
        rows = [row for row in plan.rows(chosen.block) if row not in failed]
        rgb = decode_image(read_first_existing(source.picture(rows[chosen.line]).files)).rgb
    except BadSample:
        return None
    return Tile(draw_labels(rgb, picture), captions(picture, chosen))


def draw_labels(rgb: np.ndarray, picture: LabelledImage) -> np.ndarray:
    """An image with its annotated boxes and its masks, tinted and outlined, uint8 [h, w, 3] of a row's height.

    Small masks are drawn last, so that large ones do not hide them.
    """
    small, scale = fit_height(rgb)
    for k, label in sorted(enumerate(picture.objects), key=lambda item: -item[1].area):
        if label.area:
            rle = {"size": [picture.height, picture.width], "counts": label.counts}
            mask = decode_segmentation(rle, picture.height, picture.width).full().astype(np.uint8)
            inside = cv2.resize(mask * 255, small.shape[1::-1], interpolation=cv2.INTER_AREA) >= OPAQUE_ALPHA
            tint(small, inside, object_colour(k), _TINT)
            outlines, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(small, outlines, -1, object_colour(k), 1)
    for k, label in enumerate(picture.objects):
        x0, y0, x1, y1 = label.box
        box = (round(max(x0, 0)), round(max(y0, 0)), round(min(x1, picture.width)), round(min(y1, picture.height)))
        draw_box(small, box, scale, object_colour(k), 1)
        corner = (round(box[0] * scale[0]) + 2, round(box[1] * scale[1]) + 11)
        for colour, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            cv2.putText(small, f"{label.score:.2f}", corner, cv2.FONT_HERSHEY_SIMPLEX, 0.35, colour, width, cv2.LINE_AA)
    return small


def captions(picture: LabelledImage, chosen: ChosenImage) -> tuple[str, ...]:
    """Two lines below an image: its name and lowest score; its number of boxes and the flags of its labels."""
    flags = sorted({flag for label in picture.objects for flag in label.flags})
    shown = f"{len(picture.objects)} boxes" + (f": {', '.join(flags)}" if flags else "")
    return f"{picture.file_name or picture.image_id} lowest {chosen.score:.2f}", shown
