"""What a reader hands on: a Scene of Instances, decided upon before a pixel is decoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pics_cli.core.images.image_io import read_first_existing
from pics_cli.core.images.masks import BoxMask

Item = int | str
"""How a reader names one picture of its split: its id or number, or the path of its annotation file."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One annotated object.

    Attributes:
        box: annotated box, float `x0, y0, x1, y1`, half-open, as given (it may leave the frame).
        area: annotated area in pixels.
        category: its name; None where the data does not know it.
        ignored: a crowd or ignored region: never an object.
        mask: decodes the mask; raises BadSample. None where the annotation holds no mask.
        mask_source: `polygon`, `rle`, `parse`, `sam` or `drawn`.
        score: what the mask's model expects of it; None where it has none.
    """

    box: tuple[float, float, float, float]
    area: float
    category: str | None = None
    category_id: int | None = None
    annotation_id: int | str | None = None
    ignored: bool = False
    mask: Callable[[], BoxMask] | None = None
    mask_source: str | None = None
    score: float | None = None


class Truth(NamedTuple):
    """How two objects really stand to each other.

    Attributes:
        relation: apart, touching, occluding, supporting or containing.
        subject: the instance that occludes, supports or contains.
    """

    relation: str
    subject: int


class Drawn(NamedTuple):
    """A picture that is drawn and not read, with what only its maker knows.

    Attributes:
        picture: JPEG bytes.
        clean: JPEG bytes of the same scene without its instances.
        full: of each instance, its mask with the parts that others hide.
        alternates: of each instance, uint8 RGBA [224, 224, 4], seen differently.
        order: instances from front to back.
        pairs: (i, j), i < j, of instances.
    """

    picture: bytes
    clean: bytes
    full: tuple[BoxMask, ...]
    alternates: tuple[npt.NDArray[np.uint8], ...]
    order: tuple[int, ...]
    pairs: dict[tuple[int, int], Truth]


@dataclass(frozen=True, slots=True)
class Scene:
    """One picture and its Instances, in the order of the annotation.

    Attributes:
        key: unique in its dataset split; becomes the sample's key.
        image_id: the dataset's own id of the picture.
        files: where the picture may lie; the first that exists is read.
        width, height: of the frame that boxes and masks refer to.
        draw: draws the picture, where there is no file.
    """

    key: str
    image_id: int | str
    files: tuple[Path, ...]
    width: int
    height: int
    instances: tuple[Instance, ...] = field(default=())
    draw: Callable[[], Drawn] | None = None

    def read(self) -> bytes:
        """The picture's bytes. Raises BadSample."""
        return self.draw().picture if self.draw else read_first_existing(self.files)


class Skip(NamedTuple):
    """A picture that gives no sample, and why. Not a fault: the rule found nothing."""

    reason: str
