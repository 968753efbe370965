"""Sheets of what the model makes of samples it never trains on: inputs, target, result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pics_cli.core.data.drawing import GAP, Tile, colour_of, column, draw_sheet, rectangle, shrink
from pics_cli.core.data.pictures import RGB
from pics_cli.core.geometry import Box
from pics_cli.core.model.pipeline import PicsPipeline
from pics_cli.core.training.objective import box_masks, hint_kinds
from pics_cli.core.training.validation import Held

_HEIGHT = 256


class Composite:
    """A prepared sample as the pipeline wants it; see `pics_cli.core.model.pipeline.NetworkInput`."""

    def __init__(self, arrays: Mapping[str, Any], size: int) -> None:
        boxes, content = (torch.from_numpy(np.asarray(arrays[name])) for name in ("boxes", "content"))
        masks = box_masks(boxes[None], size)
        self.hint_rgb: npt.NDArray[np.uint8] = arrays["hint"]
        self.hint_mask: npt.NDArray[np.int8] = hint_kinds(masks, content[None])[0].numpy()
        self.masks: npt.NDArray[np.bool_] = masks[0].numpy()
        self.references: npt.NDArray[np.uint8] = arrays["references"]


def results(pipeline: PicsPipeline, samples: Sequence[Held], seed: int, steps: int | None) -> list[RGB]:
    """What the pipeline makes of each sample, uint8 [S, S, 3]; its noise is a function of seed and key."""
    made = []
    for held in samples:
        noise = pipeline.noise(seed, held.key)[None, None]
        composite = Composite(held.own, pipeline.config.image_size)
        made.append(pipeline([composite], noise, steps=steps)[0, 0])
    return made


def draw(title: str, samples: Sequence[Held], made: Sequence[RGB]) -> RGB:
    """A row for each sample: hint with regions, references, target, result."""
    tiles: list[Tile] = []
    for held, result in zip(samples, made, strict=True):
        hint, scale = shrink(np.ascontiguousarray(held.own["hint"][..., :3]), _HEIGHT)
        for k, box in enumerate(held.own["boxes"].tolist()):
            whole: Box = (box[0], box[1], box[2], box[3])
            rectangle(hint, whole, scale, colour_of(k), 2)
        tiles += [
            Tile(hint, ("hint and regions", held.key)),
            Tile(column(list(held.own["references"]), _HEIGHT), ("references",)),
            Tile(shrink(held.own["target"], _HEIGHT)[0], ("target",)),
            Tile(shrink(result, _HEIGHT)[0], ("result",)),
        ]
    widths = [sum(tile.rgb.shape[1] + GAP for tile in tiles[at : at + 4]) for at in range(0, len(tiles), 4)]
    return draw_sheet(title, tiles, _HEIGHT, max(widths) + GAP)
