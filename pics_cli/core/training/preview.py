"""A sheet of references as training varies them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pics_cli.core.data.augment import Reference
from pics_cli.core.data.augment_sheet import Row, draw_augmented
from pics_cli.core.data.layouts import unpack
from pics_cli.core.data.loading import TrainingData
from pics_cli.core.data.pictures import decode_picture, encode_png
from pics_cli.core.data.training_sample import still, varied
from pics_cli.core.files import AtomicFile, make_folder
from pics_cli.core.rng import generator
from pics_cli.core.training.job import Job
from pics_cli.core.training.plan import outline_of
from pics_cli.core.training.sources import find_sources
from pics_cli.errors import BadSample, PicsError

# Objects that are shown, and how often each is varied.
_OBJECTS, _TIMES = 8, 6


def write_preview(job: Job, path: Path, say: Callable[[str], None]) -> None:
    """Draw references of the first samples of the training order, as they are and as the first epochs vary them.

    Raises:
        PicsError: the data is not what it should be, or the file cannot be written.
    """
    sources, config = find_sources(job, say), outline_of(job.recipe.model).config
    data = TrainingData(
        sources.sets, sources.order, augment=job.recipe.augment, seed=job.recipe.seed, size=config.image_size,
        reference_size=config.reference_size, hint=config.hint, fill=config.fill,
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


def _rows(job: Job, data: TrainingData, position: int, size: int) -> list[Row]:
    """A row for each object of a sample."""
    item = data.order.locate(position)
    shards = data.sets[item.set]
    augment = shards.augment or job.recipe.augment
    key, members = data.read(item)
    parts = unpack(members)
    rgb = decode_picture(parts.picture).rgb
    rows: list[Row] = []
    for k in range(len(parts.masks)):

        def draw(epoch: int, plain: bool = False, k: int = k) -> Reference:
            rng = generator(job.recipe.seed, "augment", shards.name, key, epoch, item.repetition, k)
            return varied(parts, rgb, k, still(augment) if plain else augment, rng, size)[0]

        rows.append((f"{shards.name}/{key}, object {k}", draw(0, plain=True), [draw(epoch) for epoch in range(_TIMES)]))
    return rows
