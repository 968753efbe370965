"""A sheet of references as training varies them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from pics_cli.core.images.cutouts import paste_object
from pics_cli.core.images.image_io import RGB, decode_image, encode_png
from pics_cli.core.images.sheets import TILE_GAP, Tile, draw_sheet, object_colour
from pics_cli.core.loading.augment import Reference
from pics_cli.core.loading.dataset import TrainingDataset
from pics_cli.core.loading.training_sample import draw_reference, without_augmentation
from pics_cli.core.runtime.files import AtomicFile, make_folder
from pics_cli.core.runtime.rng import generator
from pics_cli.core.shards.layouts import unpack_sample
from pics_cli.core.training.data import find_sources
from pics_cli.core.training.job import Job
from pics_cli.core.training.starting_model import blank_start
from pics_cli.errors import BadSample, PicsError

TITLE = "References: as they are (framed), and varied. Below each, its cut-out on a ground that shows its rim."
_SIDE, _MARGIN, _SQUARE = 144, 8, 12
_LIGHT, _DARK, _FRAME = 150, 110, 200

Row = tuple[str, Reference, Sequence[Reference]]
"""Caption, the reference as it is, and variations of it."""


def draw_augmented(rows: Sequence[Row], title: str = TITLE) -> RGB:
    """One row for each object, uint8 RGB: patch above cut-out, first as it is, then varied."""
    tiles = []
    for caption, original, variants in rows:
        cells = [_cell(original, object_colour(0), 2), *(_cell(one, (_FRAME,) * 3, 1) for one in variants)]
        tiles.append(Tile(np.concatenate(cells, axis=1), (caption,)))
    height = 2 * _SIDE + TILE_GAP
    width = max((tile.rgb.shape[1] for tile in tiles), default=0)
    # All as wide as the sheet, so that no two share a row.
    tiles = [Tile(_widened(tile.rgb, width), tile.lines) for tile in tiles]
    return draw_sheet(title, tiles, height, max(width + 2 * TILE_GAP, 480))


def _cell(one: Reference, colour: tuple[int, int, int], thickness: int) -> RGB:
    """Patch above cut-out, uint8 RGB, with a gap to the right."""
    cell = np.full((2 * _SIDE + TILE_GAP, _SIDE + TILE_GAP, 3), 250, np.uint8)
    how = cv2.INTER_AREA if len(one.patch) > _SIDE else cv2.INTER_LINEAR
    patch = cv2.resize(one.patch, (_SIDE, _SIDE), interpolation=how)
    cell[:_SIDE, :_SIDE] = cv2.rectangle(patch, (0, 0), (_SIDE - 1, _SIDE - 1), colour, thickness)
    row, column = np.indices((_SIDE, _SIDE)) // _SQUARE
    ground = np.where((row + column) % 2, _LIGHT, _DARK).astype(np.uint8)[..., None].repeat(3, axis=2)
    paste_object(ground, (_MARGIN, _MARGIN, _SIDE - _MARGIN, _SIDE - _MARGIN), one.rgba)
    cell[_SIDE + TILE_GAP // 2 : 2 * _SIDE + TILE_GAP // 2, :_SIDE] = ground
    return cell


def _widened(rgb: RGB, width: int) -> RGB:
    short = width - rgb.shape[1]
    return cv2.copyMakeBorder(rgb, 0, 0, 0, short, cv2.BORDER_CONSTANT, value=(250, 250, 248)).astype(np.uint8)


# Objects that are shown, and how often each is varied.
_OBJECTS, _TIMES = 8, 6


def write_preview(job: Job, path: Path, say: Callable[[str], None]) -> None:
    """Draw references of the first samples of the training order, as they are and as the first epochs vary them.

    Raises:
        PicsError: the data is not what it should be, or the file cannot be written.
    """
    sources, config = find_sources(job, say), blank_start(job.recipe.model)[0].config
    data = TrainingDataset(
        sources.sets, sources.order, augment=job.recipe.augment, seed=job.recipe.seed, size=config.image_size,
        reference_size=config.reference_size, hint=config.hint, object_scale=config.fill,
        window_size=config.window_size, cache_gb=job.recipe.data.cache_gb,
    )  # fmt: skip
    rows: list[Row] = []
    for position in range(sources.order.epoch_length):
        if len(rows) == _OBJECTS:
            break
        try:
            rows += _rows(job, data, position, config.reference_size)[: _OBJECTS - len(rows)]
        except BadSample as error:
            say(f"left out: {error.reason}: {error.detail}")
    if not rows:
        raise PicsError("no sample could be read", "look at the sets with `pics build-shards --check DIR`")
    make_folder(path.absolute().parent)
    with AtomicFile(path) as file:
        file.write(encode_png(draw_augmented(rows)))
    say(f"wrote {path}")


def _rows(job: Job, data: TrainingDataset, position: int, size: int) -> list[Row]:
    """A row for each object of a sample."""
    item = data.order[position]
    shards = data.sets[item.set]
    augment = shards.augment or job.recipe.augment
    key, members = data.read(item)
    parts = unpack_sample(members)
    rgb = decode_image(parts.image).rgb
    rows: list[Row] = []
    for k in range(len(parts.masks)):

        def draw(epoch: int, plain: bool = False, k: int = k) -> Reference:
            rng = generator(job.recipe.seed, "augment", shards.name, key, epoch, item.repetition, k)
            return draw_reference(parts, rgb, k, without_augmentation(augment) if plain else augment, rng, size)[0]

        rows.append((f"{shards.name}/{key}, object {k}", draw(0, plain=True), [draw(epoch) for epoch in range(_TIMES)]))
    return rows
