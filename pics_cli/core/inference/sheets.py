"""The sheets that go with a sample's composites: what `--save-grid` and `--explain` write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from pics_cli.core.data.pictures import decode_picture
from pics_cli.core.inference import draw
from pics_cli.core.inference.inputs import Inputs
from pics_cli.core.inference.plan import Task, composed_path, explain_path, grid_path
from pics_cli.core.inference.prepare import Prepared
from pics_cli.core.model.regions import Regions
from pics_cli.core.model.tracing import Trace

if TYPE_CHECKING:
    from pics_cli.core.model.pipeline import PicsPipeline


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
