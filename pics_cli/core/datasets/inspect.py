"""What a raw dataset holds, looked at before it is built: objects, masks, crowds, boxes against masks, files."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from pics_cli.core.datasets.pairs import box_agreement
from pics_cli.core.datasets.readers.base import Reader
from pics_cli.core.datasets.scene import Instance, Scene
from pics_cli.core.images.image_io import first_image_size
from pics_cli.core.runtime.signals import process_pending_signals
from pics_cli.errors import BadSample

_PICTURES = 1000
BOX_ALONE = "box alone"


@dataclass
class Inspection:
    """What was found in the pictures that were looked into.

    Attributes:
        pictures: how many, evenly spread over the split.
        objects: annotated ones.
        masks: how many objects have their mask in which form; `BOX_ALONE`: in none.
        crowds, ignored: objects marked so.
        categories: objects by category, those that have one.
        agreements: of each object's annotated box with its mask, see `pairs.box_agreement`.
        sizes: (width, height) of the pictures.
        faults: pictures, files and masks that cannot be used, by reason.
        examples: the first of each reason.
    """

    pictures: int = 0
    objects: int = 0
    masks: Counter[str] = field(default_factory=Counter)
    crowds: int = 0
    ignored: int = 0
    categories: Counter[str] = field(default_factory=Counter)
    agreements: list[float] = field(default_factory=list)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def note(self, reason: str, detail: str) -> None:
        """Count a fault."""
        self.faults[reason] += 1
        self.examples.setdefault(reason, detail)


def inspect_dataset(reader: Reader, limit: int | None = None) -> Inspection:
    """Look into up to 1000 pictures of a split: their annotations, masks, and the headers of their files.

    Args:
        reader: of the split.
        limit: the first pictures, among which they are; None: all.
    """
    count = len(reader) if limit is None else min(limit, len(reader))
    found = Inspection()
    for number in np.unique(np.linspace(0, count - 1, min(count, _PICTURES)).round().astype(int)).tolist():
        process_pending_signals()
        found.pictures += 1
        (item_id,) = reader.item_ids(number, number + 1)
        try:
            scene = reader.scene(item_id)
        except BadSample as error:
            found.note(error.reason, f"{item_id}: {error.detail}")
            continue
        found.sizes[scene.width, scene.height] += 1
        _inspect_file(scene, found)
        for instance in scene.instances:
            _inspect_instance(scene, instance, found)
    return found


def _inspect_file(scene: Scene, found: Inspection) -> None:
    if scene.draw:
        return
    try:
        width, height = first_image_size(scene.image_paths)
    except BadSample as error:
        found.note(error.reason, f"{scene.key}: {error.detail}")
        return
    if (width, height) != (scene.width, scene.height):
        detail = f"picture is {width}x{height}, annotated as {scene.width}x{scene.height}"
        found.note("size_mismatch", f"{scene.key}: {detail}")


def _inspect_instance(scene: Scene, instance: Instance, found: Inspection) -> None:
    found.objects += 1
    found.crowds += instance.crowd
    found.ignored += instance.ignored
    if instance.category is not None:
        found.categories[instance.category] += 1
    if instance.mask is None:
        found.masks[BOX_ALONE] += 1
        return
    found.masks[instance.mask_source or "mask"] += 1
    try:
        mask = instance.mask()
    except BadSample as error:
        found.note(error.reason, f"{scene.key}: {error.detail}")
        return
    if not mask.area:
        found.note("empty_mask", f"{scene.key}: annotation {instance.annotation_id}")
        return
    found.agreements.append(box_agreement(instance.box, mask))
