"""Sheets for people: inputs and results side by side; regions, gate weights and routing of a composite."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from pics_cli.core.images.cutouts import pad_to_square
from pics_cli.core.images.geometry import Box, Letterbox
from pics_cli.core.images.image_io import RGB, write_png
from pics_cli.core.images.sheet_files import write_sheet_file
from pics_cli.core.images.sheets import (
    COLOUR_NAMES,
    TILE_GAP,
    Tile,
    draw_box,
    draw_sheet,
    fit_height,
    object_colour,
    on_white,
    patch_column,
    tint,
)
from pics_cli.core.images.stored_image import decode_stored, to_srgb
from pics_cli.core.inference.composite import Explanation
from pics_cli.core.inference.inputs import SampleFiles, decode, list_sample, read_parts
from pics_cli.core.inference.plan import InferenceJob, composed_path, explain_path, grid_path, sample_id
from pics_cli.core.inference.sample import CompositeSample
from pics_cli.core.runtime.files import read_file
from pics_cli.core.runtime.storage import is_remote
from pics_cli.errors import BadSample, PicsError

logger = logging.getLogger(__name__)

HEIGHT = 384  # a multiple of every resolution the networks work at
ROW = 240  # height of a row on the sheet of many samples
# Rows of that sheet: nobody reads more than a page, and no viewer opens a picture of thousands.
MAX_ROWS = 40
_MAX_WIDTH = 1900
_TINT = 0.35
_UNCOVERED = (232, 230, 224)
_DIM = 0.35


def draw_grid(sample: CompositeSample, results: Sequence[tuple[str, RGB]]) -> RGB:
    """Background with regions, the references, and the results with their captions, side by side: uint8 RGB."""
    tiles = [
        Tile(_regions(sample, HEIGHT), ("background and regions", _size(sample.background))),
        Tile(_references(sample.references, HEIGHT), ("references",)),
        *(Tile(fit_height(picture, HEIGHT)[0], ("result", caption)) for caption, picture in results),
    ]
    return _sheet(sample.name, tiles)


def row_tile(sample: CompositeSample, result: RGB) -> Tile:
    """Background with regions, references and one result, uint8 [H, W, 3], side by side, small."""
    gap = np.full((ROW, TILE_GAP, 3), 255, np.uint8)
    pictures = [_regions(sample, ROW), gap, _references(sample.references, ROW), gap, fit_height(result, ROW)[0]]
    return Tile(np.hstack(pictures), (f"{sample.name}  {_size(sample.background)}",))


def draw_overview(title: str, tiles: Sequence[Tile]) -> RGB:
    """Tiles of `row_tile`, two to a row where there are more than three: uint8 RGB."""
    width = max(tile.rgb.shape[1] for tile in tiles)
    padded = []
    for tile in tiles:
        rgb = np.full((ROW, width, 3), 255, np.uint8)
        rgb[:, : tile.rgb.shape[1]] = tile.rgb
        padded.append(Tile(rgb, tile.lines))
    columns = 1 if len(tiles) < 4 else 2
    return draw_sheet(title, padded, ROW, max(columns * (width + TILE_GAP) + TILE_GAP, 480))


def draw_regions(name: str, window: RGB, boxes: Sequence[Box], order: Sequence[int]) -> RGB:
    """Draw the window with each object's region tinted, nearer ones over those behind.

    Args:
        name: of the sample.
        window: uint8 [h, w, 3].
        boxes: in the window's pixels.
        order: back to front.
    """
    plain, scale = fit_height(window, HEIGHT)
    tinted = plain.copy()
    for k in order:
        inside = np.zeros(plain.shape[:2], np.bool_)
        x0, y0, x1, y1 = (round(v * scale[i % 2]) for i, v in enumerate(boxes[k]))
        inside[y0:y1, x0:x1] = True
        tint(tinted, inside, object_colour(k), _TINT)
        draw_box(tinted, boxes[k], scale, object_colour(k), 2)
    caption = ", ".join(f"{k} ({x1 - x0}x{y1 - y0})" for k, (x0, y0, x1, y1) in enumerate(boxes))
    colours = ", ".join(f"{k} {COLOUR_NAMES[k % len(COLOUR_NAMES)]}" for k in range(len(boxes)))
    tiles = [Tile(plain, ("window", _size(window))), Tile(tinted, (f"objects {caption}", colours))]
    return _sheet(f"{name}: regions", tiles)


def draw_alpha(name: str, window: RGB, alpha: npt.NDArray[np.float32]) -> RGB:
    """Draw each object's weight in the gate where regions overlap: dark for 0, its colour for 1.

    Args:
        name: of the sample.
        window: uint8 [h, w, 3], what the network saw.
        alpha: [K, S, S] in 0..1, nan outside overlaps, in the square that the network sees.
    """
    letterbox = Letterbox(window.shape[1], window.shape[0], alpha.shape[1])
    dim, _ = fit_height((window * _DIM).astype(np.uint8), HEIGHT)
    tiles = []
    for k, weights in enumerate(alpha):
        overlap = ~np.isnan(weights)
        shown = (np.nan_to_num(weights)[..., None] * np.array(object_colour(k))).astype(np.uint8)
        native = _content(np.dstack([shown, overlap.astype(np.uint8)]), letterbox, dim.shape[1::-1])
        picture = np.where(native[..., 3:] > 0, native[..., :3], dim)
        values = weights[overlap]
        words = f"mean {values.mean():.2f}, {values.min():.2f} to {values.max():.2f}" if values.size else "no overlap"
        tiles.append(Tile(picture, (f"weight of object {k}", words)))
    return _sheet(f"{name}: gate where regions overlap", tiles)


def draw_routing(name: str, window: RGB, levels: Sequence[tuple[str, npt.NDArray[np.integer]]]) -> RGB:
    """Draw which objects cover each token at each resolution: an object's colour, mixed for several.

    Args:
        name: of the sample.
        window: uint8 [h, w, 3], what the network saw.
        levels: caption and cover code [h, w], bit k set where object k covers.
    """
    tiles = []
    for caption, codes in levels:
        picture = np.empty((*codes.shape, 3), np.uint8)
        for code in np.unique(codes).tolist():
            members = [object_colour(k) for k in range(int(code).bit_length()) if code >> k & 1]
            picture[codes == code] = np.mean(members, axis=0) if members else _UNCOVERED
        share = np.mean([bin(code).count("1") > 1 for code in codes.ravel().tolist()])
        side = max(1, HEIGHT // codes.shape[0]) * codes.shape[0]
        large = cv2.resize(picture, (side, side), interpolation=cv2.INTER_NEAREST)
        tiles.append(Tile(_pad(large.astype(np.uint8)), (caption, f"{share:.0%} of the tokens overlap")))
    small, _ = fit_height(window, HEIGHT)
    return _sheet(f"{name}: routing of tokens", [Tile(small, ("window",)), *tiles])


def _sheet(title: str, tiles: Sequence[Tile]) -> RGB:
    width = sum(tile.rgb.shape[1] + TILE_GAP for tile in tiles) + TILE_GAP
    widest = max(tile.rgb.shape[1] for tile in tiles) + 2 * TILE_GAP
    return draw_sheet(title, tiles, HEIGHT, max(min(width, _MAX_WIDTH), widest, 480))


def _regions(sample: CompositeSample, height: int) -> RGB:
    """The background at a row's height with the regions framed."""
    small, scale = fit_height(sample.background, height)
    for k, box in enumerate(sample.boxes):
        draw_box(small, box, scale, object_colour(k), 2)
    return small


