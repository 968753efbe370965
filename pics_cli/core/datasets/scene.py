"""What a reader yields: a Scene of Instances, none of whose pixels is decoded yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pics_cli.core.images.image_io import read_first_existing
from pics_cli.core.images.lighting import Lighting
from pics_cli.core.images.masks import BoxMask

ItemId = int | str
"""How a reader names one image of its split: its id or number, or the path of its annotation file."""

FloatBox = tuple[float, float, float, float]
"""`x0, y0, x1, y1`, half-open, in pixels."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One annotated object.

    Attributes:
        box: annotated box, float `x0, y0, x1, y1`, half-open, as given (it may leave the frame).
        area: annotated area in pixels.
        category: its name; None where the data does not know it.
        ignored: an ignored region, or a mask that is too weak: never an object.
        mask: decodes the mask, or raises `BadSample`; None where the annotation holds no mask.
        mask_source: `polygon`, `rle`, `parse`, `sam` or `drawn`.
        score: what the mask's model expects of it; None where it has none.
        crowd: several objects in one annotation; the recipe says whether it may be chosen.
    """

    box: FloatBox
    area: float
    category: str | None = None
    category_id: int | None = None
    annotation_id: int | str | None = None
    ignored: bool = False
    mask: Callable[[], BoxMask] | None = None
    mask_source: str | None = None
    score: float | None = None
    crowd: bool = False


class PairRelation(NamedTuple):
    """The true spatial relation of two objects.

    Attributes:
        relation: apart, touching, occluding, supporting or containing.
        subject: the instance that occludes, supports or contains.
    """

    relation: str
    subject: int


class KnownPair(NamedTuple):
    """What people say of two objects.

    Attributes:
        front: the instance in front of the other; None where that is not known.
        relation: how they stand to each other, likewise.
    """

    front: int | None = None
    relation: PairRelation | None = None


class DrawnImage(NamedTuple):
    """An image that is drawn and not read, with its ground truth.

    Attributes:
        image: JPEG bytes.
        clean: JPEG bytes of the same scene without its instances.
        amodal_masks: masks of the instances with the parts that others hide.
        alternate_views: of the instances, uint8 RGBA [224, 224, 4].
        order: instances from front to back.
        relations: of instances i < j, by (i, j).
        lighting: its lamp, and the camera's angle.
    """

    image: bytes
    clean: bytes
    amodal_masks: tuple[BoxMask, ...]
    alternate_views: tuple[npt.NDArray[np.uint8], ...]
    order: tuple[int, ...]
    relations: dict[tuple[int, int], PairRelation]
    lighting: Lighting


# What readers count about annotations that are used all the same; the texts explain the words to the user.
SCENE_NOTES = {
    "measured_by_mask": "objects whose box or area is of another scale than their mask: they got the mask's",
}


@dataclass(frozen=True, slots=True)
class Scene:
    """One image and its Instances, in the order of the annotation.

    Attributes:
        key: unique in its dataset split; becomes the sample's key.
        image_id: the dataset's own id of the image.
        image_paths: where the image may lie; the first that exists is read.
        width, height: of the frame that boxes and masks refer to.
        draw: draws the image, where there is no file.
        notes: how often what of `SCENE_NOTES` was found.
        known_pairs: pairs of instances i < j of which people say something: no others are chosen; None: all may be.
    """

    key: str
    image_id: int | str
    image_paths: tuple[Path, ...]
    width: int
    height: int
    instances: tuple[Instance, ...] = ()
    draw: Callable[[], DrawnImage] | None = None
    notes: Mapping[str, int] = field(default_factory=dict)
    known_pairs: Mapping[tuple[int, int], KnownPair] | None = None

    def read_image(self) -> bytes:
        """The image's bytes, read or drawn.

        Raises:
            BadSample: `missing_image` or `unreadable_image`.
        """
        return self.draw().image if self.draw else read_first_existing(self.image_paths)


class Skip(NamedTuple):
    """Why an image gives no sample: not an error, the rule chose nothing."""

    reason: str
