"""A picture to measure composites on: what a method is given, and what it is judged by.

K: objects, d: width of a descriptor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pics_cli.core.data.cutouts import SOLID, cut_out
from pics_cli.core.data.masks import Mask
from pics_cli.core.data.pictures import RGB
from pics_cli.core.evaluation.descriptor import describe
from pics_cli.core.geometry import Box

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Case:
    """A picture of K objects whose truth is known.

    Attributes:
        key: its name, by which results are paired.
        background: uint8 [H, W, 3], without the objects: what every method is given.
        truth: uint8 [H, W, 3].
        references: of each object, uint8 [h, w, 4] with alpha or [h, w, 3] on white.
        places: box of each object, with its hidden parts where they are known.
        regions: where each may be painted: the places grown, inside the picture.
        order: back to front as a guess by the regions: what every method is given.
        visible: what is seen of each object in truth, bool [H, W].
        full: with the parts that other objects hide; None where nobody knows them.
        clean: whether the background is the true picture without objects and their shadows, not filled in.
        wrong: the truth with the objects in other orders, where it is known and they overlap.
        front: the true order, front to back; None where nobody knows it.
        relation: how the two objects that overlap most stand to each other: one of synth's where the data says it,
            else by boxes and masks, see `strata`.
        iou: of the two places that overlap most.
    """

    key: str
    background: RGB
    truth: RGB
    references: tuple[Bytes, ...]
    places: tuple[Box, ...]
    regions: tuple[Box, ...]
    order: tuple[int, ...]
    visible: tuple[Mask, ...]
    full: tuple[Mask, ...] | None
    clean: bool
    wrong: tuple[RGB, ...]
    front: tuple[int, ...] | None
    relation: str
    iou: float = 0.0


def turned(case: Case) -> Case:
    """The same case with its objects listed the other way round."""
    count = len(case.references)
    return replace(
        case,
        references=case.references[::-1],
        places=case.places[::-1],
        regions=case.regions[::-1],
        order=tuple(count - 1 - k for k in case.order),
        visible=case.visible[::-1],
        full=None if case.full is None else case.full[::-1],
        front=None if case.front is None else tuple(count - 1 - k for k in case.front),
    )


def reference_descriptors(references: Sequence[Bytes]) -> npt.NDArray[np.float32]:
    """Of pictures with alpha or on white: float32 [K, d]."""
    cuts = [each if each.shape[2] == 4 else cut_out(each) for each in references]
    return np.stack([describe(each[..., :3], each[..., 3] >= SOLID) for each in cuts])
