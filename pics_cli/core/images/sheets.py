"""Contact sheets: tiles with captions, boxes, tints, columns of patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from pics_cli.core.images.geometry import Box
from pics_cli.core.images.image_io import RGB

TILE_HEIGHT, TILE_GAP, CAPTION_HEIGHT, SHEET_WIDTH = 240, 10, 38, 1500
COLOURS = (
    (230, 60, 50), (40, 110, 230), (40, 170, 70), (240, 170, 30),
    (150, 70, 200), (20, 180, 190), (235, 110, 170), (130, 90, 50),
)  # fmt: skip
COLOUR_NAMES = ("red", "blue", "green", "orange", "purple", "cyan", "pink", "brown")
Colour = tuple[int, int, int]
_INK, _PAPER = (30, 30, 30), (250, 250, 248)


@dataclass(frozen=True)
class Tile:
    """A picture of the sheet, uint8 RGB of the sheet's row height, with up to two lines of caption below it."""

    rgb: RGB
    lines: tuple[str, ...]


def object_colour(k: int) -> Colour:
    """The colour of object k in all sheets."""
    return COLOURS[k % len(COLOURS)]


def fit_height(rgb: RGB, height: int = TILE_HEIGHT) -> tuple[RGB, tuple[float, float]]:
    """The picture at a row's height (panoramas squeezed), and the horizontal and vertical scales."""
    old_height, old_width = rgb.shape[:2]
    width = max(40, min(3 * height, round(old_width * height / old_height)))
    small = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8)
    return small, (width / old_width, height / old_height)


def draw_box(rgb: RGB, box: Box, scale: tuple[float, float], colour: Colour, thickness: int) -> None:
    """Draw the outline of a box given in pixels of the unscaled picture."""
    x0, y0, x1, y1 = (round(v * scale[i % 2]) for i, v in enumerate(box))
    cv2.rectangle(rgb, (x0, y0), (x1 - 1, y1 - 1), colour, thickness)


def tint(rgb: RGB, inside: npt.NDArray[np.bool_], colour: Colour, weight: float = 0.2) -> None:
    """Mix a colour into the pixels of a mask, bool [H, W]."""
    rgb[inside] = (rgb[inside] * (1 - weight) + np.array(colour) * weight).astype(np.uint8)


def on_white(rgba: RGB) -> RGB:
    """uint8 RGBA [h, w, 4] over white, uint8 RGB [h, w, 3]."""
    alpha = rgba[..., 3:].astype(np.float32) / 255
    return (rgba[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)


def patch_column(patches: Sequence[RGB | None], height: int = TILE_HEIGHT) -> RGB:
    """Square patches below each other, framed in their objects' colours."""
    side = height // max(2, len(patches))
    strip = np.full((height, side, 3), 255, np.uint8)
    for k, patch in enumerate(patches):
        if patch is not None:
            small = cv2.resize(patch, (side, side), interpolation=cv2.INTER_AREA)
            cv2.rectangle(small, (0, 0), (side - 1, side - 1), object_colour(k), 2)
            strip[k * side : (k + 1) * side] = small
    return strip


def draw_sheet(title: str, tiles: Sequence[Tile], height: int = TILE_HEIGHT, width: int = SHEET_WIDTH) -> RGB:
    """Lay tiles of this height out in rows under a title: uint8 RGB, `width` wide."""
    rows: list[list[Tile]] = [[]]
    for tile in tiles:
        row_width = sum(placed.rgb.shape[1] + TILE_GAP for placed in rows[-1])
        if rows[-1] and row_width + tile.rgb.shape[1] > width - 2 * TILE_GAP:
            rows.append([])
        rows[-1].append(tile)
    sheet = Image.new("RGB", (width, 44 + len(rows) * (height + CAPTION_HEIGHT + TILE_GAP) + TILE_GAP), _PAPER)
    draw, font, large = ImageDraw.Draw(sheet), ImageFont.load_default(13), ImageFont.load_default(20)
    draw.text((TILE_GAP, TILE_GAP), _fit(draw, title, width - 2 * TILE_GAP, large), _INK, large)
    for at, row in enumerate(rows):
        x, y = TILE_GAP, 44 + at * (height + CAPTION_HEIGHT + TILE_GAP)
        for tile in row:
            sheet.paste(Image.fromarray(tile.rgb), (x, y))
            for line, text in enumerate(tile.lines):
                draw.text((x, y + height + 2 + 17 * line), _fit(draw, text, tile.rgb.shape[1], font), _INK, font)
            x += tile.rgb.shape[1] + TILE_GAP
    return np.asarray(sheet)


def _fit(draw: ImageDraw.ImageDraw, text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    text = " ".join(text.split())  # a file's name may hold line breaks
    while text and draw.textlength(text, font) > width:
        text = text[:-2].rstrip("…") + "…" if len(text) > 2 else ""
    return text