def _size(rgb: RGB) -> str:
    return f"{rgb.shape[1]}x{rgb.shape[0]}"


def _references(references: Sequence[npt.NDArray[np.uint8]], height: int) -> RGB:
    """A column of references on white."""
    on_paper = [on_white(reference) if reference.shape[2] == 4 else reference for reference in references]
    return patch_column([pad_to_square(reference) for reference in on_paper], height)


def _content(square: npt.NDArray[np.uint8], letterbox: Letterbox, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """The window's part of a picture of the network's square, resized (nearest) to a (width, height)."""
    x0, y0, x1, y1 = letterbox.forward_box((0, 0, letterbox.width, letterbox.height))
    return cv2.resize(square[y0:y1, x0:x1], size, interpolation=cv2.INTER_NEAREST).astype(np.uint8)


def _pad(square: RGB) -> RGB:
    """Centre a square in the row's height, on white: levels that do not divide it are drawn with whole pixels."""
    short = HEIGHT - square.shape[0]
    if short <= 0:
        return square[:HEIGHT]
    top = short // 2
    return cv2.copyMakeBorder(square, top, short - top, 0, 0, cv2.BORDER_CONSTANT, value=(255,) * 3).astype(np.uint8)


def write_grid(job: InferenceJob, sample: CompositeSample) -> None:
    """Write the sheet of inputs and results; results are read back, since earlier runs may have made some."""
    results = []
    for candidate in range(job.num):
        path = composed_path(job.output, sample.name, candidate, job.format)
        results.append((path.name, to_srgb(decode_stored(read_file(path)))))
    write_png(grid_path(job.output, sample.name), draw_grid(sample, results))


def write_explanation(output: Path, name: str, explanation: Explanation) -> None:
    """Write sheets of a sample's regions and, in parallel mode, of its gate weights and routing."""
    window = explanation.window
    write_png(explain_path(output, name, "regions"), draw_regions(name, window, explanation.boxes, explanation.order))
    if explanation.alpha is not None:
        levels = [(f"{len(codes)}x{len(codes)} tokens", codes) for codes in explanation.cover_codes]
        write_png(explain_path(output, name, "alpha"), draw_alpha(name, window, explanation.alpha))
        write_png(explain_path(output, name, "routing"), draw_routing(name, window, levels))


def check_overview(job: InferenceJob) -> None:
    """Refuse a path that the sheet of all samples cannot be written to, before any work.

    Raises:
        PicsError: not the name of a PNG file, or in a folder that does not exist and will not.
    """
    path = job.sheet
    if path is None:
        return
    if path.suffix.lower() != ".png" or path.is_dir():
        raise PicsError(f"--sheet {path}: expected the name of a .png file")
    folder = path.absolute().parent
    if not is_remote(path) and not folder.is_dir() and folder != job.output.absolute():
        raise PicsError(f"--sheet {path}: no such folder: {path.parent}", f"make it: mkdir -p {path.parent}")


def write_overview(job: InferenceJob) -> None:
    """Write one sheet of the job's samples in their order: a row for each first result, `MAX_ROWS` at most.

    Raises:
        PicsError: it cannot be written.
    """
    assert job.sheet is not None
    tiles = list[Tile]()
    left_out = 0
    for entry in job.samples:
        path = composed_path(job.output, sample_id(entry), 0, job.format)
        if not path.exists():
            continue  # the sample failed, which is reported elsewhere
        if len(tiles) == MAX_ROWS:
            left_out += 1
            continue
        try:
            files = entry if isinstance(entry, SampleFiles) else list_sample(entry, job.objects)
            sample = decode(files, read_parts(files), region=job.region)
            result = to_srgb(decode_stored(read_file(path)))
        except BadSample:
            continue  # likewise
        tiles.append(row_tile(sample, result))
    if not tiles:
        logger.warning("--sheet %s: not written, there is no result to show", job.sheet)
        return
    title = "background with regions, references, result"
    write_sheet_file(job.sheet, draw_overview(f"{title}  (and {left_out:,} more)" if left_out else title, tiles))
