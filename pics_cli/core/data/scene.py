"""What a reader hands on: a Scene of Instances, decided upon before a pixel is decoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from pics_cli.core.data.masks import BoxMask

Item = int | str
"""How a reader names one picture of its split: its id, or the path of its label file."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One annotated object.

    Attributes:
        box: annotated box, float `x0, y0, x1, y1`, half-open, as given (it may leave the frame).
        area: annotated area in pixels.
        category: its name; None where the data does not know it.
        ignored: a crowd or ignored region: never an object.
        mask: decodes the mask; raises BadSample. None where the annotation holds no mask.
        mask_source: `polygon`, `rle`, `parse` or `sam`.
    """

    box: tuple[float, float, float, float]
    area: float
    category: str | None
    category_id: int | None
    annotation_id: int | None
    ignored: bool
    mask: Callable[[], BoxMask] | None
    mask_source: str | None


@dataclass(frozen=True, slots=True)
class Scene:
    """One picture and its Instances, in the order of the annotation.

    Attributes:
        key: unique in its dataset split; becomes the sample's key.
        image_id: the dataset's own id of the picture.
        files: where the picture may lie; the first that exists is read.
        width, height: of the frame that boxes and masks refer to.
    """

    key: str
    image_id: int | str
    files: tuple[Path, ...]
    width: int
    height: int
    instances: tuple[Instance, ...] = field(default=())


class Skip(NamedTuple):
    """A picture that gives no sample, and why. Not a fault: the rule found nothing."""

    reason: str
