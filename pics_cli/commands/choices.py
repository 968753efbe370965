"""Values of options, and their check; apart from core, so that `--help` loads nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pics_cli.errors import PicsError

# What the network sees of a picture.
Crop = Literal["auto", "full"]
# All objects at once, or one by one.
Mode = Literal["parallel", "sequential"]
# Settings by name; see `core.inference.sample.PRESETS`.
Preset = Literal["published"]
# How an object fits a region of another aspect; see `core.images.cutouts`.
Fit = Literal["contain", "cover", "stretch"]
# How references without alpha are cut out; see `core.inference.cutout`.
Cutout = Literal["auto", "grabcut", "sam", "none"]
# What of a mask is the region; see `core.inference.mask_region`.
Region = Literal["box", "component"]
# Whether objects get the background's blur and grain.
Match = Literal["auto", "none"]
# Where the parts of a model lie; see `core.model.offload`.
Memory = Literal["auto", "resident", "sequential", "offload"]
# What networks compute in; see `core.model.devices`.
Dtype = Literal["auto", "fp32", "bf16", "fp16"]
# What weights are written in.
WeightsDtype = Literal["bf16", "fp16", "fp32"]
# What results are written as; see `core.images.output_formats`.
OutputFormat = Literal["png", "jpeg", "webp"]
# Masks that are predicted for a box; see `core.segmentation.segmenter`.
Multimask = Literal["best", "off"]
# How labels are written; see `core.segmentation.blocks`.
LabelLayout = Literal["blocks", "published"]


def check_png(flag: str, path: Path | None) -> None:
    """Refuse a file to draw into that is not called .png.

    Raises:
        PicsError: it has another ending, or is a folder.
    """
    if path is not None and (path.suffix.lower() != ".png" or path.is_dir()):
        raise PicsError(f"{flag} {path}: expected the name of a .png file")


def parse_range(text: str) -> tuple[int, int | None]:
    """The value of --range: where it begins, and where it ends; None: at the end of the data.

    Raises:
        PicsError: it is no range.
    """
    low, colon, high = text.partition(":")
    try:
        limits = int(low or 0), int(high) if high else None
    except ValueError:
        limits = -1, None
    if not colon or limits[0] < 0 or (limits[1] is not None and limits[1] <= limits[0]):
        raise PicsError(f"--range {text}: expected LOW:HIGH, LOW below HIGH, such as 0:10000 or 10000:")
    return limits
