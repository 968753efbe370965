"""The sheets that go with composites: what `--save-grid`, `--explain` and `--sheet` write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from pics_cli.core.data.drawing import Tile
from pics_cli.core.data.pictures import decode_picture
from pics_cli.core.inference import draw
from pics_cli.core.inference.inputs import Inputs, SampleFiles, decode, list_sample, read_parts
from pics_cli.core.inference.job import Job
from pics_cli.core.inference.plan import Task, composed_path, explain_path, grid_path, sample_id
from pics_cli.core.inference.prepare import Prepared
from pics_cli.core.model.regions import Regions
from pics_cli.core.model.tracing import Trace
from pics_cli.errors import BadSample, PicsError

if TYPE_CHECKING:
    from pics_cli.core.model.pipeline import PicsPipeline

# Rows of the sheet of all samples: more than a page full is not looked at, and a picture of thousands is not opened.
MOST = 40


def write_grid(output: Path, task: Task, inputs: Inputs, num: int) -> None:
    """Inputs and results side by side; the results are read back, since earlier runs may have made some."""
    results = []
    for candidate in range(num):
        path = composed_path(output, task.files.id, candidate)
        results.append((path.name, decode_picture(path.read_bytes()).rgb))
    sheet = draw.draw_grid(task.files.id, inputs.background, inputs.boxes, inputs.references, results)
    draw.write_sheet(grid_path(output, task.files.id), sheet)


def write_explanations(output: Path, pipeline: PicsPipeline, batch: Sequence[Prepared], trace: Trace | None) -> None:
    """Regions of each sample and, where the batch was traced, gate weights and routing."""
    size, objects = pipeline.config.image_size, len(batch[0].boxes)
    alphas = None if trace is None else trace.alpha(objects, size).numpy()
    for at, one in enumerate(batch):
        name = one.task.files.id
        sheet = draw.draw_regions(name, one.seen, one.boxes, one.order)
        draw.write_sheet(explain_path(output, name, "regions"), sheet)
        if alphas is None:
            continue
        nowhere = np.full((objects, size, size), np.nan, np.float32)
        sheet = draw.draw_alpha(name, one.seen, alphas[at] if len(alphas) else nowhere)
        draw.write_sheet(explain_path(output, name, "alpha"), sheet)
        regions = Regions(torch.from_numpy(one.network.masks[None]))
        levels = []
        for level in range(len(pipeline.unet.config.block_out_channels)):
            side = pipeline.config.latent_size >> level
            codes = regions.table(side, side).codes[0].view(side, side).numpy()
            levels.append((f"{side}x{side} tokens", codes))
        draw.write_sheet(explain_path(output, name, "routing"), draw.draw_routing(name, one.seen, levels))


def check_overview(job: Job) -> None:
    """Refuse a place for the sheet of all samples that it cannot be written to, before anything is made.

    Raises:
        PicsError: no name of a PNG file, or in a folder that does not exist and will not.
    """
    path = job.sheet
    if path is None:
        return
    if path.suffix.lower() != ".png" or path.is_dir():
        raise PicsError(f"--sheet {path}: expected the name of a .png file")
    folder = path.absolute().parent
    if not folder.is_dir() and folder != job.output.absolute():
        raise PicsError(f"--sheet {path}: no such folder: {path.parent}", f"make it: mkdir -p {path.parent}")


def write_overview(job: Job, note: Callable[[str], None]) -> None:
    """One sheet of the job's samples in their order, a row for each that has its first result; the first `MOST` of it.

    Raises:
        PicsError: it cannot be written.
    """
    assert job.sheet is not None
    tiles = list[Tile]()
    left = 0
    for sample in job.samples:
        path = composed_path(job.output, sample_id(sample), 0)
        if not path.exists():
            continue  # it failed, and that is told
        if len(tiles) == MOST:
            left += 1
            continue
        try:
            files = sample if isinstance(sample, SampleFiles) else list_sample(sample, job.objects)
            inputs, result = decode(files, read_parts(files)), decode_picture(path.read_bytes()).rgb
        except BadSample:
            continue  # likewise
        tiles.append(draw.row_tile(draw.Row(files.id, inputs.background, inputs.boxes, inputs.references, result)))
    if not tiles:
        note(f"--sheet {job.sheet}: not written, there is no result to show")
        return
    title = "background with regions, references, result"
    draw.write_sheet(job.sheet, draw.draw_overview(f"{title}  (and {left:,} more)" if left else title, tiles))
