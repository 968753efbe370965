"""A picture of what a build made: chosen pairs with boxes, masks and patches, and pictures it skipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pics_cli.core.data.assemble import build_sample
from pics_cli.core.data.blocks import Candidate
from pics_cli.core.data.job import Input
from pics_cli.core.data.pairs import is_candidate
from pics_cli.core.data.pictures import RGB, decode_picture, encode_png
from pics_cli.core.data.readers import Reader
from pics_cli.core.data.samples import Sample, decode_sample, unescape_key
from pics_cli.core.data.scene import Item, Scene, Skip
from pics_cli.core.data.shards import read_shard
from pics_cli.core.files import AtomicFile, make_folder
from pics_cli.core.geometry import Box
from pics_cli.core.recipe import Pairs
from pics_cli.errors import BadSample

HEIGHT, GAP, CAPTION, WIDTH = 240, 10, 38, 1500
SHEET_SAMPLES = 25
COLOURS = ((230, 60, 50), (40, 110, 230), (40, 170, 70), (240, 170, 30))
GREY = (120, 120, 120)
_INK, _PAPER = (30, 30, 30), (250, 250, 248)


@dataclass(frozen=True)
class Tile:
    """One picture of the sheet, uint8 RGB of the sheet's row height, with up to two lines below it."""

    rgb: RGB
    lines: tuple[str, ...]


def sample_tile(sample: Sample) -> Tile:
    """Background with masks tinted and boxes drawn; beside it the patches and, where there are any, the other views."""
    rgb, scale = _shrink(sample.background)
    for mask, colour in zip(sample.masks, COLOURS, strict=False):
        small = cv2.resize(mask.astype(np.uint8), rgb.shape[1::-1], interpolation=cv2.INTER_AREA)
        inside = small > 0
        rgb[inside] = (rgb[inside] * 0.8 + np.array(colour) * 0.2).astype(np.uint8)
        cv2.drawContours(rgb, cv2.findContours(small, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)[0], -1, colour, 1)
    for mask, colour in zip(sample.masks, COLOURS, strict=False):
        x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
        _rectangle(rgb, (x, y, x + width, y + height), scale, colour, 2)
    columns = [_column(sample.references)]
    if any(alternate is not None for alternate in sample.alternates):
        columns.append(_column([None if other is None else _on_white(other) for other in sample.alternates]))
    lines = [unescape_key(sample.key)]
    if sample.meta:
        names = " + ".join(str(thing["category"] or "object") for thing in sample.meta["objects"])
        pairs = sample.meta["pairs"][:1]
        lines.append(names + "".join(f", IoU {pair['iou']:.2f}, {pair['relation']}" for pair in pairs))
    return Tile(np.concatenate([rgb, *columns], axis=1), tuple(lines))


