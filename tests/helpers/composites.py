"""Samples for `pics infer`, made by hand, and runs of it in this process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from helpers.kept_models import kept_models
from pics_cli.core.images.geometry import Box
from pics_cli.core.inference.inputs import find_folders
from pics_cli.core.inference.plan import InferenceJob
from pics_cli.core.inference.sample import CompositeOptions
from pics_cli.core.inference.worker import InferenceProgress, InferenceReport
from pics_cli.core.runtime.ranks import Ranks

RGB = npt.NDArray[np.uint8]
SIZE = (120, 96)
BOXES: tuple[Box, ...] = ((20, 16, 70, 66), (50, 30, 104, 88))


def scene(size: tuple[int, int] = SIZE, seed: int = 0) -> Image.Image:
    """A background with structure everywhere, so that no change can hide."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


def thing(k: int, size: tuple[int, int] = (40, 60), alpha: bool = True) -> Image.Image:
    """A disc of the object's own colour: on transparent ground, or on white."""
    picture = Image.new("RGBA", size, (0, 0, 0, 0))
    colour = ((200, 40, 40, 255), (40, 60, 210, 255), (30, 160, 60, 255))[k % 3]
    ImageDraw.Draw(picture).ellipse((2, 2, size[0] - 3, size[1] - 3), fill=colour)
    if alpha:
        return picture
    return Image.alpha_composite(Image.new("RGBA", size, "white"), picture).convert("RGB")


def mask_of(box: Box, size: tuple[int, int] = SIZE, mode: str = "1") -> Image.Image:
    """A mask that is set in a box."""
    mask = Image.new("L", size, 0)
    ImageDraw.Draw(mask).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=255)
    return mask.convert(mode)


def make_sample(
    folder: Path, boxes: Sequence[Box] = BOXES, size: tuple[int, int] = SIZE, seed: int = 0, alpha: bool = True
) -> Path:
    """A sample folder in the published layout."""
    folder.mkdir(parents=True)
    scene(size, seed).save(folder / "image.png")
    for k, box in enumerate(boxes):
        thing(k, alpha=alpha).save(folder / f"object_{k}.png")
        mask_of(box, size).save(folder / f"object_{k}_mask.png")
    return folder


def run(root: Path, output: Path, model: Path | str, **options: Any) -> InferenceReport:
    """Composite the samples of a folder with one denoising step, in this process."""
    from pics_cli.core.inference import run as module

    fields = CompositeOptions.__dataclass_fields__
    composite_options = CompositeOptions(**{"steps": 1, **{key: options[key] for key in options if key in fields}})
    others = {key: value for key, value in options.items() if key not in fields}
    job = InferenceJob(tuple(find_folders(root)), output, str(model), composite_options, **{"device": "cpu", **others})
    with kept_models():
        return module.infer(job, Ranks(), InferenceProgress())


def composed(output: Path) -> dict[str, RGB]:
    """The composites of an output folder by file name."""
    return {path.name: np.asarray(Image.open(path)) for path in sorted((output / "composed").glob("*.png"))}


def outside(boxes: Sequence[Box], size: tuple[int, int] = SIZE) -> npt.NDArray[np.bool_]:
    """bool [H, W]: in none of the boxes."""
    left = np.ones(size[::-1], np.bool_)
    for x0, y0, x1, y1 in boxes:
        left[y0:y1, x0:x1] = False
    return left
