"""A sheet of references as training augments them (`pics train --preview`)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from pics_cli.core.images.cutouts import paste_object
from pics_cli.core.images.image_io import RGB, decode_image
from pics_cli.core.images.sheet_files import write_sheet_file
from pics_cli.core.images.sheets import TILE_GAP, Tile, draw_sheet, object_colour
from pics_cli.core.loading.augment import Reference
from pics_cli.core.loading.dataset import TrainingDataset
from pics_cli.core.loading.training_sample import draw_reference, without_augmentation
from pics_cli.core.recipes.training import TrainingRecipe
from pics_cli.core.recipes.training_sections import AugmentSettings
from pics_cli.core.runtime.outputs import refuse_other_picture, refuse_overwriting
from pics_cli.core.runtime.rng import generator
from pics_cli.core.shards.layouts import unpack_sample
from pics_cli.core.training.data import find_data, training_data
from pics_cli.core.training.initial_model import blank_initial_model
from pics_cli.core.training.run import TrainingJob
from pics_cli.errors import BadSample, PicsError

logger = logging.getLogger(__name__)
TITLE = "References: as they are (framed), and varied. Below each, its cut-out on a ground that shows its rim."
# Objects that are shown, and how often each is varied.
_OBJECTS, _VARIANTS = 8, 6
_SIDE, _MARGIN, _SQUARE = 144, 8, 12
_LIGHT, _DARK, _FRAME = 150, 110, 200
_PAPER = 250


class AugmentedReference(NamedTuple):
    """A row of the sheet: a caption, the reference as it is, and variants of it."""

    caption: str
    original: Reference
    variants: Sequence[Reference]


def write_preview(job: TrainingJob, path: Path) -> None:
    """Draw references of the training order's first samples, as they are and as the first epochs augment them.

    Raises:
        PicsError: the data is not what it should be, or the file cannot be written.
    """
    recipe = job.recipe
    split = find_data(recipe, allow_missing=job.allow_missing, allow_pipe=job.allow_pipe)
    refuse_overwriting([("--preview", path)], [("the shard", shard) for shard in split.local_shards])
    refuse_other_picture("--preview", path)
    config = blank_initial_model(recipe.model)[0].config
    data = training_data(recipe, split, config)
    rows: list[AugmentedReference] = []
    for position in range(split.order.epoch_length):
        if len(rows) >= _OBJECTS:
            break
        try:
            rows += _augmented_references(recipe, data, position, config.reference_size)
        except BadSample as error:
            logger.warning("left out: %s: %s", error.reason, error.detail)
    if not rows:
        raise PicsError("no sample could be read", "look at the sets with `pics build-shards --check DIR`")
    write_sheet_file(path.absolute(), draw_augmented(rows[:_OBJECTS]))
    logger.info("wrote %s", path)


def draw_augmented(rows: Sequence[AugmentedReference]) -> RGB:
    """One row for each object, uint8 [H, W, 3]: patch above cut-out, first as it is, then varied."""
    tiles = []
    for row in rows:
        cells = [_cell(row.original, object_colour(0), 2)]
        cells += [_cell(variant, (_FRAME,) * 3, 1) for variant in row.variants]
        tiles.append(Tile(np.concatenate(cells, axis=1), (row.caption,)))
    width = max(tile.rgb.shape[1] for tile in tiles)
    return draw_sheet(TITLE, tiles, 2 * _SIDE + TILE_GAP, width + 2 * TILE_GAP)


def _augmented_references(
    recipe: TrainingRecipe, data: TrainingDataset, position: int, size: int
) -> list[AugmentedReference]:
    """A row for each object of a sample."""
    item = data.order[position]
    shards = data.sets[item.set]
    augment = shards.augment or recipe.augment
    key, members = data.read(item)
    parts = unpack_sample(members)
    rgb = decode_image(parts.image).rgb

    def draw(k: int, epoch: int, options: AugmentSettings) -> Reference:
        rng = generator(recipe.seed, "augment", shards.name, key, epoch, item.repetition, k)
        return draw_reference(parts, rgb, k, options, rng, size)[0]

    return [
        AugmentedReference(
            f"{shards.name}/{key}, object {k}",
            draw(k, 0, without_augmentation(augment)),
            [draw(k, epoch, augment) for epoch in range(_VARIANTS)],
        )
        for k in range(len(parts.masks))
    ]


def _cell(reference: Reference, colour: tuple[int, int, int], thickness: int) -> RGB:
    """Patch above cut-out, uint8 RGB, with a gap to the right."""
    cell = np.full((2 * _SIDE + TILE_GAP, _SIDE + TILE_GAP, 3), _PAPER, np.uint8)
    interpolation = cv2.INTER_AREA if len(reference.patch) > _SIDE else cv2.INTER_LINEAR
    patch = cv2.resize(reference.patch, (_SIDE, _SIDE), interpolation=interpolation)
    cell[:_SIDE, :_SIDE] = cv2.rectangle(patch, (0, 0), (_SIDE - 1, _SIDE - 1), colour, thickness)
    row, column = np.indices((_SIDE, _SIDE)) // _SQUARE
    ground = np.where((row + column) % 2, _LIGHT, _DARK).astype(np.uint8)[..., None].repeat(3, axis=2)
    paste_object(ground, (_MARGIN, _MARGIN, _SIDE - _MARGIN, _SIDE - _MARGIN), reference.rgba)
    cell[_SIDE + TILE_GAP // 2 : 2 * _SIDE + TILE_GAP // 2, :_SIDE] = ground
    return cell