def _on_white(rgba: RGB) -> RGB:
    alpha = rgba[..., 3:].astype(np.float32) / 255
    return (rgba[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)


def _column(patches: Sequence[RGB | None]) -> RGB:
    """Patches below each other, framed in their objects' colours."""
    side = HEIGHT // max(2, len(patches))
    column = np.full((HEIGHT, side, 3), 255, np.uint8)
    for k, (patch, colour) in enumerate(zip(patches, COLOURS, strict=False)):
        if patch is not None:
            small = cv2.resize(patch, (side, side), interpolation=cv2.INTER_AREA)
            cv2.rectangle(small, (0, 0), (side - 1, side - 1), colour, 2)
            column[k * side : (k + 1) * side] = small
    return column


def skip_tile(scene: Scene, reason: str, rule: Pairs, detail: str = "") -> Tile:
    """A skipped picture with its annotated boxes: candidates in orange, the others grey."""
    try:
        rgb, scale = _shrink(decode_picture(scene.read()).rgb)
    except BadSample:
        rgb, scale = _shrink(np.full((scene.height, scene.width, 3), 225, np.uint8))
    for instance in scene.instances:
        x0, y0, x1, y1 = instance.box
        candidate = is_candidate(instance, scene, rule)
        box = (int(max(x0, 0)), int(max(y0, 0)), int(min(x1, scene.width)), int(min(y1, scene.height)))
        _rectangle(rgb, box, scale, COLOURS[3] if candidate else GREY, 2 if candidate else 1)
    return Tile(rgb, (f"{'bad' if detail else 'skipped'}: {reason}", f"{scene.key} {detail}"))


def draw_sheet(title: str, tiles: Sequence[Tile]) -> RGB:
    """Lay tiles out in rows under a title: uint8 RGB."""
    rows: list[list[Tile]] = [[]]
    for tile in tiles:
        if rows[-1] and sum(other.rgb.shape[1] + GAP for other in rows[-1]) + tile.rgb.shape[1] > WIDTH - 2 * GAP:
            rows.append([])
        rows[-1].append(tile)
    sheet = Image.new("RGB", (WIDTH, 44 + len(rows) * (HEIGHT + CAPTION + GAP) + GAP), _PAPER)
    draw, font, large = ImageDraw.Draw(sheet), ImageFont.load_default(13), ImageFont.load_default(20)
    draw.text((GAP, GAP), title, _INK, large)
    for at, row in enumerate(rows):
        x, y = GAP, 44 + at * (HEIGHT + CAPTION + GAP)
        for tile in row:
            sheet.paste(Image.fromarray(tile.rgb), (x, y))
            for line, text in enumerate(tile.lines):
                draw.text((x, y + HEIGHT + 2 + 17 * line), _fit(draw, text, tile.rgb.shape[1], font), _INK, font)
            x += tile.rgb.shape[1] + GAP
    return np.asarray(sheet)


def tiles_of_shards(folder: Path, shards: Sequence[Mapping[str, Any]]) -> list[Tile]:
    """Samples from up to four shards of a manifest, as a reader of the shards gets them."""
    chosen = shards[:: max(1, len(shards) // 4)][:4]
    each = -(-SHEET_SAMPLES // max(1, len(chosen)))
    return [
        sample_tile(decode_sample(key, members))
        for shard in chosen
        for key, members in islice(read_shard(folder / shard["file"]), each)
    ]


def tiles_of_candidates(source: Input, reader: Reader, candidates: Sequence[Candidate]) -> list[Tile]:
    """Samples made from candidates spread over the dataset, without writing any."""
    tiles, recipe = [], source.recipe
    for item, group, _ in candidates[:: max(1, len(candidates) // SHEET_SAMPLES)][:SHEET_SAMPLES]:
        try:
            scene = reader.scene(item)
            members = build_sample(scene, group, recipe, source.split)
        except BadSample:
            continue  # the build itself will count it
        if not isinstance(members, Skip):
            tiles.append(sample_tile(decode_sample(scene.key, members)))
    return tiles


def tiles_of_skipped(
    reader: Reader, rule: Pairs, examples: Mapping[str, Sequence[Item]], bad: Sequence[Mapping[str, Any]]
) -> list[Tile]:
    """A few pictures for every reason, skipped ones first."""
    shown = [(item, reason, "") for reason, items in examples.items() for item in items]
    for reason in sorted({entry["reason"] for entry in bad}):
        shown += [(entry["item"], reason, entry["detail"]) for entry in bad if entry["reason"] == reason][:3]
    tiles = []
    for item, reason, detail in shown:
        try:
            tiles.append(skip_tile(reader.scene(item), reason, rule, detail))
        except BadSample:
            continue  # nothing to draw; the manifest lists it
    return tiles


def write_sheet(path: Path, title: str, tiles: Sequence[Tile]) -> None:
    """Draw the sheet into a PNG file."""
    make_folder(path.parent)
    with AtomicFile(path) as file:
        file.write(encode_png(draw_sheet(title, tiles)))


def _shrink(rgb: RGB) -> tuple[RGB, tuple[float, float]]:
    """The picture at the sheet's row height (panoramas squeezed), and the scales across and down."""
    height, width = rgb.shape[:2]
    across = max(40, min(3 * HEIGHT, round(width * HEIGHT / height)))
    small = cv2.resize(rgb, (across, HEIGHT), interpolation=cv2.INTER_AREA).astype(np.uint8)
    return small, (across / width, HEIGHT / height)


def _rectangle(rgb: RGB, box: Box, scale: tuple[float, float], colour: tuple[int, int, int], thickness: int) -> None:
    x0, y0, x1, y1 = (round(v * scale[i % 2]) for i, v in enumerate(box))
    cv2.rectangle(rgb, (x0, y0), (x1 - 1, y1 - 1), colour, thickness)


def _fit(draw: ImageDraw.ImageDraw, text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    while text and draw.textlength(text, font) > width:
        text = text[:-2].rstrip("…") + "…" if len(text) > 2 else ""
    return text
